//! Capabilities and `no_new_privs`; and the seccomp filter, in two parts.

use caps::CapSet;
use nix::errno::Errno;

use super::{At, Failure};
use crate::error::Step;
use crate::seccomp;

/// Gives up every capability for good, in every set, and sets `no_new_privs`.
pub(super) fn drop_all() -> Result<(), Failure> {
    empty_bounding_set()?;
    drop_held()?;
    nix::sys::prctl::set_no_new_privs().at(Step::NoNewPrivs)
}

/// What no program may ever gain. Only a process with `CAP_SETPCAP` can change this set.
pub(super) fn empty_bounding_set() -> Result<(), Failure> {
    // The bounding set first: shrinking it needs one of the others. EINVAL is beyond the kernel's last.
    for capability in 0..64 {
        // SAFETY: changes a set of this process' own, and reads no memory.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            match Errno::last() {
                Errno::EINVAL if capability > 0 => break,
                e => return Err((Step::Capabilities, format!("bounding set: {e}"))),
            }
        }
    }
    Ok(())
}

/// Gives up what capabilities this process has.
pub(super) fn drop_held() -> Result<(), Failure> {
    for set in [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ] {
        caps::clear(None, set)
            .map_err(|e| format!("{set:?}: {e}"))
            .at(Step::Capabilities)?;
    }
    Ok(())
}

/// Installs a filter for this process and its children. Needs `no_new_privs`.
pub(super) fn filter_calls(filter: &[seccompiler::sock_filter]) -> Result<(), Failure> {
    // An empty filter is refused here too.
    seccompiler::apply_filter(filter).at(Step::Seccomp)
}

/// The greater part of the policy, for whatever forks for commands, and its children.
pub(super) fn filter_outer() -> Result<(), Failure> {
    nix::sys::prctl::set_no_new_privs().at(Step::NoNewPrivs)?;
    filter_calls(&seccomp::filters().at(Step::Seccomp)?.outer)
}

/// What a list of programs forbids in addition, for the command.
pub(super) fn filter_memory_files() -> Result<(), Failure> {
    filter_calls(&seccomp::memory_files().at(Step::Seccomp)?)
}

/// What the level basic forbids in addition.
pub(super) fn filter_basic() -> Result<(), Failure> {
    filter_calls(&seccomp::basic().at(Step::Seccomp)?)
}

/// The rest of it, for PID 1 and the command.
pub(super) fn filter_inner() -> Result<(), Failure> {
    filter_calls(&seccomp::filters().at(Step::Seccomp)?.inner)
}
