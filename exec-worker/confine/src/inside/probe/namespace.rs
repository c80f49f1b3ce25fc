//! Namespaces and what is done within them.

use std::fs;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::{Found, apart, done, told};
use crate::doctor::NOT_TRIED;
use crate::error::Step;
use crate::inside::{home, namespaces, network, root};

/// Sysctls that forbid user namespaces, each with what it must not be.
const SYSCTLS: [(&str, &str); 3] = [
    ("user/max_user_namespaces", "0"),
    ("kernel/unprivileged_userns_clone", "0"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1"),
];

/// With the settings that speak against it, where there are any.
pub(super) fn user() -> Found {
    unshare(CloneFlags::CLONE_NEWUSER)
        .map(|()| "done".into())
        .map_err(|e| because(&e.to_string()))
}

pub(super) fn id_map() -> Found {
    done(entered(CloneFlags::empty()))
}

/// A kind of its own, within a user namespace.
pub(super) fn other(kind: CloneFlags) -> Found {
    entered(CloneFlags::empty())?;
    done(unshare(kind))
}

pub(super) fn loopback() -> Found {
    entered(CloneFlags::CLONE_NEWNET)?;
    done(network::loopback_up().map_err(told))
}

pub(super) fn private_root() -> Found {
    entered(namespaces::TEMPLATE & !CloneFlags::CLONE_NEWUSER)?;
    done(root::enter_template().map_err(told))
}

pub(super) fn session_files() -> Found {
    entered(namespaces::TEMPLATE & !CloneFlags::CLONE_NEWUSER)?;
    root::enter_template().map_err(told)?;
    done(home::try_out().map_err(told))
}

/// By PID 1 of a pid namespace, for only that may.
pub(super) fn proc() -> Found {
    entered(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)?;
    apart(|| {
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(|e| e.to_string())?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        done(mount(
            Some("proc"),
            "/proc",
            Some("proc"),
            flags,
            None::<&str>,
        ))
    })
}

/// Goes into a user namespace with its ids mapped, and these others.
fn entered(others: CloneFlags) -> Result<(), String> {
    match namespaces::leave(CloneFlags::CLONE_NEWUSER) {
        Err((Step::Namespaces, _)) => return Err(NOT_TRIED.into()),
        other => other.map_err(told)?,
    }
    if others.is_empty() {
        return Ok(());
    }
    unshare(others).map_err(|e| e.to_string())
}

fn because(error: &str) -> String {
    let against: Vec<String> = SYSCTLS
        .iter()
        .filter(|(name, forbids)| {
            fs::read_to_string(format!("/proc/sys/{name}")).is_ok_and(|v| v.trim() == *forbids)
        })
        .map(|(name, forbids)| format!("{} = {forbids}", name.replace('/', ".")))
        .collect();
    if against.is_empty() {
        error.into()
    } else {
        format!("{error} ({})", against.join(", "))
    }
}
