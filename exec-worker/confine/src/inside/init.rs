//! PID 1 of the namespace. It starts the shell, waits for it, for the deadline, for a stop or for
//! its caller's death, then ends every process there is and reports. Where nothing is left behind, it
//! waits for the next command of the same session.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::Pid;

use super::clean::Folders;
use super::landlock::{self, Rules};
use super::meter::{self, Whose};
use super::reap::{Reaper, Usage};
use super::shell::Way;
use super::start::{self, Started, Taken, Woken};
use super::{
    At, Failure, Launch, clock, fault, home, privileges, programs, root, send_report,
    send_report_with,
};
use crate::error::Step;
use crate::limits::Limits;
use crate::report::{Ended, Report};
use crate::running::STATE_BYTES;
use crate::spec::{HOME, Spec};

/// How often what a command uses is looked at.
const METER_INTERVAL: Duration = Duration::from_millis(200);

/// A session that has had so many commands is likely to have another.
const LIKELY: u32 = 2;

/// PID 1's life, in a root that is complete. Returns where it is over; and in the process that is to go on
/// as the shell, with what it has to do.
pub(super) fn live(
    control: &OwnedFd,
    first: Launch,
    rules: Option<Rules>,
    way: Way,
    keep: bool,
) -> Result<Option<Woken>, Failure> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).at(Step::Init)?;
    let watch = Watch::new()?;
    let first = start::take(first)?;
    let mut confined = confine(&first.spec, rules)?;
    let forks = way.forks(first.spec.shell) && confined.state.is_none();
    let mut served = if first.spec.ahead { LIKELY } else { 0 };
    let mut first = Some(first).filter(|first| !first.spec.ahead);
    loop {
        let (started, state) = match first.take() {
            Some(taken) => confined.start(taken, &watch, way)?,
            None if forks => {
                let ahead = served >= LIKELY;
                let begin = |spec: &Spec| confined.begin(spec, &watch);
                (start::fork_next(control, ahead, begin)?, None)
            }
            None => match start::receive_launch(control)? {
                Some(taken) => confined.start(taken, &watch, way)?,
                None => return Ok(None),
            },
        };
        let (shell, limits) = match started {
            Started::Here(woken) => return Ok(Some(woken)),
            Started::Nowhere => return Ok(None),
            Started::Child(shell, limits) => (shell, limits),
        };
        let mut report = attend(shell, &limits, control, &watch)?;
        confined.hand_on(state);
        let home_changed = confined.folders.home_changed();
        report.kept = keep && !home_changed && confined.folders.others_are_clean();
        report.home_changed = home_changed && confined.layers.is_some();
        if report.home_changed {
            send_report_with(control, &report, confined.folders.home());
        } else {
            send_report(control.as_raw_fd(), &report);
        }
        if !report.kept {
            return Ok(None);
        }
        served += 1;
    }
}

/// How PID 1 was confined at its first command, for good.
struct Confined {
    programs: Option<Vec<CString>>,
    layers: Option<Vec<CString>>,
    /// With a list of programs: where the shell writes its state. The caller's is a memory file, from which
    /// a program could be run.
    state: Option<File>,
    folders: Folders,
}

impl Confined {
    /// A command's time begins, in whichever process has taken its launch: both have the clock that is set.
    fn begin(&self, spec: &Spec, watch: &Watch) -> Result<(), Failure> {
        // Both are part of what a PID 1 is kept by.
        if spec.programs != self.programs {
            return Err((Step::Programs, "PID 1 is restricted to another list".into()));
        }
        if spec.layers != self.layers {
            return Err((Step::Home, "PID 1 has other files".into()));
        }
        watch.begin(&spec.limits)
    }

    /// Starts the shell of a launch; with it comes the caller's file, where that is not the shell's.
    fn start(
        &self,
        mut taken: Taken,
        watch: &Watch,
        way: Way,
    ) -> Result<(Started, Option<OwnedFd>), Failure> {
        self.begin(&taken.spec, watch)?;
        let callers = match &self.state {
            None => None,
            Some(own) => Some(taken.replace_state(&empty(own).at(Step::Descriptors)?)?),
        };
        Ok((start::at_once(taken, way)?, callers))
    }

    /// Gives the caller what the shell has written, where that is not in the caller's own file.
    fn hand_on(&self, callers: Option<OwnedFd>) {
        if let (Some(own), Some(state)) = (&self.state, callers) {
            let mut state = File::from(state);
            if copy(own, &mut state).is_err() {
                // It has run; what is lost is its state.
                let _ = state.rewind();
            }
        }
    }
}

/// The steps that only a launch can tell how to take. Mounts come first: later ones are refused.
fn confine(spec: &Spec, mut rules: Option<Rules>) -> Result<Confined, Failure> {
    root::resize_own(&spec.limits)?;
    let layers = spec.layers.as_deref().unwrap_or_default();
    home::mount_over(layers)?;
    let mut state = None;
    match &spec.programs {
        None => fault::point(Step::Programs)?,
        Some(programs) => {
            let executed = programs::restrict(programs, spec.shell)?;
            rules = landlock::prepare(Some(&executed))?;
            state = Some(root::hidden_file(STATE_BYTES)?);
        }
    }
    let folders = Folders::open().at(Step::Root)?;
    home::hide()?;
    privileges::drop_all()?;
    if let Some(mut rules) = rules {
        if !layers.is_empty() {
            // It is another folder than the one that the rules were made for.
            rules = rules.allow(Path::new(HOME), landlock::writing())?;
        }
        rules.enter()?;
    }
    privileges::filter_inner()?;
    Ok(Confined {
        programs: spec.programs.clone(),
        layers: spec.layers.clone(),
        state,
        folders,
    })
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

/// One command, whose shell has started.
fn attend(
    shell: Pid,
    limits: &Limits,
    control: &OwnedFd,
    watch: &Watch,
) -> Result<Report, Failure> {
    let mut reaper = Reaper::new(shell);
    let ended = wait(&mut reaper, control, watch, limits, Whose::All)?;
    let Usage {
        cpu_us,
        peak_memory_bytes,
    } = reaper.end_everything();
    Ok(Report {
        ended,
        cpu_us,
        peak_memory_bytes,
        kept: false,
        home_changed: false,
        steps: clock::spent(),
    })
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

pub(super) fn wait(
    reaper: &mut Reaper,
    control: &OwnedFd,
    watch: &Watch,
    limits: &Limits,
    whose: Whose,
) -> Result<Ended, Failure> {
    let mut look_at = Instant::now() + METER_INTERVAL;
    loop {
        let left = look_at.saturating_duration_since(Instant::now());
        let mut watched = [
            PollFd::new(watch.children.as_fd(), PollFlags::POLLIN),
            PollFd::new(control.as_fd(), PollFlags::POLLIN),
            PollFd::new(watch.deadline.as_fd(), PollFlags::POLLIN),
        ];
        match ppoll(&mut watched, Some(TimeSpec::from_duration(left)), None) {
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
        // By the clock, not when nothing happens: a command can see to it that something always does.
        if Instant::now() >= look_at {
            if let Some(used) = meter::used_up(limits, reaper.usage(), whose) {
                return Ok(Ended::UsedUp(used));
            }
            look_at = Instant::now() + METER_INTERVAL;
        }
    }
}
