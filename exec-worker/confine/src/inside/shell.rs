//! The child that becomes the shell.

use std::convert::Infallible;
use std::ffi::CStr;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, execve, setsid};

use super::{At, Failure, fault, privileges, rlimits, standard};
use crate::error::Step;
use crate::shell::{COMMAND_FD, SCRIPT_FD, Shell, executed, state_fd};
use crate::spec::{HOME, Spec};

/// How a process becomes the shell.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By executing it.
    Executed,
    /// It is a fork of a shell that waits.
    Waiting,
}

impl Way {
    /// True where this shell begins as a fork of the one that waits, which is a bash: of another, a fork would be
    /// made for nothing.
    pub(super) fn forks(self, shell: Shell) -> bool {
        self == Way::Waiting && shell == Shell::Bash
    }
}

/// Takes every step up to the command, and executes the shell after a `last` one; returns only where one fails.
pub(super) fn execute(
    spec: &Spec,
    state: &OwnedFd,
    last: impl Fn() -> Result<(), Failure>,
) -> Result<Infallible, Failure> {
    let shell = executed(spec);
    place(&memory_file(c"state", &shell.script)?, SCRIPT_FD)?;
    if let Some(command) = shell.by_descriptor {
        place(&memory_file(c"command", command.to_bytes())?, COMMAND_FD)?;
    }
    confine(spec, state)?;
    // Rust's runtime ignores SIGPIPE, and what is ignored stays so across execve.
    // SAFETY: no handler is installed, only the default.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.at(Step::Fork)?;
    last()?;
    execve(&shell.program, &shell.argv, &shell.envp)
        .map_err(|e| format!("{}: {e}", shell.program.to_string_lossy()))
        .at(Step::Exec)
}

/// Every step up to the shell itself; of a fork of one that waits, up to the session's script.
pub(super) fn confine(spec: &Spec, state: &OwnedFd) -> Result<(), Failure> {
    setsid().at(Step::Fork)?;
    SigSet::empty().thread_set_mask().at(Step::Fork)?;
    place(state, state_fd(spec.shell))?;
    // Of its own: the flags of an open file are everybody's who has it.
    let null = open(
        "/dev/null",
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .at(Step::Descriptors)?;
    place(&null, 0)?;
    // Only now: the numbers above may lie past the limit on descriptors.
    rlimits::set(&spec.limits)?;
    if spec.programs.is_some() {
        // Only now: its scripts are memory files.
        privileges::filter_memory_files()?;
    }
    enter_cwd(&spec.cwd)?;
    fault::point(Step::Exec)
}

/// The working directory may be gone: a session must not be stuck for that.
fn enter_cwd(cwd: &CStr) -> Result<(), Failure> {
    let Err(e) = chdir(cwd) else { return Ok(()) };
    chdir(HOME).at(Step::Exec)?;
    let word = format!(
        "pg_shell: {}: {}; starting in {HOME}\n",
        cwd.to_string_lossy(),
        e.desc()
    );
    let _ = nix::unistd::write(standard(2), word.as_bytes());
    Ok(())
}

pub(super) fn memory_file(name: &CStr, bytes: &[u8]) -> Result<OwnedFd, Failure> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let fd = memfd_create(name, flags).at(Step::Descriptors)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes).at(Step::Descriptors)?;
    // A command could open it again, and write a program into it.
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).at(Step::Descriptors)?;
    std::io::Seek::rewind(&mut file).at(Step::Descriptors)?;
    Ok(file.into())
}

/// Puts a copy under the number that the shell's script knows, open across `execve`.
pub(super) fn place(fd: &OwnedFd, number: RawFd) -> Result<(), Failure> {
    // SAFETY: dup2 onto a number that nothing in this process owns.
    let placed = unsafe { libc::dup2(fd.as_raw_fd(), number) };
    Errno::result(placed).at(Step::Descriptors)?;
    Ok(())
}
