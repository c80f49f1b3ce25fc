//! The helper as a server: what is the same for every launch is done once.
//!
//! It holds a template: a user and a mount namespace with the read-only part of the root. From it a PID 1
//! is forked straight into namespaces of its own, which begin as a copy of the template's mounts; and it is
//! forked before its launch is there, so that a launch finds it waiting with everything mounted. It takes
//! one launch, and the next one is forked. All end when the caller does.

use std::ffi::CString;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::{close, pipe2, read};

use super::init::Role;
use super::namespaces::{self, SANDBOX_ID};
use super::shell::Way;
use super::{At, CONTROL_FD, Failure, Given, close_from, hide, init, read_spec, root, waiting};
use crate::error::Step;
use crate::limits::Limits;
use crate::seccomp;

/// Standard output, standard error, control, specification, state.
const DESCRIPTORS: usize = 5;

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
    // Compiled once, for all its forks.
    seccomp::filter().at(Step::Seccomp)?;
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

/// The descriptors of the next launch; a message that has others is none, and the caller sees it end.
fn receive(socket: RawFd) -> Result<Option<[OwnedFd; DESCRIPTORS]>, Failure> {
    loop {
        let mut byte = [0_u8];
        let mut parts = [IoSliceMut::new(&mut byte)];
        let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS]);
        let message = match recvmsg::<()>(
            socket,
            &mut parts,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Ok(message) => message,
            Err(Errno::EINTR) => continue,
            Err(e) => return Err((Step::Descriptors, e.to_string())),
        };
        let mut received = Vec::new();
        for part in message.cmsgs().at(Step::Descriptors)? {
            if let ControlMessageOwned::ScmRights(descriptors) = part {
                // SAFETY: the kernel has just made these descriptors, for this process alone.
                received.extend(
                    descriptors
                        .into_iter()
                        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                );
            }
        }
        if message.bytes == 0 {
            return Ok(None);
        }
        if let Ok(launch) = received.try_into() {
            return Ok(Some(launch));
        }
    }
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
            let Ok(Some([stdout, stderr, control, spec, state])) = receive(socket) else {
                // SAFETY: ends the process at once; nothing is buffered.
                unsafe { libc::_exit(0) }
            };
            let _ = nix::unistd::write(&tell, b"T");
            drop(tell);
            let _ = close(socket);
            let ended = ready.and_then(|()| {
                take_outputs(stdout, stderr)?;
                let control = control.try_clone().at(Step::Descriptors)?;
                let spec = read_spec(spec)?;
                root::resize_own(&spec.limits)?;
                init::serve(
                    Given {
                        control,
                        spec,
                        state,
                    },
                    way,
                )
            });
            if let Ok(Role::Shell(command)) = ended {
                return Ok(Some(command));
            }
            init::finish(&control, ended)
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

fn take_outputs(stdout: OwnedFd, stderr: OwnedFd) -> Result<(), Failure> {
    for (from, to) in [(stdout, 1), (stderr, 2)] {
        // SAFETY: dup2 onto the standard descriptors, which stay open throughout.
        if unsafe { libc::dup2(from.as_raw_fd(), to) } < 0 {
            return Err((Step::Descriptors, Errno::last().to_string()));
        }
    }
    Ok(())
}
