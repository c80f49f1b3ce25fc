//! A launcher that can be made to fail.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::machine::{children_of, wait_until_gone};
use crate::stage::Stage;
use crate::worker::Worker;

/// A script that becomes the staged launcher, with one argument more where [`Wrapper::fail`] says so.
#[derive(Debug)]
pub struct Wrapper {
    folder: TempDir,
}

impl Wrapper {
    /// One that does not fail.
    pub fn new() -> Wrapper {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let wrapper = Wrapper { folder };
        let script = format!(
            "#!/bin/sh\nread -r fault <{}\nexec {} \"$@\" $fault\n",
            wrapper.fault().display(),
            Stage::find().launcher().display()
        );
        std::fs::write(wrapper.path(), script).expect("a script");
        for path in [wrapper.folder.path(), &wrapper.path()] {
            let open = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(path, open).expect("a file of our own");
        }
        wrapper.fail("");
        wrapper
    }

    /// What to pass as the launcher.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("launch")
    }

    fn fault(&self) -> PathBuf {
        self.folder.path().join("fault")
    }

    /// The argument that the launcher gets from now on, when it starts; none where it is empty.
    pub fn fail(&self, fault: &str) {
        std::fs::write(self.fault(), format!("{fault}\n")).expect("a file of our own");
    }

    /// Ends what a worker has started of it: it starts it anew.
    pub fn end_server(&self, worker: &Worker) {
        let servers = children_of(worker.process().pid());
        assert!(!servers.is_empty(), "the trial has started one");
        for &pid in &servers {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // One that is dead and not yet waited for is gone, too.
        wait_until_gone(&servers);
    }
}

impl Default for Wrapper {
    fn default() -> Wrapper {
        Wrapper::new()
    }
}
