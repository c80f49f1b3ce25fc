//! Control groups: made, joined, limited where the kernel can, and never left behind.
//!
//! They need a folder of cgroup v2 to make groups in: as root any will do, else `PG_SHELL_TEST_CGROUP` names
//! one that is delegated, with the tests in a group below or beside it. Where there is none, or a controller is
//! missing, a test says so and passes.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::host::open_folder;
use common::{Faulty, Session, path};
use confine::cgroup::{CONTROLLERS, Cgroup, Setting};
use confine::{Ended, Exceeded, Launcher, Level, Step};

/// A user that owns nothing.
const NOBODY: u32 = 65_534;

/// A delegated folder, removed at the end of the test, which must have left nothing in it.
struct Delegated(PathBuf);

impl Delegated {
    fn new() -> Option<Delegated> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let Some(parent) = parent() else {
            println!("skipped: no cgroup v2 folder to make groups in");
            return None;
        };
        for controller in CONTROLLERS {
            let _ = fs::write(
                parent.join("cgroup.subtree_control"),
                format!("+{controller}"),
            );
        }
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!("tests-{}-{next}", std::process::id()));
        fs::create_dir(&folder).expect("a group of the test's own");
        Some(Delegated(folder))
    }

    fn open(&self) -> Cgroup {
        let setting = Setting::At(self.0.clone());
        let cgroup = Cgroup::of(&setting, false).expect("a usable folder");
        cgroup.expect("one that is named")
    }

    fn serving(&self) -> Launcher {
        Launcher::serving(path()).within(Some(self.open()))
    }

    /// The groups below, at any depth.
    fn groups(&self) -> Vec<PathBuf> {
        below(&self.0)
    }

    fn is_empty(&self) -> bool {
        self.groups().is_empty()
    }

    /// Whether this controller is here; says that the test is skipped where it is not.
    fn has(&self, controller: &str) -> bool {
        let has = self.open().controllers().contains(&controller);
        if !has {
            println!(
                "skipped: no {controller} controller in {}",
                self.0.display()
            );
        }
        has
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = fs::write(self.0.join("cgroup.kill"), "1");
            std::thread::sleep(Duration::from_millis(200));
            for group in self.groups() {
                let _ = fs::remove_dir(group);
            }
        }
        let removed = fs::remove_dir(&self.0);
        assert!(std::thread::panicking() || removed.is_ok(), "{removed:?}");
    }
}

/// The deepest first.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            all.extend(below(&entry.path()));
            all.push(entry.path());
        }
    }
    all
}

fn parent() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("PG_SHELL_TEST_CGROUP") {
        return Some(named.into());
    }
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        (fields.next()? == "cgroup2").then_some(path)
    })?;
    nix::unistd::Uid::effective()
        .is_root()
        .then(|| mount.into())
}

fn session(key: u128) -> Session {
    Session {
        key: Some(key),
        ..Session::new()
    }
}

/// The command's group and PID 1's, as a command sees them.
fn group(launcher: &Launcher, session: &mut Session) -> String {
    let seen = session.run_by(
        launcher,
        "grep ^0:: /proc/$$/cgroup; grep ^0:: /proc/1/cgroup",
    );
    let text = seen.text();
    let (own, init) = text.trim().split_once('\n').expect("two lines");
    assert_eq!(own, init, "PID 1 is in it too");
    own.to_owned()
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn each_pid_1_has_a_group_and_keeps_it() {
    let Some(delegated) = Delegated::new() else {
        return;
    };
    let launcher = delegated.serving();
    let (mut one, mut other, mut nobodys) = (session(1), session(2), Session::new());
    let first = group(&launcher, &mut one);
    assert!(first.contains("/pg_shell-"), "{first}");
    assert_eq!(first, group(&launcher, &mut one));
    one.limits.memory_bytes = 1 << 27;
    one.limits.processes = 50;
    assert_eq!(first, group(&launcher, &mut one), "with other limits");
    let mut seen = BTreeSet::from([first]);
    assert!(seen.insert(group(&launcher, &mut other)));
    for _ in 0..3 {
        assert!(seen.insert(group(&launcher, &mut nobodys)));
    }
    drop(launcher);
    assert!(delegated.is_empty(), "{:?}", delegated.groups());

    let spawning = Launcher::spawning(path()).within(Some(delegated.open()));
    let spawned = group(&spawning, &mut nobodys);
    assert!(spawned.contains("/pg_shell-"), "{spawned}");
    assert_ne!(spawned, group(&spawning, &mut nobodys));
    drop(spawning);
    assert!(delegated.is_empty(), "{:?}", delegated.groups());
}

#[test]
fn the_level_basic_has_groups_too() {
    let Some(delegated) = Delegated::new() else {
        return;
    };
    let folder = open_folder();
    let launcher = Launcher::at(Level::Basic, path(), folder.path())
        .expect("a launcher")
        .within(Some(delegated.open()));
    let running = Session::new().start_printing(&launcher, "echo on; sleep 100");
    let in_groups = || -> usize {
        let lists = delegated
            .groups()
            .into_iter()
            .map(|g| g.join("cgroup.procs"));
        lists
            .map(|l| fs::read_to_string(l).unwrap().lines().count())
            .sum()
    };
    // The guard, the shell, and what it runs.
    eventually("all of it is in one", || in_groups() == 3);
    drop(running);
    drop(launcher);
    assert!(delegated.is_empty(), "{:?}", delegated.groups());
}

#[test]
fn many_launches_leave_no_folder() {
    let Some(delegated) = Delegated::new() else {
        return;
    };
    let launcher = delegated.serving();
    let mut most = 0;
    for n in 0..500 {
        // Some are kept, some are not, and some leave what they may not.
        let mut session = if n % 3 == 0 {
            session(n / 30)
        } else {
            Session::new()
        };
        let command = if n % 7 == 0 {
            "echo x >/tmp/x; sleep 1000 & exit 1"
        } else {
            "true"
        };
        session.run_by(&launcher, command);
        most = most.max(delegated.groups().len());
    }
    assert!(most < 50, "{most} at a time");
    launcher.end_kept(Duration::ZERO);
    eventually("all but the caller's own and the next one's", || {
        launcher.end_kept(Duration::ZERO);
        delegated.groups().len() == 2
    });
    drop(launcher);
    assert!(delegated.is_empty(), "{:?}", delegated.groups());
}

#[test]
fn a_command_can_neither_see_nor_leave_its_group() {
    let Some(delegated) = Delegated::new() else {
        return;
    };
    let serving = delegated.serving();
    let spawning = Launcher::spawning(path()).within(Some(delegated.open()));
    for launcher in [&serving, &spawning] {
        let mut session = Session::new();
        let ran = session.run_by(
            launcher,
            "before=$(cat /proc/self/cgroup)
            ls -d /sys /sys/fs/cgroup
            find / -xdev -name 'cgroup.*' 2>/dev/null
            find /proc/*/fd -type l -printf '%l\n' 2>/dev/null | grep -i cgroup
            mkdir /tmp/c; mount -t cgroup2 none /tmp/c; unshare -UCm true; unshare -C true
            for file in /proc/self/cgroup /proc/1/cgroup; do echo 0 >$file; done
            for fd in /proc/$$/fd/* /proc/1/fd/*; do echo 0 >$fd/../cgroup.procs; done
            ls /tmp/c
            [[ $(cat /proc/self/cgroup) == \"$before\" && $(bash -c 'cat /proc/self/cgroup') == \"$before\" ]] && echo stayed",
        );
        let output = String::from_utf8_lossy(&ran.output.of(confine::Stream::Stdout)).into_owned();
        assert_eq!(output, "stayed\n", "{}", ran.text());
        let open = session.run_by(launcher, "ls /proc/self/fd | tr '\\n' ' '");
        assert_eq!(open.text(), "0 1 2 250 3 ", "as without a group");
    }
}

#[test]
fn whatever_runs_ends_with_its_caller() {
    let Some(delegated) = Delegated::new() else {
        return;
    };
    let launcher = delegated.serving();
    let endless = "trap '' TERM; echo on; while :; do sleep 100; done";
    let start = || {
        let mut running = Session::new().start_by(&launcher, endless);
        while running.output().bytes.is_empty() {
            assert!(running.pump().expect("pump").is_none());
        }
        running
    };
    let mut killed = start();
    killed.kill();
    let ended = Session::new().finish(killed).outcome.report.ended;
    assert_eq!(ended, Ended::LauncherDied);
    drop(start());
    let running = start();
    launcher.kill_server();
    drop((launcher, running));
    assert!(delegated.is_empty(), "{:?}", delegated.groups());
}

#[test]
fn what_a_dead_caller_left_is_removed_and_what_a_living_one_has_is_not() {
    let Some(delegated) = Delegated::new() else {
        return;
    };
    let living = delegated.serving();
    let mut session = session(1);
    let before = group(&living, &mut session);
    let dead = delegated.0.join("pg_shell-1-0000000000000000");
    fs::create_dir_all(dead.join("1")).unwrap();
    fs::create_dir_all(dead.join("2")).unwrap();
    let others = delegated.0.join("somebody-else");
    fs::create_dir(&others).unwrap();
    let mut left = inside(&dead.join("1"), Command::new("sleep").arg("1000"));
    let next = delegated.serving();
    // It is this process that has to collect it.
    left.wait().expect("it was killed");
    eventually("what was dead is gone", || {
        drop(delegated.serving());
        !dead.exists()
    });
    assert_eq!(before, group(&living, &mut session), "lives on");
    assert!(others.exists());
    drop((living, next));
    fs::remove_dir(others).unwrap();
    assert!(delegated.is_empty(), "{:?}", delegated.groups());
}

#[test]
fn a_folder_that_is_gone_refuses_commands() {
    let Some(delegated) = Delegated::new() else {
        return;
    };
    let launcher = delegated.serving();
    for group in delegated.groups() {
        fs::remove_dir(group).expect("nothing runs yet");
    }
    let start = confine::shell::Start {
        command: "true",
        cwd: confine::HOME,
        env: &Default::default(),
        shell_state: "",
        programs: None,
    };
    let spec = confine::shell::Shell::Bash
        .prepare(&start, confine::Limits::default())
        .unwrap();
    let refused = match confine::Running::start(&launcher, None, &spec) {
        Err(e) => e.to_string(),
        Ok(_) => panic!("it ran without its group"),
    };
    assert!(
        refused.contains(&*delegated.0.to_string_lossy()),
        "{refused}"
    );
    drop(launcher);
}

/// The steps in which groups have a part, each at every point where it can fail.
#[test]
fn what_fails_refuses_the_command_and_leaves_no_group() {
    let Some(delegated) = Delegated::new() else {
        return;
    };
    let faulty = Faulty::new();
    let ways: [fn(PathBuf) -> Launcher; 2] = [Launcher::serving, Launcher::spawning];
    for way in ways {
        for step in [
            Step::Namespaces,
            Step::Init,
            Step::Cgroup,
            Step::Descriptors,
        ] {
            for passed in 0.. {
                let what = format!("{step:?}.{passed}");
                faulty.fail(&format!("fail={what}"));
                let launcher = way(faulty.path()).within(Some(delegated.open()));
                let mut session = session(1);
                let ended = session.run_by(&launcher, "true").outcome.report.ended;
                faulty.mend();
                launcher.kill_server();
                group(&launcher, &mut session);
                drop(launcher);
                assert!(delegated.is_empty(), "{what}: {:?}", delegated.groups());
                if ended == Ended::Exited(0) {
                    assert!(passed > 0, "{step:?} never fails");
                    break;
                }
                let refused = Ended::Refused(step, "a test wants it".into());
                assert_eq!(ended, refused, "{what}");
            }
        }
    }
}

/// Starts a command as a process of this group.
fn inside(group: &Path, command: &mut Command) -> Child {
    let procs = fs::OpenOptions::new()
        .write(true)
        .open(group.join("cgroup.procs"))
        .expect("a group");
    // SAFETY: one system call on a descriptor that is open.
    unsafe {
        command.pre_exec(move || (&procs).write_all(b"0"));
    }
    command.spawn().expect("it starts")
}

/// This program and the helper, where any user may run them.
fn programs() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let library = path().with_file_name("libpg_shell_bash.so");
    let tests = std::env::current_exe().unwrap();
    for (from, name) in [
        (path(), "pg-shell-launch"),
        (library, "libpg_shell_bash.so"),
        (tests, "tests"),
    ] {
        fs::copy(from, place.path().join(name)).unwrap();
    }
    place
}

/// What [`an_ordinary_user_needs_no_more_than_the_folder`] runs as that user, in a process of its own; by
/// itself it does nothing.
#[test]
fn as_another_user() {
    let Some(folder) = std::env::var_os("PG_SHELL_TEST_FOLDER") else {
        return;
    };
    let helper = std::env::current_exe().unwrap();
    let helper = helper.with_file_name("pg-shell-launch");
    let cgroup = Cgroup::of(&Setting::At(folder.into()), true)
        .and_then(|cgroup| {
            cgroup
                .as_ref()
                .map_or(Ok(()), Cgroup::probe)
                .map(|()| cgroup)
        })
        .unwrap_or_else(|e| panic!("{e}"));
    for launcher in [
        Launcher::serving(helper.clone()),
        Launcher::spawning(helper),
    ] {
        let launcher = launcher.within(cgroup.clone());
        for mut session in [Session::new(), session(1), session(1)] {
            assert!(group(&launcher, &mut session).contains("/pg_shell-"));
        }
    }
}

#[test]
fn an_ordinary_user_needs_no_more_than_the_folder() {
    let Some(delegated) = Delegated::new() else {
        return;
    };
    if !nix::unistd::Uid::effective().is_root() {
        println!("skipped: only root can delegate a folder to another user");
        return;
    }
    for file in ["", "cgroup.procs", "cgroup.subtree_control"] {
        chown(delegated.0.join(file), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let programs = programs();
    let run = |group: Option<&Path>| {
        let mut command = Command::new(programs.path().join("tests"));
        command
            .args(["--exact", "as_another_user", "--nocapture"])
            .env("PG_SHELL_TEST_FOLDER", &delegated.0)
            .env("RUST_BACKTRACE", "0")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .current_dir("/")
            .uid(NOBODY)
            .gid(NOBODY);
        let child = match group {
            Some(group) => inside(group, &mut command),
            None => command.spawn().expect("it starts"),
        };
        let output = child.wait_with_output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.success(), log)
    };
    let leaf = delegated.0.join("worker");
    let (succeeded, log) = run(Some(&delegated.0));
    assert!(succeeded, "started in it, it moves to a leaf: {log}");
    assert_eq!(delegated.groups(), std::slice::from_ref(&leaf));
    let (succeeded, log) = run(Some(&leaf));
    assert!(succeeded, "started in a leaf, it stays: {log}");
    let (succeeded, log) = run(None);
    assert!(!succeeded, "from outside it can move nothing into it");
    assert!(log.contains("must be started in a group below"), "{log}");
    assert_eq!(delegated.groups(), std::slice::from_ref(&leaf));
    fs::remove_dir(leaf).unwrap();
}

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
