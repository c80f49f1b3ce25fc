//! Step 6: PID 1 of the namespace. It starts the shell, waits for it, for the deadline, for a stop or for
//! its caller's death, then ends every process there is and reports. Where nothing is left behind, it
//! waits for the next command of the same session.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::unistd::Pid;

use super::clean::Folders;
use super::reap::{Reaper, Usage};
use super::shell::Way;
use super::start::{self, Started, Woken};
use super::{At, Failure, Launch, clock, meter, privileges, programs, root, send_report};
use crate::error::Step;
use crate::limits::Limits;
use crate::report::{Ended, Report};

/// How often what a command uses is looked at.
const METER_MILLISECONDS: u16 = 200;

/// A session that has had so many commands is likely to have another.
const LIKELY: u32 = 2;

/// PID 1's life, in a root that is complete. Returns where it is over; and in the process that is to go on
/// as the shell, with what it has to do.
pub(super) fn live(
    control: &OwnedFd,
    first: Launch,
    way: Way,
    keep: bool,
) -> Result<Option<Woken>, Failure> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).at(Step::Init)?;
    let watch = Watch::new()?;
    let first = start::take(first)?;
    root::resize_own(&first.spec.limits)?;
    programs::restrict(first.spec.programs.as_deref(), first.spec.shell)?;
    let mut folders = Folders::open().at(Step::Root)?;
    privileges::drop_all()?;
    privileges::filter_inner()?;
    let mut started = start::at_once(first, way)?;
    let mut served = 0;
    loop {
        let mut report = match started {
            Started::Here(woken) => return Ok(Some(woken)),
            Started::Nowhere => return Ok(None),
            Started::Child(shell, limits) => attend(shell, &limits, control, &watch)?,
        };
        report.kept = keep && folders.are_clean();
        send_report(control.as_raw_fd(), &report);
        if !report.kept {
            return Ok(None);
        }
        served += 1;
        started = start::next(control, way, served >= LIKELY)?;
    }
}

/// What PID 1 waits for, besides its caller.
struct Watch {
    children: SignalFd,
    deadline: TimerFd,
}

impl Watch {
    fn new() -> Result<Watch, Failure> {
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
}

/// One command, whose shell has started.
fn attend(
    shell: Pid,
    limits: &Limits,
    control: &OwnedFd,
    watch: &Watch,
) -> Result<Report, Failure> {
    let deadline = Expiration::OneShot(TimeSpec::from_duration(limits.wall));
    watch
        .deadline
        .set(deadline, TimerSetTimeFlags::empty())
        .at(Step::Init)?;
    let mut reaper = Reaper::new(shell);
    let ended = wait(&mut reaper, control, watch, limits)?;
    let Usage {
        cpu_us,
        peak_memory_bytes,
    } = reaper.end_everything();
    Ok(Report {
        ended,
        cpu_us,
        peak_memory_bytes,
        kept: false,
        steps: clock::spent(),
    })
}

fn wait(
    reaper: &mut Reaper,
    control: &OwnedFd,
    watch: &Watch,
    limits: &Limits,
) -> Result<Ended, Failure> {
    loop {
        let mut watched = [
            PollFd::new(watch.children.as_fd(), PollFlags::POLLIN),
            PollFd::new(control.as_fd(), PollFlags::POLLIN),
            PollFd::new(watch.deadline.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut watched, METER_MILLISECONDS) {
            Ok(0) => {
                if let Some(used) = meter::used_up(limits, reaper.usage()) {
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
