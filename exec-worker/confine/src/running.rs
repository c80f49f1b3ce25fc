//! The caller's side of one launch: start it, pump it, stop it.

use std::fs::File;
use std::io;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::capture::{Capture, Output};
use crate::error::{Context, Error};
use crate::inside::{CONTROL_FD, SPEC_FD, STATE_FD};
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

/// Bytes that a shell may write about its state; what is cut off there is no complete state.
const STATE_BYTES: usize = 4 << 20;

/// A command that runs in its confinement.
///
/// Dropping it kills whatever is left of it.
pub struct Running {
    pid: Pid,
    control: OwnedFd,
    /// A memory file: a shell writes its state line by line, and each line in a pipe would wake the caller.
    state: File,
    capture: Capture,
    epoll: Epoll,
    report: Option<Report>,
    started: Instant,
    duration: Duration,
    stopped: Option<Stop>,
    reaped: bool,
}

impl Running {
    /// Starts the helper at `launcher` (an absolute path) with this specification.
    ///
    /// # Errors
    /// [`Error::Spawn`] where the helper cannot be started, [`Error::System`] where the system has no
    /// descriptors or memory left. Nothing is left behind.
    pub fn start(launcher: &Path, spec: &Spec) -> Result<Running, Error> {
        let started = Instant::now();
        let (control, control_inside) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .or_cannot("make the control socket")?;
        let state = state_file().or_cannot("make the file for the shell's state")?;
        fcntl(&control, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .or_cannot("make the control socket")?;
        let (capture, stdout, stderr) =
            Capture::new(spec.limits.output_bytes).or_cannot("make the output pipes")?;
        let spec_file = memfd(&spec.encode()).or_cannot("pass the launch specification")?;
        let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
            .or_cannot("open /dev/null")?;

        let pid = spawn(
            launcher,
            &[
                (null.as_fd(), 0),
                (stdout.as_fd(), 1),
                (stderr.as_fd(), 2),
                (control_inside.as_fd(), CONTROL_FD),
                (spec_file.as_fd(), SPEC_FD),
                (state.as_fd(), STATE_FD),
            ],
        )
        .map_err(|source| Error::Spawn {
            path: launcher.to_owned(),
            source,
        })?;

        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).or_cannot("watch the command")?;
        let mut running = Running {
            pid,
            control,
            state,
            capture,
            epoll,
            report: None,
            started,
            duration: Duration::ZERO,
            stopped: None,
            reaped: false,
        };
        running.watch().or_cannot("watch the command")?;
        Ok(running)
    }

    fn watch(&mut self) -> nix::Result<()> {
        let readable = || EpollEvent::new(EpollFlags::EPOLLIN, 0);
        self.epoll.add(&self.control, readable())?;
        for fd in self.capture.descriptors() {
            self.epoll.add(fd, readable())?;
        }
        Ok(())
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
                // Whatever was written before the report is in the pipes now.
                self.capture.pump()?;
            }
        }
        let Some(report) = &self.report else {
            return Ok(None);
        };
        if !self.capture.ended() {
            return Ok(None);
        }
        Ok(Some(Outcome {
            report: report.clone(),
            duration: self.duration,
            stopped: self.stopped,
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

    /// Asks the helper to end every process of the command; the outcome will be [`Ended::Stopped`].
    ///
    /// The first reason given stands.
    pub fn stop(&mut self, why: Stop) {
        if self.stopped.is_some() || self.report.is_some() {
            return;
        }
        self.stopped = Some(why);
        // It may have ended by itself just now; then there is nobody to hear this.
        let _ = send(
            self.control.as_raw_fd(),
            b"K",
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
        );
    }

    /// Ends every process of the command from outside, whatever state the helper is in.
    ///
    /// The helper's death takes PID 1 of the command's namespace with it (parent-death signal), and that
    /// one's death takes the rest.
    pub fn kill(&self) {
        if !self.reaped {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }

    /// Collects the helper's exit status if it is there; true once that has been done.
    pub fn reap(&mut self) -> bool {
        if !self.reaped {
            self.reaped = !matches!(
                waitpid(self.pid, Some(WaitPidFlag::WNOHANG)),
                Ok(nix::sys::wait::WaitStatus::StillAlive) | Err(Errno::EINTR)
            );
        }
        self.reaped
    }

    fn read_report(&mut self) -> io::Result<()> {
        let mut message = [0_u8; 4096];
        let received = match recv(
            self.control.as_raw_fd(),
            &mut message,
            MsgFlags::MSG_DONTWAIT,
        ) {
            Ok(n) => n,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(Errno::ECONNRESET) => 0,
            Err(e) => return Err(e.into()),
        };
        let report = Report::decode(&message[..received]);
        self.report = Some(report.unwrap_or_else(|| Report::of(Ended::LauncherDied)));
        self.duration = self.started.elapsed();
        // At its end this socket stays readable; nothing more comes from it.
        let _ = self.epoll.delete(&self.control);
        Ok(())
    }

    /// Up to where the shell wrote: its descriptor and this one share their position.
    fn read_state(&mut self) -> io::Result<Vec<u8>> {
        let written = self.state.stream_position()?.min(STATE_BYTES as u64);
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
            while matches!(waitpid(self.pid, None), Err(Errno::EINTR)) {}
        }
    }
}

/// A memory file of fixed size: what is not written takes no memory, and nobody can make it larger.
fn state_file() -> io::Result<File> {
    let file = File::from(memfd_create(
        c"state",
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )?);
    file.set_len(STATE_BYTES as u64)?;
    let fixed = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(fixed))?;
    Ok(file)
}

fn memfd(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = memfd_create(c"pg_shell", MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    Ok(file.into())
}

/// Spawns the helper with exactly these descriptors under exactly these numbers, an empty environment,
/// default signal dispositions, an empty signal mask and a process group of its own.
fn spawn(launcher: &Path, descriptors: &[(BorrowedFd<'_>, RawFd)]) -> io::Result<Pid> {
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
    let no_environment: [&std::ffi::CStr; 0] = [];
    let pid = posix_spawn(
        launcher,
        &actions,
        &attributes,
        &[c"pg-shell-launch"],
        &no_environment,
    )?;
    Ok(pid)
}
