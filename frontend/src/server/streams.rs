//! Streams of events, of one command or of a session.

use axum::extract::{Path, Request, State};
use axum::response::Response;

use super::{Server, Shared, no_id};
use crate::error::Refusal;
use crate::events::{self, Cursor, Form, Subject};

pub(super) async fn of_command(
    State(server): Shared,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let subject = id.parse().map(Subject::Command);
    follow(
        &server,
        subject.map_err(|_| no_id("command", "a number")),
        request,
    )
    .await
}

pub(super) async fn of_session(
    State(server): Shared,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    let subject = id.parse().map(Subject::Session);
    follow(
        &server,
        subject.map_err(|_| no_id("session", "a uuid")),
        request,
    )
    .await
}

async fn follow(server: &Server, subject: Result<Subject, Refusal>, request: Request) -> Response {
    server
        .answer(request, async |server, asked| {
            let form = match asked.parameter("as").as_deref() {
                None | Some("html") => Form::Html,
                Some("text") => Form::Text,
                Some(_) => return Err(no_id("form", "\"as=html\" or \"as=text\"").into()),
            };
            let last = asked
                .parts
                .headers
                .get("last-event-id")
                .and_then(|value| value.to_str().ok()?.parse().ok());
            let after = asked
                .parameter("after")
                .and_then(|id| id.parse().ok())
                .map(Cursor::after);
            let request = events::Request {
                subject: subject?,
                form,
                cursor: last.or(after),
                expires: asked
                    .identity
                    .claims
                    .get("exp")
                    .and_then(|exp| exp.as_i64()),
                counted: server.streams.enter(&asked.key, &asked.from)?,
                scope: asked.scope(server),
            };
            let place = server.hub.enter().await;
            events::answer(server.db.clone(), place, server.shutdown.clone(), request).await
        })
        .await
}
