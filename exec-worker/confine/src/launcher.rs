//! The helper, seen from the caller: spawned for each launch, or kept as a server.

use std::ffi::{CStr, CString};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::error::{Context, Error};
use crate::inside::{CONTROL_FD, SPEC_FD, STATE_FD};
use crate::kept::{Kept, Key};
use crate::level::Level;

/// How launches are started.
pub struct Launcher {
    path: PathBuf,
    /// `None` spawns a helper for each launch; else the server, once there is one.
    server: Option<Mutex<Option<Server>>>,
    kept: Kept,
    /// Below which the level basic makes its folders; `None` for the level strict.
    basic: Option<CString>,
}

/// PID 1s that a launcher keeps for their sessions' next commands, if nothing else is said.
const KEPT: usize = 128;

/// A helper that waits for launches. It ends when its socket is closed.
struct Server {
    socket: OwnedFd,
    helper: Helper,
}

/// What a launch is given, besides its control socket.
pub(crate) struct Descriptors<'a> {
    pub stdout: BorrowedFd<'a>,
    pub stderr: BorrowedFd<'a>,
    pub spec: BorrowedFd<'a>,
    pub state: BorrowedFd<'a>,
}

impl Descriptors<'_> {
    /// Hands a launch to the PID 1 that listens on `control`, which has served its session before.
    fn send_again(&self, control: &OwnedFd) -> nix::Result<()> {
        send(
            control,
            &[&self.stdout, &self.stderr, &self.spec, &self.state].map(AsRawFd::as_raw_fd),
        )
    }
}

/// How a launch was started.
pub(crate) struct Launched {
    /// To be reaped at its end, if anything.
    pub helper: Option<Helper>,
    /// The socket that the report comes by.
    pub control: OwnedFd,
    /// Where to keep the PID 1, if it may be.
    pub keep: Option<(Kept, Key)>,
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
        Launcher {
            path,
            server: None,
            kept: Kept::new(0),
            basic: None,
        }
    }

    /// The helper at `path`, started at the first launch and kept for all: several times as fast.
    pub fn serving(path: PathBuf) -> Launcher {
        Launcher {
            path,
            server: Some(Mutex::new(None)),
            kept: Kept::new(KEPT),
            basic: None,
        }
    }

    /// The helper at `path`, for an administrator's level: [`Launcher::serving`], or for [`Level::Basic`]
    /// spawned anew for each launch, to make its private folder below `temporary`.
    ///
    /// # Errors
    /// [`Error::Invalid`] where `temporary` is no absolute path.
    pub fn at(level: Level, path: PathBuf, temporary: &Path) -> Result<Launcher, Error> {
        if level == Level::Strict {
            return Ok(Launcher::serving(path));
        }
        let basic = Some(argument(temporary)?);
        Ok(Launcher {
            basic,
            ..Launcher::spawning(path)
        })
    }

    /// Ends what waits for so long for its session's next command.
    pub fn end_kept(&self, older: Duration) {
        self.kept.end_older(older);
    }

    /// Ends the server, and every launch of its; the next launch starts another.
    pub fn kill_server(&self) {
        if let Some(server) = &self.server {
            *server.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        self.kept.end_older(Duration::ZERO);
    }

    /// Hands a launch over: to the PID 1 that was kept for `key`, where there is one.
    pub(crate) fn launch(
        &self,
        given: &Descriptors<'_>,
        key: Option<Key>,
    ) -> Result<Launched, Error> {
        let keep = key
            .filter(|_| self.server.is_some())
            .map(|key| (self.kept.clone(), key));
        if let Some((kept, key)) = &keep
            && let Some(control) = kept.take(*key)
            && given.send_again(&control).is_ok()
        {
            return Ok(Launched {
                helper: None,
                control,
                keep,
            });
        }
        let (control, inside) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .or_cannot("make the control socket")?;
        fcntl(&control, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .or_cannot("make the control socket")?;
        let helper = self.launch_anew(given, &inside)?;
        Ok(Launched {
            helper,
            control,
            keep,
        })
    }

    fn launch_anew(
        &self,
        given: &Descriptors<'_>,
        control: &OwnedFd,
    ) -> Result<Option<Helper>, Error> {
        let Some(server) = &self.server else {
            let descriptors = [
                (given.stdout, 1),
                (given.stderr, 2),
                (control.as_fd(), CONTROL_FD),
                (given.spec, SPEC_FD),
                (given.state, STATE_FD),
            ];
            let mut arguments = vec![c"pg-shell-launch"];
            arguments.extend(
                self.basic
                    .iter()
                    .flat_map(|folder| [BASIC_ARGUMENT, folder]),
            );
            return self.spawn(&arguments, &descriptors).map(Some);
        };
        let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = &mut *server {
            if !running.helper.reap() && running.send(given, control).is_ok() {
                return Ok(None);
            }
            // It was killed; the next is as good.
            *server = None;
        }
        let fresh = server.insert(self.start_server()?);
        fresh
            .send(given, control)
            .or_cannot("pass a launch to its server")?;
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
        spawn_helper(&self.path, arguments, descriptors)
    }
}

fn spawn_helper(
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
        Ok(pid) => Ok(Helper { pid, reaped: false }),
        Err(source) => Err(Error::Spawn {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The level basic, by the helper's own word for it.
const BASIC_ARGUMENT: &CStr = c"basic";

/// An absolute path, for the helper.
fn argument(folder: &Path) -> Result<CString, Error> {
    let invalid = || {
        let folder = folder.display();
        Error::Invalid(format!(
            "the temporary folder {folder} is not an absolute path"
        ))
    };
    let path = CString::new(folder.as_os_str().as_encoded_bytes()).map_err(|_| invalid())?;
    folder.is_absolute().then_some(path).ok_or_else(invalid)
}

/// A helper that writes what this host can do to `answer`. Private folders would be made below `temporary`.
pub(crate) fn probe(
    path: &Path,
    temporary: &Path,
    answer: BorrowedFd<'_>,
) -> Result<Helper, Error> {
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
        .or_cannot("open /dev/null")?;
    let temporary = argument(temporary)?;
    let arguments = [c"pg-shell-launch", c"probe", &temporary];
    spawn_helper(path, &arguments, &[(answer, 1), (null.as_fd(), 2)])
}

impl Server {
    fn send(&self, given: &Descriptors<'_>, control: &OwnedFd) -> nix::Result<()> {
        let control = control.as_fd();
        send(
            &self.socket,
            &[
                &given.stdout,
                &given.stderr,
                &control,
                &given.spec,
                &given.state,
            ]
            .map(AsRawFd::as_raw_fd),
        )
    }
}

/// Sends descriptors as one message, which holds a byte, for an empty one would be an end.
///
/// The kernel counts descriptors under way together for all processes of a user, commands among them, and
/// refuses the next to whom this is more than its soft limit. A command cannot raise its own.
fn send(socket: &OwnedFd, descriptors: &[RawFd]) -> nix::Result<()> {
    match send_once(socket, descriptors) {
        Err(Errno::ETOOMANYREFS) => {
            let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
            let sent = send_once(socket, descriptors);
            setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
            sent
        }
        other => other,
    }
}

fn send_once(socket: &OwnedFd, descriptors: &[RawFd]) -> nix::Result<()> {
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(b"L")],
        &[ControlMessage::ScmRights(descriptors)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
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
