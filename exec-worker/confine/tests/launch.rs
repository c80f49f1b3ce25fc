//! The launcher itself: output, ends, limits, and what it leaves behind.

mod common;

use std::time::Duration;

use common::Session;
use confine::{Ended, Exceeded, Launcher, Stop, Stream};

#[test]
fn output_keeps_its_order_and_its_streams() {
    for _ in 0..50 {
        let ran = Session::new()
            .run("echo a; echo b >&2; echo c; echo d >/dev/stderr; echo e; echo f; echo g >&2");
        assert_eq!(ran.text(), "a\nb\nc\nd\ne\nf\ng\n");
        assert_eq!(ran.output.of(Stream::Stdout), b"a\nc\ne\nf\n");
        assert_eq!(ran.output.of(Stream::Stderr), b"b\nd\ng\n");
    }
}

#[test]
fn long_writes_and_many_lines_are_whole() {
    let ran = Session::new().run("head -c 3000000 /dev/zero; seq 1 20000 >&2");
    assert_eq!(ran.output.of(Stream::Stdout).len(), 3_000_000);
    assert_eq!(
        ran.output.of(Stream::Stderr).len(),
        (1..=20000)
            .map(|n: i32| n.to_string().len() + 1)
            .sum::<usize>()
    );
}

#[test]
fn too_much_output_ends_the_command_and_keeps_the_first() {
    let mut s = Session::new();
    s.limits.output_bytes = 100_000;
    let ran = s.run("yes");
    assert_eq!(ran.outcome.report.ended, Ended::Stopped);
    assert_eq!(ran.outcome.stopped, Some(Stop::OutputLimit));
    assert_eq!(ran.output.bytes.len(), 100_000);
    assert!(ran.output.truncated && ran.output.total >= 100_000);
}

#[test]
fn what_a_command_leaves_running_ends_with_it() {
    let mut s = Session::new();
    let started = std::time::Instant::now();
    let ran = s.run("sleep 1000 & (setsid sleep 1000 & disown) & nohup sleep 1000 >/dev/null 2>&1 & trap '' TERM; echo $!");
    assert_eq!(ran.code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_stop_ends_everything() {
    let mut s = Session::new();
    let mut running = s.start("trap '' TERM INT; echo ready; sleep 1000 & wait; sleep 1000");
    while running.output().bytes.is_empty() {
        assert!(running.pump().expect("pump").is_none());
    }
    running.stop(Stop::Cancelled);
    let ran = s.finish(running);
    assert_eq!(
        (ran.outcome.report.ended, ran.outcome.stopped),
        (Ended::Stopped, Some(Stop::Cancelled))
    );
}

#[test]
fn a_stop_that_comes_at_the_end_loses_no_report() {
    let mut s = Session::new();
    for pause in 0..100 {
        // What leaves a file behind is not kept for another command: PID 1 ends with a stop unheard.
        let mut running = s.start("echo >/tmp/x; exit 7");
        std::thread::sleep(Duration::from_micros(40 * pause));
        running.stop(Stop::Cancelled);
        let ended = s.finish(running).outcome.report.ended;
        assert!(
            matches!(ended, Ended::Exited(7) | Ended::Stopped),
            "{ended:?}"
        );
    }
}

#[test]
fn signals_and_pids_are_those_of_a_shell() {
    assert_eq!(
        Session::new()
            .run("kill -TERM $$; sleep 5")
            .outcome
            .report
            .ended,
        Ended::Signaled(15)
    );
    assert_eq!(
        Session::new()
            .run("sleep 100 & kill %1; wait $!; echo $?")
            .text()
            .lines()
            .last(),
        Some("143")
    );
}

#[test]
fn a_command_sees_nothing_of_its_caller() {
    let text = Session::new().run("env; ls -l /proc/self/fd | awk '{print $9}'; ls /; ls /home; id -un; hostname; ps ax 2>/dev/null | wc -l").text();
    assert!(!text.contains("CARGO"), "{text}");
    assert!(!text.contains("/root"), "{text}");
    assert!(text.contains("sandbox"), "{text}");
}

#[test]
fn a_command_cannot_speak_for_its_launcher() {
    // 3 is the folder that ls reads; 250 the file for the state, which is only its own session's.
    assert_eq!(
        Session::new().run("ls /proc/self/fd | tr '\\n' ' '").text(),
        "0 1 2 250 3 "
    );
    assert_eq!(
        Session::new()
            .run("printf '\\0\\0\\0\\0' >&3; exit 7")
            .code(),
        Some(7)
    );
}

#[test]
fn a_helper_of_its_own_does_the_same_as_a_server() {
    let mut s = Session::new();
    let running = s.start_by(
        &Launcher::spawning(common::path()),
        "x=1; echo out; echo err >&2; ls -1 / /dev; ps ax | wc -l",
    );
    let alone = s.finish(running);
    let served = s.run("echo out; echo err >&2; ls -1 / /dev; ps ax | wc -l");
    assert_eq!(alone.text(), served.text());
    assert_eq!(s.run("echo $x").text(), "1\n");
}

#[test]
fn disk_is_limited_however_the_launch_was_made() {
    let mut s = Session::new();
    s.limits.disk_bytes = 1 << 20;
    for launcher in [
        Launcher::serving(common::path()),
        Launcher::spawning(common::path()),
    ] {
        for folder in ["/tmp", "$HOME", "/dev/shm"] {
            let running = s.start_by(
                &launcher,
                &format!("head -c 3000000 /dev/zero >{folder}/x; stat -c %s {folder}/x"),
            );
            assert_eq!(
                s.finish(running).text().lines().last(),
                Some("1048576"),
                "{folder}"
            );
        }
    }
}

/// Runs it, and says which limit it ran into.
fn exceeded(s: &mut Session, command: &str) -> Option<Exceeded> {
    let ran = s.run(command);
    let exceeded = ran.outcome.exceeded(&s.limits, &ran.output);
    println!("{command}: {:?} {}", ran.outcome.report, ran.text());
    exceeded
}

#[test]
fn each_limit_that_ends_a_command_is_told() {
    let mut s = Session::new();
    s.limits.cpu_seconds = 1;
    s.limits.memory_bytes = 64 << 20;
    s.limits.file_size_bytes = 1 << 16;
    for command in [
        "while :; do :; done",
        "sh -c 'while :; do :; done'",
        "trap '' XCPU; while :; do :; done",
        "bash -c 'trap : XCPU; while :; do :; done'",
    ] {
        assert_eq!(
            exceeded(&mut s, command),
            Some(Exceeded::Cpu(1)),
            "{command}"
        );
    }
    for command in [
        "head -c 70000 /dev/zero >/tmp/x",
        "printf '%70000s' x >/tmp/x",
        "cd /dev/shm; printf '%70000s' x >x; echo not so far",
    ] {
        let told = exceeded(&mut s, command);
        assert_eq!(told, Some(Exceeded::FileSize(1 << 16)), "{command}");
    }
    for command in [
        "tail /dev/zero",
        "x=$(head -c 200000000 /dev/zero | tr '\\0' x)",
        "perl -e '$x = \"a\" x 2e9'",
    ] {
        let told = exceeded(&mut s, command);
        assert_eq!(told, Some(Exceeded::Memory(64 << 20)), "{command}");
    }
    s.limits.output_bytes = 10;
    assert_eq!(exceeded(&mut s, "yes"), Some(Exceeded::Output(10)));
    s.limits.wall = Duration::from_millis(200);
    let wall = Exceeded::Wall(s.limits.wall);
    assert_eq!(exceeded(&mut s, "sleep 1000"), Some(wall));
}

#[test]
fn what_ran_into_no_limit_is_not_said_to() {
    let mut s = Session::new();
    for command in [
        "true",
        "exit 3",
        "kill -9 $$",
        "kill -XCPU $$",
        "exit 137",
        "exit 152",
        "sh -c 'kill -9 $$'",
        "echo out of memory",
        "echo out of memory >&2",
    ] {
        assert_eq!(exceeded(&mut s, command), None, "{command}");
    }
    s.limits.file_size_bytes = 1 << 16;
    s.limits.memory_bytes = 64 << 20;
    for command in [
        "head -c 70000 /dev/zero >/tmp/x; true",
        "tail /dev/zero; true",
    ] {
        assert_eq!(exceeded(&mut s, command), None, "it went on: {command}");
    }
}

#[test]
fn no_command_raises_its_limits() {
    let mut s = Session::new();
    s.limits.cpu_seconds = 5;
    let ran = s.run(
        "for o in -t -d -f -u -n; do ulimit $o unlimited 2>/dev/null && echo raised $o; done
        ulimit -t; ulimit -Ht",
    );
    assert_eq!(ran.text(), "5\n6\n", "CPU's hard limit is a second later");
}

#[test]
fn a_session_works_under_the_least_of_each_limit() {
    let mut s = Session::new();
    s.limits = confine::Limits::from_untrusted([Some(0); confine::LIMITS]);
    s.limits.output_bytes = 100;
    let ran = s.run("x=1; echo ok");
    assert_eq!((ran.text().as_str(), ran.code()), ("ok\n", Some(0)));
    assert_eq!(s.run("echo $x").text(), "1\n");
}

#[test]
fn a_server_that_was_killed_is_replaced() {
    let mut s = Session::new();
    let launcher = Launcher::serving(common::path());
    for _ in 0..3 {
        let running = s.start_by(&launcher, "echo ok");
        assert_eq!(s.finish(running).text(), "ok\n");
        launcher.kill_server();
    }
}

#[test]
fn few_descriptors_are_enough_to_start() {
    let mut s = Session::new();
    s.limits.open_files = 32;
    assert_eq!(s.run("x=1; echo ok").text(), "ok\n");
    assert_eq!(s.run("echo $x").text(), "1\n");
}

#[test]
fn cpu_and_memory_are_measured() {
    let report = Session::new()
        .run("for ((i=0;i<200000;i++)); do :; done")
        .outcome
        .report;
    assert!(report.cpu_us > 10_000, "{report:?}");
    assert!(report.peak_memory_bytes > 1 << 20, "{report:?}");
}
