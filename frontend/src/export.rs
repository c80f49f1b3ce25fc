//! A session's commands as a file: CSV, JSON, or a recording that asciinema plays.

use std::fmt::Write;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde_json::{Value, json};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::db::{Db, Reading, Scope};
use crate::error::Error;
use crate::sql::Sql;

/// Files that a session can be had as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values, a line a command.
    Csv,
    /// An array of objects.
    Json,
    /// asciicast, version 2.
    Cast,
}

/// Columns, in the order of the file.
const COLUMNS: &[&str] = &[
    "id",
    "environment_id",
    "user_id",
    "command",
    "output",
    "exit_code",
    "status",
    "failure",
    "failure_reason",
    "signal",
    "truncated",
    "output_bytes",
    "submitted_at",
    "started_at",
    "finished_at",
    "duration",
    "cpu_time",
    "peak_memory_bytes",
    "cwd_snapshot",
    "cwd_after",
    "replay_of",
    "attempt",
];

/// A player passes over longer pauses.
const LONGEST_PAUSE_SECONDS: u32 = 2;

impl Format {
    /// `csv`, `json`, `cast`.
    pub fn parse(name: &str) -> Option<Format> {
        match name {
            "csv" => Some(Format::Csv),
            "json" => Some(Format::Json),
            "cast" => Some(Format::Cast),
            _ => None,
        }
    }

    fn media(self) -> (&'static str, &'static str) {
        match self {
            Format::Csv => ("csv", "text/csv; charset=utf-8; header=present"),
            Format::Json => ("json", "application/json; charset=utf-8"),
            Format::Cast => ("cast", "application/x-asciicast"),
        }
    }

    fn question(self, session: Uuid) -> Sql {
        let mut sql = Sql::default();
        sql.push("select ");
        match self {
            Format::Csv => {
                let columns: Vec<_> = COLUMNS.iter().map(|name| format!("c.{name}::text")).collect();
                sql.push(&columns.join(", "));
            }
            Format::Json => {
                let columns: Vec<_> = COLUMNS.iter().map(|name| format!("c.{name}")).collect();
                sql.push("row_to_json(r)::text from (select ");
                sql.push(&columns.join(", "));
            }
            // What runs is told with its own times; of what has ended only these two are kept.
            Format::Cast => sql.push(
                "json_build_object(
                   'command', c.command, 'cwd', c.cwd_snapshot, 'output', c.output,
                   'begin', extract(epoch from coalesce(c.started_at, c.submitted_at)),
                   'end', extract(epoch from c.finished_at),
                   'chunks', (
                     select json_agg(json_build_array(extract(epoch from o.written_at), o.data) order by o.seq)
                     from shell.output_chunks as o where c.status = 'running' and o.command_id = c.id))::text",
            ),
        }
        sql.push(" from shell_api.command_log as c where c.environment_id = ");
        sql.value(session.to_string());
        sql.push(" order by c.id");
        if self == Format::Json {
            sql.push(") as r");
        }
        sql
    }
}

/// Answers with the file, row by row: a session may be long.
///
/// # Errors
/// PS002, 42501, [`Error::Database`].
pub async fn answer(
    db: &Db,
    scope: &Scope,
    session: Uuid,
    format: Format,
) -> Result<Response, Error> {
    let mut allowed = Sql::default();
    allowed.push("select 1 where shell.require_visible_session(");
    allowed.value(session.to_string());
    allowed.push(")");
    db.look(scope, &allowed).await?;
    let reading = db.read(scope, &format.question(session)).await?;
    let (extension, media) = format.media();
    let mut response = Response::new(Body::from_stream(file(reading, format)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    let name = format!("attachment; filename=\"session-{session}.{extension}\"");
    if let Ok(name) = HeaderValue::from_str(&name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

fn file(
    mut reading: Reading,
    format: Format,
) -> impl futures_util::Stream<Item = Result<Bytes, Error>> {
    async_stream::try_stream! {
        let mut writer = Writer::new(format);
        while let Some(row) = reading.next().await? {
            yield Bytes::from(writer.row(&row)?);
        }
        yield Bytes::from(writer.end());
    }
}

/// Writes the file piece by piece.
struct Writer {
    format: Format,
    rows: usize,
    /// When a recording begins, in seconds since 1970.
    begin: f64,
    /// The time last written: times never go back.
    last: f64,
}

impl Writer {
    fn new(format: Format) -> Writer {
        Writer {
            format,
            rows: 0,
            begin: 0.0,
            last: 0.0,
        }
    }

    fn row(&mut self, row: &Row) -> Result<String, Error> {
        self.rows += 1;
        let first = self.rows == 1;
        match self.format {
            Format::Csv => {
                let values = (0..COLUMNS.len()).map(|index| row.try_get::<_, Option<&str>>(index));
                let values = values.collect::<Result<Vec<_>, _>>()?;
                let line = csv(&values);
                Ok(if first {
                    format!("{}\r\n{line}", COLUMNS.join(","))
                } else {
                    line
                })
            }
            Format::Json => {
                let object: &str = row.try_get(0)?;
                Ok(format!("{}{object}", if first { "[" } else { ",\n" }))
            }
            Format::Cast => {
                let command = serde_json::from_str(row.try_get(0)?).unwrap_or_default();
                Ok(self.recorded(&command))
            }
        }
    }

    fn end(&mut self) -> String {
        match (self.format, self.rows) {
            (Format::Json, 0) => "[]\n".into(),
            (Format::Json, _) => "]\n".into(),
            (Format::Csv, 0) => format!("{}\r\n", COLUMNS.join(",")),
            (Format::Cast, 0) => header(0.0),
            _ => String::new(),
        }
    }

    fn recorded(&mut self, command: &Value) -> String {
        let text = |key: &str| command[key].as_str().unwrap_or_default();
        let time = |key: &str| command[key].as_f64();
        let mut lines = String::new();
        let begin = time("begin").unwrap_or(self.begin);
        if self.rows == 1 {
            self.begin = begin;
            lines.push_str(&header(begin));
        }
        let prompt = format!("\x1b[1;34m{}\x1b[0m $ {}\n", text("cwd"), text("command"));
        self.event(&mut lines, begin, &prompt);
        for chunk in command["chunks"].as_array().into_iter().flatten() {
            let at = chunk[0].as_f64().unwrap_or(begin);
            self.event(&mut lines, at, chunk[1].as_str().unwrap_or_default());
        }
        self.event(&mut lines, time("end").unwrap_or(begin), text("output"));
        lines
    }

    fn event(&mut self, lines: &mut String, at: f64, text: &str) {
        if text.is_empty() {
            return;
        }
        self.last = self.last.max(at - self.begin);
        // A terminal goes down at \n, and to the left at \r.
        let text = text.replace('\n', "\r\n");
        let _ = writeln!(
            lines,
            "{}",
            json!([(self.last * 1e6).round() / 1e6, "o", text])
        );
    }
}

fn header(begin: f64) -> String {
    let header = json!({
        "version": 2, "width": 80, "height": 24, "timestamp": begin as i64,
        "idle_time_limit": LONGEST_PAUSE_SECONDS, "env": {"SHELL": "/bin/bash", "TERM": "xterm-256color"},
    });
    format!("{header}\n")
}

/// A line as RFC 4180 has it; null is empty, and an empty text is quoted.
pub(crate) fn csv(values: &[Option<&str>]) -> String {
    let mut line = String::new();
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            line.push(',');
        }
        match value {
            None => {}
            Some(text) if text.is_empty() || text.contains(['"', ',', '\r', '\n']) => {
                let _ = write!(line, "\"{}\"", text.replace('"', "\"\""));
            }
            Some(text) => line.push_str(text),
        }
    }
    line.push_str("\r\n");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_with_commas_quotes_and_line_ends() {
        let line = csv(&[Some("a"), None, Some(""), Some("b,\"c\"\n")]);
        assert_eq!(line, "a,,\"\",\"b,\"\"c\"\"\n\"\r\n");
    }

    #[test]
    fn a_recording_has_a_header_and_times_that_grow() {
        let mut writer = Writer::new(Format::Cast);
        writer.rows = 1;
        let one = json!({"command": "ls", "cwd": "/", "output": "a\nb\n", "begin": 100.0, "end": 100.5, "chunks": null});
        let text = writer.recorded(&one);
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines[0]["version"], 2);
        assert_eq!(lines[0]["timestamp"], 100);
        assert_eq!(lines[2], json!([0.5, "o", "a\r\nb\r\n"]));
        writer.rows = 2;
        let early = json!({"command": "x", "cwd": "/", "output": null, "begin": 99.0, "end": null, "chunks": [[101.0, "y"]]});
        let text = writer.recorded(&early);
        let times: Vec<f64> = text
            .lines()
            .map(|l| {
                serde_json::from_str::<Value>(l).unwrap()[0]
                    .as_f64()
                    .unwrap()
            })
            .collect();
        assert_eq!(times, [0.5, 1.0]);
    }
}
