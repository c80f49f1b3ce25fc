//! The audit log: every command that the reader may see, filtered; as a table, and as a file.

use std::sync::Arc;

use askama::Template;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use serde::Deserialize;
use uuid::Uuid;

use super::Frame;
use super::model::Command;
use super::view;
use super::visit::{Visit, html, missing, page};
use crate::db::Reading;
use crate::error::Error;
use crate::export::csv;
use crate::server::Server;
use crate::sql::Sql;

/// Rows of the table at a time.
const ROWS: usize = 100;

/// What a failure may be; the words of the column.
const FAILURES: &[&str] = &[
    "exit",
    "signal",
    "timeout",
    "out_of_memory",
    "limit",
    "cancelled",
    "refused",
    "worker_lost",
];

/// Columns of the files.
const COLUMNS: &[&str] = &[
    "id",
    "submitted_at",
    "started_at",
    "finished_at",
    "username",
    "user_id",
    "environment_id",
    "session",
    "cwd_snapshot",
    "command",
    "status",
    "failure",
    "failure_reason",
    "exit_code",
    "duration",
    "cpu_time",
    "output_bytes",
    "replay_of",
];

/// The filters, by the names of the form's fields.
#[derive(Debug, Default)]
struct Filters {
    text: String,
    user: String,
    session: String,
    outcome: String,
    since: String,
    until: String,
    /// Only older ones than this.
    before: Option<i64>,
}

impl Filters {
    fn of(visit: &Visit<'_>) -> Filters {
        let field = |name| visit.parameter(name).unwrap_or_default();
        Filters {
            text: field("text"),
            user: field("user"),
            session: field("session"),
            outcome: field("outcome"),
            since: day(field("since")),
            until: day(field("until")),
            before: visit.parameter("before").and_then(|id| id.parse().ok()),
        }
    }

    /// As a query, to which a page or a file is added.
    fn query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        let fields = [
            ("text", &self.text),
            ("user", &self.user),
            ("session", &self.session),
            ("outcome", &self.outcome),
            ("since", &self.since),
            ("until", &self.until),
        ];
        for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
            query.append_pair(name, value);
        }
        query.finish()
    }

    fn conditions(&self, sql: &mut Sql) {
        sql.push(" where true");
        if !self.text.is_empty() {
            sql.push(" and strpos(lower(l.command), lower(");
            sql.value(self.text.as_str());
            sql.push(")) > 0");
        }
        if !self.user.is_empty() {
            sql.push(" and u.username = ");
            sql.value(self.user.as_str());
        }
        if !self.session.is_empty() {
            sql.push(" and (s.name = ");
            sql.value(self.session.as_str());
            sql.push(" or s.id::text = ");
            sql.value(self.session.as_str());
            sql.push(")");
        }
        match self.outcome.as_str() {
            "" => {}
            "good" => sql.push(" and l.status = 'done'"),
            "failed" => sql.push(" and l.status = 'failed'"),
            "open" => sql.push(" and l.status in ('pending', 'running')"),
            failure => {
                sql.push(" and l.failure = ");
                sql.value(failure);
            }
        }
        for (value, compared) in [
            (&self.since, " and l.submitted_at >= "),
            (&self.until, " and l.submitted_at < 1 + "),
        ] {
            if !value.is_empty() {
                sql.push(compared);
                sql.value(value.as_str());
                sql.push("::date");
            }
        }
        if let Some(id) = self.before {
            sql.push(" and l.id < ");
            sql.value(id.to_string());
            sql.push("::bigint");
        }
    }
}

/// A date as a form sends it; anything else is none.
fn day(text: String) -> String {
    let digits = |from: usize, to: usize| {
        text.get(from..to)
            .is_some_and(|part| part.bytes().all(|b| b.is_ascii_digit()))
    };
    let fits = text.len() == 10
        && digits(0, 4)
        && digits(5, 7)
        && digits(8, 10)
        && &text[4..5] == "-"
        && &text[7..8] == "-";
    if fits { text } else { String::new() }
}

const FROM: &str = " from shell_api.command_log as l
    join shell.users as u on u.id = l.user_id
    join shell.environments as s on s.id = l.environment_id";

#[derive(Template)]
#[template(path = "audit.html")]
struct Audit {
    frame: Frame,
    filters: Filters,
    rows: Vec<Entry>,
    /// Before which there are more.
    older: Option<i64>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(flatten)]
    command: Command,
    username: String,
    session: String,
    session_id: Uuid,
    output_bytes: Option<i64>,
}

impl Entry {
    fn output(&self) -> String {
        self.output_bytes.map(view::bytes).unwrap_or_default()
    }
}

pub async fn view(State(server): State<Arc<Server>>, request: Request) -> Response {
    page(server, request, async |visit| {
        let filters = Filters::of(&visit);
        let mut sql = Sql::default();
        sql.push(
            "select coalesce(json_agg(r order by r.id desc), '[]')::text from (
               select l.id, l.environment_id, l.command, null as output, false as cut, l.exit_code, l.status, l.failure,
                 l.failure_reason, l.submitted_at, l.started_at,
                 extract(epoch from l.duration)::float8 as seconds, l.cwd_snapshot as cwd,
                 u.username, s.name as session, s.id as session_id, l.output_bytes",
        );
        sql.push(FROM);
        filters.conditions(&mut sql);
        sql.push(&format!(" order by l.id desc limit {}) as r", ROWS + 1));
        let mut rows: Vec<Entry> = visit.ask(&sql).await?;
        let more = rows.len() > ROWS;
        rows.truncate(ROWS);
        let older = rows.last().filter(|_| more).map(|row| row.command.id);
        html(&Audit { frame: visit.frame("audit"), filters, rows, older })
    })
    .await
}

/// The filtered log as `log.csv` or `log.json`, row by row.
pub async fn export(
    State(server): State<Arc<Server>>,
    Path(file): Path<String>,
    request: Request,
) -> Response {
    page(server, request, async |visit| {
        let (media, json) = match file.as_str() {
            "log.csv" => ("text/csv; charset=utf-8; header=present", false),
            "log.json" => ("application/json; charset=utf-8", true),
            _ => return Err(missing("file")),
        };
        let columns: Vec<_> = COLUMNS.iter().map(|name| column(name)).collect();
        let mut sql = Sql::default();
        match json {
            true => sql.push("select row_to_json(r)::text from (select "),
            false => sql.push("select r.* from (select "),
        }
        let cast = if json { "" } else { "::text" };
        let columns: Vec<_> = columns
            .iter()
            .map(|(name, from)| format!("{from}{cast} as {name}"))
            .collect();
        sql.push(&columns.join(", "));
        sql.push(FROM);
        Filters {
            before: None,
            ..Filters::of(&visit)
        }
        .conditions(&mut sql);
        sql.push(" order by l.id) as r");
        let reading = visit.read(&sql).await?;
        let mut response = Response::new(Body::from_stream(lines(reading, json)));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let name = if json {
            "attachment; filename=\"audit.json\""
        } else {
            "attachment; filename=\"audit.csv\""
        };
        headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(name));
        Ok(response)
    })
    .await
}

fn column(name: &'static str) -> (&'static str, String) {
    let from = match name {
        "username" => "u.username".into(),
        "session" => "s.name".into(),
        other => format!("l.{other}"),
    };
    (name, from)
}

fn lines(
    mut reading: Reading,
    json: bool,
) -> impl futures_util::Stream<Item = Result<Bytes, Error>> {
    async_stream::try_stream! {
        let mut rows = 0_usize;
        if !json {
            yield Bytes::from(format!("{}\r\n", COLUMNS.join(",")));
        }
        while let Some(row) = reading.next().await? {
            rows += 1;
            yield Bytes::from(if json {
                let object = row.text(0).unwrap_or("null");
                format!("{}{object}", if rows == 1 { "[" } else { ",\n" })
            } else {
                let values: Vec<_> = (0..COLUMNS.len()).map(|index| row.text(index)).collect();
                csv(&values)
            });
        }
        if json {
            yield Bytes::from_static(if rows == 0 { b"[]\n" } else { b"]\n" });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_values_never_sql() {
        let filters = Filters {
            text: "'; drop".into(),
            outcome: "x' or true".into(),
            before: Some(7),
            ..Filters::default()
        };
        let mut sql = Sql::default();
        filters.conditions(&mut sql);
        assert!(
            !sql.text.contains("drop") && !sql.text.contains("or true"),
            "{}",
            sql.text
        );
        assert_eq!(sql.parameters.len(), 3);
    }

    #[test]
    fn days() {
        assert_eq!(day("2026-11-21".into()), "2026-11-21");
        for none in ["", "2026-11-2", "now", "2026/11/21", "äöüäö"] {
            assert_eq!(day(none.into()), "");
        }
    }

    #[test]
    fn a_query_carries_the_filters_to_the_file() {
        let filters = Filters {
            text: "a&b".into(),
            outcome: "failed".into(),
            ..Filters::default()
        };
        assert_eq!(filters.query(), "text=a%26b&outcome=failed");
    }
}
