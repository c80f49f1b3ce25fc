//! The helper as a server: what is the same for every launch is done once.
//!
//! It holds a template: a user and a mount namespace with the read-only part of the root. From it a PID 1
//! is forked straight into namespaces of its own, which begin as a copy of the template's mounts; and it is
//! forked before its launch is there, so that a launch finds it waiting with everything mounted. It takes
//! one launch, and the next one is forked. All end when the caller does.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{MsgFlags, recv};
use nix::unistd::{close, pipe2, read};

use super::namespaces::{self, SANDBOX_ID};
use super::shell::Way;
use super::start::Woken;
use super::{
    AHEAD, At, CONTROL_FD, Failure, LAUNCH, Launch, cgroup, close_from, exit, fault, finish, hide,
    init, landlock, privileges, receive_any, refuse, root, waiting,
};
use crate::error::Step;
use crate::limits::Limits;

/// A PID 1 that dies before its launch; after so many in a row the next would die too.
const FAILURES: u32 = 3;

/// Builds the template, and serves launches until the caller's end of the socket is closed: from within
/// a bash that waits, where there is one. Returns the exit code.
pub(super) fn run(socket: RawFd) -> Result<i32, Failure> {
    close_from(CONTROL_FD + 1)?;
    hide()?;
    let library = waiting::library();
    namespaces::leave(namespaces::TEMPLATE)?;
    root::enter_template()?;
    if let Some(library) = library
        && let Some(code) = waiting::serve(&library)?
    {
        return Ok(code);
    }
    match serve(socket, Way::Executed)? {
        None => Ok(0),
        Some(_) => Err((Step::Exec, "the shell was not executed".into())),
    }
}

/// Forks a PID 1 for each launch until the caller's end of the socket is closed. With [`Way::Waiting`] it
/// returns in the process, too, that is confined and has this command to run.
pub(super) fn serve(socket: RawFd, way: Way) -> Result<Option<Woken>, Failure> {
    privileges::filter_outer()?;
    // Nobody waits for the children; their reports go to the caller.
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }.at(Step::Init)?;
    let mut failures = 0;
    while failures < FAILURES {
        let taken = match fork_init(socket, way).or_else(|_| {
            // The host may lack what a fork takes for a while only, and commands run: it is tried
            // again when there is a launch, and only that launch is refused.
            wait_for_launch(socket)?;
            fork_init(socket, way)
        }) {
            Ok(Forked::Here(woken)) => return Ok(Some(woken)),
            Ok(Forked::Child(taken)) => taken,
            Err(_) if has_ended(socket) => return Ok(None),
            Err(failure) => {
                refuse_launch(socket, failure)?;
                continue;
            }
        };
        let mut byte = [0];
        match read(&taken, &mut byte) {
            Ok(0) if has_ended(socket) => return Ok(None),
            Ok(0) => failures += 1,
            Ok(_) => failures = 0,
            Err(e) => return Err((Step::Init, e.to_string())),
        }
    }
    Err((
        Step::Init,
        format!("PID 1 died {FAILURES} times before its launch"),
    ))
}

/// True where the caller's end is closed.
fn has_ended(socket: RawFd) -> bool {
    let mut watched = [PollFd::new(borrowed(socket), PollFlags::empty())];
    poll(&mut watched, PollTimeout::ZERO) != Ok(0)
}

/// Returns when there is a launch, or the caller's end is closed. A group that came ahead is passed over: it
/// comes with its launch, too.
fn wait_for_launch(socket: RawFd) -> Result<(), Failure> {
    loop {
        let mut what = [LAUNCH];
        match recv(socket, &mut what, MsgFlags::MSG_PEEK) {
            Ok(1) if what == [AHEAD] => drop(receive_any(socket)?),
            Err(Errno::EINTR) => {}
            Ok(_) | Err(Errno::ECONNRESET) => return Ok(()),
            Err(e) => return Err((Step::Init, e.to_string())),
        }
    }
}

/// Takes a launch, and tells its caller why it cannot be.
fn refuse_launch(socket: RawFd, failure: Failure) -> Result<(), Failure> {
    if let Some(([_, _, control, _, _], _)) = cgroup::next_launch(socket, |_| ())? {
        refuse(control.as_raw_fd(), failure);
    }
    Ok(())
}

fn borrowed(socket: RawFd) -> BorrowedFd<'static> {
    // SAFETY: the server's socket is open as long as the server is.
    unsafe { BorrowedFd::borrow_raw(socket) }
}

/// Where PID 1 is.
enum Forked {
    /// This process' child, which says by this pipe that it has a launch.
    Child(OwnedFd),
    /// Here, and confined: this is what it shall run.
    Here(Woken),
}

/// Forks a PID 1, which waits for a launch.
fn fork_init(socket: RawFd, way: Way) -> Result<Forked, Failure> {
    let (taken, tell) = pipe2(OFlag::O_CLOEXEC).at(Step::Init)?;
    let flags = (namespaces::OWN | CloneFlags::from_bits_retain(libc::SIGCHLD)).bits();
    fault::point(Step::Namespaces)?;
    // SAFETY: like fork, without memory or stack to share; the process has one thread.
    match unsafe { libc::syscall(libc::SYS_clone, libc::c_long::from(flags), 0, 0, 0, 0) } {
        -1 => Err((
            Step::Namespaces,
            std::io::Error::last_os_error().to_string(),
        )),
        0 => {
            drop(taken);
            let ready = become_init();
            let received = match cgroup::receive_launch(socket) {
                Ok(Some(received)) => received,
                Ok(None) => exit(0),
                // Whose launch it was is not known; its caller looks here.
                Err(failure) => exit(refuse(socket, failure)),
            };
            let [stdout, stderr, control, spec, state] = received.launch;
            let _ = nix::unistd::write(&tell, b"T");
            drop(tell);
            let _ = close(socket);
            let launch = Launch {
                outputs: Some([stdout, stderr]),
                spec,
                state,
            };
            let ready = ready.and_then(|rules| received.joined.map(|()| rules));
            match ready.and_then(|rules| init::live(&control, launch, rules, way, true)) {
                Ok(Some(woken)) => Ok(Forked::Here(woken)),
                Ok(None) => finish(&control, Ok(())),
                Err(failure) => finish(&control, Err(failure)),
            }
        }
        _ => Ok(Forked::Child(taken)),
    }
}

/// All of the confinement that does not depend on the launch; and what is left to be entered.
fn become_init() -> Result<Option<landlock::Rules>, Failure> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).at(Step::Init)?;
    // SAFETY: no handler is installed.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.at(Step::Init)?;
    namespaces::map_ids(SANDBOX_ID, SANDBOX_ID)?;
    root::add_own(&Limits::default())?;
    landlock::prepare(None)
}
