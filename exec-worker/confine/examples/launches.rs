//! Runs `true` so often and prints the median: `launches LAUNCHER COUNT [bash|sh] [spawn] [keep] [cgroup=PATH] [pause=MS]`.
//! For profilers, and for tests as another user.
use std::os::fd::AsFd;
use std::time::Instant;

use confine::cgroup::{Cgroup, Setting};
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
    let folder = arguments.iter().find_map(|a| a.strip_prefix("cgroup="));
    let cgroup = folder.and_then(|folder| {
        let usable = Cgroup::of(&Setting::At(folder.into()), true).and_then(|cgroup| {
            cgroup
                .as_ref()
                .map_or(Ok(()), Cgroup::probe)
                .map(|()| cgroup)
        });
        usable.unwrap_or_else(|e| {
            eprintln!("{e}");
            std::process::exit(2);
        })
    });
    let launcher = launcher.within(cgroup);
    let shell = if has("sh") { Shell::Sh } else { Shell::Bash };
    let env = Default::default();
    let start = Start {
        command: "true",
        cwd: HOME,
        env: &env,
        shell_state: "",
    };
    let pause = arguments.iter().find_map(|a| a.strip_prefix("pause="));
    let pause = std::time::Duration::from_millis(pause.map_or(0, |p| p.parse().unwrap()));
    let mut times = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        let spec = shell.prepare(&start, Limits::default()).unwrap();
        let mut running = Running::start(&launcher, has("keep").then_some(1), &spec).unwrap();
        let outcome = loop {
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
        assert_eq!(outcome.report.ended, confine::Ended::Exited(0));
        std::thread::sleep(pause);
    }
    times.sort();
    println!("p50 {:?}", times[count / 2]);
}
