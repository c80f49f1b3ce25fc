//! From a specification to what a shell is started with: on the helper's side, for it knows whether a bash
//! waits started already.

use std::ffi::{CStr, CString};

use super::declarations::is_name;
use super::prepare::quote;
use super::state::is_of_the_shell;
use super::{BASH_STATE_FD, COMMAND_FD, OURS, SCRIPT_FD, SH_STATE_FD, Shell};
use crate::spec::Spec;

const BASH_BEGIN: &str = include_str!("bash/begin.sh");
const BASH_PARSE: &str = include_str!("bash/parse.sh");
const BASH_SAVE: &str = include_str!("bash/save.sh");
const BASH_TRAPS: &str = include_str!("bash/traps.sh");
const BASH_WAIT: &str = include_str!("bash/wait.sh");
const BASH_WATCH: &str = include_str!("bash/watch.sh");
const SH_PROLOGUE: &str = include_str!("sh.sh");

/// An argument or variable may have 128 KiB (`MAX_ARG_STRLEN`); a longer command travels by descriptor, and a
/// longer variable is set by the script.
const LONGEST_ARGUMENT: usize = 120 << 10;

/// Variables that change how bash starts, or that it cannot take from its environment. They are set by
/// the script instead, when it has started.
const NOT_BY_ENVIRONMENT: &[&[u8]] = &[
    b"BASH_ENV",
    b"BASH_XTRACEFD",
    b"ENV",
    b"IFS",
    b"POSIXLY_CORRECT",
    b"PS4",
];

/// Read-only in bash: what they would say is part of the shell state.
const READ_ONLY: &[&[u8]] = &[b"BASHOPTS", b"SHELLOPTS"];

/// A shell that is executed for one command.
pub(crate) struct Executed<'a> {
    /// Absolute path.
    pub program: CString,
    /// `argv[0]` included.
    pub argv: Vec<CString>,
    /// `NAME=value`.
    pub envp: Vec<CString>,
    /// Goes to [`SCRIPT_FD`].
    pub script: Vec<u8>,
    /// Goes to [`COMMAND_FD`].
    pub by_descriptor: Option<&'a CStr>,
}

/// The number under which the shell finds the file for its state.
pub(crate) fn state_fd(shell: Shell) -> i32 {
    match shell {
        Shell::Bash => BASH_STATE_FD,
        Shell::Sh => SH_STATE_FD,
    }
}

/// What to execute.
pub(crate) fn executed(spec: &Spec) -> Executed<'_> {
    let (argv, script, by_descriptor) = match spec.shell {
        Shell::Bash => bash(spec),
        Shell::Sh => sh(spec),
    };
    let mut envp: Vec<CString> = spec
        .env
        .iter()
        .filter(|(name, value)| !by_script(name, value) && !is_ours(name))
        .map(|(name, value)| variable(name, value))
        .collect();
    if spec.shell == Shell::Bash {
        envp.push(variable(
            c"BASH_ENV",
            &c_string(format!("/proc/self/fd/{SCRIPT_FD}")),
        ));
    }
    Executed {
        program: c_string(spec.shell.path()),
        argv,
        envp,
        script,
        by_descriptor,
    }
}

fn bash(spec: &Spec) -> (Vec<CString>, Vec<u8>, Option<&CStr>) {
    let long = spec.command.as_bytes().len() > LONGEST_ARGUMENT;
    let mut script = String::from(BASH_BEGIN);
    if long {
        script +=
            &format!("builtin mapfile -d '' __pg_shell_command </proc/self/fd/{COMMAND_FD}\n");
        script += &format!("exec {COMMAND_FD}<&-\n");
    }
    script += &constant_part();
    script += &format!("exec {SCRIPT_FD}<&-\n");
    let mut script = script.into_bytes();
    session_part(spec, by_script, &mut script);
    let command = if long {
        c_string("builtin eval \"$__pg_shell_command\"")
    } else {
        spec.command.clone()
    };
    let argv = vec![c_string("bash"), c_string("-c"), command, c_string("bash")];
    (argv, script, long.then_some(&*spec.command))
}

fn sh(spec: &Spec) -> (Vec<CString>, Vec<u8>, Option<&CStr>) {
    let mut script = Vec::from(SH_PROLOGUE);
    export(spec, by_script, &mut script);
    script.extend_from_slice(&spec.shell_state);
    let run = format!(". /proc/self/fd/{SCRIPT_FD}; . /proc/self/fd/{COMMAND_FD}");
    let argv = vec![c_string("sh"), c_string("-c"), c_string(run)];
    (argv, script, Some(&spec.command))
}

/// What a bash reads that waits for its command: `load`, which brings the builtins, and everything that is the
/// same for all sessions. The session's part is the value of a variable then.
pub(crate) fn waiting_script(load: &str) -> String {
    format!("{load}{BASH_BEGIN}{}{BASH_WAIT}", constant_part())
}

/// The environment of a bash that waits: what every session has.
pub(crate) fn waiting_environment() -> Vec<CString> {
    let base = Shell::Bash.base_environment();
    base.iter()
        .map(|(name, value)| c_string(format!("{name}={value}")))
        .collect()
}

/// The session's part for a bash that waits; `None` where only bash's own start can take a variable over.
pub(crate) fn waiting_session(spec: &Spec) -> Option<Vec<u8>> {
    let can = spec.shell == Shell::Bash
        && spec
            .env
            .iter()
            .all(|(name, value)| is_settable(name) || by_script(name, value));
    if !can {
        return None;
    }
    let mut script = Vec::new();
    let new = |name: &CStr, value: &CStr| !has_base(spec.shell, name, value);
    session_part(spec, new, &mut script);
    Some(script)
}

/// True for what every session has, and a bash that waits therefore too.
pub(super) fn has_base(shell: Shell, name: &CStr, value: &CStr) -> bool {
    let is =
        |(n, v): &(&str, &str)| name.to_bytes() == n.as_bytes() && value.to_bytes() == v.as_bytes();
    shell.base_environment().iter().any(is)
}

/// Saving the state at the end, the same for every command.
fn constant_part() -> String {
    format!(
        "__pg_shell_save={}\n__pg_shell_traps={}\n{BASH_WATCH}",
        quote(BASH_SAVE),
        quote(BASH_TRAPS)
    )
}

/// What differs: the check of a command of several lines, the variables that are `chosen`, the state.
fn session_part(spec: &Spec, chosen: impl Fn(&CStr, &CStr) -> bool, script: &mut Vec<u8>) {
    if spec.command.as_bytes().contains(&b'\n') {
        script.extend_from_slice(BASH_PARSE.as_bytes());
    }
    export(spec, chosen, script);
    script.extend_from_slice(&spec.shell_state);
}

pub(super) fn export(spec: &Spec, chosen: impl Fn(&CStr, &CStr) -> bool, script: &mut Vec<u8>) {
    for (name, value) in &spec.env {
        if chosen(name, value) && !is_read_only(name) && !is_ours(name) {
            script.extend_from_slice(b"export ");
            script.extend_from_slice(name.as_bytes());
            script.push(b'=');
            let quoted = value.as_bytes().split(|&c| c == b'\'');
            script.push(b'\'');
            script.extend(quoted.collect::<Vec<_>>().join(&br"'\''"[..]));
            script.push(b'\'');
            script.push(b'\n');
        }
    }
}

/// The names of our own variables are nobody's to set.
pub(super) fn is_ours(name: &CStr) -> bool {
    name.to_bytes().starts_with(OURS.as_bytes())
}

pub(super) fn is_read_only(name: &CStr) -> bool {
    READ_ONLY.contains(&name.to_bytes())
}

pub(super) fn by_script(name: &CStr, value: &CStr) -> bool {
    let is_long = name.count_bytes() + value.count_bytes() > LONGEST_ARGUMENT;
    // Else no shell would start that could unset it.
    NOT_BY_ENVIRONMENT.contains(&name.to_bytes())
        || is_read_only(name)
        || (is_long && is_settable(name))
}

/// True for what a script can set, and the shell does not set itself.
fn is_settable(name: &CStr) -> bool {
    let name = name.to_str().unwrap_or_default();
    is_name(name) && !is_of_the_shell(name)
}

fn variable(name: &CStr, value: &CStr) -> CString {
    c_string([name.to_bytes(), b"=", value.to_bytes()].concat())
}

/// For text whose parts hold no NUL.
fn c_string(text: impl Into<Vec<u8>>) -> CString {
    CString::new(text).expect("no NUL in what came as a CString, or stands here")
}
