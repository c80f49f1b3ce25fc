//! The helper, seen from the caller: spawned for each launch, or kept as a server.

use std::ffi::{CStr, CString};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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

use crate::cgroup::{Cgroup, Group};
use crate::error::{Context, Error};
use crate::inside::{AHEAD, CGROUP_FD, CONTROL_FD, GROUPED, KILLED_BY, LAUNCH, SPEC_FD, STATE_FD};
use crate::kept::{Kept, Key};
use crate::level::Level;
use crate::limits::Limits;
use crate::report::{Ended, Report};
use crate::spec::Spec;

/// How launches are started.
pub struct Launcher {
    path: PathBuf,
    /// `None` spawns a helper for each launch; else the server, once there is one.
    server: Option<Mutex<Option<Hold>>>,
    kept: Kept,
    /// Below which the level basic makes its folders; `None` for the level strict.
    basic: Option<CString>,
    cgroup: Option<Cgroup>,
}

/// PID 1s that a launcher keeps for their sessions' next commands, if nothing else is said.
const KEPT: usize = 128;

/// How long a server that has reported may take to end.
const END_PATIENCE: Duration = Duration::from_millis(50);

/// A helper that waits for launches. It ends when its socket is closed.
pub(crate) struct Server {
    socket: OwnedFd,
    helper: Mutex<Helper>,
}

/// The launcher's own hold on its server, which ends with it. A launch shares the server only to hear what
/// became of it.
struct Hold {
    server: Arc<Server>,
    /// The group of the PID 1 that waits.
    ahead: Option<Group>,
}

impl Hold {
    /// Hands the PID 1 that waits, or will, its group: to join one takes the kernel some 10 ms as a rule,
    /// which no launch needs to wait for.
    fn prepare(&mut self, cgroup: Option<&Cgroup>) {
        let Some(group) = cgroup.and_then(Cgroup::ahead) else {
            return;
        };
        let sent = group
            .procs()
            .is_some_and(|procs| send(&self.server.socket, AHEAD, &[procs.as_raw_fd()]).is_ok());
        if sent {
            self.ahead = Some(group);
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.server.helper().end();
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
            LAUNCH,
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
    /// Where it runs, if in a control group.
    pub group: Option<Group>,
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
            cgroup: None,
        }
    }

    /// The helper at `path`, started at the first launch and kept for all: several times as fast.
    pub fn serving(path: PathBuf) -> Launcher {
        Launcher {
            path,
            server: Some(Mutex::new(None)),
            kept: Kept::new(KEPT),
            basic: None,
            cgroup: None,
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

    /// The same, each launch in a control group of its own.
    #[must_use]
    pub fn within(mut self, cgroup: Option<Cgroup>) -> Launcher {
        self.cgroup = cgroup;
        self
    }

    /// For the helper.
    pub(crate) fn encode(&self, spec: &Spec) -> Vec<u8> {
        if !self.cgroup.as_ref().is_some_and(Cgroup::counts_processes) {
            return spec.encode();
        }
        // The resource limit lets one more pass than the group, so that it is the group that says no and counts.
        let mut spec = spec.clone();
        spec.limits.processes = spec.limits.processes.saturating_add(1);
        spec.encode()
    }

    /// Ends what waits for so long for its session's next command.
    pub fn end_kept(&self, older: Duration) {
        self.kept.end_older(older);
        if let Some(cgroup) = &self.cgroup {
            cgroup.collect();
        }
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
            && let Some(hold) = &*server.lock().unwrap_or_else(PoisonError::into_inner)
            && hold.server.helper().reap()
        {
            self.kept.end_older(Duration::ZERO);
        }
    }

    /// Hands a launch over: to the PID 1 that was kept for `key`, where there is one.
    pub(crate) fn launch(
        &self,
        given: &Descriptors<'_>,
        key: Option<Key>,
        limits: &Limits,
    ) -> Result<Launched, Error> {
        let keep = key
            .filter(|_| self.server.is_some())
            .map(|key| (self.kept.clone(), key));
        self.forget_kept_of_the_dead();
        if let Some((kept, key)) = &keep
            && let Some((control, mut group)) = kept.take(*key)
            && group.as_mut().is_none_or(|g| g.limit(limits).is_ok())
            && given.send_again(&control).is_ok()
        {
            return Ok(Launched {
                helper: None,
                server: None,
                control,
                keep,
                group,
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
        let (helper, server, mut group) = match &self.server {
            Some(server) => {
                let (server, group) = self.hand_over(server, given, &inside, limits)?;
                (None, Some(server), group)
            }
            None => {
                let (helper, group) = self.spawn_for(given, &inside, limits)?;
                (Some(helper), None, group)
            }
        };
        // Only now: what was not sent to one server is to another.
        if let Some(group) = &mut group {
            group.joined();
        }
        Ok(Launched {
            helper,
            server,
            control,
            keep,
            group,
        })
    }

    /// A launch's group: the one that was made `ahead`, where there is one.
    fn group(&self, ahead: Option<Group>, limits: &Limits) -> Result<Option<Group>, Error> {
        match &self.cgroup {
            Some(cgroup) => cgroup.group(ahead, limits),
            None => Ok(None),
        }
    }

    fn spawn_for(
        &self,
        given: &Descriptors<'_>,
        control: &OwnedFd,
        limits: &Limits,
    ) -> Result<(Helper, Option<Group>), Error> {
        let mut descriptors = vec![
            (given.stdout, 1),
            (given.stderr, 2),
            (control.as_fd(), CONTROL_FD),
            (given.spec, SPEC_FD),
            (given.state, STATE_FD),
        ];
        let mut arguments = vec![c"pg-shell-launch"];
        let basic = self.basic.iter();
        arguments.extend(basic.flat_map(|folder| [BASIC_ARGUMENT, folder]));
        let group = self.group(None, limits)?;
        if let Some(procs) = group.as_ref().and_then(Group::procs) {
            arguments.push(GROUPED);
            descriptors.push((procs, CGROUP_FD));
        }
        let helper = self.spawn(&arguments, &descriptors)?;
        Ok((helper, group))
    }

    fn hand_over(
        &self,
        server: &Mutex<Option<Hold>>,
        given: &Descriptors<'_>,
        control: &OwnedFd,
        limits: &Limits,
    ) -> Result<(Arc<Server>, Option<Group>), Error> {
        let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = &mut *server {
            if !running.server.helper().reap() {
                let group = self.group(running.ahead.take(), limits)?;
                if running.server.send(given, control, group.as_ref()).is_ok() {
                    running.prepare(self.cgroup.as_ref());
                    return Ok((running.server.clone(), group));
                }
            }
            // It was killed; the next is as good.
            *server = None;
        }
        let fresh = server.insert(Hold {
            server: Arc::new(self.start_server()?),
            ahead: None,
        });
        fresh.prepare(self.cgroup.as_ref());
        let group = self.group(fresh.ahead.take(), limits)?;
        match fresh.server.send(given, control, group.as_ref()) {
            Ok(()) => fresh.prepare(self.cgroup.as_ref()),
            // It has ended already, and the launch finds out why.
            Err(Errno::EPIPE | Errno::ECONNRESET) => {}
            Err(e) => return Err(e).or_cannot("pass a launch to its server"),
        }
        Ok((fresh.server.clone(), group))
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
            Ok(n) => {
                // As a rule it is at its end, and nobody else would collect it before the next launch.
                let deadline = Instant::now() + END_PATIENCE;
                while !self.helper().reap() && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Report::decode(&message[..n]).map_or(Ended::LauncherDied, |r| r.ended)
            }
            // It lives; one process of its was killed.
            Err(_) => Ended::LauncherDied,
        }
    }

    fn send(
        &self,
        given: &Descriptors<'_>,
        control: &OwnedFd,
        group: Option<&Group>,
    ) -> nix::Result<()> {
        let control = control.as_fd();
        let mut all = vec![
            &given.stdout,
            &given.stderr,
            &control,
            &given.spec,
            &given.state,
        ];
        let procs = group.and_then(Group::procs);
        all.extend(&procs);
        let all: Vec<RawFd> = all.into_iter().map(AsRawFd::as_raw_fd).collect();
        send(&self.socket, LAUNCH, &all)
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

/// Sends descriptors as one message, which holds a byte that says what they are.
///
/// The kernel counts descriptors under way together for all processes of a user, commands among them, and
/// refuses the next to whom this is more than its soft limit. A command cannot raise its own.
fn send(socket: &OwnedFd, what: u8, descriptors: &[RawFd]) -> nix::Result<()> {
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

fn send_once(socket: &OwnedFd, what: u8, descriptors: &[RawFd]) -> nix::Result<()> {
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(&[what])],
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
