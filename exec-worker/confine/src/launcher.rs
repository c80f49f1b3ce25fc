//! The helper, seen from the caller: spawned for each launch, or kept as a server.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::socket::MsgFlags;
use nix::sys::stat::Mode;

use crate::cgroup::{Cgroup, Group};
use crate::error::{Context, Error};
use crate::helper::{Helper, argument};
use crate::inside::home::LAYERS;
use crate::inside::{AHEAD, CGROUP_FD, CONTROL_FD, GROUPED, LAUNCH, SPEC_FD, STATE_FD};
use crate::kept::{Kept, Key};
use crate::level::Level;
use crate::limits::Limits;
use crate::messages::{REPORT_BYTES, pair, receive_report, send};
use crate::report::{Ended, Report};
use crate::running::{Pin, Spare, memfd};
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
    /// The argument that names the folder of layers.
    layers: Option<CString>,
    spare: Mutex<Option<Spare>>,
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
            .is_some_and(|procs| send(&self.server.socket, &[AHEAD], &[procs.as_raw_fd()]).is_ok());
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
            &[LAUNCH],
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

impl Launcher {
    /// The helper at `path`, which is absolute, spawned anew for each launch.
    pub fn spawning(path: PathBuf) -> Launcher {
        Launcher {
            path,
            server: None,
            kept: Kept::new(0),
            basic: None,
            cgroup: None,
            layers: None,
            spare: Mutex::new(None),
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
            layers: None,
            spare: Mutex::new(None),
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

    /// The same, with a folder of layers, of which a specification names some.
    ///
    /// # Errors
    /// [`Error::Invalid`] where it is no absolute path.
    pub fn with_layers(mut self, folder: &Path) -> Result<Launcher, Error> {
        let mut word = LAYERS.as_bytes().to_vec();
        word.extend_from_slice(argument(folder)?.as_bytes());
        self.layers = Some(CString::new(word).map_err(|e| Error::Invalid(e.to_string()))?);
        Ok(self)
    }

    /// Makes what the next launch needs, if it is not there: some 100 µs that the launch need not wait for.
    /// What cannot be made now the launch makes, or says why not.
    pub fn prepare(&self) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.is_none() {
            *spare = Spare::new().ok();
        }
    }

    /// Takes what was made ahead.
    pub(crate) fn spare(&self) -> Option<Spare> {
        self.spare
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
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
        let (control, inside) = control_pair()?;
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

    /// Has a PID 1 be ready for the session's next launch, which `spec` tells all about but the command: as ready as
    /// one that was kept. Where that fails, the launch goes without.
    pub fn make_ready(&self, session: u128, spec: &Spec, pin: Pin) {
        let Some(server) = &self.server else { return };
        let spec = spec.to_be_ready();
        let ready = || -> Result<_, Error> {
            let (control, inside) = control_pair()?;
            let null = null()?;
            let spec_file = memfd(&self.encode(&spec)).or_cannot("pass the specification")?;
            let nowhere = Descriptors {
                stdout: null.as_fd(),
                stderr: null.as_fd(),
                spec: spec_file.as_fd(),
                state: null.as_fd(),
            };
            let (_, mut group) = self.hand_over(server, &nowhere, &inside, &spec.limits)?;
            if let Some(group) = &mut group {
                group.joined();
            }
            Ok((control, group))
        };
        if let Ok((control, group)) = ready() {
            let key = Key::new(session, &spec);
            self.kept.put(key, control, group, Some(pin));
        }
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
        arguments.extend(self.layers.as_deref());
        let group = self.group(None, limits)?;
        if let Some(procs) = group.as_ref().and_then(Group::procs) {
            arguments.push(GROUPED);
            descriptors.push((procs, CGROUP_FD));
        }
        let helper = Helper::spawn(&self.path, &arguments, &descriptors)?;
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
        if let Some(running) = &mut *server
            && !running.server.helper().reap()
            && let (Ok(()), group) = self.pass(running, given, control, limits)?
        {
            return Ok((running.server.clone(), group));
        }
        // Where there was one it was killed; the next is as good.
        *server = None;
        let fresh = server.insert(Hold {
            server: Arc::new(self.start_server()?),
            ahead: None,
        });
        fresh.prepare(self.cgroup.as_ref());
        match self.pass(fresh, given, control, limits)? {
            // At its end already, of which the launch finds out why.
            (Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET), group) => {
                Ok((fresh.server.clone(), group))
            }
            (Err(e), _) => Err(e).or_cannot("pass a launch to its server"),
        }
    }

    /// Sends a launch to a server, with its group; and to the PID 1 after it the next group.
    fn pass(
        &self,
        hold: &mut Hold,
        given: &Descriptors<'_>,
        control: &OwnedFd,
        limits: &Limits,
    ) -> Result<(nix::Result<()>, Option<Group>), Error> {
        let group = self.group(hold.ahead.take(), limits)?;
        let sent = hold.server.send(given, control, group.as_ref());
        if sent.is_ok() {
            hold.prepare(self.cgroup.as_ref());
        }
        Ok((sent, group))
    }

    fn start_server(&self) -> Result<Server, Error> {
        let (socket, inside) = pair().or_cannot("make the launcher's socket")?;
        let null = null()?;
        let descriptors = [
            (null.as_fd(), 1),
            (null.as_fd(), 2),
            (inside.as_fd(), CONTROL_FD),
        ];
        let mut arguments = vec![c"pg-shell-launch", c"serve"];
        arguments.extend(self.layers.as_deref());
        let helper = Helper::spawn(&self.path, &arguments, &descriptors)?;
        Ok(Server {
            socket,
            helper: Mutex::new(helper),
        })
    }
}

/// A control socket: the caller's end, which does not block, and PID 1's.
fn control_pair() -> Result<(OwnedFd, OwnedFd), Error> {
    let (control, inside) = pair().or_cannot("make the control socket")?;
    fcntl(&control, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).or_cannot("make the control socket")?;
    Ok((control, inside))
}

fn null() -> Result<OwnedFd, Error> {
    open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty()).or_cannot("open /dev/null")
}

/// The level basic, by the helper's own word for it.
const BASIC_ARGUMENT: &CStr = c"basic";

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
            Ok((0, _)) => self.helper().ended_unreported(),
            Ok((n, _)) => {
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
        send(&self.socket, &[LAUNCH], &all)
    }
}
