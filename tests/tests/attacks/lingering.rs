//! Staying on: ignoring signals, running away from the shell, keeping the command's pipes open.

use std::time::Instant;

use crate::harness::{Session, WAYS, Way, perl_command, wall_seconds, world};
use pg_shell_tests::marked_processes;

/// The command ends in time with this exit code, and no process of it is there any more.
fn nothing_stays(name: &str, exit: impl Fn(Way) -> i32, command: &str) {
    let world = world();
    for way in WAYS {
        let mark = format!("stays-{}-{name}-{way:?}", std::process::id());
        let began = Instant::now();
        let command = command.replace("{mark}", &mark);
        let seen = Session::new(world, way, &[wall_seconds(1)]).run(&command);
        assert_eq!(seen.exit, Some(exit(way)), "{name}, {way:?}: {seen:?}");
        assert!(began.elapsed().as_secs() < 15, "{name}, {way:?}");
        // PID 1 has collected them all before it reports, so there is nothing to wait for.
        let left = marked_processes(&mark);
        assert!(left.is_empty(), "{name}, {way:?}: {left:?}");
        assert!(seen.output.contains("began"), "{name}, {way:?}: {seen:?}");
    }
    world.is_untouched();
}

/// What stands for a timeout: in a row it is a signal's, in a backend that of timeout(1).
fn timeout(way: Way) -> i32 {
    match way {
        Way::Row => 137,
        Way::Backend => 124,
    }
}

/// Goes to sleep under the mark, deaf to every signal.
const STAY: &str = r#"sub stay { $SIG{$_} = 'IGNORE' for grep { !/^(KILL|STOP|ZERO)$/ } keys %SIG, qw(TERM INT HUP QUIT PIPE ALRM USR1 USR2 CONT TSTP); $0 = '{mark}'; sleep 1000 while 1 }"#;

#[test]
fn deaf_to_signals() {
    nothing_stays(
        "deaf",
        timeout,
        &perl_command(&format!("{STAY} print \"began\\n\"; stay()")),
    );
    nothing_stays(
        "deaf shell",
        timeout,
        "trap '' TERM INT HUP QUIT EXIT; echo began; (exec -a {mark} sleep 1000); while :; do :; done",
    );
    nothing_stays(
        "stopped",
        timeout,
        &perl_command("print \"began\\n\"; $0 = '{mark}'; kill 'STOP', $$; sleep 1000"),
    );
    nothing_stays(
        "stopped shell",
        timeout,
        "echo began; (exec -a {mark} sleep 1000) & kill -STOP $$; sleep 1000",
    );
}

#[test]
fn left_running_when_the_command_ends() {
    let well = |_| 0;
    nothing_stays(
        "background",
        well,
        "(exec -a {mark} sleep 1000) & (exec -a {mark} setsid sleep 1000) & echo began",
    );
    nothing_stays(
        "double fork",
        well,
        &perl_command(&format!(
            "{STAY} if (!fork) {{ POSIX::setsid(); if (!fork) {{ chdir '/'; open STDOUT, '>', '/dev/null'; stay() }} POSIX::_exit(0) }} wait; print \"began\\n\""
        )),
    );
    nothing_stays(
        "no ends of pipes",
        well,
        &perl_command(&format!(
            "{STAY} print \"began\\n\"; if (!fork) {{ POSIX::close($_) for 0 .. 300; stay() }}"
        )),
    );
    nothing_stays(
        "orphans of orphans",
        well,
        &perl_command(&format!(
            "{STAY} for (1 .. 20) {{ if (!fork) {{ POSIX::setsid(); POSIX::_exit(0) if fork; stay() }} }} print \"began\\n\""
        )),
    );
    nothing_stays(
        "subreaper",
        well,
        &perl_command(&format!(
            "{STAY} if (!fork) {{ call({prctl}, 36, 1, 0, 0, 0); if (!fork) {{ fork; stay() }} stay() }} print \"began\\n\"",
            prctl = libc::SYS_prctl
        )),
    );
    nothing_stays(
        "respawning",
        well,
        &perl_command(&format!(
            "{STAY} if (!fork) {{ POSIX::setsid(); while (1) {{ my $p = fork; if ($p) {{ POSIX::_exit(0) }} $0 = '{{mark}}' }} }} print \"began\\n\""
        )),
    );
    nothing_stays(
        "vfork",
        well,
        &perl_command(&format!(
            "{STAY} if (!fork) {{ my $p = call({clone}, 0x4000 | 17, 0, 0, 0, 0); stay() }} print \"began\\n\"",
            clone = libc::SYS_clone
        )),
    );
}

#[test]
fn gone_by_itself() {
    nothing_stays(
        "exec",
        |_| 0,
        "echo began; (exec -a {mark} sleep 1000) & exec true",
    );
    nothing_stays(
        "killed",
        |_| 137,
        "echo began; (exec -a {mark} sleep 1000) & kill -9 $$",
    );
    nothing_stays(
        "killed all",
        |_| 137,
        &perl_command(&format!(
            "{STAY} print \"began\\n\"; if (!fork) {{ stay() }} kill 'KILL', -1; kill 'KILL', getppid; sleep 1000"
        )),
    );
    nothing_stays(
        "closed its outputs",
        timeout,
        &perl_command("print \"began\\n\"; POSIX::close($_) for 0 .. 2; $0 = '{mark}'; sleep 1000"),
    );
}

/// A descriptor that is sent into a socket is open until the socket is; one sent into itself, until the kernel
/// collects such rings.
#[test]
fn output_kept_open_by_a_ring_of_sockets() {
    let ring = perl_command(&format!(
        r#"
socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, 0) or die;
for my $fd (1, 2, fileno $a, fileno $b) {{
  for my $to ($a, $b) {{
    my $control = pack('QiiiI', 20, 1, 1, $fd, 0); my $byte = 'x';
    my $vector = pack('PQ', $byte, 1); my $message = pack('QIx4PQPQi', 0, 0, $vector, 1, $control, 24, 0) . "\0" x 4;
    allowed("send $fd", call({sendmsg}, fileno $to, $message, 0));
  }}
}}
print "sent\n";"#,
        sendmsg = libc::SYS_sendmsg
    ));
    for way in WAYS {
        let began = Instant::now();
        let seen = Session::new(world(), way, &[wall_seconds(30)]).run(&ring);
        assert_eq!(seen.output, "sent\n", "{way:?}");
        assert!(
            began.elapsed().as_secs() < 10,
            "{way:?}: {:?}",
            began.elapsed()
        );
    }
}
