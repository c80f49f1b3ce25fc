//! Who asks: a request's sender, within that sender's limits, and the answer that may be an error.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use super::Server;
use crate::db::Scope;
use crate::error::{Error, Refusal};
use crate::identity::Identity;

/// A request's body is there within this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request with its sender known.
pub(crate) struct Asked {
    pub(super) parts: Parts,
    pub(crate) body: Bytes,
    pub(super) address: IpAddr,
    pub(crate) identity: Identity,
    /// By what its requests are counted: its user, or for anybody else where it comes from.
    pub(super) key: String,
    /// Where it comes from, as one who has one of its addresses has all of them.
    pub(super) from: String,
}

impl Server {
    /// The sender's address: of the connection, or what the proxy in front has added last.
    fn address(&self, parts: &Parts) -> IpAddr {
        let forwarded = parts.headers.get_all("x-forwarded-for").iter().next_back();
        let forwarded = forwarded
            .and_then(|value| value.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
        let connected = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let connected = connected.map_or(IpAddr::from([0, 0, 0, 0]), |info| info.0.ip());
        let address = if self.config.trust_proxy {
            forwarded.unwrap_or(connected)
        } else {
            connected
        };
        address.to_canonical()
    }

    async fn ask(&self, request: Request) -> Result<Asked, Error> {
        let (parts, body) = request.into_parts();
        let address = self.address(&parts);
        let from = match address {
            IpAddr::V4(_) => address.to_string(),
            // Who has one address of these has all with its first half.
            IpAddr::V6(v6) => format!("{:x?}", &v6.segments()[..4]),
        };
        // A token is looked up in the database; wrong ones count for their address, and too many are not looked up.
        let has_token = parts.headers.contains_key(header::AUTHORIZATION)
            || parts.headers.contains_key(header::COOKIE);
        if has_token {
            self.limits.check(&from)?;
        } else {
            self.limits.take(&from)?;
        }
        let identified = self
            .keys
            .identify(&self.db, &parts.method, &parts.headers, address)
            .await;
        let key = match &identified {
            Ok(Identity {
                claims,
                anonymous: false,
                ..
            }) => claims
                .get("sub")
                .and_then(|sub| sub.as_str())
                .unwrap_or(&from)
                .to_owned(),
            _ => from.clone(),
        };
        if has_token {
            self.limits.take(&key)?;
        }
        let identity = identified?;
        let body = timeout(PATIENCE, to_bytes(body, self.config.max_body)).await;
        let body = body.map_err(|_| {
            let sentence = "The request's body did not come in time.";
            Refusal::new(StatusCode::REQUEST_TIMEOUT, "PSW408", sentence)
                .hint("Send it at once, or in smaller parts.")
        })?;
        let body = body.map_err(|_| {
            let sentence = format!(
                "The request's body has more than {} bytes.",
                self.config.max_body
            );
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "PSW413", sentence)
                .hint("Send less, or have the server run with a larger --max-body.")
        })?;
        Ok(Asked {
            parts,
            body,
            address,
            identity,
            key,
            from,
        })
    }

    /// Answers with what `work` gives for a request whose sender is known.
    pub(crate) async fn answer(
        &self,
        request: Request,
        work: impl AsyncFnOnce(&Server, Asked) -> Result<Response, Error>,
    ) -> Response {
        let mut anonymous = true;
        let answered = match self.ask(request).await {
            Ok(asked) => {
                anonymous = asked.identity.anonymous;
                work(self, asked).await
            }
            Err(e) => Err(e),
        };
        answered.unwrap_or_else(|e| {
            let refusal = e.refusal(anonymous);
            if refusal.status.is_server_error() {
                tracing::warn!(status = refusal.status.as_u16(), "{e}");
            }
            refusal.into_response()
        })
    }
}

impl Asked {
    pub(crate) fn scope(&self, server: &Server) -> Scope {
        let scope = self.identity.scope(
            &self.parts.method,
            self.parts.uri.path(),
            &self.parts.headers,
            self.address,
        );
        Scope {
            before: Some(server.config.pre_request.clone()),
            ..scope
        }
    }

    /// A parameter of the address.
    pub(crate) fn parameter(&self, wanted: &str) -> Option<String> {
        let query = self.parts.uri.query().unwrap_or_default();
        let mut all = form_urlencoded::parse(query.as_bytes());
        all.find(|(name, _)| name == wanted)
            .map(|(_, value)| value.into_owned())
    }
}
