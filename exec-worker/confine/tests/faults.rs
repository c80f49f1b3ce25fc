//! A fault at every point of every step, in each way to launch: the command is refused, and nothing is left.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use common::{Faulty, Session, path};
use confine::shell::Shell;
use confine::{Ended, Launcher, Level, Step};
use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What a launch can leave behind, as this process sees it.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    descriptors: usize,
    mounts: String,
    cgroups: BTreeSet<PathBuf>,
}

fn left() -> Left {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let folder = Path::new("/sys/fs/cgroup").join(own.unwrap_or_default());
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    Left {
        descriptors: descriptors(),
        mounts: std::fs::read_to_string("/proc/self/mountinfo").unwrap(),
        cgroups: entries.map(|e| e.path()).filter(|p| p.is_dir()).collect(),
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Makes this process the parent of all that its descendants leave behind, and keeps other tests out.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    alone
}

/// Waits until no descendant is left; none that is not ending may be.
#[track_caller]
fn no_process_is_left(what: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::ECHILD) => return,
            Ok(WaitStatus::StillAlive) => {
                assert!(Instant::now() < deadline, "{what}: a process is left");
                std::thread::sleep(Duration::from_millis(1));
            }
            _ => {}
        }
    }
}

type Way = fn(PathBuf) -> Launcher;

/// How often the step fails before the command runs: once for each of its points.
fn points(step: Step, way: Way, shell: Shell, programs: Option<&str>) -> usize {
    let faulty = Faulty::new();
    let before = left();
    for passed in 0.. {
        let what = format!("{step:?}.{passed}");
        faulty.fail(&format!("fail={what}"));
        let launcher = way(faulty.path());
        let mut session = Session {
            key: Some(1),
            shell,
            programs: programs.map(|p| vec![p.to_owned()]),
            ..Session::new()
        };
        // Mounted with a size of its own, which is a point more.
        session.limits.disk_bytes = 1 << 20;
        let ran = session.run_by(&launcher, "echo ran");
        let ended = ran.outcome.report.ended.clone();
        let refused = ended == Ended::Refused(step, "a test wants it".into());
        if refused {
            assert_eq!(ran.text(), "", "{what}");
            assert!(!ran.outcome.report.kept, "{what}");
            // The server's socket is all that may be open.
            assert!(descriptors() <= before.descriptors + 1, "{what}");
            faulty.mend();
            launcher.kill_server();
            assert_eq!(session.run_by(&launcher, "echo ran").text(), "ran\n");
        } else {
            assert_eq!(ended, Ended::Exited(0), "{what}");
            // For the next one there may be a point more; what runs is left alone by that.
            let next = Session::new()
                .run_by(&launcher, "true")
                .outcome
                .report
                .ended;
            assert!(
                matches!(next, Ended::Exited(0) | Ended::Refused(..)),
                "{what}: {next:?}"
            );
        }
        drop(launcher);
        no_process_is_left(&what);
        assert_eq!(left(), before, "{what}");
        if !refused {
            return passed;
        }
    }
    unreachable!("no step has endless points")
}

/// Steps of the level basic, and those that it does not take.
const BASIC_ALONE: [Step; 1] = [Step::Folder];
const STRICT_ALONE: [Step; 7] = [
    Step::Namespaces,
    Step::IdMap,
    Step::Network,
    Step::Root,
    Step::Hostname,
    Step::Programs,
    Step::Home,
];

fn every_step_is_refused(way: Way, shell: Shell) {
    let _alone = alone();
    for step in Step::all().filter(|step| !BASIC_ALONE.contains(step)) {
        let points = points(step, way, shell, None);
        println!("{step:?}: {points} points");
        assert!(points > 0, "{step:?} never fails: it has no point");
    }
}

#[test]
fn at_the_level_basic() {
    let _alone = alone();
    let basic: Way = |path| Launcher::at(Level::Basic, path, Path::new("/tmp")).unwrap();
    let folders = || {
        let all = std::fs::read_dir("/tmp").unwrap().flatten();
        let names = all.map(|e| e.file_name().into_string().unwrap_or_default());
        names.filter(|n| n.starts_with("pg_shell-")).count()
    };
    // What a process opens once, at its first launch, is left by none.
    Session::new().run_by(&basic(path()), "true");
    let before = folders();
    for step in Step::all().filter(|step| !STRICT_ALONE.contains(step)) {
        let points = points(step, basic, Shell::Bash, None);
        println!("{step:?}: {points} points");
        assert!(points > 0, "{step:?} never fails: it has no point");
    }
    assert_eq!(folders(), before, "private folders are left");
}

#[test]
fn in_a_server_whose_bash_waits() {
    every_step_is_refused(Launcher::serving, Shell::Bash);
}

#[test]
fn in_a_server_that_executes_a_shell() {
    every_step_is_refused(Launcher::serving, Shell::Sh);
}

#[test]
fn in_a_helper_of_its_own() {
    every_step_is_refused(Launcher::spawning, Shell::Bash);
}

/// Its steps have more points then.
#[test]
fn with_a_list_of_programs() {
    let _alone = alone();
    for step in [
        Step::Programs,
        Step::Root,
        Step::Landlock,
        Step::Seccomp,
        Step::Descriptors,
    ] {
        let free = points(step, Launcher::spawning, Shell::Bash, None);
        let listed = points(step, Launcher::spawning, Shell::Bash, Some("/usr/bin/true"));
        println!("{step:?}: {listed} points, {free} without a list");
        assert!(listed > free, "{step:?}");
    }
}

#[test]
fn every_step_has_a_name_and_a_hint() {
    let steps: Vec<Step> = Step::all().collect();
    assert_eq!(steps.first(), Some(&Step::Spec));
    assert!(steps.contains(&Step::Exec));
    let names: BTreeSet<String> = steps.iter().map(ToString::to_string).collect();
    assert_eq!(names.len(), steps.len());
    assert!(steps.iter().all(|s| s.hint().ends_with('.')));
}

#[test]
fn an_unknown_fault_is_refused() {
    let _alone = alone();
    let faulty = Faulty::new();
    for fault in ["fail=Nonesuch", "fail=Root.x", "fail="] {
        faulty.fail(fault);
        for way in [Launcher::serving as Way, Launcher::spawning] {
            let ended = Session::new().run_by(&way(faulty.path()), "true");
            let Ended::Refused(Step::Spec, why) = ended.outcome.report.ended else {
                panic!("{fault}: {:?}", ended.outcome.report);
            };
            assert!(why.contains("no such fault"), "{why}");
        }
    }
}

#[test]
fn many_launches_hear_what_their_server_died_of() {
    let _alone = alone();
    let faulty = Faulty::new();
    faulty.fail("fail=Root");
    let launcher = Launcher::serving(faulty.path());
    let mut session = Session::new();
    let started: Vec<_> = (0..20)
        .map(|_| session.start_by(&launcher, "true"))
        .collect();
    for running in started {
        let report = session.finish(running).outcome.report;
        assert!(
            matches!(report.ended, Ended::Refused(Step::Root, _)),
            "{report:?}"
        );
    }
    drop(launcher);
    no_process_is_left("many");
}

#[test]
fn a_command_that_ran_is_not_called_refused() {
    let _alone = alone();
    let launcher = Launcher::serving(path());
    let mut session = Session::new();
    let running = session.start_printing(&launcher, "echo began; sleep 1000");
    launcher.kill_server();
    assert_eq!(
        session.finish(running).outcome.report.ended,
        Ended::LauncherDied
    );
    drop(launcher);
    no_process_is_left("killed");
}

#[test]
fn what_is_not_the_launcher_is_said() {
    let _alone = alone();
    let before = left();
    for (program, code) in [("/bin/true", 0), ("/bin/false", 1)] {
        for way in [Launcher::serving as Way, Launcher::spawning] {
            for _ in 0..20 {
                let launcher = way(program.into());
                let ran = Session::new().run_by(&launcher, "true");
                let Ended::NoLauncher(why) = ran.outcome.report.ended else {
                    panic!("{program}: {:?}", ran.outcome.report);
                };
                let said = format!("the launcher {program} exited with code {code} ");
                assert!(why.starts_with(&said), "{why}");
            }
        }
    }
    no_process_is_left("none of them the launcher");
    assert_eq!(left(), before);
}

/// A helper that was killed from outside is not one that refused.
#[test]
fn a_helper_that_was_killed_is_said() {
    let _alone = alone();
    let mut session = Session::new();
    for victim in ["parent", "PID 1"] {
        let launcher = Launcher::spawning(path());
        let running = session.start_printing(&launcher, "echo began; sleep 1000");
        let mut pid = child_of(Pid::this());
        if victim == "PID 1" {
            pid = child_of(pid);
        }
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        let ended = session.finish(running).outcome.report.ended;
        assert_eq!(ended, Ended::LauncherDied, "{victim}");
        no_process_is_left(victim);
    }
}

fn child_of(parent: Pid) -> Pid {
    let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).unwrap();
    let children: String = tasks
        .map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).unwrap())
        .collect();
    Pid::from_raw(children.trim().parse().expect("one child"))
}
