//! A session's commands as a file: CSV, JSON, or a recording that asciinema plays.

use std::fmt::Write;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use uuid::Uuid;

use crate::cast::Cast;
use crate::db::{Db, Reading, Row, Scope};
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
                let columns: Vec<_> = COLUMNS
                    .iter()
                    .map(|name| format!("c.{name}::text"))
                    .collect();
                sql.push(&columns.join(", "));
            }
            Format::Json => {
                let columns: Vec<_> = COLUMNS.iter().map(|name| format!("c.{name}")).collect();
                sql.push("row_to_json(r)::text from (select ");
                sql.push(&columns.join(", "));
            }
            Format::Cast => Cast::columns(&mut sql),
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
    cast: Cast,
}

impl Writer {
    fn new(format: Format) -> Writer {
        Writer {
            format,
            rows: 0,
            cast: Cast::default(),
        }
    }

    fn row(&mut self, row: &Row) -> Result<String, Error> {
        self.rows += 1;
        let first = self.rows == 1;
        match self.format {
            Format::Csv => {
                let values: Vec<_> = (0..COLUMNS.len()).map(|index| row.text(index)).collect();
                let line = csv(&values);
                Ok(if first {
                    format!("{}\r\n{line}", COLUMNS.join(","))
                } else {
                    line
                })
            }
            Format::Json => {
                let object = row.text(0).unwrap_or("null");
                Ok(format!("{}{object}", if first { "[" } else { ",\n" }))
            }
            Format::Cast => {
                let command =
                    serde_json::from_str(row.text(0).unwrap_or("null")).unwrap_or_default();
                Ok(self.cast.command(&command))
            }
        }
    }

    fn end(&mut self) -> String {
        match (self.format, self.rows) {
            (Format::Json, 0) => "[]\n".into(),
            (Format::Json, _) => "]\n".into(),
            (Format::Csv, 0) => format!("{}\r\n", COLUMNS.join(",")),
            (Format::Cast, _) => self.cast.end(),
            _ => String::new(),
        }
    }
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
}
