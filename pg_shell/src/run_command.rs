//! `shell.run_command`: one confined command, within the caller's transaction.

use std::collections::BTreeMap;

use confine::shell::{Shell, Start};
use confine::{Ended, Outcome, Output};
use pgrx::prelude::*;
use serde_json::Value;

use crate::error::{COMMAND_BYTES, Error};
use crate::running::Command;
use crate::settings;

/// As of timeout(1).
const TIMED_OUT: i32 = 124;
/// 128 + SIGKILL, by which a command ends that prints too much.
const KILLED: i32 = 128 + 9;

/// What the caller passed; `None` is SQL's null.
pub struct Arguments {
    /// Where it shall run.
    pub cwd: Option<String>,
    /// Its variables, as JSON.
    pub env: Option<String>,
    /// What shall run.
    pub command: Option<String>,
}

/// What the caller gets.
pub struct Answer {
    /// The shell's exit code, or what stands for it.
    pub exit_code: i32,
    /// Standard output and error.
    pub output: String,
}

/// Runs the command and waits for its end.
pub fn run(arguments: &Arguments) -> Result<Answer, Error> {
    // SAFETY: a variable of this backend.
    if unsafe { pg_sys::ParallelWorkerNumber } >= 0 {
        return Err(Error::ParallelWorker);
    }
    let command = command(arguments.command.as_deref())?;
    let cwd = working_directory(arguments.cwd.as_deref())?;
    let env = environment(arguments.env.as_deref())?;
    let launcher = settings::launcher();
    if !launcher.is_absolute() {
        return Err(Error::RelativeLauncher(launcher));
    }
    let start = Start {
        command,
        cwd,
        env: &env,
        shell_state: "",
    };
    let spec = Shell::find()?.prepare(&start, settings::limits())?;

    let command = Command::start(&launcher, &spec)?;
    let (outcome, output) = command.wait()?;
    drop(command);
    answer(outcome, &output)
}

fn command(command: Option<&str>) -> Result<&str, Error> {
    match command {
        None => Err(Error::EmptyCommand),
        Some(text) if text.trim().is_empty() => Err(Error::EmptyCommand),
        Some(text) if text.len() > COMMAND_BYTES => Err(Error::LongCommand(text.len())),
        Some(text) => Ok(text),
    }
}

fn working_directory(cwd: Option<&str>) -> Result<&str, Error> {
    match cwd {
        Some(path) if path.starts_with('/') => Ok(path),
        other => Err(Error::WorkingDirectory(
            other.unwrap_or("(null)").to_owned(),
        )),
    }
}

fn environment(env: Option<&str>) -> Result<BTreeMap<String, String>, Error> {
    let env = env.ok_or_else(|| Error::Environment("the environment is null".into()))?;
    let Ok(Value::Object(variables)) = serde_json::from_str(env) else {
        return Err(Error::Environment(
            "the environment is not a JSON object".into(),
        ));
    };
    variables
        .into_iter()
        .map(|(name, value)| match value {
            Value::String(value) => Ok((name, value)),
            _ => Err(Error::Environment(format!(
                "the environment variable {name} is not a string"
            ))),
        })
        .collect()
}

fn answer(outcome: Outcome, output: &Output) -> Result<Answer, Error> {
    let limits = settings::limits();
    let exit_code = match outcome.report.ended {
        Ended::Exited(code) => code,
        Ended::Signaled(signal) => 128 + signal,
        // Past its deadline the helper is killed, should it not have ended by itself.
        Ended::LauncherDied if outcome.duration < limits.wall => return Err(Error::LauncherDied),
        Ended::TimedOut | Ended::LauncherDied => {
            warn(
                format!("the command was ended after {} ms", limits.wall.as_millis()),
                "pg_shell.timeout",
            );
            TIMED_OUT
        }
        Ended::Stopped => KILLED,
        Ended::NoLauncher(why) => return Err(Error::NoLauncher(why)),
        Ended::Refused(step, why) => return Err(Error::Refused(step, why)),
    };
    if output.truncated {
        let kept = output.bytes.len();
        warn(
            format!("the command printed more than the {kept} bytes that are kept"),
            "pg_shell.max_output",
        );
    }
    Ok(Answer {
        exit_code,
        output: printable(&output.bytes),
    })
}

fn warn(message: String, setting: &str) {
    ereport!(
        PgLogLevel::WARNING,
        PgSqlErrorCode::ERRCODE_WARNING,
        message,
        format!("The limit is the setting {setting}.")
    );
}

/// Text that any `text` value can hold: what is not UTF-8, and NUL, becomes U+FFFD.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "\u{FFFD}")
}
