//! A child process of the caller's: the helper, for one launch or as a server.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::error::{Context, Error};
use crate::inside::KILLED_BY;
use crate::report::Ended;

/// See the module. Dropping it kills it, and waits for it.
pub(crate) struct Helper {
    pid: Pid,
    program: PathBuf,
    /// Its exit status, once that has been collected.
    status: Option<WaitStatus>,
}

impl Helper {
    /// Spawns the program at `path` with exactly these descriptors under exactly these numbers, `/dev/null` as
    /// its standard input, an empty environment, default signal dispositions, an empty signal mask and a
    /// process group of its own.
    pub(crate) fn spawn(
        path: &Path,
        arguments: &[&CStr],
        descriptors: &[(BorrowedFd<'_>, RawFd)],
    ) -> Result<Helper, Error> {
        let null = open(
            "/dev/null",
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .or_cannot("open /dev/null")?;
        let mut all = vec![(null.as_fd(), 0)];
        all.extend_from_slice(descriptors);
        match spawn(path, arguments, &all) {
            Ok(pid) => Ok(Helper {
                pid,
                program: path.to_owned(),
                status: None,
            }),
            Err(source) => Err(Error::Spawn {
                path: path.to_owned(),
                source,
            }),
        }
    }

    pub(crate) fn kill(&self) {
        if self.status.is_none() {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }

    /// True once its exit status has been collected.
    pub(crate) fn reap(&mut self) -> bool {
        self.wait(Some(WaitPidFlag::WNOHANG));
        self.status.is_some()
    }

    /// Kills it unless it has ended, and collects its exit status.
    pub(crate) fn end(&mut self) {
        if !self.reap() {
            self.kill();
            while self.status.is_none() {
                self.wait(None);
            }
        }
    }

    fn wait(&mut self, flags: Option<WaitPidFlag>) {
        if self.status.is_none() {
            self.status = match waitpid(self.pid, flags) {
                Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => None,
                Ok(status) => Some(status),
                // Somebody else has collected it.
                Err(_) => Some(WaitStatus::StillAlive),
            };
        }
    }

    /// How a launch ended whose helper has closed its sockets without a report.
    pub(crate) fn ended_unreported(&mut self) -> Ended {
        // All it could have left to do is to exit.
        self.end();
        match self.status {
            Some(WaitStatus::Exited(_, code)) if code < KILLED_BY => Ended::NoLauncher(format!(
                "the launcher {} exited with code {code} and without a report; it is not pg-shell-launch",
                self.program.display()
            )),
            _ => Ended::LauncherDied,
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.end();
    }
}

/// An absolute path, for the helper.
pub(crate) fn argument(folder: &Path) -> Result<CString, Error> {
    let invalid = || {
        let folder = folder.display();
        Error::Invalid(format!(
            "the temporary folder {folder} is not an absolute path"
        ))
    };
    let path = CString::new(folder.as_os_str().as_encoded_bytes()).map_err(|_| invalid())?;
    folder.is_absolute().then_some(path).ok_or_else(invalid)
}

fn spawn(
    launcher: &Path,
    arguments: &[&CStr],
    descriptors: &[(BorrowedFd<'_>, RawFd)],
) -> io::Result<Pid> {
    // Sources above every target, so that no duplication overwrites a later source.
    let mut sources = Vec::new();
    for (fd, _) in descriptors {
        let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(64))?;
        // SAFETY: F_DUPFD_CLOEXEC has just returned this descriptor, and nobody else owns it.
        sources.push(unsafe { OwnedFd::from_raw_fd(copy) });
    }
    let mut actions = PosixSpawnFileActions::init()?;
    for (source, (_, target)) in sources.iter().zip(descriptors) {
        actions.add_dup2(source.as_raw_fd(), *target)?;
    }
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_sigdefault(&SigSet::all())?;
    attributes.set_pgroup(Pid::from_raw(0))?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
            | PosixSpawnFlags::POSIX_SPAWN_SETPGROUP,
    )?;
    let no_environment: [&CStr; 0] = [];
    let pid = posix_spawn(launcher, &actions, &attributes, arguments, &no_environment)?;
    Ok(pid)
}
