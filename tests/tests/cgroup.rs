//! Control groups of a worker: where a folder is delegated to it, and where it is not.
//!
//! What groups limit is tested beside the launcher; here they are made, joined and removed.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use pg_shell_tests::{is_root, shared, worker_user};

/// A folder of cgroup v2 that belongs to the worker's user, removed in the end.
struct Delegated(PathBuf);

impl Delegated {
    fn new() -> Option<Delegated> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
        let mount = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let path = fields.next()?;
            (fields.next()? == "cgroup2").then_some(path)
        });
        let Some(mount) = mount.filter(|_| is_root()) else {
            println!("skipped: only root can delegate a folder, and only of cgroup v2");
            return None;
        };
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = Path::new(mount).join(format!("worker-tests-{}-{next}", std::process::id()));
        fs::create_dir(&folder).expect("a group of the test's own");
        let delegated = Delegated(folder);
        let user = nix::unistd::User::from_name(&worker_user()).ok().flatten();
        let user = user.expect("the worker's user");
        for file in ["", "cgroup.procs", "cgroup.subtree_control"] {
            let owner = (Some(user.uid.as_raw()), Some(user.gid.as_raw()));
            chown(delegated.0.join(file), owner.0, owner.1).expect("chown as root");
        }
        Some(delegated)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a plain path")
    }

    /// The names of the groups in it.
    fn groups(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("the folder").flatten();
        entries
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect()
    }
}

impl Drop for Delegated {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.0.join("worker"));
        let removed = fs::remove_dir(&self.0);
        assert!(std::thread::panicking() || removed.is_ok(), "{removed:?}");
    }
}

#[test]
fn commands_run_in_groups_which_go_with_the_worker_or_with_the_next() {
    let Some(delegated) = Delegated::new() else {
        return;
    };
    let db = shared::cluster().db();
    let user = db.user("grouped");
    let own = format!("/{}/pg_shell-", delegated.0.file_name().unwrap().display());
    let flags = ["--cgroup", delegated.path()];
    let in_a_group = || {
        let ran = db.finish(user, "cat /proc/self/cgroup /proc/1/cgroup");
        assert_eq!(ran.text().matches(&own).count(), 2, "{}", ran.text());
    };

    let worker = shared::cluster().worker_in(&delegated.0, &flags);
    in_a_group();
    db.finish(user, "echo x >/tmp/x; sleep 1000 & exit 1");
    in_a_group();
    let before = delegated.groups();
    assert_eq!(before.len(), 2, "a leaf and the worker's own: {before:?}");
    worker.kill();

    let worker = shared::cluster().worker_in(&delegated.0.join("worker"), &flags);
    let after = delegated.groups();
    assert_eq!(after.len(), 2, "{after:?}");
    assert_ne!(before, after, "what the dead one left is gone");
    in_a_group();
    worker.terminate();
    assert!(worker.wait().success());
    assert_eq!(delegated.groups(), ["worker"]);
}

#[test]
fn a_folder_that_cannot_be_used_stops_the_start() {
    let refused = |folder: &str, why: &str| {
        let worker = shared::cluster().starting_worker(&["--cgroup", folder]);
        let log = worker.refusal();
        assert!(log.contains(why), "{folder}: {log}");
    };
    refused("/tmp", "it is no cgroup v2 folder");
    refused("/nonesuch", "No such file or directory");
    refused("here", "an absolute path");
    if let Some(delegated) = Delegated::new() {
        refused(delegated.path(), "must be started in a group below");
        assert!(delegated.groups().is_empty());
    }
}

#[test]
fn run_command_obeys_its_setting() {
    let db = shared::cluster().db();
    let run = "select (shell.run_command('/tmp', '{}', 'echo ran')).output";
    for wrong in ["/tmp", "here"] {
        db.run(&format!("set pg_shell.cgroup = '{wrong}'"));
        let refusal = db.refused(run, &[]);
        assert_eq!(refusal.code, "PS010", "{wrong}");
        assert!(refusal.message.contains("group"), "{}", refusal.message);
    }
    for right in ["off", "auto", ""] {
        db.run(&format!("set pg_shell.cgroup = '{right}'"));
        assert_eq!(db.one::<String>(run, &[]), "ran\n");
    }
    db.run(
        "create role no_superuser; grant usage on schema shell to no_superuser; set role no_superuser",
    );
    assert_eq!(db.refused("set pg_shell.cgroup = 'off'", &[]).code, "42501");
    db.run("reset role; drop owned by no_superuser; drop role no_superuser");
}
