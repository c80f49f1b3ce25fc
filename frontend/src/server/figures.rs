//! Whether the server is well, and its figures.

use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::{Server, Shared};
use crate::error::Refusal;
use crate::sql::Sql;

pub(super) async fn health(State(server): Shared) -> Response {
    let mut sql = Sql::default();
    sql.push("select 1");
    match server.db.own(&sql).await {
        Ok(_) => "ok\n".into_response(),
        Err(e) => e.refusal(true).into_response(),
    }
}

/// Its own machine may read it, and whoever may see what is other users'.
pub(super) async fn metrics(State(server): Shared, request: Request) -> Response {
    if is_local(&request) {
        return server.figures().await;
    }
    server
        .answer(request, async |server, asked| {
            let mut sql = Sql::default();
            sql.push("select 1 where shell.reads_all()");
            if server.db.look(&asked.scope(server), &sql).await?.is_empty() {
                let sentence = "The server's figures are not this user's to see.";
                return Err(Refusal::new(StatusCode::FORBIDDEN, "PSW403", sentence)
                    .hint("Send the token of an auditor or administrator, or ask from the server's own machine.")
                    .into());
            }
            Ok(server.figures().await)
        })
        .await
}

/// From this machine, and handed on by nobody: what a proxy here passes on comes from anywhere.
fn is_local(request: &Request) -> bool {
    let from = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let forwarded = ["forwarded", "via", "x-forwarded-for", "x-real-ip"];
    from.is_some_and(|info| info.0.ip().to_canonical().is_loopback())
        && !forwarded
            .iter()
            .any(|name| request.headers().contains_key(*name))
}

impl Server {
    async fn figures(&self) -> Response {
        let page = self.metrics.page(&self.db, &self.hub).await;
        let media = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        ([(header::CONTENT_TYPE, media)], Body::from(page)).into_response()
    }
}
