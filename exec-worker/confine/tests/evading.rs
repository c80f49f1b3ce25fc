//! Commands that keep what watches them from noticing something.

mod common;

use std::time::{Duration, Instant};

use common::{Session, path};
use confine::{Ended, Launcher, Used};

#[test]
fn a_look_at_what_is_used_cannot_be_put_off() {
    // PID 1 hears of each: of a signal, and of the end of a process that nobody else waits for.
    for nudge in ["kill -CHLD 1", "(true &)"] {
        let mut s = Session::new();
        s.limits.memory_bytes = 64 << 20;
        s.limits.wall = Duration::from_secs(10);
        let ran = s.run(&format!(
            "while {nudge}; do sleep 0.02; done &
             for i in {{1..6}}; do perl -e '$x = q(x); $x x= 20 << 20; sleep 1000' & done; wait"
        ));
        let report = ran.outcome.report;
        assert_eq!(report.ended, Ended::UsedUp(Used::Memory), "{nudge}");
    }
}

/// No rlimit counts it.
#[test]
fn shared_memory_is_memory() {
    let mut s = Session::new();
    s.limits.memory_bytes = 64 << 20;
    s.limits.disk_bytes = 16 << 20;
    let ran = s.run(
        r#"perl -e 'require "syscall.ph"; my $bytes = 200 << 20;
           my $at = syscall(&SYS_mmap, 0, $bytes, 3, 0x21, -1, 0); open my $zero, "<", "/dev/zero";
           syscall(&SYS_read, fileno $zero, $at, $bytes) == $bytes or die $!; print "filled\n"; sleep 5'"#,
    );
    let report = ran.outcome.report;
    assert_eq!(report.ended, Ended::UsedUp(Used::Memory), "{report:?}");
}

#[test]
fn no_core_is_made_by_anybody() {
    let ran = Session::new().run("grep core /proc/self/limits | tr -s ' '");
    assert_eq!(ran.text(), "Max core file size 1 1 bytes \n");
}

/// Sends two sockets through each other, and with them standard output and one that listens; whoever closes
/// them all then leaves them open.
const RING: &str = r#"perl -MSocket -e '
    sub pass { my ($by, @numbers) = map { fileno $_ } @_;
      my $control = pack("Q i i i*", 16 + 4 * @numbers, SOL_SOCKET, SCM_RIGHTS, @numbers);
      $control .= "\0" x (-length($control) % 8);
      my $part = pack("P Q", my $byte = "x", 1);
      my $message = pack("Q Q P Q P Q i x4", 0, 0, $part, 1, $control, length $control, 0);
      require "syscall.ph"; syscall(&SYS_sendmsg, $by, $message, 0) == 1 or die $! }
    socketpair my $a, my $b, AF_UNIX, SOCK_DGRAM, 0 or die $!;
    socket my $l, AF_UNIX, SOCK_STREAM, 0; bind $l, pack("S a*", AF_UNIX, "\0kept") or die $!;
    pass($a, $a, $b, $l, *STDOUT); pass($b, $a, $b); syswrite STDOUT, "passed"'"#;

#[test]
fn sockets_in_flight_hold_no_output_open() {
    let launchers = [Launcher::serving(path()), Launcher::spawning(path())];
    for launcher in launchers.iter().cycle().take(10) {
        let running = Session::new().start_by(launcher, RING);
        let started = Instant::now();
        let ran = Session::new().finish(running);
        assert_eq!((ran.text().as_str(), ran.code()), ("passed", Some(0)));
        let late = started.elapsed().saturating_sub(ran.outcome.duration);
        assert!(late < Duration::from_secs(2), "{late:?}");
    }
}

#[test]
fn sockets_in_flight_are_not_left_to_the_next_command() {
    let launcher = Launcher::serving(path());
    let mut s = Session {
        key: Some(1),
        ..Session::new()
    };
    for _ in 0..10 {
        let ran = s.run_by(&launcher, &format!("exec 3>&1 >/dev/null; {RING}"));
        assert!(ran.outcome.report.kept);
        // The kernel takes its time, but not that of somebody else's next call.
        assert_eq!(
            s.run_by(&launcher, "sleep 0.05; grep -c @kept /proc/net/unix")
                .text(),
            "0\n"
        );
    }
}
