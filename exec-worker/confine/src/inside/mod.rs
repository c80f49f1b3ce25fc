//! The helper's side, in the order in which it happens. Each step has a file.
//!
//! 1. [`run`]: close what was inherited, become undumpable, read the specification.
//! 2. [`namespaces`]: user, pid, mount, ipc and uts namespaces; map the ids.
//! 3. [`init`]: PID 1 of the namespace, which starts the shell, waits, and ends everything.
//! 4. [`root`]: the private root.
//! 5. [`privileges`]: PID 1 drops every capability and sets `no_new_privs`, for itself and its children.
//! 6. [`shell`]: the child: descriptors, rlimits, seccomp, `execve`.
//!
//! The process is single-threaded throughout, so that forking needs no care for locks.

mod init;
mod namespaces;
mod privileges;
mod rlimits;
mod root;
mod shell;

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, send};

use crate::error::Step;
use crate::report::{Ended, Report};
use crate::spec::Spec;

/// Where the caller listens for the report, and the helper for a stop; its end means that the caller died.
pub const CONTROL_FD: RawFd = 3;
/// A memory file with the encoded [`Spec`].
pub const SPEC_FD: RawFd = 4;
/// The file into which the shell writes its state.
pub const STATE_FD: RawFd = 5;

/// A step that failed, and why.
pub(crate) type Failure = (Step, String);

/// Says at which step an error happened.
pub(crate) trait At<T> {
    /// Turns an error into the [`Failure`] of `step`.
    fn at(self, step: Step) -> Result<T, Failure>;
}

impl<T, E: std::fmt::Display> At<T> for Result<T, E> {
    fn at(self, step: Step) -> Result<T, Failure> {
        self.map_err(|e| (step, e.to_string()))
    }
}

/// Takes a descriptor that the caller has passed by its number.
fn inherited(number: RawFd) -> OwnedFd {
    // SAFETY: the caller spawns the helper with exactly these descriptors open, and each is taken once.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// The whole of the helper; returns its exit code. The report goes to [`CONTROL_FD`].
pub fn run() -> i32 {
    let control = inherited(CONTROL_FD);
    match prepare().and_then(|spec| namespaces::enter().map(|()| spec)) {
        Ok(spec) => match init::start(spec, &control) {
            Ok(()) => 0,
            Err(failure) => refuse(&control, failure),
        },
        Err(failure) => refuse(&control, failure),
    }
}

fn prepare() -> Result<Spec, Failure> {
    // SAFETY: closing descriptors that nothing in this process owns; those below are the caller's gift.
    if unsafe { libc::close_range(STATE_FD as u32 + 1, u32::MAX, 0) } != 0 {
        return Err((
            Step::Descriptors,
            std::io::Error::last_os_error().to_string(),
        ));
    }
    // Nobody of the same user may look into this process or take its descriptors.
    nix::sys::prctl::set_dumpable(false).at(Step::Spec)?;
    nix::sys::prctl::set_pdeathsig(None::<Signal>).at(Step::Spec)?;
    let mut bytes = Vec::new();
    let mut file = File::from(inherited(SPEC_FD));
    std::io::Seek::rewind(&mut file).at(Step::Spec)?;
    file.read_to_end(&mut bytes).at(Step::Spec)?;
    Spec::decode(&bytes).at(Step::Spec)
}

fn refuse(control: &OwnedFd, (step, reason): Failure) -> i32 {
    send_report(control, &Report::of(Ended::Refused(step, reason)));
    126
}

fn send_report(control: &OwnedFd, report: &Report) {
    // A caller that has gone does not read it, and then it does not matter.
    let _ = send(
        control.as_raw_fd(),
        &report.encode(),
        MsgFlags::MSG_NOSIGNAL,
    );
}

/// Standard descriptors, which stay open for the life of the process.
fn standard(number: RawFd) -> BorrowedFd<'static> {
    debug_assert!(number <= 2);
    // SAFETY: 0, 1 and 2 are open from the start and are only ever replaced, not closed, while borrowed.
    unsafe { BorrowedFd::borrow_raw(number) }
}
