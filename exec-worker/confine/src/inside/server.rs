//! The helper as a server: what is the same for every launch is done once.
//!
//! It holds a template: a user and a mount namespace with the read-only part of the root. For each launch
//! it forks PID 1 straight into namespaces of its own, which begin as a copy of the template's mounts. It
//! ends when its caller does, and every launch with it.

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::namespaces::{self, SANDBOX_ID};
use super::{At, CONTROL_FD, Failure, Given, close_from, hide, init, read_spec, refuse, root};
use crate::error::Step;

/// Standard output, standard error, control, specification, state.
const DESCRIPTORS: usize = 5;

/// Serves launches until the caller's end of the socket is closed.
pub(super) fn run(socket: RawFd) -> Result<(), Failure> {
    close_from(CONTROL_FD + 1)?;
    hide()?;
    namespaces::leave(namespaces::TEMPLATE)?;
    root::enter_template()?;
    // Nobody waits for the children; their reports go to the caller.
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.at(Step::Init)?;
    while let Some(launch) = receive(socket)? {
        start(launch, socket);
    }
    Ok(())
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

fn start([stdout, stderr, control, spec, state]: [OwnedFd; DESCRIPTORS], socket: RawFd) {
    let flags = (namespaces::OWN | CloneFlags::from_bits_retain(libc::SIGCHLD)).bits();
    // SAFETY: like fork, without memory or stack to share; the process has one thread.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) };
    match child {
        -1 => {
            let why = std::io::Error::last_os_error();
            refuse(&control, (Step::Namespaces, why.to_string()));
        }
        0 => {
            let ended = become_init(&stdout, &stderr, socket)
                .and_then(|()| {
                    Ok(Given {
                        control: control.try_clone().at(Step::Descriptors)?,
                        spec: read_spec(spec)?,
                        state,
                    })
                })
                .and_then(|given| {
                    drop((stdout, stderr));
                    init::serve(given)
                });
            init::finish(&control, ended)
        }
        // What it was given is the child's now.
        _ => {}
    }
}

fn become_init(stdout: &OwnedFd, stderr: &OwnedFd, socket: RawFd) -> Result<(), Failure> {
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.at(Step::Init)?;
    namespaces::map_ids(SANDBOX_ID, SANDBOX_ID)?;
    for (from, to) in [(stdout, 1), (stderr, 2)] {
        // SAFETY: dup2 onto the standard descriptors, which stay open throughout.
        if unsafe { libc::dup2(from.as_raw_fd(), to) } < 0 {
            return Err((Step::Descriptors, Errno::last().to_string()));
        }
    }
    // SAFETY: the server's socket is of no use to a child, and nothing here uses it again.
    unsafe { libc::close(socket) };
    Ok(())
}
