//! The launcher alone: a confined shell against a bare one, with no database.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use confine::shell::{Shell, Start};
use confine::{Ended, HOME, Launcher, Limits, Running};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::bare;

/// Times of `count` confined and as many bare runs of `true`, in turns.
pub fn compare(launcher: &Path, shell: Shell, count: usize) -> (Vec<Duration>, Vec<Duration>) {
    let launcher = Launcher::serving(launcher.to_owned());
    let (mut confined, mut bare) = (Vec::new(), Vec::new());
    for turn in 0..count + 10 {
        let began = Instant::now();
        run(&launcher, shell);
        let between = Instant::now();
        bare::spawn(shell, "true");
        if turn >= 10 {
            confined.push(between - began);
            bare.push(between.elapsed());
        }
    }
    (confined, bare)
}

fn run(launcher: &Launcher, shell: Shell) {
    let env = BTreeMap::new();
    let start = Start {
        command: "true",
        cwd: HOME,
        env: &env,
        shell_state: "",
    };
    let spec = shell
        .prepare(&start, Limits::default())
        .expect("a sound specification");
    let mut running = Running::start(launcher, Some(1), &spec).expect("the launcher starts");
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
