//! The helper's side, in the order in which it happens. Each step has a file.
//!
//! 1. [`run`]: close what was inherited, become undumpable.
//! 2. `namespaces`: user, pid, mount, ipc, uts and net namespaces; map the ids. What follows is PID 1's.
//! 3. `cgroup`: join the control group, where there is one.
//! 4. `root`: the hostname and the part of the root that is read-only; enter it.
//! 5. `network`: switch the loopback on; `root` again: the writable folders and `/proc`.
//! 6. `privileges`: `no_new_privs`, and the greater part of the seccomp filter.
//! 7. `landlock`: make the rules. Up to here nothing depends on the launch.
//! 8. `init`: read the specification; `root`: give the writable folders its size; `home`: mount the session's files.
//! 9. `programs`: where there is a list, restrict the mounts to it, and the rules of step 7 too. `home`: cover what
//!    only PID 1 needs.
//! 10. `privileges`: drop every capability.
//! 11. `landlock`: enter the domain, after the last mount.
//! 12. `privileges`: the rest of the seccomp filter.
//! 13. `start`: fork for the shell. In the child, `shell`: descriptors; `rlimits`; with a list, no memory files;
//!     the working directory; `execve`.
//! 14. `init`: wait, with `meter` and `reap`; end everything, and report.
//!
//! A `server` takes steps 4 and 6 once for all, in a user and a mount namespace of its own, and forks PID 1s,
//! each of which takes the others up to 7 before its launch is there; `waiting` does so from within a bash that
//! is started already. A PID 1 that `clean` finds untouched goes on with step 13 for its session's next command;
//! it may fork the shell ahead, which then reads the specification itself, `warm`.
//!
//! The level `basic` has a way of its own, `basic`, which ends in the same step 14; and `probe` tries what
//! this host can do of either.
//!
//! The process is single-threaded throughout, so that forking needs no care for locks.

mod basic;
mod cgroup;
mod clean;
mod clock;
mod fault;
pub mod home;
mod init;
mod landlock;
mod meter;
mod namespaces;
mod network;
mod privileges;
mod probe;
mod programs;
mod reap;
mod rlimits;
mod root;
mod server;
mod shell;
pub mod start;
pub mod waiting;
mod warm;

use std::ffi::CStr;
use std::fs::File;
use std::io::{IoSliceMut, Read, Seek};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, send};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

pub use self::basic::{BASIC, run as basic};
pub use self::probe::{PROBE, run as probe};
use self::shell::Way;

use crate::error::Step;
use crate::limits::Limits;
use crate::messages;
use crate::report::{Ended, Report};
use crate::spec::Spec;

/// Where the caller listens for the report, and the helper for a stop; its end means that the caller died.
/// A server gets its launches here.
pub const CONTROL_FD: RawFd = 3;
/// A memory file with the encoded [`Spec`].
pub const SPEC_FD: RawFd = 4;
/// The file into which the shell writes its state.
pub const STATE_FD: RawFd = 5;
/// With [`GROUPED`], the `cgroup.procs` of the group to join.
pub const CGROUP_FD: RawFd = 6;
/// The argument that makes the helper a server: it builds the root once, and then forks for each launch.
pub const SERVE: &str = "serve";
/// The argument that says that there is a [`CGROUP_FD`].
pub const GROUPED: &CStr = c"grouped";
/// The byte of a message whose descriptors are a launch.
pub const LAUNCH: u8 = b'L';
/// The byte of one that brings a group ahead of its launch.
pub const AHEAD: u8 = b'G';

/// The helper's exit code where it has refused a launch.
const REFUSED: i32 = 126;
/// The helper's exit code, less the signal that ended PID 1 or the bash that waits.
pub const KILLED_BY: i32 = 128;

/// What a launch is given.
struct Launch {
    /// Standard output and error; `None` where they are in place already.
    outputs: Option<[OwnedFd; 2]>,
    /// A memory file with the encoded [`Spec`].
    spec: OwnedFd,
    /// The file for the shell's state.
    state: OwnedFd,
}

/// A step that failed, and why.
pub(crate) type Failure = (Step, String);

/// Says at which step an error happened.
pub(crate) trait At<T> {
    /// Turns an error into the [`Failure`] of `step`.
    fn at(self, step: Step) -> Result<T, Failure>;
}

impl<T, E: std::fmt::Display> At<T> for Result<T, E> {
    fn at(self, step: Step) -> Result<T, Failure> {
        let value = self.map_err(|e| (step, e.to_string()))?;
        clock::mark(step);
        fault::point(step)?;
        Ok(value)
    }
}

/// Forks. The process has one thread, as everywhere in here.
fn fork_at(step: Step) -> Result<ForkResult, Failure> {
    fault::point(step)?;
    // SAFETY: there is no other thread, whose locks the child would inherit.
    unsafe { fork() }.map_err(|e| (step, e.to_string()))
}

/// Takes a descriptor that the caller has passed by its number; the shell shall not have it.
fn inherited(number: RawFd) -> Result<OwnedFd, Failure> {
    // SAFETY: the caller spawns the helper with exactly these descriptors open, and each is taken once.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).at(Step::Descriptors)?;
    Ok(fd)
}

/// The whole of the helper; returns its exit code. The report goes to [`CONTROL_FD`].
pub fn run(serve: bool) -> i32 {
    let Ok(control) = inherited(CONTROL_FD) else {
        return REFUSED;
    };
    clock::read(std::env::args_os());
    let ended = fault::read(std::env::args_os()).and_then(|()| {
        if serve {
            server::run(control.as_raw_fd())
        } else {
            once(&control)
        }
    });
    match ended {
        Ok(code) => code,
        Err(failure) => refuse(CONTROL_FD, failure),
    }
}

/// One launch, from the start. PID 1 is forked, and its death is the caller's to see in this process' exit
/// code.
fn once(control: &OwnedFd) -> Result<i32, Failure> {
    let group = cgroup::passed()?;
    hide()?;
    let launch = Launch {
        outputs: None,
        spec: inherited(SPEC_FD)?,
        state: inherited(STATE_FD)?,
    };
    namespaces::leave(namespaces::OWN | namespaces::TEMPLATE)?;
    match fork_at(Step::Init)? {
        ForkResult::Child => {
            let joined = cgroup::join(group.as_ref());
            drop(group);
            let ended = joined
                .and_then(|()| root::enter_template())
                .and_then(|()| root::add_own(&Limits::default()))
                .and_then(|()| privileges::filter_outer())
                .and_then(|()| landlock::prepare(None))
                .and_then(|rules| init::live(control, launch, rules, Way::Executed, false));
            finish(control, ended.map(|_| ()))
        }
        ForkResult::Parent { child } => {
            drop(launch);
            start::drop_outputs();
            Ok(killed(child))
        }
    }
}

/// Waits for a child; the exit code that tells its parent's caller how it ended: above 128 for one that was
/// killed, which is never its own doing, and 0 for one that has said all that there was to say.
fn killed(child: Pid) -> i32 {
    loop {
        match waitpid(child, None) {
            Err(Errno::EINTR) => {}
            Ok(WaitStatus::Signaled(_, signal, _)) => return KILLED_BY + signal as i32,
            _ => return 0,
        }
    }
}

/// Ends PID 1, which has reported unless it failed.
fn finish(control: &OwnedFd, ended: Result<(), Failure>) -> ! {
    let code = match ended {
        Ok(()) => 0,
        Err(failure) => refuse(control.as_raw_fd(), failure),
    };
    exit(code)
}

/// Ends a forked process at once, and runs nothing of what it was forked from.
fn exit(code: i32) -> ! {
    // SAFETY: nothing is buffered.
    unsafe { libc::_exit(code) }
}

/// The next message with just so many descriptors; `None` at the end. Others are passed over: a stop
/// that came too late, for one.
fn receive<const DESCRIPTORS: usize>(
    socket: RawFd,
) -> Result<Option<[OwnedFd; DESCRIPTORS]>, Failure> {
    while let Some(received) = receive_any(socket)? {
        if let Ok(launch) = received.try_into() {
            return Ok(Some(launch));
        }
    }
    Ok(None)
}

/// The next message's descriptors; `None` at the end.
fn receive_any(socket: RawFd) -> Result<Option<Vec<OwnedFd>>, Failure> {
    loop {
        let mut byte = [0_u8];
        let mut parts = [IoSliceMut::new(&mut byte)];
        let mut space = nix::cmsg_space!([RawFd; 8]);
        let message = match recvmsg::<()>(
            socket,
            &mut parts,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
            Ok(message) => message,
            Err(Errno::EINTR) => continue,
            Err(e) => return Err((Step::Descriptors, e.to_string())),
        };
        let mut received = Vec::new();
        for part in message.cmsgs().at(Step::Descriptors)? {
            if let ControlMessageOwned::ScmRights(descriptors) = part {
                // SAFETY: the kernel has just made these descriptors, for this process alone.
                received.extend(
                    descriptors
                        .into_iter()
                        .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
                );
            }
        }
        return Ok((message.bytes > 0).then_some(received));
    }
}

fn close_from(first: RawFd) -> Result<(), Failure> {
    // SAFETY: closing descriptors that nothing in this process owns.
    let closed = unsafe { libc::close_range(first as u32, u32::MAX, 0) };
    Errno::result(closed).at(Step::Descriptors)?;
    Ok(())
}

/// Nobody of the same user may look into this process or take its descriptors.
fn hide() -> Result<(), Failure> {
    nix::sys::prctl::set_dumpable(false).at(Step::Spec)
}

fn read_spec(file: OwnedFd) -> Result<Spec, Failure> {
    let mut bytes = Vec::new();
    let mut file = File::from(file);
    file.rewind().at(Step::Spec)?;
    file.read_to_end(&mut bytes).at(Step::Spec)?;
    Spec::decode(&bytes).at(Step::Spec)
}

fn refuse(control: RawFd, (step, reason): Failure) -> i32 {
    send_report(control, &Report::of(Ended::Refused(step, reason)));
    REFUSED
}

fn send_report(control: RawFd, report: &Report) {
    // A caller that has gone does not read it, and then it does not matter.
    let _ = send(control, &report.encode(), MsgFlags::MSG_NOSIGNAL);
}

/// The same with the folder of what the command has changed. Where that cannot be passed the caller sees it missing.
fn send_report_with(control: &OwnedFd, report: &Report, upper: &impl AsRawFd) {
    let message = report.encode();
    if messages::send(control, &message, &[upper.as_raw_fd()]).is_err() {
        send_report(control.as_raw_fd(), report);
    }
}

/// Standard descriptors, which stay open for the life of the process.
fn standard(number: RawFd) -> BorrowedFd<'static> {
    debug_assert!(number <= 2);
    // SAFETY: 0, 1 and 2 are open from the start and are only ever replaced, not closed, while borrowed.
    unsafe { BorrowedFd::borrow_raw(number) }
}
