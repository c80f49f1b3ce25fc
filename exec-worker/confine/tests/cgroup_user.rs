//! Control groups of an ordinary user, to whom a folder is delegated.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::delegated::{Delegated, group, inside, session};
use common::{Session, path};
use confine::Launcher;
use confine::cgroup::{Cgroup, Setting};

/// A user that owns nothing.
const NOBODY: u32 = 65_534;

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
