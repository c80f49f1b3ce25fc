//! Control groups (cgroup v2), where a folder is delegated: memory, processes and CPU of a command as a
//! whole, which resource limits only know a process at a time.
//!
//! ```text
//! PATH                      delegated: this user may make groups in it, and nothing runs in it directly
//! ├── worker                a worker that was started in PATH itself has moved here
//! └── pg_shell-PID-RANDOM   a caller's own, under a lock that ends with the caller
//!     └── N                 one a PID 1; it moves itself there, by a descriptor that it is given
//! ```
//!
//! Folders whose lock is free are a dead caller's, and are removed by whoever starts next.

mod find;
mod folder;
mod group;
mod owned;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::stat::fstat;

use self::folder::{is_cgroup2, make, open_below, open_folder, put, read};
pub use self::group::Events;
pub(crate) use self::group::Group;
use self::owned::Owned;
use crate::error::Error;
use crate::limits::Limits;

/// The controllers that are used, each where it is there.
pub const CONTROLLERS: [&str; 3] = [MEMORY, PIDS, CPU];
const MEMORY: &str = "memory";
const PIDS: &str = "pids";
const CPU: &str = "cpu";

/// How callers name their folders.
const PREFIX: &str = "pg_shell-";
/// Where a worker moves to.
const LEAF: &str = "worker";

/// What an administrator says about control groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Setting {
    /// Use what is delegated, if anything.
    #[default]
    Auto,
    /// Use none.
    Off,
    /// Use this folder, and run nothing where it cannot be used.
    At(PathBuf),
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Setting, String> {
        match text {
            "" | "auto" => Ok(Setting::Auto),
            "off" => Ok(Setting::Off),
            path if path.starts_with('/') => Ok(Setting::At(path.into())),
            other => Err(format!(
                "\"{other}\" is none of auto, off, and an absolute path of a cgroup v2 folder"
            )),
        }
    }
}

/// A folder in use.
#[derive(Clone)]
pub struct Cgroup {
    owned: Arc<Owned>,
    path: PathBuf,
    /// Named by an administrator: no command runs outside.
    required: bool,
}

impl Cgroup {
    /// What the setting says. A process that `may_move`, because nothing depends on the group that it is in,
    /// leaves a folder that is its own for a leaf of it: the kernel gives no controllers to the groups below
    /// one that has processes itself.
    ///
    /// # Errors
    /// [`Error::Cgroup`] where the folder is named and cannot be used.
    pub fn of(setting: &Setting, may_move: bool) -> Result<Option<Cgroup>, Error> {
        match setting {
            Setting::Off => Ok(None),
            Setting::Auto => Ok(Cgroup::detect(may_move).ok()),
            Setting::At(path) => {
                let opened = Cgroup::open(path, may_move, true);
                opened.map(Some).map_err(|problem| Error::Cgroup {
                    path: path.clone(),
                    problem,
                })
            }
        }
    }

    /// The folder that was delegated to this process, if one was.
    ///
    /// # Errors
    /// Why there is none: a sentence without its end.
    pub fn detect(may_move: bool) -> Result<Cgroup, String> {
        let this = [std::process::id()];
        let found = find::delegated(if may_move { &this } else { &[] })?;
        let cgroup = Cgroup::open(&found.path, may_move, false)?;
        if cgroup.controllers().is_empty() {
            let path = found.path.display();
            return Err(format!("{path} passes no controller on"));
        }
        Ok(cgroup)
    }

    /// The folder that would be found by a process which may move, were it in this one's place: so do
    /// `movers`, all that take part in asking. Nothing is changed by it.
    ///
    /// # Errors
    /// As of [`Cgroup::detect`].
    pub(crate) fn would_be_found(movers: &[u32]) -> Result<PathBuf, String> {
        find::delegated(movers).map(|found| found.path)
    }

    fn open(path: &Path, may_move: bool, required: bool) -> Result<Cgroup, String> {
        let folder = open_folder(path).map_err(|e| e.desc())?;
        if !is_cgroup2(&folder) {
            return Err("it is no cgroup v2 folder".into());
        }
        leave(&folder, path, may_move)?;
        pass_on(&folder);
        owned::remove_stale(&folder);
        let owned =
            Owned::new(folder).map_err(|e| format!("making a group in it: {}", e.desc()))?;
        Ok(Cgroup {
            owned: Arc::new(owned),
            path: path.to_owned(),
            required,
        })
    }

    /// The delegated folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Those of [`CONTROLLERS`] that hold; what another would limit only the resource limits do.
    pub fn controllers(&self) -> &[&'static str] {
        &self.owned.controllers
    }

    /// Those that are missing.
    pub fn missing(&self) -> Vec<&'static str> {
        let mut all = CONTROLLERS.to_vec();
        all.retain(|c| !self.controllers().contains(c));
        all
    }

    /// Tries whether a child of this process can be moved there.
    ///
    /// # Errors
    /// [`Error::Cgroup`] with what to change.
    pub fn probe(&self) -> Result<(), Error> {
        let tried = self
            .make()
            .and_then(|group| group.try_to_join())
            .map_err(|e| {
                let own = find::own().map_or("unknown".into(), |own| own.display().to_string());
                format!(
                    "a process cannot be moved into it: {}; this one, in {own}, must be started in a group below",
                    e.desc()
                )
            });
        tried.map_err(|problem| self.error(problem))
    }

    fn error(&self, problem: String) -> Error {
        Error::Cgroup {
            path: self.path.clone(),
            problem,
        }
    }

    fn make(&self) -> nix::Result<Group> {
        self.owned.collect();
        Group::new(self.owned.clone())
    }

    /// A group for a PID 1 to come. `None` is for want of something, and will show when it is needed.
    pub(crate) fn ahead(&self) -> Option<Group> {
        self.make().ok()
    }

    /// A group with these limits: the one that was made ahead, where there is one. `None` where it cannot
    /// be had and nobody asked for it.
    pub(crate) fn group(
        &self,
        ahead: Option<Group>,
        limits: &Limits,
    ) -> Result<Option<Group>, Error> {
        let group = match ahead {
            Some(ahead) => Ok(ahead),
            None => self.make(),
        };
        let limited = group.and_then(|mut group| match group.limit(limits) {
            // PID 1 is in there already, and is followed wherever it goes.
            Err(_) if !self.required => Ok(group),
            limited => limited.map(|()| group),
        });
        match limited {
            Ok(group) => Ok(Some(group)),
            Err(_) if !self.required => Ok(None),
            Err(e) => Err(self.error(format!("a command's group: {}", e.desc()))),
        }
    }

    /// True where it is the group that says no to one process too many.
    pub(crate) fn counts_processes(&self) -> bool {
        self.controllers().contains(&PIDS)
    }

    /// Removes what has ended since.
    pub(crate) fn collect(&self) {
        self.owned.collect();
    }
}

/// Moves this process into a leaf, if it is in the folder itself.
fn leave(folder: &OwnedFd, path: &Path, may_move: bool) -> Result<(), String> {
    let same = |own: PathBuf| {
        let (own, there) = (open_folder(&own).ok()?, fstat(folder).ok()?);
        let own = fstat(own).ok()?;
        Some((own.st_dev, own.st_ino) == (there.st_dev, there.st_ino))
    };
    if find::own().ok().and_then(same) != Some(true) {
        return Ok(());
    }
    if !may_move {
        return Err(format!(
            "this process is in it, and must be started in a group below, such as {}/{LEAF}",
            path.display()
        ));
    }
    let moved = match make(folder, LEAF) {
        Ok(()) | Err(Errno::EEXIST) => open_below(folder, LEAF),
        Err(e) => Err(e),
    };
    moved
        .and_then(|leaf| put(leaf, "cgroup.procs", "0"))
        .map_err(|e| format!("moving this process into {LEAF} below it: {}", e.desc()))
}

/// Gives each controller that a folder has to the groups below; returns those that they have then.
fn pass_on(folder: &OwnedFd) -> Vec<&'static str> {
    let there = read(folder, "cgroup.controllers").unwrap_or_default();
    for controller in CONTROLLERS {
        if there.split_whitespace().any(|c| c == controller) {
            // One by one: one that is refused must not hold up the others.
            let _ = put(folder, "cgroup.subtree_control", &format!("+{controller}"));
        }
    }
    let passed = read(folder, "cgroup.subtree_control").unwrap_or_default();
    let mut controllers = CONTROLLERS.to_vec();
    controllers.retain(|c| passed.split_whitespace().any(|p| p == *c));
    controllers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_a_word_or_a_path() {
        assert_eq!("".parse(), Ok(Setting::Auto));
        assert_eq!("auto".parse(), Ok(Setting::Auto));
        assert_eq!("off".parse(), Ok(Setting::Off));
        assert_eq!(
            "/sys/fs/cgroup/x".parse(),
            Ok(Setting::At("/sys/fs/cgroup/x".into()))
        );
        for wrong in ["on", "x/y", "./x", " /x", "Off"] {
            assert!(wrong.parse::<Setting>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_cgroup_is_refused_and_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let of = |path: &Path| match Cgroup::of(&Setting::At(path.to_owned()), false) {
            Err(e) => e.to_string(),
            Ok(_) => panic!("{} was taken", path.display()),
        };
        let told = of(place.path());
        assert!(told.contains("it is no cgroup v2 folder"), "{told}");
        let told = of(&place.path().join("nonesuch"));
        assert!(told.contains("No such file or directory"), "{told}");
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn only_what_is_passed_on_counts() {
        let place = tempfile::tempdir().unwrap();
        let folder = open_folder(place.path()).unwrap();
        assert_eq!(pass_on(&folder), [""; 0]);
        std::fs::write(place.path().join("cgroup.controllers"), "cpu io memory\n").unwrap();
        std::fs::write(place.path().join("cgroup.subtree_control"), "").unwrap();
        // The last that was written; the kernel would have added them up.
        pass_on(&folder);
        let asked = std::fs::read_to_string(place.path().join("cgroup.subtree_control")).unwrap();
        assert!(asked.starts_with("+cpu"), "{asked}");
        std::fs::write(place.path().join("cgroup.subtree_control"), "memory pids\n").unwrap();
        std::fs::set_permissions(
            place.path().join("cgroup.controllers"),
            std::os::unix::fs::PermissionsExt::from_mode(0o444),
        )
        .unwrap();
        std::fs::write(place.path().join("cgroup.controllers"), "").unwrap();
        assert_eq!(pass_on(&folder), ["memory", "pids"]);
    }
}
