//! Runs a command as the worker does, and keeps its state as a session does.

#[allow(dead_code)] // Of the tests of control groups.
pub mod delegated;
pub mod host;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::OnceLock;

use confine::shell::{Shell, Start, State, StateError};
use confine::{Ended, Launcher, Limits, Outcome, Output, Running, Spec};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

pub fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_pg-shell-launch"))
}

/// One server for all tests, as a worker has one for all commands.
fn server() -> &'static Launcher {
    static SERVER: OnceLock<Launcher> = OnceLock::new();
    SERVER.get_or_init(|| Launcher::serving(path()))
}

/// A session, as the database would keep it.
#[derive(Debug, Clone)]
pub struct Session {
    pub cwd: String,
    pub env: BTreeMap<String, String>,
    pub shell_state: String,
    pub limits: Limits,
    pub programs: Option<Vec<String>>,
    /// Of its files, the newest first.
    pub layers: Option<Vec<String>>,
    pub shell: Shell,
    /// Under which what serves it is kept for its next command.
    pub key: Option<u128>,
}

/// What one command did.
#[derive(Debug)]
#[allow(dead_code)] // Each test file uses its part.
pub struct Ran {
    pub outcome: Outcome,
    pub output: Output,
    /// What it changed in its home.
    pub upper: Option<OwnedFd>,
    pub state: Result<State, StateError>,
}

impl Ran {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.bytes).into_owned()
    }
    #[allow(dead_code)]
    pub fn code(&self) -> Option<i32> {
        match self.outcome.report.ended {
            Ended::Exited(code) => Some(code),
            _ => None,
        }
    }
}

impl Session {
    pub fn new() -> Session {
        Session {
            cwd: confine::HOME.into(),
            env: BTreeMap::new(),
            shell_state: String::new(),
            programs: None,
            layers: None,
            limits: Limits::default(),
            shell: Shell::Bash,
            key: None,
        }
    }

    pub fn start(&self, command: &str) -> Running {
        self.start_by(server(), command)
    }

    pub fn start_by(&self, launcher: &Launcher, command: &str) -> Running {
        let spec = self.specify(command);
        Running::start(launcher, self.key, &spec, None).expect("the launcher starts")
    }

    pub fn specify(&self, command: &str) -> Spec {
        let start = Start {
            command,
            cwd: &self.cwd,
            env: &self.env,
            shell_state: &self.shell_state,
            programs: self.programs.as_deref(),
            layers: self.layers.as_deref(),
        };
        self.shell
            .prepare(&start, self.limits.clone())
            .expect("a sound specification")
    }

    /// Waits until the command has printed something.
    #[allow(dead_code)]
    pub fn start_printing(&self, launcher: &Launcher, command: &str) -> Running {
        let mut running = self.start_by(launcher, command);
        loop {
            assert!(running.pump().expect("pump").is_none(), "it has ended");
            if !running.output().bytes.is_empty() {
                return running;
            }
            until_readable(&running);
        }
    }

    pub fn finish(&mut self, mut running: Running) -> Ran {
        let outcome = loop {
            if let Some(outcome) = running.pump().expect("pump") {
                break outcome;
            }
            until_readable(&running);
        };
        let state = State::read(&outcome.state, &self.env);
        if let (Ended::Exited(_), Ok(state)) = (&outcome.report.ended, &state) {
            self.cwd = state.cwd.clone();
            self.env = state.env.clone();
            self.shell_state = state.shell_state.clone();
        }
        Ran {
            output: running.take_output(),
            upper: running.take_upper(),
            outcome,
            state,
        }
    }

    #[allow(dead_code)]
    pub fn run_by(&mut self, launcher: &Launcher, command: &str) -> Ran {
        let running = self.start_by(launcher, command);
        self.finish(running)
    }

    pub fn run(&mut self, command: &str) -> Ran {
        let running = self.start(command);
        self.finish(running)
    }

    #[allow(dead_code)]
    /// Runs each and returns the last one's text.
    pub fn text(&mut self, commands: &[&str]) -> String {
        commands
            .iter()
            .fold(String::new(), |_, command| self.run(command).text())
    }
}

fn until_readable(running: &Running) {
    let mut fds = [PollFd::new(running.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut fds, PollTimeout::from(30_000_u16)).expect("poll");
    assert!(ready > 0, "nothing happened for 30 s");
}

/// A launcher that passes its helper one argument more, as long as the file `fault` names it.
#[allow(dead_code)]
pub struct Faulty {
    folder: TempDir,
}

#[allow(dead_code)]
impl Faulty {
    pub fn new() -> Faulty {
        let folder = tempfile::tempdir().unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open.clone()).unwrap();
        let script = format!(
            "#!/bin/sh\n[ ! -s {0}/fault ] || read -r fault <{0}/fault\nexec {1} \"$@\" $fault\n",
            folder.path().display(),
            path().display()
        );
        let faulty = Faulty { folder };
        std::fs::write(faulty.path(), script).unwrap();
        std::fs::set_permissions(faulty.path(), open).unwrap();
        faulty
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("launch")
    }

    pub fn fail(&self, fault: &str) {
        std::fs::write(self.folder.path().join("fault"), format!("{fault}\n")).unwrap();
    }

    pub fn mend(&self) {
        std::fs::write(self.folder.path().join("fault"), "").unwrap();
    }
}
