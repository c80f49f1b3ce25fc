//! The launcher alone: a confined shell against a bare one and against bubblewrap, with no database.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use confine::shell::{Shell, Start};
use confine::{Ended, HOME, Launcher, Limits, Running};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::bare;

/// What `true` took, each a time a turn.
#[derive(Default)]
pub struct Times {
    /// Confined, in a session that has run a command before.
    pub again: Vec<Duration>,
    /// Confined, as a session's first command.
    pub first: Vec<Duration>,
    /// Spawned by nobody but this process.
    pub bare: Vec<Duration>,
    /// In bubblewrap, with everything unshared.
    pub bubblewrap: Vec<Duration>,
}

/// Runs `true` so often in each way, in turns.
pub fn compare(launcher: &Path, shell: Shell, count: usize) -> Times {
    let launcher = Launcher::serving(launcher.to_owned());
    let mut times = Times::default();
    for turn in 0..count + 10 {
        let took = |what: &dyn Fn()| {
            let began = Instant::now();
            what();
            began.elapsed()
        };
        let again = took(&|| run(&launcher, Some(1), shell));
        let bare = took(&|| bare::spawn(shell, "true"));
        let first = took(&|| run(&launcher, None, shell));
        // The one that waits next is forked, with its namespaces, when one was taken.
        std::thread::sleep(Duration::from_millis(5));
        let bubblewrap = took(&|| bubblewrap(shell));
        if turn >= 10 {
            times.again.push(again);
            times.first.push(first);
            times.bare.push(bare);
            times.bubblewrap.push(bubblewrap);
        }
    }
    times
}

/// What comes nearest to what a command has here.
fn bubblewrap(shell: Shell) {
    let status = Command::new("bwrap")
        .args([
            "--unshare-all",
            "--die-with-parent",
            "--new-session",
            "--clearenv",
        ])
        .args(["--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin"])
        .args([
            "--symlink",
            "usr/lib",
            "/lib",
            "--symlink",
            "usr/lib64",
            "/lib64",
        ])
        .args([
            "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--tmpfs", HOME,
        ])
        .args([shell.path(), "-c", "true"])
        .stdin(Stdio::null())
        .status();
    assert!(status.is_ok_and(|s| s.success()), "bwrap runs true");
}

fn run(launcher: &Launcher, session: Option<u128>, shell: Shell) {
    let env = BTreeMap::new();
    let start = Start {
        command: "true",
        cwd: HOME,
        env: &env,
        shell_state: "",
        programs: None,
    };
    let spec = shell
        .prepare(&start, Limits::default())
        .expect("a sound specification");
    let mut running = Running::start(launcher, session, &spec).expect("the launcher starts");
    let outcome = loop {
        if let Some(outcome) = running.pump().expect("pump") {
            break outcome;
        }
        poll(
            &mut [PollFd::new(running.as_fd(), PollFlags::POLLIN)],
            PollTimeout::NONE,
        )
        .expect("poll");
    };
    assert_eq!(
        outcome.report.ended,
        Ended::Exited(0),
        "the launcher runs true"
    );
}
