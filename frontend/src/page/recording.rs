//! A session as a recording that is played on the page.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use uuid::Uuid;

use super::Frame;
use super::model::Session;
use super::visit::{html, missing, page};
use crate::server::Server;
use crate::sql::Sql;

/// asciinema's player is compiled to WebAssembly: this view alone may run that.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' data:; \
    font-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

#[derive(Template)]
#[template(path = "recording.html")]
struct Recording {
    frame: Frame,
    session: Session,
}

pub async fn view(
    State(server): State<Arc<Server>>,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    page(server, request, async |visit| {
        let id: Uuid = id.parse().map_err(|_| missing("session"))?;
        let mut sql = Sql::default();
        sql.push("select row_to_json(s)::text from shell_api.sessions as s where s.id = ");
        sql.value(id.to_string());
        let session: Option<Session> = visit.ask(&sql).await?;
        let mut response = html(&Recording {
            frame: visit.frame("recording"),
            session: session.ok_or_else(|| missing("session"))?,
        })?;
        response.headers_mut().insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(POLICY),
        );
        Ok(response)
    })
    .await
}
