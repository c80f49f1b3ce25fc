//! Reading what is not the command's: files of the host, variables, descriptors, memory, other sessions.

use crate::harness::{SECRET, Session, WAYS, Way, bash, perl, world};

#[test]
fn files_of_the_host() {
    world().withstands(&[
        bash(
            "a file that everybody outside may read",
            "echo mine > /tmp/mine; allowed cat /tmp/mine; denied cat {bait}/secret; denied ls {bait}",
        ),
        bash(
            "the data folder and the socket of Postgres",
            "denied ls {data}; denied cat {data}/PG_VERSION {data}/pg_hba.conf; denied ls {socket}
             denied ls /var/run/postgresql /run/postgresql /var/lib/postgresql /etc/postgresql",
        ),
        bash(
            "passwords, and all but a named part of /etc",
            "allowed cat /etc/passwd; denied cat /etc/shadow; denied cat /etc/gshadow; denied cat /etc/fstab
             cd /etc; ls -A | grep -vxE 'alternatives|group|hostname|hosts|ld.so.cache|localtime|nsswitch.conf|os-release|passwd|ssl'
             ls -A ssl | grep -vx certs; grep -vE '^(root|sandbox|nobody):x:' passwd",
        ),
        bash(
            "folders that the root does not have",
            "cd /; ls -A | grep -vxE 'bin|dev|etc|home|lib|lib32|lib64|libx32|proc|run|sbin|tmp|usr|var'
             ls -A run; ls -A home | grep -vx sandbox; ls -A var | grep -vxE 'tmp|empty'; ls -A var/empty; ls -A home/sandbox; ls -A tmp
             ls -A dev | grep -vxE 'fd|full|null|random|shm|stderr|stdin|stdout|urandom|zero'
             denied ls /root /sys /boot /mnt /srv /opt /media",
        ),
        bash(
            "disks, memory and terminals by their devices",
            "allowed head -c 1 /dev/zero; for device in mem kmem port kmsg fuse kvm ptmx tty tty1 console sda vda nvme0n1 \
             loop0 userfaultfd vsock uinput net/tun mapper/control; do denied head -c 1 /dev/$device; done
             for kind in 'c 1 1' 'c 5 1' 'b 254 0' 'b 8 0' 'c 1 3'; do denied mknod /tmp/device $kind; done
             allowed mkfifo /tmp/fifo",
        ),
    ]);
}

#[test]
fn what_the_kernel_tells() {
    world().withstands(&[bash(
        "memory, messages, timers and addresses of the kernel",
        "allowed head -c 1 /proc/self/status; allowed head -c 1 /proc/version
         for file in kcore kmsg kpagecount kpageflags kpagecgroup slabinfo timer_list vmallocinfo vmcore \
           sched_debug sysrq-trigger; do denied head -c 1 /proc/$file; done
         denied dmesg; denied ls /proc/sys/kernel/debug /sys/kernel/debug /sys/kernel/security",
    )]);
}

#[test]
fn no_variable_and_no_argument_of_those_who_serve() {
    world().withstands(&[bash(
        "environment of every process there is",
        "export MINE=visible; allowed grep -qz MINE=visible /proc/self/environ
         cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | cut -d= -f1 | sort -u |
           grep -vxE 'BASH_ENV|HOME|LC_CTYPE|LOGNAME|MINE|OLDPWD|PATH|PWD|SHELL|SHLVL|TERM|USER|_'
         cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -E 'postgre[s]|exec-worke[r]|database-ur[l]|user=shel[l]'",
    )]);
}

#[test]
fn no_process_of_the_host() {
    world().withstands(&[
        bash(
            "every process that can be seen",
            "allowed test -d /proc/$$; cat /proc/[0-9]*/comm | sort -u | grep -vxE 'bash|cat|grep|sort|pg-shell-launch'
             for pid in {worker} {postmaster} {tests}; do denied ls /proc/$pid; denied cat /proc/$pid/status; done",
        ),
        perl(
            "what belongs to PID 1 of the namespace",
            r#"
my @files = qw(environ mem maps smaps pagemap auxv stack syscall io personality map_files/ fd/ fdinfo/ task/1/environ
  task/1/mem task/1/fd/ clear_refs patch_state wchan/none);
for my $file (@files) {
  next if !-e "/proc/self/$file" && $file !~ m{/};
  denied("/proc/1/$file", $file =~ m{/$} ? opendir(my $d, "/proc/1/$file") : reads("/proc/1/$file"));
}
denied("link $_", readlink "/proc/1/$_") for qw(cwd root exe ns/mnt ns/user ns/pid ns/net fd/0 fd/1 fd/2 fd/3 fd/4 fd/5);
denied("through /proc/1/$_", opendir(my $d, "/proc/1/$_")) for qw(root/ root/.. cwd/ cwd/..);
for my $n (0 .. 63) { for my $mode ('<', '>', '+<') { denied("fd $n", opens($mode, "/proc/1/fd/$n")) } }
denied("writing /proc/1/$_", writes("/proc/1/$_", "1\n")) for
  qw(mem oom_score_adj oom_adj uid_map gid_map setgroups comm autogroup sched timerslack_ns loginuid attr/current
  attr/exec timens_offsets coredump_filter clear_refs task/1/comm);
allowed("my own environ", open(my $mine, '<', '/proc/self/environ'));
allowed("my own mem", open(my $memory, '<', '/proc/self/mem'));
allowed("my own root", readlink '/proc/self/root');
allowed("my own fds", opendir(my $fds, '/proc/self/fd'));
"#,
        ),
    ]);
}

#[test]
fn no_inherited_descriptor() {
    world().withstands(&[
        perl(
            "every number there can be",
            r#"
my @own = (qr{^/dev/null$}, qr{^pipe:\[\d+\]$}, qr{^pipe:\[\d+\]$});
for my $fd (0 .. 70000) {
  my $link = readlink "/proc/self/fd/$fd" // next;
  next if $fd <= 2 && $link =~ $own[$fd];
  next if $fd == 250 && $link eq '/memfd:state (deleted)';
  next if $link =~ m{^(?:pipe:|/tmp/)} && $fd < 10; # this program's own text
  print "$fd: $link\n";
}
allowed("a descriptor of my own", open(my $f, '<', '/dev/zero'));
allowed("its link", readlink '/proc/self/fd/' . fileno $f);
"#,
        ),
        perl(
            "a folder or a socket among them",
            r#"
for my $fd (0 .. 1023) {
  denied("fchdir $fd", chdir("/proc/self/fd/$fd/."));
  my @s = stat "/proc/self/fd/$fd" or next;
  print "socket $fd\n" if S_ISSOCK($s[2]);
  print "folder $fd\n" if S_ISDIR($s[2]) && readlink("/proc/self/fd/$fd") !~ m{^/proc/};
}
socketpair(my $a, my $b, AF_UNIX, SOCK_STREAM, 0);
allowed("a socket is one", S_ISSOCK((stat '/proc/self/fd/' . fileno $a)[2]));
"#,
        ),
    ]);
}

/// One session holds a secret in each place that it has, another looks for it, at once and afterwards.
#[test]
fn another_sessions_files() {
    let world = world();
    let hide = format!(
        r#"
for my $folder ('/home/sandbox', '/tmp', '/dev/shm') {{
  mkdir "$folder/theirs"; open my $f, '>', "$folder/theirs/file" or die; print $f "{SECRET}"; close $f; chmod 0777, "$folder/theirs";
}}
my $name = 'theirs'; my $fd = call({memfd}, $name, 0); open my $m, '>&=', $fd; syswrite $m, "{SECRET}";
$ENV{{THEIRS}} = "{SECRET}"; chdir '/tmp/theirs'; ready();"#,
        memfd = libc::SYS_memfd_create
    );
    let look = "cd /; echo mine > /tmp/mine
      find / -xdev -newer /proc/1 -name 'theirs*' 2>/dev/null; ls -d /home/sandbox/theirs /tmp/theirs /dev/shm/theirs /proc/[0-9]*/cwd/../theirs 2>/dev/null
      cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep THEIRS
      for cwd in /proc/[0-9]*/cwd /proc/[0-9]*/fd/*; do readlink $cwd | grep theirs; done
      ls -d /tmp/mine";
    for held in WAYS {
        world.while_held(held, &hide, |_| {
            for way in WAYS {
                let seen = Session::new(world, way, &[]).run(look);
                assert_eq!(seen.output, "/tmp/mine\n", "{held:?} {way:?}");
            }
        });
    }
    let gone = Session::new(world, Way::Row, &[]).run(look);
    assert_eq!(gone.output, "/tmp/mine\n", "afterwards");
}
