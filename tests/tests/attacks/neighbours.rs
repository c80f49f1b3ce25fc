//! Two sessions at once: what one makes the other does not find, and what one takes the other still has.
//! One holds, the other looks, each both ways.

use crate::harness::{Session, WAYS, Way, perl, perl_command, world};

/// While the first runs, the second prints `end` alone.
fn apart(holder: &str, prober: &str) {
    let prober = perl("", prober).command;
    for held in WAYS {
        world().while_held(held, holder, |id| {
            for way in WAYS {
                let mut session = Session::new(world(), way, &[]);
                let seen = session.run(&prober);
                assert_eq!(seen.output, "end\n", "{way:?} beside {held:?}: {seen:?}");
                session.run("kill -KILL -1; kill -KILL 0");
            }
            let held = pg_shell_tests::marked_processes(&format!("ready:{id}"));
            assert!(!held.is_empty(), "the holder has ended");
        });
    }
    world().is_untouched();
}

#[test]
fn memory_queues_and_semaphores() {
    let open = |flags| {
        format!(
            r#"
my $key = 0x50475348; my $name = "pgsh\0"; my $attr = pack('q4', 0, 4, 8, 0) . "\0" x 32; my $flags = {flags};
fails('a queue', 'EMFILE', call({mq_open}, $name, 0102, 0666, $attr));
my %got = (shm => call({shmget}, $key, 4096, $flags | 0666), sem => call({semget}, $key, 1, $flags | 0666),
  msg => call({msgget}, $key, $flags | 0666));
"#,
            shmget = libc::SYS_shmget,
            semget = libc::SYS_semget,
            msgget = libc::SYS_msgget,
            mq_open = libc::SYS_mq_open,
        )
    };
    let take = format!(
        "{} allowed($_, $got{{$_}}) for sort keys %got;
         my $shm = \"/dev/shm/pgsh\"; open my $f, '>', $shm or die; chmod 0666, $shm;",
        open("01000")
    );
    let look = format!(
        "{} fails($_, 'ENOENT', $got{{$_}}) for sort keys %got;
         print \"there is one\\n\" if -e '/dev/shm/pgsh' || `wc -l < /proc/sysvipc/shm` != 1; {{ {take} }}",
        open("0")
    );
    apart(&format!("{take} ready();"), &look);
}

#[test]
fn signals_to_a_neighbour() {
    apart(
        "ready();",
        r#"
my $child = fork() // die; if (!$child) { sleep 1000; POSIX::_exit(0) }
my @seen = grep { /^\d+$/ } do { opendir my $d, '/proc'; readdir $d };
for my $pid (@seen) { open my $f, '<', "/proc/$pid/cmdline"; local $/; my $line = <$f> // ''; print "$pid: $line\n" if $line =~ /^ready/ }
kill 'TERM', $_ for grep { $_ > 1 && $_ != $$ && $_ != getppid } @seen; waitpid $child, 0; print "CONTROL FAILED: $?\n" if $? != 15;
"#,
    );
}

/// Limits that the kernel counts by the user outside, whom all commands of a worker share.
#[test]
fn inotify_queues_all_taken() {
    let take = format!(
        "my $n = 0; $n++ while $n < 100000 && call({}, 0); die if $n < 10; ready();",
        libc::SYS_inotify_init1
    );
    apart(&take, "print STDERR ''; print STDOUT '';");
}

#[test]
fn pipe_buffers_all_taken() {
    let take = format!(
        "my @all; while (@all < 900) {{ pipe my $a, my $b or last; push @all, $a, $b; call({}, fileno $b, 1031, 1 << 20) }} ready();",
        libc::SYS_fcntl
    );
    apart(
        &take,
        "for (1 .. 20000) { print '' } pipe my $a, my $b or print \"no pipe\\n\";",
    );
}

/// Descriptors in flight, which the worker needs for its launches.
#[test]
fn descriptors_in_flight_all_taken() {
    let take = format!(
        r#"
my @pairs; my $sent = 0;
for (1 .. 3) {{
  for (1 .. 30) {{
    socketpair(my $a, my $b, AF_UNIX, SOCK_DGRAM, 0) or last; push @pairs, $a, $b;
    my $control = pack('Qii', 16 + 4 * 250, 1, 1) . pack('i250', (fileno $a) x 250); my $byte = 'x';
    my $vector = pack('PQ', $byte, 1); my $message = pack('QIx4PQPQi', 0, 0, $vector, 1, $control, length $control, 0) . "\0" x 4;
    for (1 .. 100) {{ last unless call({sendmsg}, fileno $a, $message, 0x40); $sent += 250 }}
  }}
  last if !defined(my $p = fork); if ($p) {{ ready() }}
}}
sleep 1000;"#,
        sendmsg = libc::SYS_sendmsg
    );
    apart(&take, "");
}

#[test]
fn queues_locks_and_timers_all_taken() {
    let take = format!(
        r#"
my $attr = pack('q4', 0, 10, 8192, 0) . "\0" x 32; for my $n (1 .. 1000) {{ my $name = "q$n\0"; last unless call({mq_open}, $name, 0102, 0666, $attr) }}
my $event = pack('Qii', 0, 0, 1) . "\0" x 48; for (1 .. 5000) {{ last unless call({timer_create}, 1, 0, my $id = "\0" x 4) }}
my $epoll = call({epoll}, 0); for (1 .. 500) {{ pipe my $a, my $b or last; my $e = pack('LQ', 1, 0); call({epoll_ctl}, $epoll, 1, fileno $a, $e) }}
ready();"#,
        mq_open = libc::SYS_mq_open,
        timer_create = libc::SYS_timer_create,
        epoll = libc::SYS_epoll_create1,
        epoll_ctl = libc::SYS_epoll_ctl,
    );
    apart(&take, "");
}

/// Standard input is one description for all launches of a worker's server.
#[test]
fn flags_of_standard_input() {
    let set = format!(
        "allowed('F_SETFL', call({}, 0, 4, 04000 | 02000)); ready();",
        libc::SYS_fcntl
    );
    // The program comes on standard input itself, so it is the shell's that counts.
    let set = format!(
        "exec 7<&0; {}",
        perl_command(&set.replace(", 0, 4,", ", 7, 4,"))
    );
    let look = "exec 7<&0; ".to_owned()
        + &perl(
            "",
            &format!(
                "my $flags = call({fcntl}, 7, 3, 0); print sprintf(\"flags %o\\n\", $flags & 06000) if $flags & 06000;
                 allowed('mine', call({fcntl}, 7, 4, 04000)); $flags = call({fcntl}, 7, 3, 0); print \"CONTROL FAILED\\n\" unless $flags & 04000; call({fcntl}, 7, 4, 0);",
                fcntl = libc::SYS_fcntl
            ),
        )
        .command;
    for way in WAYS {
        world().while_running(way, &set, |_| {
            let seen = Session::new(world(), way, &[]).run(&look);
            assert_eq!(seen.output, "end\n", "{way:?}: {seen:?}");
        });
    }
}

/// Who opens which file of the system is seen by whoever watches it, from every session.
#[test]
#[ignore = "inotify tells of the system's files, which all sessions share"]
fn watching_the_systems_files() {
    let watch = format!(
        r#"
my $fd = call({init}, 04000); my @files = glob '/usr/bin/*'; for my $file (@files) {{ my $path = "$file\0"; call({add}, $fd, $path, 0x20) }}
open my $events, '<&=', $fd;
my $found = sysread($events, my $none, 100); print "nothing is open\n" if $found;
my $mine = fork() // die; if (!$mine) {{ exec '/usr/bin/true' }} waitpid $mine, 0;
allowed('my own are told', sysread $events, my $own, 1000);
sysread $events, $own, 100000; ready_to_tell($events);
sub ready_to_tell {{ my $events = shift; $0 = 'ready' . ':{{id}}';
  while (1) {{ select undef, undef, undef, 0.01; if (sysread $events, my $bytes, 100000) {{ $0 = 'told' . ':{{id}}' }} }} }}"#,
        init = libc::SYS_inotify_init1,
        add = libc::SYS_inotify_add_watch,
    );
    for held in WAYS {
        world().while_held(held, &watch, |id| {
            Session::new(world(), Way::Row, &[]).run("/usr/bin/sha512sum /dev/null");
            let told = pg_shell_tests::marked_processes(&format!("told:{id}"));
            assert!(told.is_empty(), "{held:?} was told");
        });
    }
}

/// A lock on a file that all share is a message to every session, and to the host.
#[test]
#[ignore = "flock works on the system's files, which all sessions share"]
fn locking_the_systems_files() {
    let lock = "open my $f, '<', '/usr/bin/env' or die; allowed('flock', flock $f, 6);";
    for held in WAYS {
        world().while_held(held, &format!("{lock} ready();"), |_| {
            for way in WAYS {
                let seen = Session::new(world(), way, &[]).run(&perl("", lock).command);
                assert_eq!(seen.output, "end\n", "{way:?} beside {held:?}");
            }
        });
    }
}
