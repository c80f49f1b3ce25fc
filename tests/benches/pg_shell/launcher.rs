//! The launcher alone: a confined shell against a bare one and against bubblewrap, with no database.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use confine::shell::{Shell, Start};
use confine::{Ended, HOME, Launcher, Limits, Running, Step};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::bare;
use crate::table::median;

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
        let again = took(&|| drop(run(&launcher, Some(1), shell)));
        let bare = took(&|| bare::spawn(shell, "true"));
        let first = took(&|| drop(run(&launcher, None, shell)));
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

/// What each step of a launch takes, in nanoseconds, for a helper that takes all of them anew.
pub fn steps(launcher: &Path, count: usize) -> Vec<(Step, u64)> {
    let folder = tempfile::tempdir().expect("a folder");
    let clocked = folder.path().join("clocked");
    let script = format!("#!/bin/sh\nexec '{}' \"$@\" clock\n", launcher.display());
    std::fs::write(&clocked, script).expect("a script");
    std::fs::set_permissions(&clocked, Permissions::from_mode(0o755)).expect("a script");
    let launcher = Launcher::spawning(clocked);
    let mut all: BTreeMap<u8, (Step, Vec<Duration>)> = BTreeMap::new();
    for _ in 0..count {
        for (step, spent) in run(&launcher, None, Shell::Sh) {
            let (_, times) = all.entry(step as u8).or_insert((step, Vec::new()));
            times.push(Duration::from_nanos(spent));
        }
    }
    let median = |(step, times): (Step, Vec<Duration>)| (step, median(&times).as_nanos() as u64);
    all.into_values().map(median).collect()
}

/// When a step of the launch is taken, where the worker's server takes it.
pub fn when(step: Step) -> &'static str {
    match step {
        Step::Hostname => "once a worker",
        Step::Namespaces | Step::IdMap | Step::Network | Step::Root => {
            "for a session's first command, ahead of it"
        }
        Step::Capabilities | Step::NoNewPrivs | Step::Seccomp | Step::Programs => {
            "for a session's first command"
        }
        _ => "for each command",
    }
}

fn run(launcher: &Launcher, session: Option<u128>, shell: Shell) -> Vec<(Step, u64)> {
    let env = BTreeMap::new();
    let start = Start {
        command: "true",
        cwd: HOME,
        env: &env,
        shell_state: "",
        programs: None,
        layers: None,
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
    outcome.report.steps
}
