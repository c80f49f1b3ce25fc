//! Control groups: made, joined, limited where the kernel can, and never left behind.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use common::delegated::{Delegated, group, inside, session};
use common::host::open_folder;
use common::{Faulty, Session, path};
use confine::{Ended, Launcher, Level, Step};

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
        layers: None,
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
