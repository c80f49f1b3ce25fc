//! Runs `true` so often and prints the median: `launches LAUNCHER COUNT [bash|sh] [spawn]`. For profilers.
use std::os::fd::AsFd;
use std::time::Instant;

use confine::shell::{Shell, Start};
use confine::{HOME, Launcher, Limits, Running};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let path = arguments[1].clone().into();
    let count: usize = arguments[2].parse().unwrap();
    let has = |word: &str| arguments.iter().any(|a| a == word);
    let launcher = if has("spawn") {
        Launcher::spawning(path)
    } else {
        Launcher::serving(path)
    };
    let shell = if has("sh") { Shell::Sh } else { Shell::Bash };
    let env = Default::default();
    let start = Start {
        command: "true",
        cwd: HOME,
        env: &env,
        shell_state: "",
    };
    let mut times = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        let spec = shell.prepare(&start, Limits::default()).unwrap();
        let mut running = Running::start(&launcher, has("keep").then_some(1), &spec).unwrap();
        let _outcome = loop {
            if let Some(outcome) = running.pump().unwrap() {
                break outcome;
            }
            poll(
                &mut [PollFd::new(running.as_fd(), PollFlags::POLLIN)],
                PollTimeout::NONE,
            )
            .unwrap();
        };
        times.push(began.elapsed());
    }
    times.sort();
    println!("p50 {:?}", times[count / 2]);
}
