//! From a session's state and a command to what the helper starts.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::limits::Limits;
use crate::spec::{HOME, Spec};

/// A shell that was found on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    /// The programs that it may run besides the shell; `None` is any.
    pub programs: Option<&'a [String]>,
    /// See [`Spec::layers`].
    pub layers: Option<&'a [String]>,
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
    /// [`Error::Invalid`] where a NUL or an impossible name stands in the command, the path or a variable.
    pub fn prepare(self, start: &Start<'_>, limits: Limits) -> Result<Spec, Error> {
        if !Path::new(start.cwd).is_absolute() {
            return Err(Error::Invalid(format!(
                "the working directory {:?} is not absolute",
                start.cwd
            )));
        }
        let mut all: BTreeMap<&str, &str> = self.base_environment().into();
        all.extend(
            start
                .env
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str())),
        );
        let mut env = Vec::with_capacity(all.len());
        for (name, value) in all {
            check_variable(name, value)?;
            env.push((c_string(name)?, c_string(value)?));
        }
        Ok(Spec {
            shell: self,
            command: c_string(start.command)?,
            env,
            cwd: c_string(start.cwd)?,
            shell_state: start.shell_state.into(),
            limits,
            programs: start.programs.map(c_strings).transpose()?,
            layers: start.layers.map(c_strings).transpose()?,
            ahead: false,
        })
    }
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

fn c_strings(list: &[String]) -> Result<Vec<CString>, Error> {
    list.iter().map(|text| c_string(text.as_str())).collect()
}

fn c_string(text: impl Into<Vec<u8>>) -> Result<CString, Error> {
    CString::new(text)
        .map_err(|e| Error::Invalid(format!("a NUL byte at position {}", e.nul_position())))
}
