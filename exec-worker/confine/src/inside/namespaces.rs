//! Namespaces, as an ordinary user. Inside, the caller's user is `sandbox`, and nobody else exists.

use std::fs;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use super::{At, Failure};
use crate::error::Step;

/// User and group id inside.
pub(super) const SANDBOX_ID: u32 = 1000;

/// The user that root becomes: one that owns nothing.
const NOBODY: u32 = 65_534;

/// A user without rights, for root.
pub(super) fn become_nobody() -> Result<(), Failure> {
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setgroups(&[]).at(Step::IdMap)?;
    setresgid(gid, gid, gid).at(Step::IdMap)?;
    setresuid(uid, uid, uid).at(Step::IdMap)
}

/// What the template of a root needs. Its hostname is everybody's: no command has the right to change it.
pub(super) const TEMPLATE: CloneFlags = CloneFlags::CLONE_NEWUSER
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWUTS);
/// What a command has to itself.
pub(super) const OWN: CloneFlags = CloneFlags::CLONE_NEWUSER
    .union(CloneFlags::CLONE_NEWPID)
    .union(CloneFlags::CLONE_NEWNS)
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWNET);

/// Leaves these of the host's namespaces. The next child is PID 1 of a new pid namespace, if that is one.
pub(super) fn leave(flags: CloneFlags) -> Result<(), Failure> {
    if Uid::effective().is_root() {
        become_nobody()?;
    }
    let (uid, gid) = (Uid::effective().as_raw(), Gid::effective().as_raw());
    unshare(flags).at(Step::Namespaces)?;
    map_ids(uid, gid)
}

/// In a new user namespace: the user `uid` of the one outside is `sandbox` here, and nobody else exists.
pub(super) fn map_ids(uid: u32, gid: u32) -> Result<(), Failure> {
    // An undumpable process' /proc files belong to root; for these three writes it must own them.
    nix::sys::prctl::set_dumpable(true).at(Step::IdMap)?;
    fs::write("/proc/self/setgroups", "deny").at(Step::IdMap)?;
    fs::write("/proc/self/uid_map", format!("{SANDBOX_ID} {uid} 1")).at(Step::IdMap)?;
    fs::write("/proc/self/gid_map", format!("{SANDBOX_ID} {gid} 1")).at(Step::IdMap)?;
    nix::sys::prctl::set_dumpable(false).at(Step::IdMap)
}
