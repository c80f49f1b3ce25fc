//! The only ways to open something: beneath a folder, through no link and no mount.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::{Errno, Result};

/// The longest path that the kernel takes at once, with its NUL.
const PATH_MAX: usize = 4096;

fn resolve() -> ResolveFlags {
    ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV
}

fn open_with(folder: impl AsFd, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let mut tries = 0;
    loop {
        match openat2(folder.as_fd(), path, flags, mode, resolve()) {
            Err(Errno::INTR) => {}
            // Something was renamed meanwhile, anywhere: the kernel asks to try again.
            Err(Errno::AGAIN) if tries < 100 => tries += 1,
            result => return result,
        }
    }
}

/// Opens what is there.
pub(crate) fn open(folder: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    open_with(folder, path, flags, Mode::empty())
}

/// Opens a folder for reading.
pub(crate) fn open_folder(folder: impl AsFd, path: &[u8]) -> Result<OwnedFd> {
    open(folder, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Makes a file that is not there yet, for writing.
pub(crate) fn create(folder: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    open_with(
        folder,
        name,
        OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL,
        Mode::RUSR | Mode::WUSR,
    )
}

/// Opens a folder by a path of any length.
pub(crate) fn open_far(folder: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let mut rest = path;
    let mut at: Option<OwnedFd> = None;
    while rest.len() >= PATH_MAX {
        // A name has 255 bytes at the most.
        let cut = rest[..PATH_MAX - 1]
            .iter()
            .rposition(|&b| b == b'/')
            .ok_or(Errno::NAMETOOLONG)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        at = Some(match &at {
            Some(fd) => open(fd, &rest[..cut], flags)?,
            None => open(folder.as_fd(), &rest[..cut], flags)?,
        });
        rest = &rest[cut + 1..];
    }
    match &at {
        Some(fd) => open(fd, rest, flags),
        None => open(folder, rest, flags),
    }
}

/// Sets the mode of what is open by a path only, which `fchmod` refuses.
pub(crate) fn chmod_path(fd: impl AsFd, mode: u32) -> Result<()> {
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    rustix::fs::chmod(path, Mode::from_raw_mode(mode))
}
