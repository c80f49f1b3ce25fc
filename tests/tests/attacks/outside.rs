//! Reaching processes and servers outside: signals, tracing, Postgres' socket, set-uid programs.

use crate::harness::{bash, perl, world};

#[test]
fn signals_to_the_host() {
    world().withstands(&[perl(
        "every way to signal",
        &format!(
            r#"
my @outside = grep {{ !-d "/proc/$_" }} ({{worker}}, {{postmaster}}, {{tests}});
print "the numbers clash\n" if @outside < 3;
for my $pid (@outside) {{
  denied("kill $_ $pid", kill $_, $pid) for 0, 'CONT', 'TERM', 'KILL', -15;
  fails("pidfd_open $pid", 'ESRCH', call({pidfd_open}, $pid, 0));
  fails("tgkill $pid", 'ESRCH', call({tgkill}, $pid, $pid, 15));
  my $info = pack('i3', 15, 0, -1) . "\0" x 116;
  fails("rt_sigqueueinfo $pid", 'ESRCH', call({rt_sigqueueinfo}, $pid, 15, $info));
  fails("setpriority $pid", 'ESRCH', call({setpriority}, 0, $pid, 19));
  fails("sched_setaffinity $pid", 'ESRCH', call({sched_setaffinity}, $pid, 8, my $mask = "\1" . "\0" x 7));
  fails("prlimit $pid", 'ESRCH', call({prlimit64}, $pid, 7, my $limit = pack('Q2', 0, 0), 0));
  fails("getpgid $pid", 'ESRCH', call({getpgid}, $pid));
  # Of input and output to come, by way of the pipe's owner.
  my $owner = pack 'i', $pid;
  fails("F_SETOWN $pid", 'ESRCH', call({fcntl}, 1, 8, $pid));
}}
my $child = fork() // die; if (!$child) {{ sleep 1000; POSIX::_exit(0) }}
allowed("signal my child", kill 'TERM', $child); waitpid $child, 0;
print "the child ended by $?\n" if $? != 15;
denied("group $_", kill 'TERM', -$_) for @outside;
"#,
            pidfd_open = libc::SYS_pidfd_open,
            tgkill = libc::SYS_tgkill,
            rt_sigqueueinfo = libc::SYS_rt_sigqueueinfo,
            setpriority = libc::SYS_setpriority,
            sched_setaffinity = libc::SYS_sched_setaffinity,
            prlimit64 = libc::SYS_prlimit64,
            getpgid = libc::SYS_getpgid,
            fcntl = libc::SYS_fcntl,
        ),
    )]);
}

#[test]
fn postgres_by_its_socket() {
    world().withstands(&[
        perl(
            "the socket's path",
            r#"
sub reach { my $path = shift; socket(my $s, AF_UNIX, SOCK_STREAM, 0) or die; connect($s, sockaddr_un($path)) ? 1 : undef }
for my $folder ('{socket}', '{data}/../s', '/tmp', '/run/postgresql', '/var/run/postgresql', '/proc/1/root{socket}',
  '/proc/self/root{socket}', '/proc/self/cwd/../../..{socket}') {
  denied($folder, reach("$folder/.s.PGSQL.5432"));
}
socket(my $server, AF_UNIX, SOCK_STREAM, 0); bind $server, sockaddr_un('/tmp/mine'); listen $server, 1;
allowed('a socket of my own', reach('/tmp/mine'));
"#,
        ),
        bash(
            "any socket file at all",
            "find / -xdev -type s -o -path /proc -prune 2>/dev/null | grep -vx /proc; find /tmp /home /dev /run /var -type s",
        ),
    ]);
}

#[test]
fn set_uid_programs_gain_nothing() {
    world().withstands(&[
        bash(
            "every set-uid and set-gid program",
            // The loader tells whom it runs as only where the program gains nothing.
            "mapfile -t programs < <(find /usr/bin /usr/sbin /usr/lib -xdev -perm /6000 -type f -executable 2>/dev/null)
             ((${#programs[@]} > 3)) || echo 'there are no set-uid programs to try'
             for program in ${programs[@]}; do
               [[ -u $program || -g $program ]] || echo $program
               said=$(LD_SHOW_AUXV=1 LD_TRACE_LOADED_OBJECTS=1 timeout 5 $program --version </dev/null 2>&1) || true
               ids=$(grep -aE '^AT_(E?[UG]ID|SECURE):' <<<\"$said\" | tr -d ' ' | sort | tr '\\n' ' ')
               [[ -z $ids || $ids == 'AT_EGID:1000 AT_EUID:1000 AT_GID:1000 AT_SECURE:0 AT_UID:1000 ' ]] || echo $program: $ids
               [[ -n $ids || ! -r $program ]] || echo \"$program: nothing was told\"
             done",
        ),
        bash(
            "a set-uid program of one's own",
            "cp /usr/bin/id /tmp/id; chmod 6755 /tmp/id; [[ $(/tmp/id -u) == 1000 ]] || echo gained
             denied chown root /tmp/id; denied chown 0:0 /tmp; denied chgrp 65534 /tmp/id; allowed chown 1000 /tmp/id",
        ),
        bash(
            "capabilities and their return",
            "grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb):' /proc/self/status | grep -v '0000000000000000$'
             for status in /proc/[0-9]*/status; do [[ $(<$status) == *NoNewPrivs:?1* ]] || echo $status may gain; done
             [[ $(</proc/self/status) == *Seccomp:?2* ]] || echo no filter
             denied su -c true; denied mount -t tmpfs none /tmp; denied umount /tmp; denied sudo -n true
             denied newuidmap $$ 0 0 1; denied setpriv --reuid 0 true; denied setpriv --inh-caps +all --ambient-caps +all true",
        ),
        perl(
            "ids by system calls",
            &format!(
                r#"
fails("setuid", 'EINVAL', call({setuid}, 0));
fails("setresuid to another", 'EINVAL', call({setresuid}, 65534, 65534, 65534));
fails("setgroups", 'EPERM', call({setgroups}, 0, 0));
fails("ambient capability", 'EPERM', call({prctl}, 47, 2, 21, 0, 0));
fails("capset", 'EPERM', call({capset}, my $head = pack('Li', 0x20080522, 0), my $data = pack('L6', (0xffffffff) x 6)));
fails("clear no_new_privs", 'EINVAL', call({prctl}, 38, 0, 0, 0, 0));
fails("unlock securebits", 'EPERM', call({prctl}, 28, 0x2f, 0, 0, 0));
allowed("setresuid to myself", call({setresuid}, 1000, 1000, 1000));
allowed("set my own name", call({prctl}, 15, my $name = "mine\0", 0, 0, 0));
allowed("become dumpable", call({prctl}, 4, 1, 0, 0, 0));
denied("uid_map", writes('/proc/self/uid_map', '0 0 1'));
denied("setgroups again", writes('/proc/self/setgroups', 'allow')); allowed("comm", writes('/proc/self/comm', 'mine'));
"#,
                setuid = libc::SYS_setuid,
                setresuid = libc::SYS_setresuid,
                setgroups = libc::SYS_setgroups,
                prctl = libc::SYS_prctl,
                capset = libc::SYS_capset,
            ),
        ),
    ]);
}
