//! A bash that waits, started: it is executed once, in the template, reads what is the same for every
//! command, and calls the builtin of the crate `confine-bash`. That serves launches from within bash, so
//! that PID 1 and the shell are forks of it, and no command pays for bash's own start.
//!
//! Nothing of a command reaches the bash that forks; a launch is received and read by PID 1. What all
//! its forks share is the layout of their memory.

use std::convert::Infallible;
use std::ffi::{CString, c_int};
use std::fs::File;
use std::os::fd::{OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, execve};

use super::shell::{Way, memory_file, place};
pub use super::start::Woken;
use super::{
    At, CONTROL_FD, Failure, KILLED_BY, REFUSED, close_from, exit, fault, fork_at, hide, refuse,
    server, warm,
};
use crate::error::Step;
use crate::shell::{BASH_STATE_FD, Shell, waiting_environment, waiting_script};

/// The builtin's library, which lies beside the helper.
const LIBRARY: &str = "libpg_shell_bash.so";
/// Where bash finds the library, and the script that it reads.
const LIBRARY_FD: RawFd = 252;
const WAITING_FD: RawFd = 253;
/// What bash exits with when it cannot load the library: shells are executed then.
const NOT_LOADED: i32 = 125;

/// The library, opened while the host's root is still there; `None` where there is none, or no bash.
pub(super) fn library() -> Option<OwnedFd> {
    let beside = std::env::current_exe().ok()?.with_file_name(LIBRARY);
    if !Path::new(Shell::Bash.path()).exists() {
        return None;
    }
    Some(File::open(beside).ok()?.into())
}

/// Runs a bash that serves launches on [`CONTROL_FD`], until it ends; returns the helper's exit code then.
/// `None` where bash cannot load the library.
pub(super) fn serve(library: &OwnedFd) -> Result<Option<i32>, Failure> {
    match fork_at(Step::Fork)? {
        ForkResult::Child => {
            let Err(failure) = become_bash(library);
            exit(refuse(CONTROL_FD, failure))
        }
        ForkResult::Parent { child } => loop {
            return match waitpid(child, None) {
                Err(Errno::EINTR) => continue,
                Ok(WaitStatus::Exited(_, NOT_LOADED)) => Ok(None),
                Ok(WaitStatus::Exited(_, code @ (0 | REFUSED))) => Ok(Some(code)),
                Ok(WaitStatus::Exited(_, code)) => {
                    Err((Step::Exec, format!("bash exited with code {code}")))
                }
                Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(KILLED_BY + signal as i32)),
                other => Err((Step::Exec, format!("waiting for bash: {other:?}"))),
            };
        },
    }
}

fn become_bash(library: &OwnedFd) -> Result<Infallible, Failure> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).at(Step::Init)?;
    // Rust's runtime ignores SIGPIPE, and what is ignored stays so across execve.
    // SAFETY: no handler is installed, only the default.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.at(Step::Fork)?;
    // SAFETY: takes the number that a spawned helper's caller passed; it is open, and stays so.
    unsafe { libc::fcntl(CONTROL_FD, libc::F_SETFD, 0) };
    let script = waiting_script(&format!(
        "enable -f /proc/self/fd/{LIBRARY_FD} __pg_shell_wait __pg_shell_gather 2>/dev/null || exit {NOT_LOADED}\n"
    ));
    place(&memory_file(c"waiting", script.as_bytes())?, WAITING_FD)?;
    place(library, LIBRARY_FD)?;
    let mut environment = waiting_environment();
    let file = format!("BASH_ENV=/proc/self/fd/{WAITING_FD}");
    environment.push(CString::new(file).at(Step::Exec)?);
    // The text after -c is what the builtin replaces.
    let mut arguments = vec![c"bash", c"-c", c":", c"bash"];
    nix::unistd::chdir(crate::spec::HOME).at(Step::Exec)?;
    fault::point(Step::Exec)?;
    let fault = fault::argument();
    arguments.extend(fault.as_deref());
    execve(c"/bin/bash", &arguments, &environment).at(Step::Exec)
}

/// For the builtin, within bash: serves launches, and returns in a process that is confined and has a
/// command to run. `None` for whoever calls it again.
pub fn wait() -> Option<Woken> {
    static CALLED: AtomicBool = AtomicBool::new(false);
    if CALLED.swap(true, Ordering::Relaxed) {
        return None;
    }
    let signals = Signals::take();
    let ended = fault::read(std::env::args_os())
        .and_then(|()| prepare())
        .and_then(|()| server::serve(CONTROL_FD, Way::Waiting));
    let code = match ended {
        Ok(Some(woken)) => {
            signals.put_back();
            close_all_but_the_shells();
            // Its files in /proc are root's until then.
            let _ = nix::sys::prctl::set_dumpable(true);
            return Some(woken);
        }
        Ok(None) => 0,
        Err(failure) => refuse(CONTROL_FD, failure),
    };
    // With no trap of bash's.
    exit(code)
}

fn prepare() -> Result<(), Failure> {
    hide()?;
    close_from(CONTROL_FD + 1)?;
    warm::note_areas();
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).at(Step::Init)
}

/// Only what a shell that is executed would have either.
fn close_all_but_the_shells() {
    let ranges: [(RawFd, c_int); 2] = [(3, BASH_STATE_FD - 1), (BASH_STATE_FD + 1, c_int::MAX)];
    for (first, last) in ranges {
        // SAFETY: every owner of these descriptors has been dropped, or is forgotten with the helper's part.
        unsafe { libc::close_range(first as u32, last as u32, 0) };
    }
}

/// bash's own handling of signals, which is not for whatever serves launches: PID 1 of a namespace is safe
/// from its command's signals only where it handles none.
struct Signals {
    handled: Vec<(c_int, libc::sigaction)>,
    mask: SigSet,
}

impl Signals {
    /// Takes them over: all are as in a new program from here on.
    fn take() -> Signals {
        let mut handled = Vec::new();
        for signal in 1..=libc::SIGRTMAX() {
            // SAFETY: zeroed it is the default, and the kernel fills in what there was.
            let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
            // SAFETY: reads the handling of one signal into a structure of its kind.
            let read = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
            if read == 0 && action.sa_sigaction != libc::SIG_DFL {
                handled.push((signal, action));
                // SAFETY: the default handler.
                unsafe { libc::signal(signal, libc::SIG_DFL) };
            }
        }
        Signals {
            handled,
            mask: SigSet::thread_get_mask().unwrap_or_else(|_| SigSet::empty()),
        }
    }

    fn put_back(&self) {
        // What serving itself has changed.
        // SAFETY: the default handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
        for (signal, action) in &self.handled {
            // SAFETY: what was read from the kernel in this very program.
            unsafe { libc::sigaction(*signal, &raw const *action, std::ptr::null_mut()) };
        }
        let _ = self.mask.thread_set_mask();
    }
}
