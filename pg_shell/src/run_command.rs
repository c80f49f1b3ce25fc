//! `shell.run_command`: one confined command, within the caller's transaction.

use std::collections::BTreeMap;

use confine::shell::{Shell, Start};
use confine::{Ended, Exceeded, Limits, Outcome, Output, SomeLimits};
use pgrx::prelude::*;
use serde_json::Value;

use crate::error::{COMMAND_BYTES, Error};
use crate::running::Command;
use crate::settings;

/// As of timeout(1).
const TIMED_OUT: i32 = 124;
/// 128 + SIGKILL, by which a command ends that is stopped.
const KILLED: i32 = 128 + 9;

/// What the caller passed; `None` is SQL's null.
pub struct Arguments {
    /// Where it shall run.
    pub cwd: Option<String>,
    /// Its variables, as JSON.
    pub env: Option<String>,
    /// What shall run.
    pub command: Option<String>,
    /// What it may use, as JSON.
    pub limits: Option<String>,
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
    let limits = limits(arguments.limits.as_deref())?;
    let launcher = settings::launcher();
    if !launcher.is_absolute() {
        return Err(Error::RelativeLauncher(launcher));
    }
    let programs = settings::programs();
    let start = Start {
        command,
        cwd,
        env: &env,
        shell_state: "",
        programs: programs.as_deref(),
        layers: None,
    };
    let spec = Shell::find()?.prepare(&start, limits.clone())?;

    let command = Command::start(&launcher, &settings::cgroup()?, &spec)?;
    let (outcome, output) = command.wait()?;
    drop(command);
    answer(outcome, &output, &limits)
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

/// The least of what is asked for, the settings, and the administrator's maximum.
fn limits(asked: Option<&str>) -> Result<Limits, Error> {
    let asked = asked.map(SomeLimits::from_json).transpose();
    let asked = asked.map_err(Error::Limits)?.unwrap_or_default();
    let maximum = settings::max_limits()?;
    Ok(settings::limits().at_most(&asked).at_most(&maximum))
}

fn answer(outcome: Outcome, output: &Output, limits: &Limits) -> Result<Answer, Error> {
    let exceeded = outcome.exceeded(limits, output);
    let exit_code = match (outcome.report.ended, exceeded) {
        (_, Some(Exceeded::Wall(_))) => TIMED_OUT,
        (Ended::Exited(code), _) => code,
        (Ended::Signaled(signal), _) => 128 + signal,
        (Ended::TimedOut | Ended::Stopped | Ended::UsedUp(_), _) => KILLED,
        // PID 1 ends with all the rest of its group.
        (Ended::LauncherDied, Some(Exceeded::MemoryTogether(_))) => KILLED,
        (Ended::LauncherDied, _) => return Err(Error::LauncherDied),
        (Ended::NoLauncher(why), _) => {
            return Err(Error::NoLauncher(format!("the command was refused: {why}")));
        }
        (Ended::Refused(step, why), _) => return Err(Error::Refused(step, why)),
    };
    if let Some(exceeded) = exceeded {
        ereport!(
            PgLogLevel::WARNING,
            PgSqlErrorCode::ERRCODE_WARNING,
            exceeded.to_string(),
            format!(
                "This limit is the least of {}, pg_shell.max_limits, and the argument limits.",
                setting(exceeded)
            )
        );
    }
    Ok(Answer {
        exit_code,
        output: printable(&output.bytes),
    })
}

fn setting(exceeded: Exceeded) -> &'static str {
    match exceeded {
        Exceeded::Wall(_) => "pg_shell.timeout",
        Exceeded::Cpu(_) => "pg_shell.cpu_time",
        Exceeded::Memory(_) | Exceeded::MemoryTogether(_) => "pg_shell.memory",
        Exceeded::Processes(_) => "pg_shell.processes",
        Exceeded::FileSize(_) => "pg_shell.file_size",
        Exceeded::Output(_) => "pg_shell.max_output",
    }
}

/// Text that any `text` value can hold: what is not UTF-8, and NUL, becomes U+FFFD.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "\u{FFFD}")
}
