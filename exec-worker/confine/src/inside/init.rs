//! Step 5: PID 1 of the namespace. It starts the shell, waits for it, for the deadline, for a stop or for
//! its caller's death, then ends every process there is and reports.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, close, fork};

use super::shell::Way;
use super::{At, Failure, Given, privileges, refuse, root, send_report, shell};
use crate::error::Step;
use crate::report::{Ended, Report};
use crate::spec::Spec;

/// The shell's scripts know descriptors below this.
const ABOVE_THE_SHELLS: i32 = 300;

/// Forks PID 1 and, in the parent, waits for it: the caller knows the parent, whose death is PID 1's.
pub(super) fn start(given: Given) -> Result<(), Failure> {
    // SAFETY: the process has one thread.
    match unsafe { fork() }.at(Step::Init)? {
        ForkResult::Child => {
            let control = given.control.try_clone().at(Step::Descriptors)?;
            let ended = root::enter_template()
                .and_then(|()| root::add_own(&given.spec.limits))
                .and_then(|()| serve(given, Way::Executed));
            finish(&control, ended)
        }
        ForkResult::Parent { child } => {
            drop(given);
            drop_outputs();
            while matches!(waitpid(child, None), Err(Errno::EINTR)) {}
            Ok(())
        }
    }
}

/// What the process is that comes back from [`serve`].
pub(super) enum Role {
    /// PID 1, after the command.
    Init(Report),
    /// The shell's process, of a bash that waited for this command.
    Shell(CString),
}

/// Reports, and ends PID 1.
pub(super) fn finish(control: &OwnedFd, ended: Result<Role, Failure>) -> ! {
    let control = control.as_raw_fd();
    let code = match ended {
        Ok(Role::Init(report)) => {
            send_report(control, &report);
            0
        }
        Ok(Role::Shell(_)) => 126,
        Err(failure) => refuse(control, failure),
    };
    // SAFETY: ends the process at once; nothing is buffered.
    unsafe { libc::_exit(code) }
}

/// Neither PID 1 nor its parent may hold a pipe open whose end the caller waits for.
fn drop_outputs() {
    for fd in [1, 2] {
        let _ = close(fd);
    }
}

/// PID 1's life, in a root that is complete.
pub(super) fn serve(given: Given, way: Way) -> Result<Role, Failure> {
    let Given {
        control,
        spec,
        state,
    } = given;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).at(Step::Init)?;
    let mut watched = SigSet::empty();
    watched.add(Signal::SIGCHLD);
    watched.thread_block().at(Step::Init)?;
    let children = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .at(Step::Init)?;
    let deadline =
        TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC).at(Step::Init)?;

    privileges::drop_all()?;

    deadline
        .set(
            Expiration::OneShot(TimeSpec::from_duration(spec.limits.wall)),
            TimerSetTimeFlags::empty(),
        )
        .at(Step::Init)?;
    let shell = match start_shell(&spec, state, way)? {
        Started::Here(command) => return Ok(Role::Shell(command)),
        Started::Child(pid) => pid,
    };

    let ended = wait(shell, &control, &children, &deadline)?;
    end_everything();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).at(Step::Init)?;
    let micros = |t: nix::sys::time::TimeVal| (t.tv_sec() * 1_000_000 + t.tv_usec()) as u64;
    Ok(Role::Init(Report {
        ended,
        cpu_us: micros(usage.user_time()) + micros(usage.system_time()),
        peak_memory_bytes: usage.max_rss() as u64 * 1024,
    }))
}

/// Where the shell's process is: this one's child, or this one.
enum Started {
    Child(Pid),
    Here(CString),
}

/// Forks the shell's process; returns once it has become the shell, or says at which step it failed.
fn start_shell(spec: &Spec, state: OwnedFd, way: Way) -> Result<Started, Failure> {
    let (failed, tell) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).at(Step::Fork)?;
    // SAFETY: the process has one thread.
    match unsafe { fork() }.at(Step::Fork)? {
        ForkResult::Child => {
            drop(failed);
            let (failure, tell) = match lift(&tell).and_then(|copy| Ok((lift(&state)?, copy))) {
                Ok((state, copy)) => match shell::become_shell(spec, &state, way) {
                    Ok(command) => return Ok(Started::Here(command)),
                    Err(failure) => (failure, copy),
                },
                Err(e) => ((Step::Descriptors, e.to_string()), tell),
            };
            let message = postcard::to_stdvec(&failure).unwrap_or_default();
            let _ = nix::unistd::write(&tell, &message);
            // SAFETY: ends the process at once; nothing is buffered.
            unsafe { libc::_exit(126) }
        }
        ForkResult::Parent { child } => {
            drop((tell, state));
            drop_outputs();
            let mut message = [0_u8; 4096];
            let told = loop {
                match nix::unistd::read(&failed, &mut message) {
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
fn lift(fd: &OwnedFd) -> nix::Result<OwnedFd> {
    let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(ABOVE_THE_SHELLS))?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

fn wait(
    shell: Pid,
    control: &OwnedFd,
    children: &SignalFd,
    deadline: &TimerFd,
) -> Result<Ended, Failure> {
    loop {
        let mut watched = [
            PollFd::new(children.as_fd(), PollFlags::POLLIN),
            PollFd::new(control.as_fd(), PollFlags::POLLIN),
            PollFd::new(deadline.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err((Step::Init, e.to_string())),
        }
        let ready = watched.each_ref().map(|w| w.any() == Some(true));

        if ready[0] {
            while let Ok(Some(_)) = children.read_signal() {}
            if let Some(ended) = reap(shell) {
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

/// Collects whoever has died; the shell's end is the command's.
fn reap(shell: Pid) -> Option<Ended> {
    let mut ended = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == shell => ended = Some(Ended::Exited(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == shell => {
                ended = Some(Ended::Signaled(signal as i32));
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return ended,
            Ok(_) => {}
        }
    }
}

/// Kills every process of the namespace in one call, which no fork outruns, and collects them all.
fn end_everything() {
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    while !matches!(waitpid(None, None), Err(Errno::ECHILD)) {}
}
