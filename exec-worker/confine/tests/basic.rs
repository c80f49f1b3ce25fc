//! The level basic: what a session is there, and attacks on what it promises; on this host, and on one
//! without user namespaces.

mod common;

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;
use std::time::{Duration, Instant};

use common::host::{NoUserNamespaces, open_folder};
use common::{Ran, Session, path};
use confine::{Ended, Exceeded, Launcher, Level, Stop};
use tempfile::TempDir;

/// Functions of every attack: one that succeeds says so.
const PERL: &str = r#"
use strict; use warnings; no warnings 'syscalls'; use Errno; use Fcntl; use Socket; $| = 1;
sub denied { my ($what, $result) = @_; print "ALLOWED: $what\n" if $result }
sub allowed { my ($what, $result) = @_; print "CONTROL FAILED: $what: $!\n" unless $result }
sub call { my $n = shift; my $r = syscall($n, @_); $r == -1 ? undef : $r || '0 but true' }
sub opens { my ($mode, $path) = @_; open(my $f, $mode, $path) or return undef; $f }
"#;

/// Where commands run.
struct World {
    folder: TempDir,
    launchers: Vec<Launcher>,
    _host: NoUserNamespaces,
}

impl World {
    fn new() -> World {
        let (folder, host) = (open_folder(), NoUserNamespaces::new(&path()));
        let at = |path| Launcher::at(Level::Basic, path, folder.path()).expect("a launcher");
        World {
            launchers: vec![at(path()), at(host.launcher())],
            folder,
            _host: host,
        }
    }

    fn run(&self, session: &mut Session, command: &str) -> Ran {
        session.run_by(&self.launchers[0], command)
    }

    /// It prints nothing but "end", everywhere.
    #[track_caller]
    fn withstands(&self, attack: &str) {
        for (number, launcher) in self.launchers.iter().enumerate() {
            let ran = Session::new().run_by(launcher, &format!("{attack}\necho end"));
            assert_eq!(
                ran.text(),
                "end\n",
                "host {number}: {:?}",
                ran.outcome.report
            );
        }
        self.is_empty();
    }

    #[track_caller]
    fn withstands_perl(&self, attack: &str) {
        self.withstands(&format!("perl - <<'PERL'\n{PERL}{attack}\nPERL"));
    }

    #[track_caller]
    fn is_empty(&self) {
        let left = fs::read_dir(self.folder.path())
            .expect("our own folder")
            .count();
        assert_eq!(left, 0, "private folders are left");
    }
}

#[test]
fn a_session_goes_on_as_at_the_level_strict() {
    let (world, mut s) = (World::new(), Session::new());
    let ran = world.run(
        &mut s,
        "mkdir -p a; cd a; export X=1 Y=$PWD; z=2; f() { echo f $z; }; alias ll='ls -l'; umask 027",
    );
    assert_eq!((ran.text().as_str(), ran.code()), ("", Some(0)));
    assert_eq!(s.cwd, "/home/sandbox/a");
    assert_eq!(s.env.get("Y").map(String::as_str), Some("/home/sandbox/a"));
    let gone = "pg_shell: /home/sandbox/a: No such file or directory; starting in /home/sandbox\n";
    assert_eq!(
        world.run(&mut s, "f; echo $X; umask").text(),
        format!("{gone}f 2\n1\n0027\n")
    );
    let text = world.run(
        &mut s,
        "[ $PWD = $HOME ] && [ -d $TMPDIR ] && cat <(echo sub) <<<here; echo x >/dev/stderr",
    );
    assert_eq!(text.text(), "sub\nx\n");
    // And back, with nothing of this level in it.
    let strict = Launcher::serving(path());
    let text = s
        .run_by(
            &strict,
            "pwd; echo $HOME; f; declare -p | grep -Ec 'pg_shell-[0-9a-f]{32}'",
        )
        .text();
    assert_eq!(text, "/home/sandbox\n/home/sandbox\nf 2\n0\n");
    world.is_empty();
}

#[test]
fn files_are_made_changed_and_gone() {
    let (world, mut s) = (World::new(), Session::new());
    let text = "cd; echo 1 >a; mv a b; ln b c; mkdir d; mv c d; touch b; rm b; cat d/c; printf 'echo script\\n' >s; bash s
      head -c 100000 /dev/zero | tr '\\0' x >$TMPDIR/big; wc -c <$TMPDIR/big; cat <<E\nhere\nE\n";
    assert_eq!(world.run(&mut s, text).text(), "1\nscript\n100000\nhere\n");
    world.is_empty();
    s.shell = confine::shell::Shell::Sh;
    assert_eq!(world.run(&mut s, "echo sh >x; cat x; ls").text(), "sh\nx\n");
    world.is_empty();
}

#[test]
fn nothing_outside_is_read_written_or_changed() {
    let world = World::new();
    let bait = open_folder();
    let file = bait.path().join("file");
    fs::write(&file, "secret").expect("a file");
    for mode in [0o777, 0o666] {
        let of = if mode == 0o777 { bait.path() } else { &file };
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(of, mode).expect("our own");
    }
    if nix::unistd::Uid::effective().is_root() {
        // The command's own user, who could do everything to it.
        std::os::unix::fs::chown(&file, Some(65_534), Some(65_534)).expect("root may");
    }
    let before = fs::metadata(&file).expect("our own");
    let f = file.display();
    world.withstands(&format!(
        "denied() {{ if \"$@\"; then echo \"ALLOWED: $*\" >&3; fi >/dev/null 2>&1; }} 3>&1
         for f in /etc/shadow /etc/hostname /proc/self/status /proc/1/cmdline /proc/$PPID/environ /proc/$PPID/maps {f}; do denied cat $f; done
         for d in / /etc /home /root /var /run /proc /proc/self /sys /dev /tmp /dev/shm {d}; do denied ls $d; done
         w() {{ echo x >\"$1\"; }}
         for d in / /tmp /dev/shm /usr /var/tmp {d} {t} ..; do denied w $d/new; denied mkdir $d/new; denied ln -s x $d/new; denied mkfifo $d/new; done
         denied w {f}; denied rm {f}; denied mv {f} $HOME; denied ln {f} $HOME/link; denied truncate -s 0 {f}
         denied chmod 0 {f}; denied touch {f}; denied touch -d 2001-01-01 {f}; denied chown 65534 {f}
         ln -s {f} $HOME/link; denied cat $HOME/link; denied w $HOME/link; denied chmod 0 $HOME/link
         denied mount -t tmpfs none $HOME; denied unshare -U true; denied unshare -m true; denied su -c true; denied chroot /usr true",
        d = bait.path().display(),
        t = world.folder.path().display(),
    ));
    let after = fs::metadata(&file).expect("our own");
    assert_eq!(fs::read(&file).expect("our own"), b"secret");
    use std::os::unix::fs::MetadataExt;
    let of = |m: &fs::Metadata| (m.mode(), m.ctime(), m.ctime_nsec());
    assert_eq!(of(&before), of(&after), "nothing of it was touched");
    assert_eq!(fs::read_dir(bait.path()).expect("our own").count(), 1);
}

#[test]
fn metadata_is_not_changed_by_system_calls_either() {
    let world = World::new();
    let bait = open_folder();
    let file = bait.path().join("file");
    fs::write(&file, "secret").expect("a file");
    if nix::unistd::Uid::effective().is_root() {
        std::os::unix::fs::chown(&file, Some(65_534), Some(65_534)).expect("root may");
    }
    world.withstands_perl(&format!(
        r#"
my $f = "{f}\0"; my $none = "user.x\0"; my $times = pack('q4', (1) x 4);
denied('chmod', chmod 0, '{f}'); denied('utime', utime 1, 1, '{f}'); denied('chown', chown -1, -1, '{f}');
denied('fchmodat', call({fchmodat}, -100, $f, 0)); denied('fchmodat2', call(452, -100, $f, 0, 0));
denied('fchownat', call({fchownat}, -100, $f, -1, -1, 0)); denied('utimensat', call({utimensat}, -100, $f, $times, 0));
denied('setxattr', call({setxattr}, $f, $none, $none, 1, 0)); denied('lsetxattr', call({lsetxattr}, $f, $none, $none, 1, 0));
my $o = call({openat}, -100, $f, 0x200000); allowed('a path', $o); denied('fchmod of a path', call({fchmod}, $o, 0));
denied('opening it through a path', opens('<', "/proc/self/fd/$o"));
denied('linkat', call({linkat}, $o, my $empty = "\0", -100, my $new = "new\0", 0x1000));
open my $own, '>', 'own' or die; allowed('fchmod', chmod 0700, $own); allowed('futimens', call({utimensat}, fileno $own, 0, $times, 0));
denied('inotify', do {{ my $i = call({inotify_init1}, 0); call({inotify_add_watch}, $i, $f, 2) }});
"#,
        f = file.display(),
        fchmod = libc::SYS_fchmod,
        fchmodat = libc::SYS_fchmodat,
        fchownat = libc::SYS_fchownat,
        utimensat = libc::SYS_utimensat,
        setxattr = libc::SYS_setxattr,
        lsetxattr = libc::SYS_lsetxattr,
        openat = libc::SYS_openat,
        linkat = libc::SYS_linkat,
        inotify_init1 = libc::SYS_inotify_init1,
        inotify_add_watch = libc::SYS_inotify_add_watch,
    ));
}

#[test]
fn no_socket_leads_outside() {
    let world = World::new();
    let place = open_folder();
    let at = place.path().join("socket");
    let _path = UnixListener::bind(&at).expect("a socket");
    let datagrams = std::os::unix::net::UnixDatagram::bind(place.path().join("log")).expect("one");
    datagrams.set_nonblocking(true).expect("our own");
    let name = format!("pgsh-basic-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let _abstract = UnixListener::bind_addr(&address).expect("a name of our own");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    for path in [&at, &place.path().join("log")] {
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(path, open).expect("our own");
    }
    world.withstands_perl(&format!(
        r#"
for my $family (1, 2, 10, 16, 17, 38, 40) {{ for my $type (1, 2, 3, 5) {{ denied("socket $family $type", socket(my $s, $family, $type, 0)) }} }}
for my $type (SOCK_DGRAM, 3, SOCK_DGRAM | 02000000) {{ denied("pair $type", socketpair(my $a, my $b, AF_UNIX, $type, 0)) }}
for my $type (SOCK_STREAM, SOCK_SEQPACKET) {{
  allowed("pair $type", socketpair(my $a, my $b, AF_UNIX, $type, 0));
  allowed("write", syswrite $a, 'x'); allowed("read", sysread $b, my $x, 1);
  for my $to (pack_sockaddr_un('{at}'), pack_sockaddr_un('{log}'), pack('Sa*', 1, "\0{name}")) {{
    denied("connect", connect $a, $to); denied("bind", bind $a, $to); eval {{ send $a, 'x', 0, $to }} }} }}
"#,
        at = at.display(),
        log = place.path().join("log").display(),
    ));
    assert!(datagrams.recv(&mut [0]).is_err(), "a datagram got out");
    let bash = format!(
        "(: </dev/tcp/127.0.0.1/{}) 2>/dev/null && echo ALLOWED",
        tcp.local_addr().expect("bound").port()
    );
    world.withstands(&bash);
}

#[test]
fn neighbours_are_out_of_reach() {
    let world = World::new();
    // A process of the command's own user, which stands for the worker.
    let mut command = std::process::Command::new("sleep");
    command.arg("1000").stdout(std::process::Stdio::null());
    if nix::unistd::Uid::effective().is_root() {
        use std::os::unix::process::CommandExt;
        command.uid(65_534).gid(65_534);
    }
    let mut neighbour = Child(command.spawn().expect("sleep"));
    let pid = neighbour.0.id();
    world.withstands_perl(&format!(
        r#"
my $self = $$; my $parent = getppid;
for my $pid ({pid}, {tests}, 1) {{
  denied("kill $pid", kill('KILL', $pid)); denied("stop $pid", kill('STOP', $pid)); denied("ask $pid", kill(0, $pid));
  denied("tgkill", call({tgkill}, $pid, $pid, 9)); denied("tkill", call({tkill}, $pid, 9));
  denied("queue", call({sigqueue}, $pid, 9, my $i = "\0" x 128));
  denied("pidfd", do {{ my $fd = call({pidfd_open}, $pid, 0); $fd && call({pidfd_send_signal}, $fd, 9, 0, 0) }});
  denied("prlimit", call({prlimit}, $pid, 0, my $l = pack('Q2', 0, 0), 0)); denied("ask a limit", call({prlimit}, $pid, 0, 0, my $o = "\0" x 16));
  denied("renice", setpriority(0, $pid, 19)); denied("affinity", call({affinity}, $pid, 8, my $m = pack('Q', 1)));
  denied("scheduler", call({scheduler}, $pid, 3, my $p = pack('L', 0))); denied("ioprio", call({ioprio}, 1, $pid, 3 << 13));
  denied("ptrace", call({ptrace}, 16, $pid, 0, 0)); denied("memory", opens('+<', "/proc/$pid/mem"));
  for my $name ('exe', 'cwd', 'root', 'fd/0') {{ denied("link $name", readlink "/proc/$pid/$name") }}
  for my $name ('cmdline', 'environ', 'status', 'fd/0') {{ denied("file $name", opens('<', "/proc/$pid/$name")) }} }}
denied("everybody of the user", setpriority(2, 0, 19)); denied("queue", call({msgget}, 0, 01777)); denied("memory", call({shmget}, 0, 4096, 01777));
denied("attach", call({shmat}, 0, 0, 010000)); denied("semaphore", call({semget}, 0, 1, 01777));
denied("posix queue", call({mq_open}, my $q = "x\0", 0102, 0600, 0));
allowed("myself", kill(0, $self)); allowed("my own limit", call({prlimit}, 0, 7, 0, my $own = "\0" x 16)); allowed("nice", setpriority(0, 0, 10));
my $child = fork; if (!$child) {{ sleep 1000 }} allowed("my child", kill('KILL', $child)); waitpid $child, 0;
"#,
        tests = std::process::id(),
        tgkill = libc::SYS_tgkill,
        tkill = libc::SYS_tkill,
        sigqueue = libc::SYS_rt_sigqueueinfo,
        pidfd_open = libc::SYS_pidfd_open,
        pidfd_send_signal = libc::SYS_pidfd_send_signal,
        prlimit = libc::SYS_prlimit64,
        affinity = libc::SYS_sched_setaffinity,
        scheduler = libc::SYS_sched_setscheduler,
        ioprio = libc::SYS_ioprio_set,
        ptrace = libc::SYS_ptrace,
        msgget = libc::SYS_msgget,
        shmget = libc::SYS_shmget,
        shmat = libc::SYS_shmat,
        semget = libc::SYS_semget,
        mq_open = libc::SYS_mq_open,
    ));
    for launcher in &world.launchers {
        let text = Session::new()
            .run_by(launcher, "kill -9 -1; kill -STOP -1; echo here")
            .text();
        assert_eq!(text, "here\n", "everybody else of the command has gone");
    }
    let neighbour = &mut neighbour.0;
    assert!(
        neighbour.try_wait().expect("our child").is_none(),
        "it lives"
    );
}

/// Ends with the test.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Processes on this host whose command line has this word.
fn marked(mark: &str) -> usize {
    let all = fs::read_dir("/proc").expect("a process list").flatten();
    let lines = all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines
        .filter(|line| String::from_utf8_lossy(line).contains(mark))
        .count()
}

#[test]
fn every_process_ends_with_the_command() {
    let world = World::new();
    for (number, launcher) in world.launchers.iter().enumerate() {
        let mark = format!("987{}.{number}", std::process::id());
        let leave = format!(
            "sleep {mark} & (setsid sleep {mark} & disown) & (trap '' TERM HUP; setsid nohup sleep {mark} >/dev/null 2>&1 &)
             perl -e 'for (1..20) {{ fork or last }} exec \"sleep\", \"{mark}\"' >/dev/null 2>&1 & echo left"
        );
        let ran = Session::new().run_by(launcher, &leave);
        assert_eq!((ran.text().as_str(), ran.code()), ("left\n", Some(0)));
        assert_eq!(marked(&mark), 0, "at its own end");

        let mut s = Session::new();
        let mut running = s.start_by(launcher, &format!("{leave}; sleep 1000"));
        while running.output().bytes.is_empty() {
            assert!(running.pump().expect("pump").is_none());
        }
        running.stop(Stop::Cancelled);
        assert_eq!(s.finish(running).outcome.report.ended, Ended::Stopped);
        assert_eq!(marked(&mark), 0, "at a stop");
        world.is_empty();

        let mut running = s.start_by(launcher, &format!("{leave}; sleep 1000"));
        while running.output().bytes.is_empty() {
            assert!(running.pump().expect("pump").is_none());
        }
        drop(running);
        let began = Instant::now();
        while marked(&mark) > 0 || fs::read_dir(world.folder.path()).expect("ours").count() > 0 {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "when its caller lets go"
            );
            std::thread::yield_now();
        }
    }
}

#[test]
fn bombs_are_limited() {
    let (world, mut s) = (World::new(), Session::new());
    s.limits.wall = Duration::from_secs(2);
    // Counted over all of the user's, so this must leave the other tests enough.
    s.limits.processes = 120;
    let ran = world.run(&mut s, "b() { b | b & }; b 2>/dev/null; sleep 1000");
    assert_eq!(ran.outcome.report.ended, Ended::TimedOut);
    let mut s = Session::new();
    s.limits.memory_bytes = 64 << 20;
    s.limits.cpu_seconds = 1;
    for (command, expected) in [
        ("perl -e '$x = \"a\" x 2e9'", Exceeded::Memory(64 << 20)),
        (
            "for i in 1 2 3 4; do perl -e '$x = \"a\" x 3e7; sleep 1000' & done; wait",
            Exceeded::Memory(64 << 20),
        ),
        (
            "while :; do :; done & while :; do :; done",
            Exceeded::Cpu(1),
        ),
    ] {
        let ran = world.run(&mut s, command);
        let exceeded = ran.outcome.exceeded(&s.limits, &ran.output);
        assert_eq!(
            exceeded,
            Some(expected),
            "{command}: {:?} {}",
            ran.outcome.report,
            ran.text()
        );
    }
    world.is_empty();
}

#[test]
fn set_uid_programs_gain_nothing() {
    World::new().withstands(
        "id -u | grep -qx 0 && echo ALLOWED
         su -c true 2>/dev/null && echo ALLOWED; sudo -n true 2>/dev/null && echo ALLOWED
         perl -e '$) = 0; $> = 0; print \"ALLOWED\\n\" if $> == 0; exit if $> == 0; syscall($_, 0, 0, 0) == 0 and print \"ALLOWED $_\\n\" for 105, 117'",
    );
}

#[test]
fn without_a_folder_nothing_runs() {
    let launcher = Launcher::at(Level::Basic, path(), Path::new("/proc")).expect("a launcher");
    let ran = Session::new().run_by(&launcher, "echo ran");
    let Ended::Refused(step, why) = ran.outcome.report.ended else {
        panic!("{:?}", ran.outcome.report);
    };
    assert_eq!(step, confine::Step::Folder);
    assert!(why.contains("/proc"), "{why}");
}
