//! A claimed command, and what is written back of it. The shapes are those of `sql/02_types.sql`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use confine::shell::{State, StateError};
use confine::{Ended, Exceeded, LIMITS, Limits, Outcome, Output, RANGES, Stream};
use serde::Serialize;
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use uuid::Uuid;

/// The lease under which a command is held: with the worker's id, its id and which attempt this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// `commands.id`.
    pub command_id: i64,
    /// `commands.attempt`.
    pub attempt: i32,
}

/// `shell.claimed_command`.
#[derive(Debug)]
pub struct Claimed {
    /// The lease on it.
    pub lease: Lease,
    /// Whose it is; the next claim begins after this user.
    pub user_id: Uuid,
    /// The session that it is a command of.
    pub session: Uuid,
    /// What the shell runs.
    pub command: String,
    /// Where it starts.
    pub cwd: String,
    /// The session's exported variables.
    pub env: BTreeMap<String, String>,
    /// The rest of the session's state.
    pub shell_state: String,
    /// The programs that it may run; `None` is any.
    pub programs: Option<Vec<String>>,
    /// What it may use.
    pub limits: Limits,
    /// The tree of files with which it begins; `None` is an empty home folder.
    pub tree: Option<i64>,
    /// When it came.
    pub claimed_at: Instant,
}

impl Claimed {
    /// Reads a row of `shell.work`.
    ///
    /// # Errors
    /// A column that is missing or of another type: the extension is another version's.
    pub fn from_row(row: &Row) -> Result<Claimed, tokio_postgres::Error> {
        let Json(env) = row.try_get("env")?;
        Ok(Claimed {
            lease: Lease {
                command_id: row.try_get("command_id")?,
                attempt: row.try_get("attempt")?,
            },
            user_id: row.try_get("user_id")?,
            session: row.try_get("environment_id")?,
            command: row.try_get("command")?,
            cwd: row.try_get("cwd")?,
            env,
            shell_state: row.try_get("shell_state")?,
            programs: row.try_get("programs")?,
            limits: limits(row)?,
            tree: row.try_get("tree")?,
            claimed_at: Instant::now(),
        })
    }
}

/// The limits that the database reckons; the worker holds them against its own once more.
fn limits(row: &Row) -> Result<Limits, tokio_postgres::Error> {
    let mut values = [None; LIMITS];
    for (value, (name, _)) in values.iter_mut().zip(RANGES) {
        *value = row.try_get::<_, Option<i64>>(name)?;
    }
    Ok(Limits::from_untrusted(values))
}

/// `shell.command_result`.
#[derive(Debug, Serialize)]
pub struct Finished {
    command_id: i64,
    attempt: i32,
    failure: Option<&'static str>,
    failure_reason: Option<String>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    output: String,
    stdout: String,
    stderr: String,
    raw_output: Option<String>,
    output_bytes: u64,
    truncated: bool,
    /// Microseconds since it began; set when it is sent.
    age_us: u64,
    duration_us: u64,
    cpu_us: u64,
    peak_memory_bytes: u64,
    cwd_after: Option<String>,
    env_after: Option<BTreeMap<String, String>>,
    shell_state_after: Option<String>,
    tree_after: Option<i64>,
    not_kept: Option<Vec<String>>,
    #[serde(skip)]
    began: Instant,
}

impl Finished {
    /// What is written of a command that ran.
    pub fn new(claimed: &Claimed, began: Instant, outcome: Outcome, output: &Output) -> Finished {
        let mut end = End::of(&outcome, &claimed.limits, output);
        let mut after = None;
        if let Ended::Exited(_) = outcome.report.ended {
            match State::read(&outcome.state, &claimed.env) {
                Ok(state) => after = Some(state).filter(|s| changed(s, claimed)),
                // `exec` replaces the shell: there is nobody left to ask, and nothing has changed.
                Err(StateError::Missing) => {}
                Err(e) => {
                    end.failure = Some("limit");
                    end.reason = Some(format!(
                        "{}; the session's state is as it was before.",
                        capitalized(&e.to_string())
                    ));
                }
            }
        }
        let (output_text, lossy) = text(&output.bytes);
        let (cwd_after, env_after, shell_state_after) = match after {
            Some(s) => (Some(s.cwd), Some(s.env), Some(s.shell_state)),
            None => (None, None, None),
        };
        Finished {
            command_id: claimed.lease.command_id,
            attempt: claimed.lease.attempt,
            failure: end.failure,
            failure_reason: end.reason,
            exit_code: end.exit_code,
            signal: end.signal,
            stdout: text(&output.of(Stream::Stdout)).0,
            stderr: text(&output.of(Stream::Stderr)).0,
            output: output_text,
            raw_output: lossy.then(|| STANDARD.encode(&output.bytes)),
            output_bytes: output.total,
            truncated: output.truncated,
            age_us: 0,
            duration_us: micros(outcome.duration),
            cpu_us: outcome.report.cpu_us,
            peak_memory_bytes: outcome.report.peak_memory_bytes,
            cwd_after,
            env_after,
            shell_state_after,
            tree_after: None,
            not_kept: None,
            began,
        }
    }

    /// Whether what it left in its home shall be kept: a shell that was ended leaves the session as it was, and so does
    /// one whose state cannot be.
    pub fn keeps_files(&self) -> bool {
        matches!(self.failure, None | Some("exit"))
    }

    /// Its session's files are as it left them.
    pub fn left(&mut self, tree: Option<i64>, not_kept: Vec<String>) {
        self.tree_after = tree;
        self.not_kept = Some(not_kept).filter(|paths| !paths.is_empty());
    }

    /// What it left in its home cannot be kept: the session is as it was, whatever the command did.
    pub fn fail_files(&mut self, failure: &'static str, reason: String) {
        self.failure = Some(failure);
        self.failure_reason = Some(reason);
        self.cwd_after = None;
        self.env_after = None;
        self.shell_state_after = None;
    }

    /// What is written of a command that could not be run, or whose result could not be written.
    pub fn refused(lease: Lease, reason: &str) -> Finished {
        Finished::never_ran(lease, "refused", reason)
    }

    /// What is written of a command that was cancelled between its claim and its start.
    pub fn cancelled(lease: Lease) -> Finished {
        Finished::never_ran(
            lease,
            "cancelled",
            "The command was cancelled before it began.",
        )
    }

    fn never_ran(lease: Lease, failure: &'static str, reason: &str) -> Finished {
        Finished {
            command_id: lease.command_id,
            attempt: lease.attempt,
            failure: Some(failure),
            failure_reason: Some(text(reason.as_bytes()).0),
            exit_code: None,
            signal: None,
            output: String::new(),
            stdout: String::new(),
            stderr: String::new(),
            raw_output: None,
            output_bytes: 0,
            truncated: false,
            age_us: 0,
            duration_us: 0,
            cpu_us: 0,
            peak_memory_bytes: 0,
            cwd_after: None,
            env_after: None,
            shell_state_after: None,
            tree_after: None,
            not_kept: None,
            began: Instant::now(),
        }
    }

    /// Its lease.
    pub fn lease(&self) -> Lease {
        Lease {
            command_id: self.command_id,
            attempt: self.attempt,
        }
    }

    /// Says when it began in terms of the moment of sending.
    pub fn stamp(&mut self) {
        self.age_us = micros(self.began.elapsed()).max(self.duration_us);
    }

    /// About what it takes to send.
    pub fn size(&self) -> usize {
        1024 + 2 * self.output.len()
            + self.raw_output.as_ref().map_or(0, String::len)
            + self.shell_state_after.as_ref().map_or(0, String::len)
    }

    /// How long it ran.
    pub fn duration(&self) -> Duration {
        Duration::from_micros(self.duration_us)
    }
}

fn changed(after: &State, before: &Claimed) -> bool {
    after.cwd != before.cwd || after.env != before.env || after.shell_state != before.shell_state
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

fn capitalized(text: &str) -> String {
    text[..1].to_uppercase() + &text[1..]
}

/// How a command ended, in the columns' terms.
struct End {
    failure: Option<&'static str>,
    reason: Option<String>,
    exit_code: Option<i32>,
    signal: Option<i32>,
}

impl End {
    fn of(outcome: &Outcome, limits: &Limits, output: &Output) -> End {
        let (exit_code, signal) = match outcome.report.ended {
            Ended::Exited(code) => (Some(code), None),
            Ended::Signaled(signal) => (Some(128 + signal), Some(signal)),
            Ended::TimedOut | Ended::Stopped | Ended::UsedUp(_) | Ended::LauncherDied => {
                (Some(128 + 9), Some(9))
            }
            Ended::Refused(..) | Ended::NoLauncher(_) => (None, None),
        };
        let because = |failure, reason| End {
            failure: Some(failure),
            reason: Some(reason),
            exit_code,
            signal,
        };
        if let Some(limit) = outcome.exceeded(limits, output) {
            let failure = match limit {
                Exceeded::Wall(_) => "timeout",
                Exceeded::Memory(_) | Exceeded::MemoryTogether(_) => "out_of_memory",
                Exceeded::Cpu(_)
                | Exceeded::Processes(_)
                | Exceeded::FileSize(_)
                | Exceeded::Output(_) => "limit",
            };
            return because(failure, capitalized(&limit.to_string()) + ".");
        }
        match &outcome.report.ended {
            Ended::Exited(0) => End {
                failure: None,
                reason: None,
                exit_code,
                signal,
            },
            Ended::Exited(code) => because("exit", format!("The command exited with code {code}.")),
            Ended::Signaled(signal) => {
                because("signal", format!("Signal {signal} ended the shell."))
            }
            Ended::Stopped | Ended::TimedOut | Ended::UsedUp(_) => {
                because("cancelled", "The command was cancelled.".into())
            }
            Ended::Refused(step, reason) => because(
                "refused",
                format!("The command was not run: {step} failed: {reason}."),
            ),
            Ended::NoLauncher(why) => {
                because("refused", format!("The command was not run: {why}."))
            }
            Ended::LauncherDied => because(
                "signal",
                "The command's launcher was killed from outside.".into(),
            ),
        }
    }
}

/// Bytes as text that Postgres can hold, and whether something was lost on the way.
pub fn text(bytes: &[u8]) -> (String, bool) {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => (text.to_owned(), false),
        _ => (
            String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}"),
            true,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::text;

    #[test]
    fn text_is_what_postgres_can_hold() {
        assert_eq!(text("ünï".as_bytes()), ("ünï".into(), false));
        assert_eq!(text(b"a\0b\xffc"), ("a\u{fffd}b\u{fffd}c".into(), true));
    }
}
