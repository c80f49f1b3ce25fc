//! What a shell wrote about its state when it ended, turned into a session's columns.
//!
//! The text comes from inside the confinement and is believed for nothing but its own session's sake:
//! it is only ever read again inside the same confinement.

use std::collections::{BTreeMap, BTreeSet};

use super::declarations::{self, Declaration, is_name};
use super::{OURS, STATE_BEGIN, STATE_END, Shell};

/// The largest environment and the largest script that a session may keep, in bytes.
const LARGEST: usize = 1 << 20;
/// `PATH_MAX`, with its NUL.
const LONGEST_PATH: usize = 4096;

/// Variables that bash sets itself, or that describe one moment; sorted.
const OF_THE_SHELL: &[&str] = &[
    "BASH",
    "BASHOPTS",
    "BASHPID",
    "BASH_ALIASES",
    "BASH_ARGC",
    "BASH_ARGV",
    "BASH_ARGV0",
    "BASH_CMDS",
    "BASH_COMMAND",
    "BASH_EXECUTION_STRING",
    "BASH_LINENO",
    "BASH_LOADABLES_PATH",
    "BASH_MONOSECONDS",
    "BASH_REMATCH",
    "BASH_SOURCE",
    "BASH_SUBSHELL",
    "BASH_TRAPSIG",
    "BASH_VERSINFO",
    "BASH_VERSION",
    "BASH_XTRACEFD",
    "COMP_WORDBREAKS",
    "DIRSTACK",
    "EPOCHREALTIME",
    "EPOCHSECONDS",
    "EUID",
    "FUNCNAME",
    "GROUPS",
    "HISTCMD",
    "HOSTNAME",
    "HOSTTYPE",
    "LINENO",
    "MACHTYPE",
    "OPTERR",
    "OPTIND",
    "OSTYPE",
    "PIPESTATUS",
    "PPID",
    "PWD",
    "RANDOM",
    "SECONDS",
    "SHELLOPTS",
    "SHLVL",
    "SRANDOM",
    "UID",
    "_",
];

/// A session's state after a command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// The working directory.
    pub cwd: String,
    /// Exported variables, without those that every session has anyway.
    pub env: BTreeMap<String, String>,
    /// Functions, aliases, options, umask and other variables, as a script.
    pub shell_state: String,
}

/// Why a state is not taken over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Nothing complete was written: the shell was replaced, killed, or its descriptor was taken.
    #[error("the shell did not say what it left")]
    Missing,
    /// It is larger than a session may keep.
    #[error("the session's {0} is over 1 MiB")]
    TooLarge(&'static str),
    /// The folder's name cannot be stored as text.
    #[error("the name of the working directory is not valid UTF-8, or is too long")]
    Cwd,
}

impl State {
    /// Reads the last complete state that `written` holds.
    ///
    /// `before` is the environment that the command began with: a variable that every session has is kept
    /// only where the session has set it itself.
    ///
    /// # Errors
    /// [`StateError`]; the session's state is then left as it was.
    pub fn read(written: &[u8], before: &BTreeMap<String, String>) -> Result<State, StateError> {
        let fields: Vec<&[u8]> = written.split(|&c| c == 0).collect();
        let end = fields
            .iter()
            .rposition(|&f| f == STATE_END)
            .ok_or(StateError::Missing)?;
        let begin = fields[..end]
            .iter()
            .rposition(|&f| f == STATE_BEGIN)
            .ok_or(StateError::Missing)?;
        let state = match &fields[begin + 1..end] {
            [
                b"bash",
                cwd,
                umask,
                options0,
                options,
                shopts0,
                shopts,
                declared,
                functions,
                aliases,
            ] => {
                let mut script = Vec::new();
                let env = variables(Shell::Bash, declared, before, &mut script);
                let functions = declarations::without_functions(functions, |name| {
                    name.starts_with(OURS) || name == "trap"
                });
                // By the builtins from here on: a function may have their name, or an alias.
                let extended = has_extended_pattern(&functions);
                if extended {
                    script.extend_from_slice(b"builtin shopt -s extglob\n");
                }
                script.extend(functions);
                if extended {
                    script.extend_from_slice(b"builtin shopt -u extglob\n");
                }
                for line in declarations::logical_lines(aliases) {
                    script.extend_from_slice(b"builtin ");
                    script.extend_from_slice(line);
                    script.push(b'\n');
                }
                mask("builtin umask", umask, &mut script);
                changed(
                    shopts0,
                    shopts,
                    "builtin shopt -s",
                    "builtin shopt -u",
                    &mut script,
                );
                // Last, so that they do not act on the lines above.
                changed(
                    options0,
                    options,
                    "builtin set -o",
                    "builtin set +o",
                    &mut script,
                );
                State {
                    cwd: path(cwd)?,
                    env,
                    shell_state: String::from_utf8_lossy(&script).into_owned(),
                }
            }
            [b"sh", cwd, umask, options, exported, aliases] => {
                let mut script = Vec::new();
                let env = variables(Shell::Sh, exported, before, &mut script);
                for line in aliases.split(|&c| c == b'\n').filter(|l| !l.is_empty()) {
                    script.extend_from_slice(b"alias ");
                    script.extend_from_slice(line);
                    script.push(b'\n');
                }
                mask("umask", umask, &mut script);
                for line in options
                    .split(|&c| c == b'\n')
                    .filter(|l| l.starts_with(b"set -o"))
                {
                    script.extend_from_slice(line);
                    script.push(b'\n');
                }
                State {
                    cwd: path(cwd)?,
                    env,
                    shell_state: String::from_utf8_lossy(&script).into_owned(),
                }
            }
            _ => return Err(StateError::Missing),
        };
        state.fits()
    }

    fn fits(self) -> Result<State, StateError> {
        // As JSON text a character takes up to six bytes; the database measures that text.
        let env: usize = self
            .env
            .iter()
            .map(|(n, v)| json_length(n) + json_length(v) + 6)
            .sum();
        if env > LARGEST {
            return Err(StateError::TooLarge("environment"));
        }
        if self.shell_state.len() > LARGEST {
            return Err(StateError::TooLarge("shell state"));
        }
        Ok(self)
    }
}

fn json_length(text: &str) -> usize {
    text.chars()
        .map(|c| {
            if c < ' ' || c == '"' || c == '\\' || c == '\u{7f}' {
                6
            } else {
                c.len_utf8()
            }
        })
        .sum()
}

fn path(field: &[u8]) -> Result<String, StateError> {
    let path = field.strip_suffix(b"\n").unwrap_or(field);
    match String::from_utf8(path.into()) {
        Ok(p) if p.starts_with('/') && p.len() < LONGEST_PATH => Ok(p),
        _ => Err(StateError::Cwd),
    }
}

/// The exported variables; what else there is to declare goes into the script.
fn variables(
    shell: Shell,
    declared: &[u8],
    before: &BTreeMap<String, String>,
    script: &mut Vec<u8>,
) -> BTreeMap<String, String> {
    let base: BTreeMap<&str, &str> = shell.base_environment().into();
    let mut env = BTreeMap::new();
    let mut exported = Vec::new();
    for d in declarations::parse(declared) {
        if d.name.starts_with(OURS) || is_of_the_shell(d.name) || is_default(&d) {
            continue;
        }
        let value = d.exported().then(|| d.value()).flatten();
        let Some(value) = value.and_then(|v| String::from_utf8(v).ok()) else {
            // Not exported, not a scalar, without a value, or not text: only a declaration holds it.
            script.extend_from_slice(d.text);
            script.push(b'\n');
            continue;
        };
        exported.push(d.name);
        let of_the_script = d.name == "OLDPWD";
        if of_the_script {
            script.extend_from_slice(
                format!("export OLDPWD={}\n", super::prepare::quote(&value)).as_bytes(),
            );
        }
        // It may say that the value is not to change any more.
        if d.attributes != "x" {
            script.extend_from_slice(format!("declare -{} {}\n", d.attributes, d.name).as_bytes());
        }
        if of_the_script {
            continue;
        }
        if base.get(d.name) != Some(&value.as_str()) || before.contains_key(d.name) {
            env.insert(d.name.to_owned(), value);
        }
    }
    // What every session has, this one may have unset.
    for name in base.keys().filter(|name| !exported.contains(name)) {
        script.extend_from_slice(format!("unset {name}\n").as_bytes());
    }
    // A name that no shell can declare still passes through it to programs.
    for (name, value) in before.iter().filter(|(name, _)| !is_name(name)) {
        env.insert(name.clone(), value.clone());
    }
    env
}

/// What bash declares in every shell, with the value that it has there.
fn is_default(d: &Declaration<'_>) -> bool {
    match d.name {
        "IFS" => d.value().as_deref() == Some(b" \t\n") && !d.exported(),
        "PS4" => d.value().as_deref() == Some(b"+ ") && !d.exported(),
        // bash's own, until there was a `cd`.
        "OLDPWD" => d.value().is_none(),
        _ => false,
    }
}

/// True for one of [`OF_THE_SHELL`].
pub(super) fn is_of_the_shell(name: &str) -> bool {
    OF_THE_SHELL.binary_search(&name).is_ok()
}

/// True for what may be a pattern that bash parses with `extglob` only.
fn has_extended_pattern(functions: &[u8]) -> bool {
    functions
        .windows(2)
        .any(|pair| b"?*+@!".contains(&pair[0]) && pair[1] == b'(')
}

fn mask(command: &str, field: &[u8], script: &mut Vec<u8>) {
    let digits = field.strip_suffix(b"\n").unwrap_or(field);
    if digits != b"0022" && !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) {
        script.extend_from_slice(command.as_bytes());
        script.push(b' ');
        script.extend_from_slice(digits);
        script.push(b'\n');
    }
}

/// Lines that turn the options of `before` into those of `after`; both are lists with colons.
fn changed(before: &[u8], after: &[u8], on: &str, off: &str, script: &mut Vec<u8>) {
    if before == after {
        return;
    }
    // Sets, for what a command has written itself may name millions.
    let list = |field: &[u8]| -> BTreeSet<String> {
        let text = String::from_utf8_lossy(field).into_owned();
        text.split(':')
            .filter(|o| {
                o.bytes()
                    .all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-')
            })
            .filter(|o| !o.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let (before, after) = (list(before), list(after));
    for option in after.difference(&before) {
        script.extend_from_slice(format!("{on} {option}\n").as_bytes());
    }
    for option in before.difference(&after) {
        script.extend_from_slice(format!("{off} {option}\n").as_bytes());
    }
}
