//! A folder of cgroup v2 to make groups in: as root any will do, else `PG_SHELL_TEST_CGROUP` names one that is
//! delegated, with the tests in a group below or beside it. Where there is none, or a controller is missing, a
//! test says so and passes.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{Session, path};
use confine::Launcher;
use confine::cgroup::{CONTROLLERS, Cgroup, Setting};

/// A delegated folder, removed at the end of the test, which must have left nothing in it.
pub struct Delegated(pub PathBuf);

impl Delegated {
    pub fn new() -> Option<Delegated> {
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

    pub fn open(&self) -> Cgroup {
        let setting = Setting::At(self.0.clone());
        let cgroup = Cgroup::of(&setting, false).expect("a usable folder");
        cgroup.expect("one that is named")
    }

    pub fn serving(&self) -> Launcher {
        Launcher::serving(path()).within(Some(self.open()))
    }

    /// The groups below, at any depth.
    pub fn groups(&self) -> Vec<PathBuf> {
        below(&self.0)
    }

    pub fn is_empty(&self) -> bool {
        self.groups().is_empty()
    }

    /// Whether this controller is here; says that the test is skipped where it is not.
    pub fn has(&self, controller: &str) -> bool {
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

/// One that is kept.
pub fn session(key: u128) -> Session {
    Session {
        key: Some(key),
        ..Session::new()
    }
}

/// The command's group and PID 1's, as a command sees them.
pub fn group(launcher: &Launcher, session: &mut Session) -> String {
    let seen = session.run_by(
        launcher,
        "grep ^0:: /proc/$$/cgroup; grep ^0:: /proc/1/cgroup",
    );
    let text = seen.text();
    let (own, init) = text.trim().split_once('\n').expect("two lines");
    assert_eq!(own, init, "PID 1 is in it too");
    own.to_owned()
}

/// Starts a command as a process of this group.
pub fn inside(group: &Path, command: &mut Command) -> Child {
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
