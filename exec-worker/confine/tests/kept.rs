//! What serves a session's command waits for the next one, and only where nothing was left behind.

mod common;

use common::{Session, path};
use confine::Launcher;

/// The namespaces that a command sees itself in.
const WHERE: &str = "readlink /proc/self/ns/pid /proc/self/ns/mnt /proc/self/ns/ipc";

fn session(key: u128) -> Session {
    Session {
        key: Some(key),
        ..Session::new()
    }
}

fn place(launcher: &Launcher, session: &mut Session) -> String {
    session.run_by(launcher, WHERE).text()
}

#[test]
fn the_same_session_is_served_again_and_no_other() {
    let launcher = Launcher::serving(path());
    let (mut one, mut other) = (session(1), session(2));
    let first = place(&launcher, &mut one);
    assert_eq!(first.lines().count(), 3, "{first}");
    assert_eq!(first, place(&launcher, &mut one));
    assert_ne!(first, place(&launcher, &mut other));
    assert_eq!(first, place(&launcher, &mut one));
    let mut nobodys = Session::new();
    assert_ne!(first, place(&launcher, &mut nobodys));
    assert_ne!(
        place(&launcher, &mut nobodys),
        place(&launcher, &mut nobodys)
    );
}

#[test]
fn whatever_is_left_behind_ends_it() {
    for leaves in [
        "echo x >/tmp/x",
        "mkdir ~/folder",
        "ln -s / /dev/shm/l",
        "chmod 777 ~",
        "ipcmk -M 100",
        "ipcmk -Q",
        "ipcmk -S 1",
    ] {
        let launcher = Launcher::serving(path());
        let mut session = session(1);
        let before = place(&launcher, &mut session);
        assert_eq!(
            session.run_by(&launcher, leaves).code(),
            Some(0),
            "{leaves}"
        );
        assert_ne!(before, place(&launcher, &mut session), "{leaves}");
        let left = session
            .run_by(
                &launcher,
                "ls -A /tmp ~ /dev/shm; ipcs | grep 0x; stat -c %a ~",
            )
            .text();
        assert_eq!(
            left, "/dev/shm:\n\n/home/sandbox:\n\n/tmp:\n700\n",
            "{leaves}"
        );
    }
}

/// The shell of a session's fourth command is forked ahead of it: by then it is likely.
const LIKELY: u128 = 3;

#[test]
fn a_shell_that_was_forked_ahead_takes_any_command() {
    let launcher = Launcher::serving(path());
    let mut session = session(1);
    let long = format!("x={}; echo ${{#x}}", "y".repeat(500_000));
    for (prepare, command, printed) in [
        ("true", "echo here; echo $EARLIER; EARLIER=1", "here\n\n"),
        ("true", "echo $EARLIER; pwd; cd /tmp", "1\n/home/sandbox\n"),
        ("true", &long, "500000\n"),
        ("true", "pwd; printenv odd.name", "/tmp\nodd\n"),
        ("true", "pwd; cat <<E\nof\nlines\nE", "/tmp\nof\nlines\n"),
    ] {
        for _ in 0..LIKELY {
            assert_eq!(session.run_by(&launcher, prepare).code(), Some(0));
        }
        if printed.contains("odd") {
            // Only a shell that is executed takes it over: the one that waits executes one.
            session.env.insert("odd.name".into(), "odd".into());
        }
        assert_eq!(session.run_by(&launcher, command).text(), printed);
        session.env.remove("odd.name");
    }
}

#[test]
fn a_stop_reaches_a_shell_that_was_forked_ahead() {
    let launcher = Launcher::serving(path());
    let mut session = session(1);
    for _ in 0..LIKELY {
        session.run_by(&launcher, "true");
    }
    for command in ["sleep 1000", "while :; do :; done"] {
        let mut running = session.start_by(&launcher, command);
        running.stop(confine::Stop::Cancelled);
        let ran = session.finish(running);
        assert_eq!(ran.outcome.report.ended, confine::Ended::Stopped);
        assert_eq!(session.run_by(&launcher, "echo here").text(), "here\n");
    }
    session.limits.wall = std::time::Duration::from_millis(200);
    let ran = session.run_by(&launcher, "sleep 1000");
    assert_eq!(ran.outcome.report.ended, confine::Ended::TimedOut);
}

#[test]
fn processes_do_not_outlive_their_command_where_it_is_served_again() {
    let launcher = Launcher::serving(path());
    let mut session = session(1);
    let before = place(&launcher, &mut session);
    session.run_by(
        &launcher,
        "(trap '' TERM HUP; while :; do :; done) & setsid sleep 1000 & disown -a",
    );
    assert_eq!(before, place(&launcher, &mut session), "served again");
    let ran = session.run_by(&launcher, "ps -e -o comm=");
    assert!(!ran.text().contains("sleep"), "{}", ran.text());
}

#[test]
fn each_command_is_measured_by_itself() {
    let launcher = Launcher::serving(path());
    let mut session = session(1);
    let large = "x=$(head -c 50000000 /dev/zero | tr '\\0' x); x=";
    let first = session.run_by(&launcher, large).outcome.report;
    let second = session.run_by(&launcher, "true").outcome.report;
    assert!(first.kept && second.kept);
    assert!(
        second.peak_memory_bytes < first.peak_memory_bytes / 4,
        "{first:?} {second:?}"
    );
    assert!(second.cpu_us < first.cpu_us, "{first:?} {second:?}");
}

#[test]
fn other_limits_are_mounted_anew() {
    let launcher = Launcher::serving(path());
    let mut session = session(1);
    let before = place(&launcher, &mut session);
    session.limits.disk_bytes = 1 << 20;
    let ran = session.run_by(
        &launcher,
        &format!("{WHERE}; head -c 2000000 /dev/zero >/tmp/x"),
    );
    assert!(
        !ran.text().starts_with(&before),
        "mounted with its own size"
    );
    assert!(ran.text().contains("No space left"), "{}", ran.text());
}

#[test]
fn one_that_was_ended_is_replaced() {
    let launcher = Launcher::serving(path());
    let mut session = session(1);
    let before = place(&launcher, &mut session);
    launcher.end_kept(std::time::Duration::ZERO);
    assert_ne!(before, place(&launcher, &mut session));
    launcher.kill_server();
    assert!(place(&launcher, &mut session).contains("pid:"));
}

#[test]
fn a_stop_that_came_too_late_stops_nothing_else() {
    let launcher = Launcher::serving(path());
    let mut session = session(1);
    for _ in 0..50 {
        let mut running = session.start_by(&launcher, "true");
        running.stop(confine::Stop::Cancelled);
        session.finish(running);
        assert_eq!(session.run_by(&launcher, "echo here").text(), "here\n");
    }
}
