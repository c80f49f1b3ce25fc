//! From a session's state and a command to what the helper starts.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{BASH_STATE_FD, COMMAND_FD, SCRIPT_FD, SH_STATE_FD};
use crate::error::Error;
use crate::limits::Limits;
use crate::seccomp;
use crate::spec::{HOME, Spec};

const BASH_BEGIN: &str = include_str!("bash/begin.sh");
const BASH_PARSE: &str = include_str!("bash/parse.sh");
const BASH_SAVE: &str = include_str!("bash/save.sh");
const BASH_TRAPS: &str = include_str!("bash/traps.sh");
const BASH_WATCH: &str = include_str!("bash/watch.sh");
const SH_PROLOGUE: &str = include_str!("sh.sh");

/// An argument or variable may have 128 KiB (`MAX_ARG_STRLEN`); a longer command travels by descriptor.
const LONGEST_ARGUMENT: usize = 120 << 10;

/// Variables that change how bash starts, or that it cannot take from its environment. They are set by
/// the script instead, when it has started.
const NOT_BY_ENVIRONMENT: &[&str] = &[
    "BASHOPTS",
    "BASH_ENV",
    "BASH_XTRACEFD",
    "ENV",
    "IFS",
    "POSIXLY_CORRECT",
    "PS4",
    "SHELLOPTS",
];

/// A shell that was found on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    /// `/bin/bash`.
    Bash,
    /// `/bin/sh`.
    Sh,
}

/// What a command begins with.
#[derive(Debug, Clone)]
pub struct Start<'a> {
    /// The text that the shell runs.
    pub command: &'a str,
    /// The working directory, absolute.
    pub cwd: &'a str,
    /// The session's exported variables.
    pub env: &'a BTreeMap<String, String>,
    /// The rest of the session's state, as a script.
    pub shell_state: &'a str,
}

impl Shell {
    /// bash where there is one, else sh.
    ///
    /// # Errors
    /// [`Error::NoShell`].
    pub fn find() -> Result<Shell, Error> {
        for shell in [Shell::Bash, Shell::Sh] {
            if std::fs::metadata(shell.path()).is_ok_and(|m| m.permissions().mode() & 0o111 != 0) {
                return Ok(shell);
            }
        }
        Err(Error::NoShell(format!(
            "{} nor {}",
            Shell::Bash.path(),
            Shell::Sh.path()
        )))
    }

    /// Where it is, inside and outside.
    pub fn path(self) -> &'static str {
        match self {
            Shell::Bash => "/bin/bash",
            Shell::Sh => "/bin/sh",
        }
    }

    /// Variables that a session has without asking; its own go before them.
    pub fn base_environment(self) -> [(&'static str, &'static str); 7] {
        [
            ("HOME", HOME),
            // Not LANG: bash, and many a program, would open twelve files of a locale instead of one.
            ("LC_CTYPE", "C.UTF-8"),
            ("LOGNAME", "sandbox"),
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("SHELL", self.path()),
            ("TERM", "xterm-256color"),
            ("USER", "sandbox"),
        ]
    }

    /// Everything the helper needs to run this command.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a NUL or an impossible name stands in the command, the path or a variable;
    /// [`Error::Seccomp`].
    pub fn prepare(self, start: &Start<'_>, limits: Limits) -> Result<Spec, Error> {
        if !Path::new(start.cwd).is_absolute() {
            return Err(Error::Invalid(format!(
                "the working directory {:?} is not absolute",
                start.cwd
            )));
        }
        let long = start.command.len() > LONGEST_ARGUMENT;
        let (argv, script) = match self {
            Shell::Bash => self.bash(start, long)?,
            Shell::Sh => self.sh(start)?,
        };
        let mut envp = Vec::new();
        for (name, value) in self.environment(start.env) {
            check_variable(name, value)?;
            if !by_script(name) {
                envp.push(c_string(format!("{name}={value}"))?);
            }
        }
        if self == Shell::Bash {
            envp.push(c_string(format!("BASH_ENV=/proc/self/fd/{SCRIPT_FD}"))?);
        }
        let by_descriptor = long || self == Shell::Sh;
        Ok(Spec {
            program: c_string(self.path())?,
            argv,
            envp,
            cwd: c_string(start.cwd)?,
            script,
            long_command: by_descriptor.then(|| start.command.into()),
            state_fd: match self {
                Shell::Bash => BASH_STATE_FD,
                Shell::Sh => SH_STATE_FD,
            },
            limits,
            seccomp: seccomp::filter()?.to_vec(),
        })
    }

    fn environment(self, env: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
        let mut all: BTreeMap<&str, &str> = self.base_environment().into();
        all.extend(
            env.iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        all
    }

    fn bash(self, start: &Start<'_>, long: bool) -> Result<(Vec<CString>, Vec<u8>), Error> {
        let mut script = String::from(BASH_BEGIN);
        let command = if long {
            script +=
                &format!("builtin mapfile -d '' __pg_shell_command </proc/self/fd/{COMMAND_FD}\n");
            script += &format!("exec {COMMAND_FD}<&-\n");
            "builtin eval \"$__pg_shell_command\""
        } else {
            start.command
        };
        if start.command.contains('\n') {
            script += BASH_PARSE;
        }
        script += &format!("__pg_shell_save={}\n", quote(BASH_SAVE));
        script += &format!("__pg_shell_traps={}\n", quote(BASH_TRAPS));
        script += BASH_WATCH;
        script += &format!("exec {SCRIPT_FD}<&-\n");
        script += &exports(start.env);
        script += start.shell_state;
        let argv = ["bash", "-c", command, "bash"]
            .map(c_string)
            .into_iter()
            .collect::<Result<_, _>>()?;
        Ok((argv, script.into_bytes()))
    }

    fn sh(self, start: &Start<'_>) -> Result<(Vec<CString>, Vec<u8>), Error> {
        let script = format!("{SH_PROLOGUE}{}{}", exports(start.env), start.shell_state);
        let run = format!(". /proc/self/fd/{SCRIPT_FD}; . /proc/self/fd/{COMMAND_FD}");
        let argv = ["sh", "-c", &run]
            .map(c_string)
            .into_iter()
            .collect::<Result<_, _>>()?;
        Ok((argv, script.into_bytes()))
    }
}

fn by_script(name: &str) -> bool {
    NOT_BY_ENVIRONMENT.contains(&name)
}

/// The lines that export what the environment may not carry.
fn exports(env: &BTreeMap<String, String>) -> String {
    env.iter()
        // Read-only in bash; what they would say is part of the shell state.
        .filter(|(name, _)| by_script(name) && !matches!(name.as_str(), "BASHOPTS" | "SHELLOPTS"))
        .map(|(name, value)| format!("export {name}={}\n", quote(value)))
        .collect()
}

/// A word that every shell reads back as exactly this text.
pub(super) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn check_variable(name: &str, value: &str) -> Result<(), Error> {
    if name.is_empty() || name.contains(['=', '\0']) {
        return Err(Error::Invalid(format!(
            "{name:?} cannot be the name of an environment variable"
        )));
    }
    if value.contains('\0') {
        return Err(Error::Invalid(format!(
            "the environment variable {name} holds a NUL byte"
        )));
    }
    Ok(())
}

fn c_string(text: impl Into<Vec<u8>>) -> Result<CString, Error> {
    CString::new(text)
        .map_err(|e| Error::Invalid(format!("a NUL byte at position {}", e.nul_position())))
}
