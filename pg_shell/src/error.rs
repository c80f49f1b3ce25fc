//! Everything that can go wrong with `run_command`, and what the caller is told.
//!
//! `PS001` to `PS009`, `PS016` to `PS019`, and `PS030` to `PS043`, about files, are raised by the functions in `sql/`; where
//! the same thing goes wrong here, it has the same code. The class is the project's own.

use std::io;
use std::path::PathBuf;
use std::sync::LazyLock;

use confine::{SomeLimits, Step};

/// The longest command, as in `shell.commands`.
pub const COMMAND_BYTES: usize = 1 << 20;

/// A failure of `run_command`; the command did not run, or nothing is known of how it ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Null, or nothing but white space.
    #[error("the command is empty")]
    EmptyCommand,
    /// Longer than [`COMMAND_BYTES`].
    #[error("the command is {0} bytes long; {COMMAND_BYTES} are allowed")]
    LongCommand(usize),
    /// A required part of the confinement cannot be had on this host.
    #[error("the command was refused: {0} failed: {1}")]
    Refused(Step, String),
    /// Confinement failed before the helper was started.
    #[error("the command was refused: {0}")]
    Unconfined(String),
    /// `env` is not an object of strings, or names what cannot be a variable.
    #[error("{0}")]
    Environment(String),
    /// `limits` is no object of limits.
    #[error("{0}")]
    Limits(String),
    /// So is the setting `pg_shell.max_limits`.
    #[error("pg_shell.max_limits: {0}")]
    MaxLimits(String),
    /// `cwd` is null or relative.
    #[error("the working directory {0} is not an absolute path")]
    WorkingDirectory(String),
    /// The setting is no absolute path.
    #[error("pg_shell.launcher is not an absolute path: {0}")]
    RelativeLauncher(PathBuf),
    /// The helper cannot be started.
    #[error("cannot start the launcher {path}: {source}")]
    Launcher {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is started is not the helper.
    #[error("{0}")]
    NoLauncher(String),
    /// The helper was killed from outside.
    #[error("the launcher died while the command ran")]
    LauncherDied,
    /// The backend has no descriptors to spare.
    #[error("not enough descriptors left to run a command")]
    Descriptors,
    /// Only the leader of a query may start processes.
    #[error("run_command cannot run in a parallel worker")]
    ParallelWorker,
    /// The secret by which tokens are signed is not there, or too short.
    #[error("{0}")]
    JwtSecret(String),
    /// A password's hash cannot be made, or what is stored is none.
    #[error("cannot hash the password: {0}")]
    Hashing(String),
    /// A system call failed in the backend itself.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// The five characters.
    pub fn sqlstate(&self) -> &'static [u8; 5] {
        match self {
            Error::EmptyCommand => b"PS004",
            Error::LongCommand(_) => b"PS005",
            Error::Refused(..) | Error::Unconfined(_) => b"PS010",
            Error::Environment(_) => b"PS011",
            Error::WorkingDirectory(_) => b"PS012",
            Error::RelativeLauncher(_) | Error::Launcher { .. } | Error::NoLauncher(_) => b"PS013",
            Error::LauncherDied => b"PS014",
            Error::Limits(_) | Error::MaxLimits(_) => b"PS016",
            Error::JwtSecret(_) => b"PS020",
            // Postgres' own: insufficient_resources, invalid_transaction_state, system_error.
            Error::Descriptors | Error::Hashing(_) => b"53000",
            Error::ParallelWorker => b"25000",
            Error::System { .. } => b"58000",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        static KEYS: LazyLock<String> = LazyLock::new(SomeLimits::keys);
        Some(match self {
            Error::EmptyCommand => "Pass the text that the shell shall run.",
            Error::LongCommand(_) => "Put the data into a table and let the command be shorter.",
            Error::Refused(step, _) => step.hint(),
            Error::Unconfined(_) => {
                "Nothing was run: a command never runs with less confinement than is required."
            }
            Error::Environment(_) => "Pass an object of strings, such as {\"NAME\": \"value\"}.",
            Error::Limits(_) => &KEYS,
            Error::MaxLimits(_) => {
                "No command runs until an administrator has corrected or reset this setting."
            }
            Error::WorkingDirectory(_) => "Pass a path that begins with /, such as /tmp.",
            Error::RelativeLauncher(_) => {
                "Set it to a path that begins with /, or to nothing for the server's own library folder."
            }
            Error::Launcher { .. } | Error::NoLauncher(_) => {
                "Install pg-shell-launch there, executable for the server's user, or set pg_shell.launcher."
            }
            Error::LauncherDied => {
                "Somebody killed it, or the host ran out of memory. All that the command started has ended."
            }
            Error::Descriptors => "See max_files_per_process and the server's limit on open files.",
            Error::JwtSecret(_) => {
                "Set pg_shell.jwt_secret to @ and the path of a file with 32 bytes or more that only the server reads."
            }
            Error::ParallelWorker | Error::Hashing(_) | Error::System { .. } => return None,
        })
    }
}

impl From<confine::Error> for Error {
    fn from(error: confine::Error) -> Error {
        match error {
            confine::Error::Spawn { path, source } => Error::Launcher { path, source },
            confine::Error::System { what, source } => Error::System { what, source },
            confine::Error::Probe(_) => Error::NoLauncher(error.to_string()),
            // The command and the working directory have been checked; variables are left.
            confine::Error::Invalid(why) => Error::Environment(why),
            confine::Error::NoShell(_)
            | confine::Error::Cgroup { .. }
            | confine::Error::Seccomp(_) => Error::Unconfined(error.to_string()),
        }
    }
}
