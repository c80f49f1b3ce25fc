//! The helper, seen from the caller: spawned for each launch, or kept as a server.

use std::ffi::{CStr, CString};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, recv, sendmsg, socketpair,
};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::error::{Context, Error};
use crate::inside::{CONTROL_FD, KILLED_BY, SPEC_FD, STATE_FD};
use crate::kept::{Kept, Key};
use crate::level::Level;
use crate::report::{Ended, Report};

/// How launches are started.
pub struct Launcher {
    path: PathBuf,
    /// `None` spawns a helper for each launch; else the server, once there is one.
    server: Option<Mutex<Option<Hold>>>,
    kept: Kept,
    /// Below which the level basic makes its folders; `None` for the level strict.
    basic: Option<CString>,
}

/// PID 1s that a launcher keeps for their sessions' next commands, if nothing else is said.
const KEPT: usize = 128;

/// A helper that waits for launches. It ends when its socket is closed.
pub(crate) struct Server {
    socket: OwnedFd,
    helper: Mutex<Helper>,
}

/// The launcher's own hold on its server, which ends with it. A launch shares the server only to hear what
/// became of it.
struct Hold(Arc<Server>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.helper().end();
    }
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
    /// Whose launch it is, unless what takes it is known to have started.
    pub server: Option<Arc<Server>>,
    /// The socket that the report comes by.
    pub control: OwnedFd,
    /// Where to keep the PID 1, if it may be.
    pub keep: Option<(Kept, Key)>,
}

/// A child process of the caller's. Dropping it kills it, and waits for it.
pub(crate) struct Helper {
    pid: Pid,
    program: PathBuf,
    /// Its exit status, once that has been collected.
    status: Option<WaitStatus>,
}

impl Helper {
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
    fn end(&mut self) {
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

    /// What a server has forked dies with it, a moment later.
    fn forget_kept_of_the_dead(&self) {
        if let Some(server) = &self.server
            && let Some(Hold(running)) = &*server.lock().unwrap_or_else(PoisonError::into_inner)
            && running.helper().reap()
        {
            self.kept.end_older(Duration::ZERO);
        }
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
        self.forget_kept_of_the_dead();
        if let Some((kept, key)) = &keep
            && let Some(control) = kept.take(*key)
            && given.send_again(&control).is_ok()
        {
            return Ok(Launched {
                helper: None,
                server: None,
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
        let (helper, server) = match &self.server {
            Some(server) => (None, Some(self.hand_over(server, given, &inside)?)),
            None => (Some(self.spawn_for(given, &inside)?), None),
        };
        Ok(Launched {
            helper,
            server,
            control,
            keep,
        })
    }

    fn spawn_for(&self, given: &Descriptors<'_>, control: &OwnedFd) -> Result<Helper, Error> {
        let descriptors = [
            (given.stdout, 1),
            (given.stderr, 2),
            (control.as_fd(), CONTROL_FD),
            (given.spec, SPEC_FD),
            (given.state, STATE_FD),
        ];
        let mut arguments = vec![c"pg-shell-launch"];
        let basic = self.basic.iter();
        arguments.extend(basic.flat_map(|folder| [BASIC_ARGUMENT, folder]));
        self.spawn(&arguments, &descriptors)
    }

    fn hand_over(
        &self,
        server: &Mutex<Option<Hold>>,
        given: &Descriptors<'_>,
        control: &OwnedFd,
    ) -> Result<Arc<Server>, Error> {
        let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Hold(running)) = &*server {
            if !running.helper().reap() && running.send(given, control).is_ok() {
                return Ok(running.clone());
            }
            // It was killed; the next is as good.
            *server = None;
        }
        let fresh = Arc::new(self.start_server()?);
        *server = Some(Hold(fresh.clone()));
        match fresh.send(given, control) {
            // It has ended already, and the launch finds out why.
            Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(fresh),
            Err(e) => Err(e).or_cannot("pass a launch to its server"),
        }
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
        Ok(Server {
            socket,
            helper: Mutex::new(helper),
        })
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
    fn helper(&self) -> MutexGuard<'_, Helper> {
        self.helper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How a launch ended that nobody has taken: what the server said of itself, or how it ended.
    pub(crate) fn ended_untaken(&self) -> Ended {
        let mut message = [0; REPORT_BYTES];
        // It stays there, for others who ask.
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match receive_report(&self.socket, &mut message, flags) {
            Ok(0) => self.helper().ended_unreported(),
            Ok(n) => Report::decode(&message[..n]).map_or(Ended::LauncherDied, |r| r.ended),
            // It lives; one process of its was killed.
            Err(_) => Ended::LauncherDied,
        }
    }

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

/// No report is longer.
pub(crate) const REPORT_BYTES: usize = 4096;

/// Receives a message. Where the other side has closed its socket with something unread in it, that comes
/// first, as an error, and what it sent before comes after.
pub(crate) fn receive_report(
    socket: &OwnedFd,
    message: &mut [u8; REPORT_BYTES],
    flags: MsgFlags,
) -> nix::Result<usize> {
    loop {
        match recv(socket.as_raw_fd(), message, flags) {
            Err(Errno::ECONNRESET) => {}
            other => return other,
        }
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
