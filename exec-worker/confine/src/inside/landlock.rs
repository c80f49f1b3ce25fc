//! Landlock, where the kernel has it. For every command: writing only where something may be written, no
//! abstract socket and no signal to outside; with a list of programs, executing these alone. The level basic
//! has domains of its own, and cannot do without.
//!
//! A domain forbids every further mount, so it is entered after the last of them. Its rules name folders that
//! each PID 1 has to itself, so each makes them, but before its launch is there, and enters once for all its
//! commands.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, Scope,
};

use super::{At, Failure, fault};
use crate::error::Step;
use crate::spec::HOME;

/// The rights that are asked for; a kernel that knows fewer enforces those. Not those of a later version,
/// which nobody has tried.
const KNOWN: ABI = ABI::V6;
/// The first version with which files can be moved from folder to folder: one layer more is not worth that
/// loss.
const USEFUL: u32 = 2;
/// The folders below which a command may write. `/dev` and `/home` themselves are read-only mounts.
const WRITABLE: [&str; 3] = [HOME, "/tmp", "/dev"];
/// With a list of programs this is read-only.
const PROC: &str = "/proc";

/// The version of Landlock that this kernel offers; `None` where it has none, or where it is off.
pub fn landlock_abi() -> Option<u32> {
    const VERSION: libc::c_uint = 1;
    static ABI: OnceLock<Option<u32>> = OnceLock::new();
    *ABI.get_or_init(|| {
        let nothing = std::ptr::null::<libc::c_void>();
        // SAFETY: with this flag the kernel reads no memory, and returns a number or an error.
        let version =
            unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0, VERSION) };
        u32::try_from(version).ok().filter(|&v| v > 0)
    })
}

/// Rules, ready to be entered.
pub(super) struct Rules(RulesetCreated);

impl Rules {
    /// No writing anywhere, and, of `forbidden`, what the kernel must be able to forbid.
    pub(super) fn new(forbidden: BitFlags<AccessFs>) -> Result<Rules, Failure> {
        let mut rules = Ruleset::default();
        if !forbidden.is_empty() {
            rules = rules
                .set_compatibility(CompatLevel::HardRequirement)
                .handle_access(forbidden)
                .at(Step::Landlock)?
                .set_compatibility(CompatLevel::BestEffort);
        }
        let rules = rules
            .handle_access(AccessFs::from_write(KNOWN))
            .at(Step::Landlock)?
            .scope(Scope::AbstractUnixSocket | Scope::Signal)
            .at(Step::Landlock)?
            .create()
            .at(Step::Landlock)?
            // Else a command could fill the host's audit log.
            .log_same_exec(false)
            .at(Step::Landlock)?;
        Ok(Rules(rules))
    }

    /// Allows this for a file, or for all below a folder.
    pub(super) fn allow(self, path: &Path, access: BitFlags<AccessFs>) -> Result<Rules, Failure> {
        let rule = |e: &dyn std::fmt::Display| (Step::Landlock, format!("{}: {e}", path.display()));
        let at = PathFd::new(path).map_err(|e| rule(&e))?;
        let rules = self.0.add_rule(PathBeneath::new(at, access));
        Ok(Rules(rules.map_err(|e| rule(&e))?))
    }

    /// Enters the domain, for this process and all its children. Needs `no_new_privs`.
    pub(super) fn enter(self) -> Result<(), Failure> {
        let entered = self.0.restrict_self().at(Step::Landlock)?;
        if entered.ruleset == landlock::RulesetStatus::NotEnforced {
            return Err((Step::Landlock, "the kernel enforces nothing".into()));
        }
        Ok(())
    }
}

/// Everything that changes a file or a folder.
pub(super) fn writing() -> BitFlags<AccessFs> {
    AccessFs::from_write(KNOWN)
}

/// The rules for a command at the level strict, which may execute anything where nothing is said; `None`
/// where the kernel has no Landlock.
pub(super) fn prepare(executed: Option<&[PathBuf]>) -> Result<Option<Rules>, Failure> {
    if landlock_abi().is_none_or(|version| version < USEFUL) {
        fault::point(Step::Landlock)?;
        return Ok(None);
    }
    let mut rules = Rules::new(match executed {
        Some(_) => AccessFs::Execute.into(),
        None => BitFlags::EMPTY,
    })?;
    let proc = executed.is_none().then_some(PROC);
    for path in WRITABLE.into_iter().chain(proc) {
        rules = rules.allow(Path::new(path), writing())?;
    }
    for path in executed.into_iter().flatten() {
        rules = rules.allow(path, AccessFs::Execute.into())?;
    }
    Ok(Some(rules))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;

    use super::*;

    /// Landlock holds for the thread that enters, so a test can have a domain of its own.
    fn within(test: impl FnOnce() + Send) {
        if landlock_abi().is_none() {
            eprintln!("this kernel has no Landlock: not tested");
            return;
        }
        std::thread::scope(|scope| {
            scope.spawn(test).join().expect("the test's own assertions");
        });
    }

    #[test]
    fn nothing_is_written_but_where_it_is_allowed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (inside, outside) = (folder.path().join("inside"), folder.path().join("outside"));
        fs::create_dir(&inside).expect("a folder");
        fs::create_dir(&outside).expect("a folder");
        fs::write(outside.join("old"), "old").expect("a file");
        within(|| {
            let rules = Rules::new(BitFlags::EMPTY).expect("rules");
            let rules = rules.allow(&inside, writing()).expect("a rule");
            rules.enter().expect("a domain");
            fs::write(inside.join("new"), "new").expect("written where it is allowed");
            fs::rename(inside.join("new"), inside.join("newer")).expect("renamed there");
            assert_eq!(fs::read(outside.join("old")).expect("read"), b"old");
            for refused in [
                fs::write(outside.join("old"), "new"),
                fs::write(outside.join("new"), "new"),
                fs::create_dir(outside.join("folder")),
                fs::remove_file(outside.join("old")),
                fs::rename(inside.join("newer"), outside.join("newer")),
            ] {
                let kind = refused.expect_err("refused").kind();
                assert!(
                    [ErrorKind::PermissionDenied, ErrorKind::CrossesDevices].contains(&kind),
                    "{kind}"
                );
            }
        });
    }

    #[test]
    fn what_is_forbidden_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (read, unread) = (folder.path().join("read"), folder.path().join("unread"));
        fs::write(&read, "x").expect("a file");
        fs::write(&unread, "x").expect("a file");
        within(|| {
            let rules = Rules::new(AccessFs::ReadFile.into()).expect("rules");
            let rules = rules.allow(&read, AccessFs::ReadFile.into());
            rules.expect("a rule").enter().expect("a domain");
            assert_eq!(fs::read(&read).expect("read"), b"x");
            let refused = fs::read(&unread).expect_err("refused").kind();
            assert_eq!(refused, ErrorKind::PermissionDenied);
        });
    }

    #[test]
    fn a_path_that_is_not_there_is_named() {
        within(|| {
            let rules = Rules::new(BitFlags::EMPTY).expect("rules");
            let refused = rules.allow(Path::new("/nonesuch"), writing());
            let (step, reason) = refused.err().expect("refused");
            assert_eq!(step, Step::Landlock);
            assert!(reason.contains("/nonesuch"), "{reason}");
        });
    }
}
