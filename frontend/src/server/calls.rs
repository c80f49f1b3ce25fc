//! Calls of functions, and signing in and out.

use axum::extract::{Path, Request, State};
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};

use super::Shared;
use crate::{rpc, sign_in};

pub(super) async fn call(
    State(server): Shared,
    Path(name): Path<String>,
    request: Request,
) -> Response {
    let origin = request.headers().get(header::ORIGIN).cloned();
    let preflight = *request.method() == Method::OPTIONS;
    let wanted = request
        .headers()
        .get(header::ACCESS_CONTROL_REQUEST_HEADERS)
        .cloned();
    let mut response = if preflight {
        rpc::options(&server.hub.catalogue(), &name)
            .unwrap_or_else(|refusal| refusal.into_response())
    } else {
        server
            .answer(request, async |server, asked| {
                let call = rpc::Call {
                    name: &name,
                    method: &asked.parts.method,
                    uri: &asked.parts.uri,
                    headers: &asked.parts.headers,
                    body: &asked.body,
                    address: asked.address,
                    identity: &asked.identity,
                    before: &server.config.pre_request,
                };
                let _turn = server.limits.turn(&asked.key).await;
                rpc::answer(&server.db, &server.hub.catalogue(), &call).await
            })
            .await
    };
    rpc::allow_origin(
        &mut response,
        &server.config.cors_origins,
        origin.as_ref(),
        preflight.then_some(wanted),
    );
    response
}

pub(super) async fn signing_in(State(server): Shared, mut request: Request) -> Response {
    // Who signs in anew may have a cookie of a session that has ended, and no token for that.
    request.headers_mut().remove(header::COOKIE);
    server
        .answer(request, async |server, asked| {
            sign_in::sign_in(
                &server.db,
                &server.keys,
                &asked.parts.headers,
                &asked.body,
                asked.address,
            )
            .await
        })
        .await
}

pub(super) async fn signing_out(State(server): Shared, request: Request) -> Response {
    server
        .answer(request, async |server, asked| {
            sign_in::sign_out(
                &server.db,
                &server.keys,
                &asked.identity,
                &asked.parts.headers,
                asked.address,
            )
            .await
        })
        .await
}

pub(super) async fn session(State(server): Shared, request: Request) -> Response {
    server
        .answer(request, async |server, asked| {
            Ok(sign_in::session(&server.keys, &asked.identity))
        })
        .await
}
