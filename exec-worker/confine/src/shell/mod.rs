//! The session's shell: how its state is restored before a command, and read back after it.
//!
//! bash reads a script named by `BASH_ENV` before the command: `bash/begin.sh`, then
//! the session's state. The command itself is `bash -c`'s argument, run by the shell as by any other, and
//! an EXIT trap writes the state to a file without a path. Where there is no bash, sh does the same with less: functions
//! and unexported variables cannot be listed there, and a command's own EXIT trap takes the place of ours.

mod assemble;
mod declarations;
mod prepare;
mod state;

#[cfg(fuzzing)]
pub mod fuzzing;

use std::os::fd::RawFd;

pub(crate) use assemble::{
    executed, state_fd, waiting_environment, waiting_script, waiting_session,
};
pub use prepare::{Shell, Start};
pub use state::{State, StateError};

/// Where the shell finds the text of a command that is too long for an argument.
pub const COMMAND_FD: RawFd = 249;
/// Where bash writes its state when it ends: a number that no script is likely to take.
pub const BASH_STATE_FD: RawFd = 250;
/// Where sh does, which knows descriptors of one digit only.
pub const SH_STATE_FD: RawFd = 9;
/// Where the shell finds the script that restores the state.
pub const SCRIPT_FD: RawFd = 251;

/// Names that begin so are ours: they never become part of a session.
pub(crate) const OURS: &str = "__pg_shell";

/// First and last field of a state that is complete.
pub(crate) const STATE_BEGIN: &[u8] = b"pg_shell state 1";
pub(crate) const STATE_END: &[u8] = b"pg_shell end";
