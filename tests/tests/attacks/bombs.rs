//! Taking all there is: processes, memory, disk, inodes, descriptors, output. What is looked at is that
//! the command ends in time, and that a neighbour goes on meanwhile.

use std::time::Instant;

use crate::harness::{
    Limit, Session, WAYS, bash, memory_mib, output_kib, perl, perl_command, processes,
    wall_seconds, world,
};

/// Longer than any of these may take on a busy machine, shorter than what a broken limit would let them.
const IN_TIME: u64 = 20;

/// The command ends within its second, and neighbours of both ways have run meanwhile.
fn ends_in_time(limits: &[Limit], command: &str) {
    let world = world();
    for way in WAYS {
        let began = Instant::now();
        let seen = std::thread::scope(|scope| {
            let bomb = scope.spawn(move || Session::new(world, way, limits).run(command));
            for neighbour in WAYS {
                let seen = Session::new(world, neighbour, &[]).run("echo alive; (echo and well)");
                assert_eq!(
                    seen.output, "alive\nand well\n",
                    "beside {way:?}: {command}"
                );
            }
            bomb.join().expect("the bomb's own thread")
        });
        assert!(
            [Some(124), Some(137)].contains(&seen.exit),
            "{way:?}: {seen:?}"
        );
        assert!(began.elapsed().as_secs() < IN_TIME, "{way:?}: {command}");
        world.is_untouched();
    }
}

#[test]
fn fork_bombs() {
    let limits = [processes(64), wall_seconds(1)];
    ends_in_time(&limits, ":(){ :|:& }; : ; while :; do wait; done");
    ends_in_time(
        &limits,
        &perl_command("while (1) { fork } # all of them go on forking"),
    );
    // Each dies at once, so that no number is in use for long, and leaves its child to PID 1.
    ends_in_time(
        &limits,
        &perl_command(
            "if (fork) { sleep 1000 } while (1) { my $p = fork; POSIX::_exit(0) if $p; POSIX::setsid() }",
        ),
    );
}

#[test]
fn as_many_processes_as_the_limit_says() {
    world().withstands_within(
        &[processes(20)],
        &[perl(
            "more processes",
            "my $n = 0; while ($n < 100) { my $p = fork; last if !defined $p; if (!$p) { sleep 1000; POSIX::_exit(0) } $n++ }
             print \"$n at once\\n\" if $n < 10 || $n > 20; fails('fork', 'EAGAIN', fork);",
        )],
    );
}

#[test]
fn memory_bombs_of_one_process() {
    world().withstands_within(
        &[memory_mib(64)],
        &[
            bash(
                "a growing string, a large line, a large array",
                "denied bash -c 'x=x; while :; do x=$x$x; done'; denied bash -c 'x=$(head -c 200000000 /dev/zero | tr \"\\0\" x)'
                 denied perl -e '$x = \"x\" x 200e6'; denied perl -e '@x = (1) x 20e6'; allowed perl -e '$x = \"x\" x 10e6'",
            ),
            perl(
                "mappings and the heap",
                &format!(
                    "denied('private memory', call({mmap}, 0, 200 << 20, 3, 0x22, -1, 0)); denied('brk', call({brk}, call({brk}, 0) + (200 << 20)) >= call({brk}, 0) + (100 << 20) || undef);
                     allowed('a little', call({mmap}, 0, 1 << 20, 3, 0x22, -1, 0)); denied('mlockall', call({mlockall}, 1));",
                    mmap = libc::SYS_mmap,
                    brk = libc::SYS_brk,
                    mlockall = libc::SYS_mlockall,
                ),
            ),
        ],
    );
}

#[test]
fn memory_bombs_of_many_processes() {
    ends_in_time(
        &[memory_mib(64)],
        "for i in {1..8}; do perl -e '$x = q(x); $x x= 30 << 20; sleep 1000' & done; wait",
    );
}

#[test]
#[ignore = "memory files count only where there is a memory cgroup"]
fn memory_bombs_of_files() {
    world().withstands_within(
        &[memory_mib(64)],
        &[perl(
            "memory files",
            &format!(
                "my $name = \"x\\0\"; my $mib = 'x' x (1 << 20); my $fd = call({}, $name, 0); open my $m, '>&=', $fd; my $n = 0;
                 for (1 .. 200) {{ last unless syswrite $m, $mib; $n++ }} denied('200 MiB', $n == 200 || undef);",
                libc::SYS_memfd_create
            ),
        )],
    );
}

#[test]
fn memory_bomb_beside_neighbours() {
    ends_in_time(
        &[memory_mib(64), wall_seconds(1)],
        "while :; do perl -e '$x .= \"x\" x 1e6 while 1' 2>/dev/null; done",
    );
}

#[test]
fn disk_fillers() {
    world().withstands(&[
        bash(
            "more than a home holds",
            "for folder in ~ /tmp; do cd $folder; allowed dd if=/dev/zero of=small bs=1M count=10
               denied dd if=/dev/zero of=large bs=1M count=300; (($(du -sm . | cut -f1) <= 256)) || du -sm .; rm -f small large; done
             allowed dd if=/dev/zero of=/tmp/again bs=1M count=10",
        ),
        perl(
            "more names than inodes",
            r#"
my $n = 0; $n++ while $n < 200000 && mkdir "/tmp/$n"; print "$n folders\n" if $n > 70000 || $n < 1000;
denied("one more in $_", mkdir "$_/more") for '/tmp', '/dev/shm', $ENV{HOME};
"#,
        ),
        perl(
            "a file with nothing in it, and one that is long",
            "open my $f, '>', '/tmp/sparse'; allowed('sparse', truncate $f, 1 << 29); $SIG{XFSZ} = 'IGNORE'; fails('longer', 'EFBIG', truncate $f, 1 << 40);",
        ),
    ]);
}

#[test]
fn descriptor_fillers() {
    world().withstands(&[perl(
        "as many as there are",
        r#"
my @all; while (@all < 100000) { open my $f, '<', '/dev/null' or last; push @all, $f }
print scalar(@all), " files\n" if @all > 1024 || @all < 1000; fails('one more', 'EMFILE', open my $f, '<', '/dev/null'); @all = ();
while (@all < 100000) { pipe my $a, my $b or last; push @all, $a, $b } print scalar(@all), " pipes\n" if @all > 1024; @all = ();
allowed('again', open my $g, '<', '/dev/null');
"#,
    )]);
    ends_in_time(
        &[wall_seconds(1), processes(64)],
        &perl_command(
            "for (1 .. 5) { fork } my @all; while (1) { socketpair my $a, my $b, AF_UNIX, SOCK_STREAM, 0 or sleep 1; push @all, $a, $b }",
        ),
    );
}

#[test]
fn output_floods() {
    let limits = [output_kib(64), wall_seconds(5)];
    ends_in_time(&limits, "yes");
    ends_in_time(&limits, "yes >&2 & yes & wait");
    ends_in_time(&limits, "exec dd if=/dev/zero bs=16M");
    ends_in_time(
        &limits,
        "for i in {1..50}; do yes $i & yes $i >&2 & done; wait",
    );
    // Kept is what came first, of one line without an end.
    for way in WAYS {
        let seen = Session::new(world(), way, &limits).run("perl -e 'print \"x\" x 1e8'");
        assert_eq!(seen.output, "x".repeat(64 << 10), "{way:?}");
    }
}
