//! What a process gives up or is limited by.

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;

use super::{Found, done, told};
use crate::inside::landlock::landlock_abi;
use crate::inside::{basic, privileges, rlimits};
use crate::limits::Limits;

pub(super) fn descriptors() -> Found {
    // SAFETY: descriptors of such numbers are nobody's.
    if unsafe { libc::close_range(1 << 20, u32::MAX, 0) } != 0 {
        return Err(std::io::Error::last_os_error().to_string());
    }
    done(memfd_create(c"probe", MFdFlags::MFD_CLOEXEC))
}

pub(super) fn subreaper() -> Found {
    done(prctl::set_child_subreaper(true))
}

/// Closes the file system to itself, and looks whether it is.
pub(super) fn landlock() -> Found {
    let version = landlock_abi().ok_or("this kernel has none, or it is off")?;
    prctl::set_no_new_privs().map_err(|e| e.to_string())?;
    basic::close_files().map_err(told)?;
    Ok(format!("ABI {version}"))
}

/// Keeps its signals to itself, and looks whether they are.
pub(super) fn landlock_scopes() -> Found {
    prctl::set_no_new_privs().map_err(|e| e.to_string())?;
    basic::Domain::enter().map_err(told)?;
    Ok("done".into())
}

/// Of a user who has none to begin with; in a user namespace the bounding set goes too.
pub(super) fn capabilities() -> Found {
    done(privileges::drop_held().map_err(told))
}

pub(super) fn no_new_privs() -> Found {
    done(prctl::set_no_new_privs())
}

pub(super) fn resource_limits() -> Found {
    done(rlimits::set(&Limits::default()).map_err(told))
}

/// Installs the whole policy, and looks whether it holds.
pub(super) fn seccomp() -> Found {
    privileges::filter_outer()
        .and_then(|()| privileges::filter_inner())
        .map_err(told)?;
    // SAFETY: without flags nothing is unshared, where it is allowed.
    if unsafe { libc::unshare(0) } == 0 {
        return Err("a filter is taken, but what it forbids is not refused".into());
    }
    Ok(std::env::consts::ARCH.into())
}
