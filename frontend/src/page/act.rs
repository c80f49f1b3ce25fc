//! What the page's buttons do.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

use super::terminal::one;
use super::visit::{Visit, fragment, go};
use crate::error::{Error, Refusal};
use crate::server::Server;
use crate::sql::{Sql, Text};

/// Submits what was typed. The first command of all makes the session: then that is where to go.
pub async fn run(State(server): State<Arc<Server>>, request: Request) -> Response {
    fragment(server, request, async |visit| {
        let session = visit.field("environment_id");
        let Some(command) = visit.field("command") else {
            let refusal = Refusal::new(
                StatusCode::BAD_REQUEST,
                "PSW400",
                "There is no command to run",
            );
            return Err(refusal.hint("Type one.").into());
        };
        let mut sql = Sql::default();
        sql.push("select shell_api.submit_command(command => ");
        sql.value(command);
        sql.push(", environment_id => ");
        sql.value(Text(session.clone()));
        sql.push("::uuid)::text");
        let id: i64 = visit.act(&sql).await?;
        match session {
            Some(_) => one(&visit, id.to_string(), false).await,
            None => Ok(go("/")),
        }
    })
    .await
}

/// Submits a command again, in its session.
pub async fn again(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    fragment(server, request, async |visit| {
        let mut sql = Sql::default();
        sql.push(
            "select shell_api.submit_command(command => l.command, environment_id => l.environment_id)::text
             from shell_api.command_log as l where l.id = ",
        );
        sql.value(id);
        sql.push("::bigint");
        let id: Option<i64> = visit.act(&sql).await?;
        one(&visit, id.ok_or_else(|| super::visit::missing("command"))?.to_string(), false).await
    })
    .await
}

pub async fn cancel(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    fragment(server, request, async |visit| {
        let mut sql = Sql::default();
        sql.push("select shell_api.cancel_command(command_id => ");
        sql.value(id);
        sql.push("::bigint)::text");
        let _: bool = visit.act(&sql).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

pub async fn fork(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    fragment(server, request, async |visit| {
        let mut sql = Sql::default();
        sql.push("select to_json(shell_api.fork_session(source_command_id => ");
        sql.value(id);
        sql.push("::bigint, after => ");
        sql.value(visit.parameter("after").unwrap_or_else(|| "false".into()));
        sql.push("::boolean))::text");
        into(visit, sql).await
    })
    .await
}

/// A further session, named by its number.
pub async fn create(State(server): State<Arc<Server>>, request: Request) -> Response {
    fragment(server, request, async |visit| {
        let mut sql = Sql::default();
        sql.push(
            "select to_json(shell_api.create_session(name => 'session ' || (
               select count(*) + 1 from shell_api.sessions as s
               where s.user_id = (select shell.current_user_id()))))::text",
        );
        into(visit, sql).await
    })
    .await
}

pub async fn replay(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    fragment(server, request, async |visit| {
        let mut sql = Sql::default();
        sql.push("select to_json(shell_api.replay_session(environment_id => ");
        sql.value(id);
        sql.push("::uuid))::text");
        into(visit, sql).await
    })
    .await
}

/// Makes a session, and goes there.
async fn into(visit: Visit<'_>, sql: Sql) -> Result<Response, Error> {
    let id: Uuid = visit.act(&sql).await?;
    Ok(go(&format!("/session/{id}")))
}
