//! What commands printed, as HTML and as files.

use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};

use super::{Shared, no_id};
use crate::export::{self, Format};
use crate::sql::Sql;
use crate::terminal;

/// A command's output as lines of a terminal: HTML, a line a `<div>`.
pub(super) async fn output(
    State(server): Shared,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    server
        .answer(request, async |server, asked| {
            let id: i64 = id.parse().map_err(|_| no_id("command", "a number"))?;
            let mut sql = Sql::default();
            sql.push("select (select l.output from shell_api.command_log as l where l.id = ");
            sql.value(id.to_string());
            sql.push(") where shell.require_visible_command(");
            sql.value(id.to_string());
            sql.push(")");
            let rows = server.db.call(&asked.scope(server), &sql).await?;
            let text = rows.first().and_then(|row| row.text(0));
            let lines = terminal::render(text.unwrap_or_default());
            let html: String = lines
                .iter()
                .map(|line| format!("<div>{line}</div>\n"))
                .collect();
            let media = HeaderValue::from_static("text/html; charset=utf-8");
            Ok(([(header::CONTENT_TYPE, media)], html).into_response())
        })
        .await
}

pub(super) async fn exported(
    State(server): Shared,
    Path(file): Path<String>,
    request: Request,
) -> Response {
    server
        .answer(request, async |server, asked| {
            let wanted = file
                .rsplit_once('.')
                .and_then(|(id, kind)| Some((id.parse().ok()?, Format::parse(kind)?)));
            let (session, format) = wanted
                .ok_or_else(|| no_id("file", "a session's uuid with .csv, .json or .cast"))?;
            export::answer(&server.db, &asked.scope(server), session, format).await
        })
        .await
}
