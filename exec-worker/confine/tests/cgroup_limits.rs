//! What a control group limits and tells of a whole command, where the kernel has the controller.

mod common;

use std::time::Duration;

use common::Session;
use common::delegated::{Delegated, session};
use confine::{Exceeded, Launcher};

/// Runs it, and says which limit it ran into.
fn exceeded(launcher: &Launcher, session: &mut Session, command: &str) -> Option<Exceeded> {
    let ran = session.run_by(launcher, command);
    println!("{command}: {:?} {}", ran.outcome, ran.text());
    ran.outcome.exceeded(&session.limits, &ran.output)
}

#[test]
fn memory_is_that_of_the_whole_command() {
    let Some(delegated) = Delegated::new() else {
        return;
    };
    if !delegated.has("memory") {
        return;
    }
    let launcher = delegated.serving();
    let mut session = session(1);
    session.limits.memory_bytes = 64 << 20;
    let told = Some(Exceeded::MemoryTogether(64 << 20));
    for command in [
        "for i in 1 2 3 4; do perl -e '$x = \"a\" x 3e7; sleep 100' & done; wait",
        "head -c 100M /dev/zero >/tmp/x",
    ] {
        assert_eq!(
            exceeded(&launcher, &mut session, command),
            told,
            "{command}"
        );
        assert_eq!(exceeded(&launcher, &mut session, "true"), None);
        assert_eq!(exceeded(&launcher, &mut session, "exit 3"), None);
    }
    session.limits.memory_bytes = 1 << 28;
    let command = "head -c 100M /dev/zero >/tmp/x";
    assert_eq!(exceeded(&launcher, &mut session, command), None);
    drop(launcher);
    assert!(delegated.is_empty());
}

#[test]
fn processes_are_counted_and_told() {
    let Some(delegated) = Delegated::new() else {
        return;
    };
    if !delegated.has("pids") {
        return;
    }
    let launcher = delegated.serving();
    let mut session = session(1);
    session.limits.processes = 10;
    let ten = "for i in 1 2 3 4 5 6 7 8 9; do sleep 0.1 & done; wait";
    let bomb = "for i in {1..20}; do sleep 100 & done; exit 1";
    let told = Some(Exceeded::Processes(10));
    assert_eq!(exceeded(&launcher, &mut session, ten), None);
    assert_eq!(exceeded(&launcher, &mut session, bomb), told);
    assert_eq!(exceeded(&launcher, &mut session, "exit 1"), None);
}

#[test]
fn cpu_time_is_that_of_the_whole_command() {
    let Some(delegated) = Delegated::new() else {
        return;
    };
    if !delegated.has("cpu") {
        return;
    }
    let launcher = delegated.serving();
    let mut session = Session::new();
    session.limits.wall = Duration::from_secs(2);
    session.limits.cpu_seconds = 2;
    let ran = session.run_by(
        &launcher,
        "for i in 1 2 3 4; do while :; do :; done & done; wait",
    );
    let used = ran.outcome.report.cpu_us;
    assert!(used < 2_400_000, "{used}");
}
