//! The level basic: for hosts without user namespaces, and only where an administrator says so.
//!
//! ```text
//! keeper          a domain of its own; waits for the guard, and clears up after one that was killed
//! └── guard       a domain within; does what PID 1 does at the level strict
//!     └── shell   a domain within that closes the file system; seccomp; the command
//! ```
//!
//! What Landlock's scope of signals gives is what a pid namespace gives otherwise: nobody in a domain can
//! signal anybody outside of it, and so the guard ends a whole command by one `kill` of every process,
//! which no fork outruns and which reaches nobody else.

mod domain;
mod folder;
mod guard;
mod names;

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, Uid};

use super::{
    At, CONTROL_FD, Failure, Launch, REFUSED, SPEC_FD, STATE_FD, cgroup, fault, finish, fork_at,
    hide, inherited, killed, namespaces, privileges, refuse, start,
};
use crate::error::Step;

pub(super) use self::domain::{Domain, close_files};
pub(super) use self::folder::Private;

/// The argument that asks for this level; the next one is the folder below which to make private ones.
pub const BASIC: &str = "basic";

/// The whole of the helper; returns its exit code. The report goes to [`CONTROL_FD`].
pub fn run(temporary: Option<OsString>) -> i32 {
    let Ok(control) = inherited(CONTROL_FD) else {
        return REFUSED;
    };
    let kept = fault::read(std::env::args_os())
        .and_then(|()| keep(&control, Path::new(&temporary.unwrap_or_default())));
    match kept {
        Ok(code) => code,
        Err(failure) => refuse(control.as_raw_fd(), failure),
    }
}

/// The keeper. It holds nothing that the caller waits for, so that the caller may kill it.
fn keep(control: &OwnedFd, temporary: &Path) -> Result<i32, Failure> {
    let group = cgroup::passed()?;
    let launch = Launch {
        outputs: None,
        spec: inherited(SPEC_FD)?,
        state: inherited(STATE_FD)?,
    };
    give_up_privileges()?;
    hide()?;
    prctl::set_child_subreaper(true).at(Step::Init)?;
    let domain = Domain::enter()?;
    let private = Private::make(temporary)?;
    match fork_at(Step::Init) {
        Err(failure) => {
            let _ = private.remove();
            Err(failure)
        }
        Ok(ForkResult::Child) => {
            let joined = cgroup::join(group.as_ref());
            drop(group);
            let guarded = joined.and_then(|()| guard::run(control, launch, &private));
            // Every process of the command has ended, so nobody looks on.
            let _ = private.remove();
            finish(control, guarded)
        }
        Ok(ForkResult::Parent { child }) => {
            drop((launch, group));
            start::drop_outputs();
            let code = killed(child);
            // A guard that was killed has ended nothing.
            domain.end_everything();
            while !matches!(waitpid(Pid::from_raw(-1), None), Err(Errno::ECHILD)) {}
            let _ = private.remove();
            Ok(code)
        }
    }
}

/// Root becomes nobody; nobody, and everybody else, can gain nothing any more.
fn give_up_privileges() -> Result<(), Failure> {
    if Uid::effective().is_root() {
        privileges::empty_bounding_set()?;
        namespaces::become_nobody()?;
    }
    privileges::drop_held()?;
    prctl::set_no_new_privs().at(Step::NoNewPrivs)
}
