//! What the page shows, as Postgres hands it over in JSON.

use serde::Deserialize;
use uuid::Uuid;

use super::view;
use crate::terminal;

/// Of long output this many characters are shown at first, the last ones.
const SHOWN: usize = 20_000;

/// A command and how it went.
#[derive(Debug, Clone, Deserialize)]
pub struct Command {
    pub id: i64,
    pub environment_id: Uuid,
    pub command: String,
    pub output: Option<String>,
    /// True where the beginning of the output was left out.
    pub cut: bool,
    pub exit_code: Option<i32>,
    pub status: String,
    pub failure: Option<String>,
    pub failure_reason: Option<String>,
    pub submitted_at: String,
    pub started_at: Option<String>,
    pub seconds: Option<f64>,
    pub cwd: Option<String>,
}

impl Command {
    /// Its columns, of `l`. The cut is made at a line's beginning.
    pub fn columns(whole: bool) -> String {
        let (output, cut) = if whole {
            ("l.output".into(), "false".into())
        } else {
            (
                format!(
                    "case when length(l.output) > {SHOWN} then regexp_replace(right(l.output, {SHOWN}), '^[^\\n]*\\n', '') else l.output end"
                ),
                format!("coalesce(length(l.output) > {SHOWN}, false)"),
            )
        };
        format!(
            "l.id, l.environment_id, l.command, case when l.status in ('done', 'failed') then {output} end as output,
             {cut} as cut, l.exit_code, l.status, l.failure, l.failure_reason,
             l.submitted_at, l.started_at, extract(epoch from l.duration)::float8 as seconds, l.cwd_snapshot as cwd"
        )
    }

    pub fn is_finished(&self) -> bool {
        matches!(self.status.as_str(), "done" | "failed")
    }

    pub fn is_good(&self) -> bool {
        self.status == "done"
    }

    pub fn place(&self) -> String {
        self.cwd.as_deref().map(view::place).unwrap_or_default()
    }

    pub fn clock(&self) -> &str {
        view::clock(&self.submitted_at)
    }

    pub fn duration(&self) -> String {
        self.seconds.map(view::duration).unwrap_or_default()
    }

    /// Since when it runs, or waits.
    pub fn since(&self) -> &str {
        self.started_at.as_deref().unwrap_or(&self.submitted_at)
    }

    /// How it ended, in a word or two.
    pub fn outcome(&self) -> String {
        match (self.failure.as_deref(), self.exit_code) {
            (None | Some("exit"), Some(code)) => format!("exit {code}"),
            (Some(failure), _) => failure.replace('_', " "),
            (None, None) => self.status.clone(),
        }
    }

    /// Why it failed, where the outcome does not say it.
    pub fn reason(&self) -> Option<&str> {
        self.failure_reason
            .as_deref()
            .filter(|_| self.failure.as_deref() != Some("exit"))
    }

    /// The lines of its output, as HTML.
    pub fn lines(&self) -> Vec<String> {
        self.output
            .as_deref()
            .map(terminal::render)
            .unwrap_or_default()
    }

    /// What a screen reader says of it.
    pub fn spoken(&self) -> String {
        let shown: String = self.command.chars().take(120).collect();
        match self.is_finished() {
            true => format!("{shown}: {}, {}", self.outcome(), self.duration()),
            false => format!("{shown}: {}", self.status),
        }
    }
}

/// A session.
#[derive(Debug, Clone, Deserialize)]
pub struct Session {
    pub id: Uuid,
    pub name: String,
    pub is_default: bool,
    pub cwd: String,
    pub parent_id: Option<Uuid>,
    pub forked_from_command_id: Option<i64>,
    pub replay_of: Option<Uuid>,
    pub created_at: String,
    pub last_exit_code: Option<i32>,
}

impl Session {
    pub fn place(&self) -> String {
        view::place(&self.cwd)
    }

    pub fn clock(&self) -> &str {
        view::clock(&self.created_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(failure: Option<&str>, exit_code: Option<i32>) -> Command {
        let row = serde_json::json!({
            "id": 1, "environment_id": Uuid::nil(), "command": "x", "cut": false, "status": "failed", "failure": failure,
            "exit_code": exit_code, "failure_reason": "why", "submitted_at": "", "seconds": 0.5
        });
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn outcomes() {
        assert_eq!(ended(None, Some(0)).outcome(), "exit 0");
        assert_eq!(ended(Some("exit"), Some(3)).outcome(), "exit 3");
        assert_eq!(
            ended(Some("out_of_memory"), None).outcome(),
            "out of memory"
        );
        assert_eq!(ended(Some("exit"), Some(3)).reason(), None);
        assert_eq!(ended(Some("timeout"), None).reason(), Some("why"));
        assert_eq!(ended(Some("exit"), Some(3)).spoken(), "x: exit 3, 500 ms");
    }
}
