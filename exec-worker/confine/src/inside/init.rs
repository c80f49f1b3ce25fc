//! PID 1 of the namespace. It starts the shell, waits for it, for the deadline, for a stop or for
//! its caller's death, then ends every process there is and reports. Where nothing is left behind, it
//! waits for the next command of the same session.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, clone};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::{ForkResult, Pid, Whence, lseek, pipe2, read, write};

use super::landlock::{self, Rules};
use super::meter::{self, Whose};
use super::reap::{Reaper, Usage};
use super::shell::{self, Way};
use super::{
    At, Failure, Launch, REFUSED, clean, clock, exit, fault, fork_at, privileges, programs,
    read_spec, receive, root, send_report,
};
use crate::error::Step;
use crate::limits::Limits;
use crate::report::{Ended, Report};
use crate::running::STATE_BYTES;
use crate::shell::waiting_session;
use crate::spec::Spec;

/// The shell's scripts know descriptors below this.
const ABOVE_THE_SHELLS: i32 = 300;

/// How often what a command uses is looked at.
const METER_MILLISECONDS: u16 = 200;

/// What the process is that comes back.
enum Role {
    /// PID 1, after the command.
    Init(Report),
    /// The shell's process, of a bash that waited for this command.
    Shell(CString),
}

/// PID 1's life, in a root that is complete. Returns where it is over; with a command's text, in the
/// process that is to run it.
pub(super) fn live(
    control: &OwnedFd,
    first: Launch,
    rules: Option<Rules>,
    way: Way,
    keep: bool,
) -> Result<Option<CString>, Failure> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).at(Step::Init)?;
    let watch = Watch::new()?;
    let mut launch = first;
    let mut rules = Some(rules);
    let mut confined = None;
    loop {
        take(&launch.state)?;
        if let Some(outputs) = launch.outputs {
            take_outputs(outputs)?;
        }
        let spec = read_spec(launch.spec)?;
        let confined = match &mut confined {
            Some(confined) => confined,
            none => none.insert(confine(&spec, rules.take().flatten())?),
        };
        // It is part of what a PID 1 is kept by.
        if spec.programs != confined.programs {
            let reason = "PID 1 is restricted to another list";
            return Err((Step::Programs, reason.into()));
        }
        match run(control, &watch, &spec, launch.state, confined, way)? {
            Role::Shell(command) => return Ok(Some(command)),
            Role::Init(mut report) => {
                report.kept = keep && clean::is_clean();
                send_report(control.as_raw_fd(), &report);
                if !report.kept {
                    return Ok(None);
                }
            }
        }
        let Some([stdout, stderr, spec, state]) = receive(control.as_raw_fd())? else {
            return Ok(None);
        };
        launch = Launch {
            outputs: Some([stdout, stderr]),
            spec,
            state,
        };
    }
}

/// How PID 1 was confined at its first command, for good.
struct Confined {
    programs: Option<Vec<CString>>,
    /// With a list of programs: where the shell writes its state. The caller's is a memory file, from which
    /// a program could be run.
    state: Option<File>,
}

/// The steps that only a launch can tell how to take. Mounts come first: later ones are refused.
fn confine(spec: &Spec, mut rules: Option<Rules>) -> Result<Confined, Failure> {
    root::resize_own(&spec.limits)?;
    let mut state = None;
    match &spec.programs {
        None => fault::point(Step::Programs)?,
        Some(programs) => {
            let executed = programs::restrict(programs, spec.shell)?;
            rules = landlock::prepare(Some(&executed))?;
            state = Some(root::hidden_file(STATE_BYTES)?);
        }
    }
    privileges::drop_all()?;
    if let Some(rules) = rules {
        rules.enter()?;
    }
    privileges::filter_inner()?;
    Ok(Confined {
        programs: spec.programs.clone(),
        state,
    })
}

/// Tells the caller, by the position that both have in this file, that the launch has been taken.
fn take(state: &OwnedFd) -> Result<(), Failure> {
    lseek(state, 0, Whence::SeekSet).at(Step::Descriptors)?;
    Ok(())
}

/// Puts a launch's descriptors where the shell will have them.
fn take_outputs([stdout, stderr]: [OwnedFd; 2]) -> Result<(), Failure> {
    for (from, to) in [(stdout, 1), (stderr, 2)] {
        // SAFETY: dup2 onto the standard descriptors, which nothing in this process owns.
        let placed = unsafe { libc::dup2(from.as_raw_fd(), to) };
        Errno::result(placed).at(Step::Descriptors)?;
    }
    Ok(())
}

/// Neither PID 1 nor its parent may hold a pipe open whose end the caller waits for. Standard input, which
/// is /dev/null, takes their numbers: what is received next must not.
pub(super) fn drop_outputs() {
    for fd in [1, 2] {
        // SAFETY: dup2 onto the standard descriptors, which nothing in this process owns.
        unsafe { libc::dup2(0, fd) };
    }
}

/// What PID 1 waits for, besides its caller.
pub(super) struct Watch {
    children: SignalFd,
    deadline: TimerFd,
}

impl Watch {
    pub(super) fn new() -> Result<Watch, Failure> {
        let mut watched = SigSet::empty();
        watched.add(Signal::SIGCHLD);
        watched.thread_block().at(Step::Init)?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Watch {
            children: SignalFd::with_flags(&watched, flags).at(Step::Init)?,
            deadline: TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)
                .at(Step::Init)?,
        })
    }

    /// A command's time begins.
    pub(super) fn begin(&self, limits: &Limits) -> Result<(), Failure> {
        let end = Expiration::OneShot(TimeSpec::from_duration(limits.wall));
        let deadline = &self.deadline;
        deadline.set(end, TimerSetTimeFlags::empty()).at(Step::Init)
    }
}

/// One command.
fn run(
    control: &OwnedFd,
    watch: &Watch,
    spec: &Spec,
    state: OwnedFd,
    confined: &Confined,
    way: Way,
) -> Result<Role, Failure> {
    watch.begin(&spec.limits)?;
    let (state, copied) = match &confined.state {
        None => (state, None),
        Some(own) => (empty(own).at(Step::Descriptors)?, Some((own, state))),
    };
    let shell = match start_shell(spec, state, way)? {
        Started::Here(command) => return Ok(Role::Shell(command)),
        Started::Child(pid) => pid,
    };
    let mut reaper = Reaper::new(shell);
    let ended = wait(&mut reaper, control, watch, &spec.limits, Whose::All)?;
    let Usage {
        cpu_us,
        peak_memory_bytes,
    } = reaper.end_everything();
    if let Some((own, state)) = copied {
        let mut state = File::from(state);
        if copy(own, &mut state).is_err() {
            // It has run; what is lost is its state.
            let _ = state.rewind();
        }
    }
    Ok(Role::Init(Report {
        ended,
        cpu_us,
        peak_memory_bytes,
        kept: false,
        steps: clock::spent(),
    }))
}

/// Another hold on a file with nothing in it any more.
fn empty(mut file: &File) -> io::Result<OwnedFd> {
    file.set_len(0)?;
    file.rewind()?;
    Ok(file.try_clone()?.into())
}

/// Gives the caller what the shell has written, up to where it wrote.
fn copy(mut own: &File, state: &mut File) -> io::Result<()> {
    let written = own.stream_position()?.min(STATE_BYTES as u64);
    own.rewind()?;
    io::copy(&mut own.take(written), state)?;
    Ok(())
}

/// Where the shell's process is: this one's child, or this one.
enum Started {
    Child(Pid),
    Here(CString),
}

/// Starts the shell's process; returns once it has become the shell, or says at which step it failed.
fn start_shell(spec: &Spec, state: OwnedFd, way: Way) -> Result<Started, Failure> {
    // The shell's scripts know some numbers, which this must not have.
    let state = lift(&state).at(Step::Descriptors)?;
    let started = match waiting_session(spec).filter(|_| way == Way::Waiting) {
        Some(script) => fork_shell(spec, &state, &script)?,
        None => Started::Child(spawn_shell(spec, &state, || Ok(()))?),
    };
    if let Started::Child(_) = started {
        drop_outputs();
    }
    Ok(started)
}

/// For what a process shares its memory with until it executes.
const STACK_BYTES: usize = 256 << 10;

/// As posix_spawn does, for a fork would copy this process' memory only for it to be thrown away. The child
/// takes a `last` step before it executes.
pub(super) fn spawn_shell(
    spec: &Spec,
    state: &OwnedFd,
    last: impl Fn() -> Result<(), Failure>,
) -> Result<Pid, Failure> {
    let mut stack = vec![0; STACK_BYTES];
    let mut failed = None;
    let child = Box::new(|| {
        failed = shell::execute(spec, state, &last).err();
        126
    });
    fault::point(Step::Fork)?;
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    // SAFETY: this process has one thread, which waits until the child has executed or ended; the child
    // has a stack of its own, and uses what it borrows in no way that this one would not.
    let pid = unsafe { clone(child, &mut stack, flags, Some(libc::SIGCHLD)) };
    match (failed, pid) {
        (Some(failure), _) => Err(failure),
        // No point where it fails: the command may be running.
        (None, pid) => pid.map_err(|e| (Step::Fork, e.to_string())),
    }
}

/// A fork of the shell that waits, which says by a pipe how far it has come.
fn fork_shell(spec: &Spec, state: &OwnedFd, script: &[u8]) -> Result<Started, Failure> {
    let (failed, low) = pipe2(OFlag::O_CLOEXEC).at(Step::Fork)?;
    let tell = lift(&low).at(Step::Descriptors)?;
    drop(low);
    match fork_at(Step::Fork)? {
        ForkResult::Child => {
            let Err(failure) = shell::wake(spec, state, script) else {
                return Ok(Started::Here(spec.command.clone()));
            };
            let message = postcard::to_stdvec(&failure).unwrap_or_default();
            let _ = write(&tell, &message);
            exit(REFUSED)
        }
        ForkResult::Parent { child } => {
            drop(tell);
            let mut message = [0_u8; 4096];
            let told = loop {
                match read(&failed, &mut message) {
                    Err(Errno::EINTR) => {}
                    other => break other.at(Step::Fork)?,
                }
            };
            match postcard::from_bytes::<Failure>(&message[..told]) {
                Ok(failure) => Err(failure),
                Err(_) if told > 0 => Err((Step::Exec, "the child's message was cut".into())),
                Err(_) => Ok(Started::Child(child)),
            }
        }
    }
}

/// Out of the way of the numbers that the shell's scripts know.
pub(super) fn lift(fd: &OwnedFd) -> nix::Result<OwnedFd> {
    let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(ABOVE_THE_SHELLS))?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

pub(super) fn wait(
    reaper: &mut Reaper,
    control: &OwnedFd,
    watch: &Watch,
    limits: &Limits,
    whose: Whose,
) -> Result<Ended, Failure> {
    loop {
        let mut watched = [
            PollFd::new(watch.children.as_fd(), PollFlags::POLLIN),
            PollFd::new(control.as_fd(), PollFlags::POLLIN),
            PollFd::new(watch.deadline.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut watched, METER_MILLISECONDS) {
            Ok(0) => {
                if let Some(used) = meter::used_up(limits, reaper.usage(), whose) {
                    return Ok(Ended::UsedUp(used));
                }
                continue;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err((Step::Init, e.to_string())),
        }
        let ready = watched.each_ref().map(|w| w.any() == Some(true));

        if ready[0] {
            while let Ok(Some(_)) = watch.children.read_signal() {}
            if let Some(ended) = reaper.reap() {
                return Ok(ended);
            }
        }
        if ready[1] {
            let mut word = [0_u8; 1];
            match recv(control.as_raw_fd(), &mut word, MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                // Anything said here, and the caller's death as well, means the same.
                _ => return Ok(Ended::Stopped),
            }
        }
        if ready[2] {
            return Ok(Ended::TimedOut);
        }
    }
}
