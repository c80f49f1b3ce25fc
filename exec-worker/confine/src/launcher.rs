//! The helper, seen from the caller: spawned for each launch, or kept as a server.

use std::ffi::CStr;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::error::{Context, Error};
use crate::inside::{CONTROL_FD, SPEC_FD, STATE_FD};

/// How launches are started.
pub struct Launcher {
    path: PathBuf,
    /// `None` spawns a helper for each launch; else the server, once there is one.
    server: Option<Mutex<Option<Server>>>,
}

/// A helper that waits for launches. It ends when its socket is closed.
struct Server {
    socket: OwnedFd,
    helper: Helper,
}

/// What a launch is given, in the order in which a server expects it.
pub(crate) struct Descriptors<'a> {
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
    pub control: BorrowedFd<'a>,
    pub spec: BorrowedFd<'a>,
    pub state: BorrowedFd<'a>,
}

/// A child process of the caller's. Dropping it kills it, and waits for it.
pub(crate) struct Helper {
    pid: Pid,
    reaped: bool,
}

impl Helper {
    pub(crate) fn kill(&self) {
        if !self.reaped {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }

    /// True once its exit status has been collected.
    pub(crate) fn reap(&mut self) -> bool {
        if !self.reaped {
            let status = waitpid(self.pid, Some(WaitPidFlag::WNOHANG));
            self.reaped = !matches!(status, Ok(WaitStatus::StillAlive) | Err(Errno::EINTR));
        }
        self.reaped
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if !self.reap() {
            self.kill();
            while matches!(waitpid(self.pid, None), Err(Errno::EINTR)) {}
        }
    }
}

impl Launcher {
    /// The helper at `path`, which is absolute, spawned anew for each launch.
    pub fn spawning(path: PathBuf) -> Launcher {
        Launcher { path, server: None }
    }

    /// The helper at `path`, started at the first launch and kept for all: several times as fast.
    pub fn serving(path: PathBuf) -> Launcher {
        Launcher {
            path,
            server: Some(Mutex::new(None)),
        }
    }

    /// Ends the server, and every launch of its; the next launch starts another.
    pub fn kill_server(&self) {
        if let Some(server) = &self.server {
            *server.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }

    /// Hands a launch over; what comes back is to be reaped at its end, if anything.
    pub(crate) fn launch(&self, given: &Descriptors<'_>) -> Result<Option<Helper>, Error> {
        let Some(server) = &self.server else {
            let descriptors = [
                (given.stdout, 1),
                (given.stderr, 2),
                (given.control, CONTROL_FD),
                (given.spec, SPEC_FD),
                (given.state, STATE_FD),
            ];
            return self.spawn(&[c"pg-shell-launch"], &descriptors).map(Some);
        };
        let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = &mut *server {
            if !running.helper.reap() && running.send(given).is_ok() {
                return Ok(None);
            }
            // It was killed; the next is as good.
            *server = None;
        }
        let fresh = server.insert(self.start_server()?);
        fresh.send(given).or_cannot("pass a launch to its server")?;
        Ok(None)
    }

    fn start_server(&self) -> Result<Server, Error> {
        let (socket, inside) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .or_cannot("make the launcher's socket")?;
        let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
            .or_cannot("open /dev/null")?;
        let descriptors = [
            (null.as_fd(), 1),
            (null.as_fd(), 2),
            (inside.as_fd(), CONTROL_FD),
        ];
        let helper = self.spawn(&[c"pg-shell-launch", c"serve"], &descriptors)?;
        Ok(Server { socket, helper })
    }

    fn spawn(
        &self,
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
        match spawn(&self.path, arguments, &all) {
            Ok(pid) => Ok(Helper { pid, reaped: false }),
            Err(source) => Err(Error::Spawn {
                path: self.path.clone(),
                source,
            }),
        }
    }
}

impl Server {
    fn send(&self, given: &Descriptors<'_>) -> nix::Result<()> {
        let Descriptors {
            stdout,
            stderr,
            control,
            spec,
            state,
        } = given;
        let descriptors = [stdout, stderr, control, spec, state].map(AsRawFd::as_raw_fd);
        let message = [ControlMessage::ScmRights(&descriptors)];
        sendmsg::<()>(
            self.socket.as_raw_fd(),
            &[IoSlice::new(b"L")],
            &message,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        Ok(())
    }
}

/// Spawns the helper with exactly these descriptors under exactly these numbers, an empty environment,
/// default signal dispositions, an empty signal mask and a process group of its own.
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
        sources.push(unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(copy) });
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
