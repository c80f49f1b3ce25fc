//! An exec-worker process.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use nix::sys::signal::Signal;

use crate::process::Process;
use crate::stage::{self, Stage};

/// See the module. Dropping it kills it.
#[derive(Debug)]
pub struct Worker {
    process: Process,
}

impl Worker {
    /// Starts one with these flags beside where its database is, and these variables; in this control group, where one
    /// is given.
    pub fn start(
        stage: &Stage,
        connection: &str,
        group: Option<&Path>,
        variables: &[(&str, String)],
        flags: &[&str],
    ) -> Worker {
        let user = stage::worker_user();
        let mut all = vec!["--database-url", connection];
        if !stage::is_root() {
            all.push("--allow-postgres-user");
        }
        all.extend(flags);
        let mut command = stage::command_as(&user, "KILL", &stage.worker());
        command.args(&all).envs(variables.iter().cloned());
        if let Some(group) = group {
            enter(&mut command, group);
        }
        Worker {
            process: Process::start("exec-worker", command),
        }
    }

    /// Starts one as this OS user, with exactly these flags.
    pub fn run_as(user: &str, program: &Path, flags: &[&str]) -> Worker {
        let mut command = stage::command_as(user, "KILL", program);
        command.args(flags);
        Worker {
            process: Process::start("exec-worker", command),
        }
    }

    /// Waits until it has registered.
    #[must_use]
    pub fn ready(self) -> Worker {
        self.process.wait_for_log("ready", 0);
        self
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Asks it to end: softly the first time, at once the second.
    pub fn terminate(&self) {
        self.process.signal(Signal::SIGTERM);
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Waits for its exit.
    pub fn wait(&self) -> ExitStatus {
        self.process.wait()
    }

    /// Waits for its exit, which must be that of a worker that refuses to work; returns what it said.
    #[track_caller]
    pub fn refusal(&self) -> String {
        let status = self.wait();
        assert_eq!(status.code(), Some(2), "{}", self.log());
        self.log()
    }

    /// Waits for a log line that contains `text`.
    pub fn wait_for_log(&self, text: &str) {
        self.process.wait_for_log(text, 0);
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// Has a command start as a process of this control group.
fn enter(command: &mut Command, group: &Path) {
    let procs = OpenOptions::new()
        .write(true)
        .open(group.join("cgroup.procs"))
        .expect("a control group");
    // SAFETY: one system call, on a descriptor that the closure owns.
    unsafe {
        command.pre_exec(move || (&procs).write_all(b"0"));
    }
}
