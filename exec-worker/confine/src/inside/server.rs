//! The helper as a server: what is the same for every launch is done once.
//!
//! It holds a template: a user and a mount namespace with the read-only part of the root. From it a PID 1
//! is forked straight into namespaces of its own, which begin as a copy of the template's mounts; and it is
//! forked before its launch is there, so that a launch finds it waiting with everything mounted. It takes
//! one launch, and the next one is forked. All end when the caller does.

use std::ffi::CString;
use std::os::fd::{OwnedFd, RawFd};

use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{close, pipe2, read};

use super::namespaces::{self, SANDBOX_ID};
use super::shell::Way;
use super::{
    At, CONTROL_FD, Failure, Launch, cgroup, close_from, finish, hide, init, privileges, root,
    waiting,
};
use crate::error::Step;
use crate::limits::Limits;

/// A PID 1 that dies before its launch; after so many in a row the next would die too.
const FAILURES: u32 = 3;

/// Builds the template, and serves launches until the caller's end of the socket is closed: from within
/// a bash that waits, where there is one.
pub(super) fn run(socket: RawFd) -> Result<(), Failure> {
    close_from(CONTROL_FD + 1)?;
    hide()?;
    let library = waiting::library();
    namespaces::leave(namespaces::TEMPLATE)?;
    root::enter_template()?;
    if let Some(library) = library
        && waiting::serve(&library)?
    {
        return Ok(());
    }
    match serve(socket, Way::Executed)? {
        None => Ok(()),
        Some(_) => Err((Step::Exec, "the shell was not executed".into())),
    }
}

/// Forks a PID 1 for each launch until the caller's end of the socket is closed. With [`Way::Waiting`] it
/// returns in the process, too, that is confined and has this command to run.
pub(super) fn serve(socket: RawFd, way: Way) -> Result<Option<CString>, Failure> {
    privileges::filter_outer()?;
    // Nobody waits for the children; their reports go to the caller.
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.at(Step::Init)?;
    let mut failures = 0;
    while failures < FAILURES {
        let (taken, tell) = pipe2(OFlag::O_CLOEXEC).at(Step::Init)?;
        if let Some(command) = fork_init(socket, tell, way)? {
            return Ok(Some(command));
        }
        let mut byte = [0];
        match read(&taken, &mut byte) {
            Ok(0) if has_ended(socket) => return Ok(None),
            Ok(0) => failures += 1,
            Ok(_) => failures = 0,
            Err(e) => return Err((Step::Init, e.to_string())),
        }
    }
    Err((
        Step::Init,
        format!("PID 1 died {FAILURES} times before its launch"),
    ))
}

/// True where the caller's end is closed.
fn has_ended(socket: RawFd) -> bool {
    let mut watched = libc::pollfd {
        fd: socket,
        events: 0,
        revents: 0,
    };
    // SAFETY: poll writes to the one element that it is given.
    let ready = unsafe { libc::poll(&raw mut watched, 1, 0) };
    ready != 0
}

/// Forks a PID 1, which waits for a launch; it says on `tell` that it has one.
fn fork_init(socket: RawFd, tell: OwnedFd, way: Way) -> Result<Option<CString>, Failure> {
    let flags = (namespaces::OWN | CloneFlags::from_bits_retain(libc::SIGCHLD)).bits();
    // SAFETY: like fork, without memory or stack to share; the process has one thread.
    match unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) } {
        -1 => Err((
            Step::Namespaces,
            std::io::Error::last_os_error().to_string(),
        )),
        0 => {
            let ready = become_init();
            let Ok(Some(received)) = cgroup::receive_launch(socket) else {
                // SAFETY: ends the process at once; nothing is buffered.
                unsafe { libc::_exit(0) }
            };
            let [stdout, stderr, control, spec, state] = received.launch;
            let _ = nix::unistd::write(&tell, b"T");
            drop(tell);
            let _ = close(socket);
            let launch = Launch {
                outputs: Some([stdout, stderr]),
                spec,
                state,
            };
            let ready = ready.and(received.joined);
            match ready.and_then(|()| init::live(&control, launch, way, true)) {
                Ok(Some(command)) => Ok(Some(command)),
                Ok(None) => finish(&control, Ok(())),
                Err(failure) => finish(&control, Err(failure)),
            }
        }
        _ => Ok(None),
    }
}

/// All of the confinement that does not depend on the launch.
fn become_init() -> Result<(), Failure> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).at(Step::Init)?;
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.at(Step::Init)?;
    namespaces::map_ids(SANDBOX_ID, SANDBOX_ID)?;
    root::add_own(&Limits::default())
}
