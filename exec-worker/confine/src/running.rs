//! The caller's side of one launch: start it, pump it, stop it.

use std::any::Any;
use std::fs::File;
use std::io;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{
    AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, send, shutdown, socketpair,
};

use nix::sys::time::TimeSpec;

use crate::capture::{Capture, Output};
use crate::cgroup::{Events, Group};
use crate::error::{Context, Error};
use crate::helper::Helper;
use crate::kept::{Kept, Key};
use crate::launcher::{Descriptors, Launched, Launcher, Server};
use crate::messages::{REPORT_BYTES, receive_report};
use crate::report::{Ended, Outcome, Report};
use crate::spec::Spec;

/// Why the caller ends a command; each becomes its own `failure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Somebody asked for it.
    Cancelled,
    /// It printed more than it may.
    OutputLimit,
}

/// What holds something for as long as it is needed.
pub type Pin = Arc<dyn Any + Send + Sync>;

/// Bytes that a shell may write about its state; what is cut off there is no complete state.
pub(crate) const STATE_BYTES: usize = 4 << 20;

/// The position in the file for the state until PID 1 has taken the launch: where no writing leads to.
const UNTAKEN: u64 = STATE_BYTES as u64 + 1;

/// A command that runs in its confinement.
///
/// Dropping it kills whatever is left of it.
pub struct Running {
    helper: Option<Helper>,
    server: Option<Arc<Server>>,
    /// `None` once it is kept for the session's next command.
    control: Option<OwnedFd>,
    keep: Option<(Kept, Key)>,
    pin: Option<Pin>,
    group: Option<Group>,
    events: Events,
    /// A memory file: a shell writes its state line by line, and each line in a pipe would wake the caller.
    state: File,
    capture: Capture,
    /// The pipes' writing ends until there is a report: a shell that closes the last ones while it ends would wake
    /// the caller for each.
    open: Option<[OwnedFd; 2]>,
    epoll: Epoll,
    report: Option<Report>,
    upper: Option<OwnedFd>,
    started: Instant,
    duration: Duration,
    stopped: Option<Stop>,
    killed: bool,
}

impl Running {
    /// Starts a launch. Where a `session` is named, what its last command left behind, if that is
    /// nothing but an empty confinement, serves this one too. What the layers need that the specification names is
    /// held by `pin`, which lives as long as they are mounted.
    ///
    /// # Errors
    /// [`Error::Spawn`] where the helper cannot be started, [`Error::System`] where the system has no
    /// descriptors or memory left. Nothing is left behind.
    pub fn start(
        launcher: &Launcher,
        session: Option<u128>,
        spec: &Spec,
        pin: Option<Pin>,
    ) -> Result<Running, Error> {
        let started = Instant::now();
        let Spare {
            state,
            mut capture,
            stdout,
            stderr,
            epoll,
        } = launcher.spare().map_or_else(Spare::new, Ok)?;
        capture.limit = spec.limits.output_bytes;
        let spec_file = memfd(&launcher.encode(spec)).or_cannot("pass the launch specification")?;
        let key = session.map(|session| Key::new(session, spec));
        let Launched {
            helper,
            server,
            control,
            keep,
            group,
        } = launcher.launch(
            &Descriptors {
                stdout: stdout.as_fd(),
                stderr: stderr.as_fd(),
                spec: spec_file.as_fd(),
                state: state.as_fd(),
            },
            key,
            &spec.limits,
        )?;

        epoll
            .add(&control, readable())
            .or_cannot("watch the command")?;
        Ok(Running {
            helper,
            server,
            control: Some(control),
            keep,
            pin,
            group,
            events: Events::default(),
            state,
            capture,
            open: Some([stdout, stderr]),
            epoll,
            report: None,
            upper: None,
            started,
            duration: Duration::ZERO,
            stopped: None,
            killed: false,
        })
    }

    /// Reads what is there, without waiting. `Some` once the command, and every process it left, has
    /// ended and all it wrote has been read; not to be called again after that.
    ///
    /// # Errors
    /// An I/O error that is not the command's doing.
    pub fn pump(&mut self) -> io::Result<Option<Outcome>> {
        self.capture.pump()?;
        if self.capture.output.truncated {
            self.stop(Stop::OutputLimit);
        }
        if self.report.is_none() {
            self.read_report()?;
            if self.report.is_some() {
                self.open = None;
                // Whatever was written before the report is in the pipes now.
                self.capture.pump()?;
            }
        }
        let Some(report) = &self.report else {
            return Ok(None);
        };
        if !self.capture.ended() {
            // Where PID 1 was killed, the command ended only now.
            collect_sockets();
            return Ok(None);
        }
        let mut report = report.clone();
        // It may have ended by itself before it could be stopped; how fast it was makes no difference.
        if self.capture.output.truncated
            && matches!(report.ended, Ended::Exited(_) | Ended::Signaled(_))
        {
            report.ended = Ended::Stopped;
            self.stopped = Some(Stop::OutputLimit);
        }
        Ok(Some(Outcome {
            report,
            duration: self.duration,
            stopped: self.stopped,
            events: self.events,
            state: self.read_state()?,
        }))
    }

    /// What it has printed so far.
    pub fn output(&self) -> &Output {
        &self.capture.output
    }

    /// Takes the output, at the end.
    pub fn take_output(&mut self) -> Output {
        std::mem::take(&mut self.capture.output)
    }

    /// Takes the upper folder of home, at the end, where [`Report::home_changed`] says that there is something in it.
    /// Nobody else can reach it any more; what it holds is hostile.
    pub fn take_upper(&mut self) -> Option<OwnedFd> {
        self.upper.take()
    }

    /// Asks the helper to end every process of the command; the outcome will be [`Ended::Stopped`].
    ///
    /// The first reason given stands.
    pub fn stop(&mut self, why: Stop) {
        if self.stopped.is_some() || self.report.is_some() {
            return;
        }
        self.stopped = Some(why);
        // It may have ended by itself just now; then there is nobody to hear this.
        if let Some(control) = &self.control {
            let _ = send(
                control.as_raw_fd(),
                b"K",
                MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            );
        }
    }

    /// Ends every process of the command, whatever the helper is doing: PID 1 of its namespace ends when
    /// this side of the control socket does, and when the helper is killed that was started for it.
    pub fn kill(&mut self) {
        self.killed = true;
        if let Some(control) = &self.control {
            let _ = shutdown(control.as_raw_fd(), Shutdown::Both);
        }
        if let Some(helper) = &self.helper {
            helper.kill();
        }
        if let Some(group) = &self.group {
            group.kill();
        }
    }

    /// Ends every process of the command, and waits until they have ended, but not longer than `patience`.
    pub fn end(mut self, patience: Duration) {
        if self.report.is_some() {
            return;
        }
        self.stop(Stop::Cancelled);
        let deadline = Instant::now() + patience;
        while let Some(control) = &self.control {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut watched = [PollFd::new(control.as_fd(), PollFlags::POLLIN)];
            match ppoll(&mut watched, Some(TimeSpec::from_duration(left)), None) {
                Err(Errno::EINTR) => {}
                Ok(n) if n > 0 => {
                    if self.read_report().is_err() || self.report.is_some() {
                        return;
                    }
                }
                _ => return,
            }
        }
    }

    /// Collects the helper's exit status if it is there; true once there is none to collect.
    pub fn reap(&mut self) -> bool {
        if self.helper.as_mut().is_some_and(Helper::reap) {
            self.helper = None;
        }
        self.helper.is_none()
    }

    fn read_report(&mut self) -> io::Result<()> {
        let Some(control) = &self.control else {
            return Ok(());
        };
        let mut message = [0_u8; REPORT_BYTES];
        let (received, upper) = match receive_report(control, &mut message, MsgFlags::MSG_DONTWAIT)
        {
            Ok(received) => received,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        self.duration = self.started.elapsed();
        // At its end this socket stays readable; nothing more comes from it.
        let _ = self.epoll.delete(control);
        let report = match Report::decode(&message[..received]) {
            Some(report) => report,
            None => self.report_of_the_dead()?,
        };
        if let Some(group) = &self.group
            && report.ended != Ended::Exited(0)
        {
            self.events = group.events();
        }
        if report.kept
            && let Some((kept, key)) = self.keep.take()
            && let Some(control) = self.control.take()
        {
            kept.put(key, control, self.group.take(), self.pin.take());
        }
        self.upper = upper;
        self.report = Some(report);
        Ok(())
    }

    /// Where nobody reports: how it ended, and if PID 1 was killed, what its group knows.
    fn report_of_the_dead(&mut self) -> io::Result<Report> {
        let mut report = Report::of(self.ended_unreported()?);
        if let Some(group) = &self.group
            && report.ended == Ended::LauncherDied
        {
            (report.cpu_us, report.peak_memory_bytes) = group.usage();
        }
        Ok(report)
    }

    /// How it ended, where nothing says so.
    fn ended_unreported(&mut self) -> io::Result<Ended> {
        if self.killed {
            return Ok(Ended::LauncherDied);
        }
        let taken = self.state.stream_position()? != UNTAKEN;
        Ok(match (&mut self.helper, &self.server) {
            (Some(helper), _) => helper.ended_unreported(),
            (None, Some(server)) if !taken => server.ended_untaken(),
            _ => Ended::LauncherDied,
        })
    }

    /// Up to where the shell wrote: its descriptor and this one share their position.
    fn read_state(&mut self) -> io::Result<Vec<u8>> {
        let written = match self.state.stream_position()? {
            UNTAKEN => 0,
            position => position.min(STATE_BYTES as u64),
        };
        let mut state = vec![0; written as usize];
        self.state.read_exact_at(&mut state, 0)?;
        Ok(state)
    }
}

impl AsFd for Running {
    /// Readable when [`Running::pump`] has something to do.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl AsRawFd for Running {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.reap() {
            self.kill();
        }
        // Before its session's next command; where no PID 1 was kept, the control socket is closed in any case.
        if self.control.is_none() {
            collect_sockets();
        }
    }
}

/// What a launch needs whatever it is, made before it: pipes, the file for the state, what to wait on.
pub(crate) struct Spare {
    state: File,
    capture: Capture,
    stdout: OwnedFd,
    stderr: OwnedFd,
    epoll: Epoll,
}

impl Spare {
    /// Makes it.
    pub(crate) fn new() -> Result<Spare, Error> {
        let (capture, stdout, stderr) = Capture::new().or_cannot("make the output pipes")?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).or_cannot("watch the command")?;
        for fd in capture.descriptors() {
            epoll.add(fd, readable()).or_cannot("watch the command")?;
        }
        Ok(Spare {
            state: state_file().or_cannot("make the file for the shell's state")?,
            capture,
            stdout,
            stderr,
            epoll,
        })
    }
}

fn readable() -> EpollEvent {
    EpollEvent::new(EpollFlags::EPOLLIN, 0)
}

/// Sockets that a command has sent through each other outlive it, and with them what was sent along: its
/// output's pipes, memory files, a listening socket. The kernel collects them whenever a Unix socket is closed, so one is.
fn collect_sockets() {
    let flags = SockFlag::SOCK_CLOEXEC;
    // Where there is no descriptor left for it, somebody else closes one sooner or later.
    let _ = socketpair(AddressFamily::Unix, SockType::Stream, None, flags);
}

/// A memory file of fixed size: what is not written takes no memory, and nobody can make it larger.
fn state_file() -> io::Result<File> {
    let mut file = File::from(memfd_create(
        c"state",
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )?);
    file.set_len(STATE_BYTES as u64)?;
    let fixed = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(fixed))?;
    file.seek(SeekFrom::Start(UNTAKEN))?;
    Ok(file)
}

/// A memory file with these bytes.
pub(crate) fn memfd(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = memfd_create(c"pg_shell", MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    Ok(file.into())
}
