//! A request for the page: who asks, what the database says to that, and how it is answered.

use std::sync::Arc;

use askama::Template;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use super::{Failure, Frame, SignIn};
use crate::error::{Error, Refusal};
use crate::server::{Asked, Server};
use crate::sql::Sql;

/// A signed-in request.
pub struct Visit<'a> {
    server: &'a Server,
    asked: Asked,
}

/// Answers with a whole page: who has not signed in gets the form for that, and what fails is a page too.
pub async fn page(
    server: Arc<Server>,
    request: Request,
    work: impl AsyncFnOnce(Visit<'_>) -> Result<Response, Error>,
) -> Response {
    let answer = async |server: &Server, asked: Asked| {
        if asked.identity.anonymous {
            return html(&SignIn);
        }
        match work(Visit { server, asked }).await {
            Err(e) => failure(&e),
            answered => answered,
        }
    };
    server.answer(request, answer).await
}

/// Answers with a part of a page; what fails is told in JSON, and the page shows it.
pub async fn fragment(
    server: Arc<Server>,
    request: Request,
    work: impl AsyncFnOnce(Visit<'_>) -> Result<Response, Error>,
) -> Response {
    let answer = async |server: &Server, asked: Asked| {
        if asked.identity.anonymous {
            let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "PSW401", "You are signed out.");
            return Err(refusal.hint("Reload the page to sign in again.").into());
        }
        work(Visit { server, asked }).await
    };
    server.answer(request, answer).await
}

impl Visit<'_> {
    /// Reads: one row, one JSON text.
    pub async fn ask<T: DeserializeOwned>(&self, sql: &Sql) -> Result<T, Error> {
        self.call(sql, false).await
    }

    /// The same of what changes something.
    pub async fn act<T: DeserializeOwned>(&self, sql: &Sql) -> Result<T, Error> {
        self.call(sql, true).await
    }

    async fn call<T: DeserializeOwned>(&self, sql: &Sql, writes: bool) -> Result<T, Error> {
        let scope = crate::db::Scope {
            writes,
            ..self.asked.scope(self.server)
        };
        let rows = self.server.db.call(&scope, sql).await?;
        let text = rows.first().and_then(|row| row.text(0));
        serde_json::from_str(text.unwrap_or("null")).map_err(|e| Error::System {
            what: "reading an answer of the database",
            source: e.into(),
        })
    }

    /// Rows one by one, for a file.
    pub async fn read(&self, sql: &Sql) -> Result<crate::db::Reading, Error> {
        self.server
            .db
            .read(&self.asked.scope(self.server), sql)
            .await
    }

    /// A parameter of the address that is not empty.
    pub fn parameter(&self, name: &str) -> Option<String> {
        self.asked.parameter(name).filter(|value| !value.is_empty())
    }

    /// A field of the form that was sent, if it is not empty.
    pub fn field(&self, wanted: &str) -> Option<String> {
        let mut all = form_urlencoded::parse(&self.asked.body);
        let value = all
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.into_owned());
        value.filter(|value| !value.is_empty())
    }

    /// The name of who asks.
    pub fn username(&self) -> &str {
        self.asked.identity.username.as_deref().unwrap_or("you")
    }

    /// What stands around a view.
    pub fn frame(&self, view: &'static str) -> Frame {
        let csrf = self
            .asked
            .identity
            .session
            .as_deref()
            .map(|token| self.server.keys.csrf_token(token));
        Frame {
            view,
            username: self.username().to_owned(),
            csrf: csrf.unwrap_or_default(),
        }
    }
}

/// HTML that nobody keeps: it is one user's.
pub fn html(template: &impl Template) -> Result<Response, Error> {
    let text = template.render().map_err(|e| Error::System {
        what: "filling in a template",
        source: std::io::Error::other(e),
    })?;
    let headers = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/html; charset=utf-8"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, text).into_response())
}

/// Has htmx load another page.
pub fn go(address: &str) -> Response {
    const REDIRECT: HeaderName = HeaderName::from_static("hx-redirect");
    match HeaderValue::from_str(address) {
        Ok(address) => ([(REDIRECT, address)], StatusCode::NO_CONTENT).into_response(),
        Err(_) => StatusCode::NO_CONTENT.into_response(),
    }
}

/// What an address names that is none of ours.
pub fn missing(what: &str) -> Error {
    let hint = "It may be somebody else's, or its address was mistyped.";
    Refusal::new(
        StatusCode::NOT_FOUND,
        "PSW404",
        format!("There is no such {what}"),
    )
    .hint(hint)
    .into()
}

fn failure(e: &Error) -> Result<Response, Error> {
    let refusal = e.refusal(false);
    if refusal.status.is_server_error() {
        tracing::warn!(status = refusal.status.as_u16(), "{e}");
    }
    let page = Failure {
        status: refusal.status.as_u16(),
        message: &refusal.message,
        hint: refusal.hint.as_deref().unwrap_or_default(),
    };
    let mut response = html(&page)?;
    *response.status_mut() = refusal.status;
    Ok(response)
}
