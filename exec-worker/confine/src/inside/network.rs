//! A network of its own, with nothing in it but a loopback: what a command starts on it, it alone reaches.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::{At, Failure};
use crate::error::Step;

/// Switches the loopback on, in a new network namespace.
pub(super) fn loopback_up() -> Result<(), Failure> {
    let any = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .at(Step::Network)?;
    // SAFETY: a zeroed ifreq is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the kernel reads one ifreq, whose name ends in NUL.
    if unsafe { libc::ioctl(any.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } < 0 {
        return Err((Step::Network, format!("lo: {}", Errno::last())));
    }
    Ok(())
}
