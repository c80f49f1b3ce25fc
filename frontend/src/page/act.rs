//! What the page's buttons and forms do.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::Value;

use super::terminal::one;
use super::visit::{Visit, fragment, go, missing};
use crate::error::{Error, Refusal};
use crate::server::Server;
use crate::sql::{Sql, Text};

/// What one call does to the thing whose id is in the address.
struct Deed {
    path: &'static str,
    /// A query of one row; the id is `$1`.
    call: &'static str,
    then: Then,
}

/// What the page does once it is done.
#[derive(Clone, Copy)]
enum Then {
    /// Nothing.
    Stay,
    /// It shows the command whose id was answered.
    Show,
    /// It goes to what was answered, below this address.
    Go(&'static str),
}

const DEEDS: &[Deed] = &[
    Deed {
        path: "/page/again/{command_id}",
        call: "select shell_api.submit_command(command => l.command, environment_id => l.environment_id)::text
               from shell_api.command_log as l where l.id = $1::bigint",
        then: Then::Show,
    },
    Deed {
        path: "/page/cancel/{command_id}",
        call: "select shell_api.cancel_command(command_id => $1::bigint)::text",
        then: Then::Stay,
    },
    Deed {
        path: "/page/fork/{command_id}",
        call: "select to_json(shell_api.fork_session(source_command_id => $1::bigint))::text",
        then: Then::Go("/session/"),
    },
    Deed {
        path: "/page/fork-after/{command_id}",
        call: "select to_json(shell_api.fork_session(source_command_id => $1::bigint, after => true))::text",
        then: Then::Go("/session/"),
    },
    Deed {
        path: "/page/replay/{environment_id}",
        call: "select to_json(shell_api.replay_session(environment_id => $1::uuid))::text",
        then: Then::Go("/replay/"),
    },
];

pub fn routes() -> Router<Arc<Server>> {
    let router = Router::new()
        .route("/page/run", post(run))
        .route("/page/session", post(create))
        .route("/page/rename/{environment_id}", post(rename));
    DEEDS.iter().fold(router, |router, deed| {
        let handler = async move |State(server), Path(id), request| {
            fragment(server, request, async |visit| {
                perform(deed, visit, id).await
            })
            .await
        };
        router.route(deed.path, post(handler))
    })
}

async fn perform(deed: &Deed, visit: Visit<'_>, id: String) -> Result<Response, Error> {
    let sql = Sql {
        text: deed.call.into(),
        parameters: vec![id.into()],
    };
    let answer: Value = visit.act(&sql).await?;
    match (deed.then, answer) {
        (Then::Stay, _) => Ok(StatusCode::NO_CONTENT.into_response()),
        (Then::Show, Value::Number(id)) => one(&visit, id.to_string(), false).await,
        (Then::Go(below), Value::String(id)) => Ok(go(&format!("{below}{id}"))),
        (Then::Show | Then::Go(_), _) => Err(missing("command")),
    }
}

/// Submits what was typed. The first command of all makes the session: then that is where to go.
async fn run(State(server): State<Arc<Server>>, request: Request) -> Response {
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

/// A further session, named by its number.
async fn create(State(server): State<Arc<Server>>, request: Request) -> Response {
    fragment(server, request, async |visit| {
        let mut sql = Sql::default();
        sql.push(
            "select to_json(shell_api.create_session(name => 'session ' || (
               select count(*) + 1 from shell_api.sessions as s
               where s.user_id = (select shell.current_user_id()))))::text",
        );
        let id: String = visit.act(&sql).await?;
        Ok(go(&format!("/session/{id}")))
    })
    .await
}

async fn rename(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    fragment(server, request, async |visit| {
        let mut sql = Sql::default();
        sql.push("select 'true' from shell_api.rename_session(environment_id => ");
        sql.value(id);
        sql.push("::uuid, name => ");
        sql.value(Text(visit.field("name")));
        sql.push(")");
        let _: bool = visit.act(&sql).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}
