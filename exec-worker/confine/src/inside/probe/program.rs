//! Programs, libraries and folders that a launch uses.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, execve, fork};

use super::{Found, told};
use crate::inside::shell::place;
use crate::inside::{basic, waiting};
use crate::shell::Shell;

/// bash's library, opened by whom the caller is, as a server does.
pub(super) struct Library(Option<OwnedFd>);

/// Where it waits to be loaded.
const LIBRARY_FD: RawFd = 3;

/// Must be asked for before anything else is opened.
pub(super) fn library() -> Library {
    let Some(library) = waiting::library() else {
        return Library(None);
    };
    if library.as_raw_fd() == LIBRARY_FD {
        return Library(Some(library));
    }
    // SAFETY: what has this number came from the caller by oversight, and nothing in this process owns it.
    let placed = unsafe { libc::dup2(library.as_raw_fd(), LIBRARY_FD) };
    // SAFETY: dup2 has just made it, for this alone.
    Library((placed == LIBRARY_FD).then(|| unsafe { OwnedFd::from_raw_fd(LIBRARY_FD) }))
}

impl Library {
    /// For tests, whose descriptors have other owners.
    #[cfg(test)]
    pub(super) const NONE: Library = Library(None);

    /// The first descriptor that is nobody's.
    pub(super) fn first_free(&self) -> RawFd {
        self.0.as_ref().map_or(LIBRARY_FD, |fd| fd.as_raw_fd() + 1)
    }
}

pub(super) fn shell() -> Found {
    Shell::find()
        .map(|shell| shell.path().to_owned())
        .map_err(|e| e.to_string())
}

/// Runs a bash that loads the library and ends.
pub(super) fn waiting_bash(library: &Library) -> Found {
    let Some(library) = &library.0 else {
        return Err("no bash, or no library".into());
    };
    // SAFETY: the process has one thread.
    match unsafe { fork() }.map_err(|e| e.to_string())? {
        ForkResult::Child => {
            let _ = load(library);
            // SAFETY: ends the process at once; nothing is buffered.
            unsafe { libc::_exit(127) }
        }
        ForkResult::Parent { child } => match waitpid(child, None) {
            Ok(WaitStatus::Exited(_, 0)) => Ok("loaded".into()),
            Ok(WaitStatus::Exited(..)) => Err("bash does not load it".into()),
            Ok(other) => Err(format!("bash ended: {other:?}")),
            Err(e) => Err(e.to_string()),
        },
    }
}

fn load(library: &OwnedFd) -> Result<(), String> {
    const AT: RawFd = 252;
    place(library, AT).map_err(told)?;
    let null = open("/dev/null", OFlag::O_RDWR, Mode::empty()).map_err(|e| e.to_string())?;
    for fd in 0..=2 {
        place(&null, fd).map_err(told)?;
    }
    let script = CString::new(format!("enable -f /proc/self/fd/{AT} __pg_shell_wait"))
        .map_err(|e| e.to_string())?;
    let nothing: [CString; 0] = [];
    let never = execve(c"/bin/bash", &[c"bash", c"-c", &script], &nothing);
    never.map(|_| ()).map_err(|e| e.to_string())
}

/// Makes one as a launch does, writes to it and removes it.
pub(super) fn private_folder(temporary: &OsStr) -> Found {
    let made = basic::Private::make(Path::new(temporary)).map_err(told)?;
    let path = made.path().join("home/x");
    let written = std::fs::write(&path, "x").map_err(|e| format!("{}: {e}", path.display()));
    let removed = made.remove();
    written?;
    removed.map_err(|e| format!("{} cannot be removed: {e}", temporary.display()))?;
    Ok(temporary.to_string_lossy().into_owned())
}
