//! The shell's process. It is forked from a bash that waits, for a launch in hand or ahead of the next
//! one; or it executes its shell.

use std::ffi::CString;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, clone};
use nix::unistd::{ForkResult, Pid, Whence, lseek, pipe2, write};
use serde::{Deserialize, Serialize};

use super::shell::{self, Way};
use super::{At, Failure, Launch, REFUSED, exit, fault, fork_at, read_spec, receive, warm};
use crate::error::Step;
use crate::limits::Limits;
use crate::shell::waiting_session;
use crate::spec::Spec;

/// The shell's scripts know descriptors below this.
const ABOVE_THE_SHELLS: i32 = 300;

/// For what a process shares its memory with until it executes.
const STACK_BYTES: usize = 256 << 10;

/// Where the shell's process is.
pub(super) enum Started {
    /// This process' child, which has become the shell.
    Child(Pid, Limits),
    /// This one, which goes on as the shell.
    Here(Woken),
    /// The caller has no further launch.
    Nowhere,
}

/// What a bash that waited has to do.
pub struct Woken {
    /// The text to run.
    pub command: CString,
    /// The script that restores the session's state.
    pub session: CString,
}

/// A launch that is this process' to start.
pub(super) struct Taken {
    pub(super) spec: Spec,
    state: OwnedFd,
}

impl Taken {
    /// Has the shell write its state to another file; returns the caller's.
    pub(super) fn replace_state(&mut self, state: &OwnedFd) -> Result<OwnedFd, Failure> {
        let state = lift(state).at(Step::Descriptors)?;
        Ok(std::mem::replace(&mut self.state, state))
    }
}

/// What a forked child says by its pipe.
#[derive(Serialize, Deserialize)]
enum Word {
    /// It has a launch, and executes the shell, which closes the pipe, if nothing fails.
    Taken(Limits),
    /// It is the shell; nothing more comes.
    Started(Limits),
    Failed(Failure),
}

/// Takes a launch: its outputs become this process' own.
pub(super) fn take(launch: Launch) -> Result<Taken, Failure> {
    // The position that both have in this file tells the caller.
    lseek(&launch.state, 0, Whence::SeekSet).at(Step::Descriptors)?;
    if let Some(outputs) = launch.outputs {
        take_outputs(outputs)?;
    }
    Ok(Taken {
        spec: read_spec(launch.spec)?,
        state: lift(&launch.state).at(Step::Descriptors)?,
    })
}

/// Starts the shell of a launch that PID 1 has taken.
pub(super) fn at_once(taken: Taken, way: Way) -> Result<Started, Failure> {
    let started = if way.forks(taken.spec.shell) {
        fork_shell(|| Ok(Some(taken)))?
    } else {
        let shell = spawn_shell(&taken.spec, &taken.state, || Ok(()))?;
        Started::Child(shell, taken.spec.limits)
    };
    match started {
        Started::Nowhere => return Err((Step::Fork, "the shell's process died".into())),
        Started::Child(..) => drop_outputs(),
        Started::Here(_) => {}
    }
    Ok(started)
}

/// Forks the shell of the next launch that comes by `control`, possibly `ahead` of it.
pub(super) fn fork_next(
    control: &OwnedFd,
    ahead: bool,
    begin: impl FnOnce(&Spec) -> Result<(), Failure>,
) -> Result<Started, Failure> {
    if !ahead {
        wait_for(control)?;
    }
    fork_shell(|| {
        if ahead {
            warm::up();
        }
        let taken = receive_launch(control)?;
        taken.as_ref().map_or(Ok(()), |taken| begin(&taken.spec))?;
        Ok(taken)
    })
}

/// Neither PID 1 nor its parent may hold a pipe open whose end the caller waits for. Standard input, which
/// is /dev/null, takes their numbers: what is received next must not.
pub(super) fn drop_outputs() {
    for fd in [1, 2] {
        // SAFETY: dup2 onto the standard descriptors, which nothing in this process owns.
        unsafe { libc::dup2(0, fd) };
    }
}

/// The next launch that comes by `control`, taken; `None` at the end.
pub(super) fn receive_launch(control: &OwnedFd) -> Result<Option<Taken>, Failure> {
    let Some([stdout, stderr, spec, state]) = receive(control.as_raw_fd())? else {
        return Ok(None);
    };
    let launch = Launch {
        outputs: Some([stdout, stderr]),
        spec,
        state,
    };
    take(launch).map(Some)
}

/// Returns when something has been said, or the caller has gone.
fn wait_for(control: &OwnedFd) -> Result<(), Failure> {
    loop {
        let mut watched = [PollFd::new(control.as_fd(), PollFlags::POLLIN)];
        match poll(&mut watched, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop).at(Step::Init),
        }
    }
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

/// Out of the way of the numbers that the shell's scripts know.
pub(super) fn lift(fd: &OwnedFd) -> nix::Result<OwnedFd> {
    let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(ABOVE_THE_SHELLS))?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

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

/// A fork of the shell that waits, which says by a pipe how far it has come with the launch that it is given.
/// Nowhere if there is none.
fn fork_shell(launch: impl FnOnce() -> Result<Option<Taken>, Failure>) -> Result<Started, Failure> {
    let (listen, low) = pipe2(OFlag::O_CLOEXEC).at(Step::Fork)?;
    let tell = lift(&low).at(Step::Descriptors)?;
    drop(low);
    match fork_at(Step::Fork)? {
        ForkResult::Child => {
            drop(listen);
            let say = |word| {
                let _ = write(&tell, &postcard::to_stdvec(&word).unwrap_or_default());
            };
            match become_shell(launch, say) {
                Ok(Some(woken)) => Ok(Started::Here(woken)),
                Ok(None) => exit(0),
                Err(failure) => {
                    say(Word::Failed(failure));
                    exit(REFUSED)
                }
            }
        }
        ForkResult::Parent { child } => {
            drop((tell, launch));
            hear(child, &mut File::from(listen))
        }
    }
}

/// Follows what a forked child says, until it says no more.
fn hear(child: Pid, listen: &mut File) -> Result<Started, Failure> {
    let mut started = Started::Nowhere;
    let mut said = vec![];
    let mut part = [0; 4096];
    loop {
        let length = match listen.read(&mut part) {
            Ok(0) => return Ok(started),
            Ok(length) => length,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err((Step::Fork, e.to_string())),
        };
        said.extend_from_slice(&part[..length]);
        // A word that is not there as a whole is heard with its rest.
        while let Ok((word, rest)) = postcard::take_from_bytes(&said) {
            match word {
                Word::Taken(limits) => started = Started::Child(child, limits),
                Word::Started(limits) => return Ok(Started::Child(child, limits)),
                Word::Failed(failure) => return Err(failure),
            }
            said = rest.to_vec();
        }
    }
}

fn become_shell(
    launch: impl FnOnce() -> Result<Option<Taken>, Failure>,
    say: impl Fn(Word),
) -> Result<Option<Woken>, Failure> {
    let Some(Taken { mut spec, state }) = launch()? else {
        return Ok(None);
    };
    let Some(session) = waiting_session(&spec) else {
        say(Word::Taken(spec.limits.clone()));
        match shell::execute(&spec, &state, || Ok(()))? {}
    };
    let woken = Woken {
        command: std::mem::take(&mut spec.command),
        session: CString::new(session).at(Step::Spec)?,
    };
    shell::confine(&spec, &state)?;
    // Last: PID 1 is woken once, and the shell need not wait for it.
    say(Word::Started(spec.limits.clone()));
    // To free it would copy each page that it lies on, for the shell to have it to itself.
    std::mem::forget(spec);
    Ok(Some(woken))
}
