//! The reader's account: where one is signed in, the tokens of programs, the password.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::Frame;
use super::view;
use super::visit::{Visit, fragment, html, page};
use crate::error::{Error, Refusal};
use crate::server::Server;
use crate::sql::Sql;

/// How long a token may be asked to live, and what a person says to that.
const LIVES: &[(&str, &str)] = &[
    ("7 days", "in a week"),
    ("30 days", "in 30 days"),
    ("90 days", "in 90 days"),
    ("1 year", "in a year"),
    ("10 years", "in ten years"),
];
const USUAL_LIFE: &str = "1 year";

#[derive(Template)]
#[template(path = "account.html")]
struct Account {
    frame: Frame,
    sessions: Vec<Access>,
    tokens: Vec<Access>,
    made: Option<Made>,
    /// Whether the password has just been changed.
    changed: bool,
}

#[derive(Template)]
#[template(path = "sign_ins.html")]
struct SignIns {
    sessions: Vec<Access>,
    changed: bool,
}

#[derive(Template)]
#[template(path = "tokens.html")]
struct Tokens {
    tokens: Vec<Access>,
    made: Option<Made>,
}

/// What a new password changes: the other sessions are over.
#[derive(Template)]
#[template(path = "password_changed.html")]
struct PasswordChanged {
    frame: Frame,
    sessions: Vec<Access>,
    changed: bool,
}

/// A browser that is signed in, or a program's token.
#[derive(Deserialize)]
struct Access {
    id: Uuid,
    kind: String,
    name: String,
    created_at: String,
    expires_at: String,
    last_used_at: Option<String>,
    user_agent: Option<String>,
    ip_address: Option<String>,
    /// The one that this request came with.
    here: bool,
}

impl Access {
    fn program(&self) -> String {
        self.user_agent
            .as_deref()
            .map_or_else(|| "Unknown program".into(), view::program)
    }
}

/// A token just made, with its secret.
#[derive(Deserialize)]
struct Made {
    name: String,
    token: String,
}

pub fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/account", get(account))
        .route("/page/token", post(create_token))
        .route("/page/revoke/{kind}/{token_id}", post(revoke))
        .route("/page/sign-out-everywhere", post(sign_out_everywhere))
        .route("/page/password", post(change_password))
}

async fn account(State(server): State<Arc<Server>>, request: Request) -> Response {
    page(server, request, async |visit| {
        let (sessions, tokens) = accesses(&visit).await?;
        html(&Account {
            frame: visit.frame("account"),
            sessions,
            tokens,
            made: None,
            changed: false,
        })
    })
    .await
}

/// The sessions, this one first, and the tokens.
async fn accesses(visit: &Visit<'_>) -> Result<(Vec<Access>, Vec<Access>), Error> {
    let mut sql = Sql::default();
    sql.push(
        "select coalesce(json_agg(t order by t.here desc, t.created_at desc, t.id), '[]')::text from (
           select l.*, l.id is not distinct from shell.uuid_of(shell.claims() ->> 'sid') as here
           from shell_api.list_tokens() as l) as t",
    );
    let all: Vec<Access> = visit.ask(&sql).await?;
    Ok(all.into_iter().partition(|access| access.kind == "session"))
}

async fn create_token(State(server): State<Arc<Server>>, request: Request) -> Response {
    fragment(server, request, async |visit| {
        let mut sql = Sql::default();
        sql.push("select shell_api.create_token(name => ");
        sql.value(visit.field("name").unwrap_or_default());
        sql.push(", expires_in => ");
        sql.value(
            visit
                .field("expires_in")
                .unwrap_or_else(|| USUAL_LIFE.into()),
        );
        sql.push("::interval)::text");
        let made = visit.act(&sql).await?;
        let (_, tokens) = accesses(&visit).await?;
        html(&Tokens { tokens, made })
    })
    .await
}

/// Ends a session or a token, and shows the others of its kind.
async fn revoke(
    State(server): State<Arc<Server>>,
    Path((kind, id)): Path<(String, String)>,
    request: Request,
) -> Response {
    fragment(server, request, async |visit| {
        let mut sql = Sql::default();
        sql.push("select shell_api.revoke_token(token_id => ");
        sql.value(id);
        sql.push("::uuid)::text");
        let _: bool = visit.act(&sql).await?;
        let (sessions, tokens) = accesses(&visit).await?;
        match kind.as_str() {
            "session" => html(&SignIns {
                sessions,
                changed: false,
            }),
            _ => html(&Tokens { tokens, made: None }),
        }
    })
    .await
}

async fn sign_out_everywhere(State(server): State<Arc<Server>>, request: Request) -> Response {
    fragment(server, request, async |visit| {
        let mut sql = Sql::default();
        sql.push("select shell_api.sign_out_everywhere()::text");
        let _: i32 = visit.act(&sql).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

async fn change_password(State(server): State<Arc<Server>>, request: Request) -> Response {
    fragment(server, request, async |visit| {
        let (old, new) = (visit.field("old_password"), visit.field("new_password"));
        if new != visit.field("repeated_password") {
            let refusal = Refusal::new(
                StatusCode::BAD_REQUEST,
                "PSW400",
                "The new password was typed in two different ways",
            );
            return Err(refusal.hint("Type it again, twice.").into());
        }
        let mut sql = Sql::default();
        sql.push("select shell_api.change_password(old_password => ");
        sql.value(old.unwrap_or_default());
        sql.push(", new_password => ");
        sql.value(new.unwrap_or_default());
        sql.push(")::text");
        if let Some(answer) = visit.act::<Option<Value>>(&sql).await? {
            let status = match answer["code"].as_str() {
                Some("PS017") => StatusCode::TOO_MANY_REQUESTS,
                _ => StatusCode::FORBIDDEN,
            };
            return Err(Refusal::of_answer(status, &answer).into());
        }
        let (sessions, _) = accesses(&visit).await?;
        html(&PasswordChanged {
            frame: visit.frame("account"),
            sessions,
            changed: true,
        })
    })
    .await
}
