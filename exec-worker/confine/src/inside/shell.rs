//! Step 6: the child that becomes the shell.

use std::ffi::CStr;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::unistd::{chdir, execve, setsid};

use super::{At, Failure, privileges, rlimits, standard};
use crate::error::Step;
use crate::shell::{COMMAND_FD, SCRIPT_FD};
use crate::spec::{HOME, Spec};

/// Takes every step up to `execve`; returns only if one failed.
pub(super) fn become_shell(spec: &Spec, state: &OwnedFd) -> Failure {
    match prepare(spec, state) {
        Ok(()) => match execve(&spec.program, &spec.argv, &spec.envp) {
            Ok(never) => match never {},
            Err(e) => (
                Step::Exec,
                format!("{}: {e}", spec.program.to_string_lossy()),
            ),
        },
        Err(failure) => failure,
    }
}

fn prepare(spec: &Spec, state: &OwnedFd) -> Result<(), Failure> {
    setsid().at(Step::Fork)?;
    SigSet::empty().thread_set_mask().at(Step::Fork)?;
    // Rust's runtime ignores SIGPIPE, and what is ignored stays so across execve.
    // SAFETY: no handler is installed, only the default.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.at(Step::Fork)?;
    place(&memory_file(c"state", &spec.script)?, SCRIPT_FD)?;
    if let Some(command) = &spec.long_command {
        place(&memory_file(c"command", command)?, COMMAND_FD)?;
    }
    place(state, spec.state_fd)?;
    // Only now: the numbers above may lie past the limit on descriptors.
    rlimits::set(&spec.limits)?;
    enter_cwd(&spec.cwd)?;
    privileges::filter_calls(&spec.seccomp)
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

fn memory_file(name: &CStr, bytes: &[u8]) -> Result<OwnedFd, Failure> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC).at(Step::Descriptors)?;
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes).at(Step::Descriptors)?;
    std::io::Seek::rewind(&mut file).at(Step::Descriptors)?;
    Ok(file.into())
}

/// Puts a copy under the number that the shell's script knows, open across `execve`.
fn place(fd: &OwnedFd, number: RawFd) -> Result<(), Failure> {
    // SAFETY: dup2 onto a number that nothing in this process owns.
    if unsafe { libc::dup2(fd.as_raw_fd(), number) } < 0 {
        return Err((
            Step::Descriptors,
            std::io::Error::last_os_error().to_string(),
        ));
    }
    Ok(())
}
