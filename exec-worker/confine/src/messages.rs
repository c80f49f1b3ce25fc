//! Messages between the caller and the helper: descriptors one way, reports the other.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

/// The two ends of a socket whose messages stay whole.
pub(crate) fn pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )
}

/// No report is longer.
pub(crate) const REPORT_BYTES: usize = 4096;

/// Receives a message, and the descriptor that came with it. Where the other side has closed its socket with something unread in it, that comes
/// first, as an error, and what it sent before comes after.
pub(crate) fn receive_report(
    socket: &OwnedFd,
    message: &mut [u8; REPORT_BYTES],
    flags: MsgFlags,
) -> nix::Result<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut parts = [IoSliceMut::new(message)];
    let received = loop {
        let flags = flags | MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Err(Errno::ECONNRESET) => {}
            other => break other?,
        }
    };
    let mut passed = None;
    for part in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = part {
            for fd in descriptors {
                // SAFETY: the kernel has just made this descriptor, for this process alone.
                passed = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    Ok((received.bytes, passed))
}

/// Sends descriptors as one message, whose bytes say what they are.
///
/// The kernel counts descriptors under way together for all processes of a user, commands among them, and
/// refuses the next to whom this is more than its soft limit. A command cannot raise its own.
pub(crate) fn send(socket: &OwnedFd, what: &[u8], descriptors: &[RawFd]) -> nix::Result<()> {
    match send_once(socket, what, descriptors) {
        Err(Errno::ETOOMANYREFS) => {
            let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
            let sent = send_once(socket, what, descriptors);
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
            sent
        }
        other => other,
    }
}

fn send_once(socket: &OwnedFd, what: &[u8], descriptors: &[RawFd]) -> nix::Result<()> {
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(what)],
        &[ControlMessage::ScmRights(descriptors)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}
