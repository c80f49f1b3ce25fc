//! The routes, and what all of them share.

mod connections;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, MatchedPath, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::config::Config;
use crate::db::Db;
use crate::error::{Error, Refusal};
use crate::events::{self, Cursor, Form, Subject};
use crate::export::{self, Format};
use crate::identity::{Identity, Keys};
use crate::limits::Limits;
use crate::listener::Hub;
use crate::metrics::Metrics;
use crate::page;
use crate::rpc;
use crate::shutdown::{Shutdown, Stage};
use crate::sign_in;
use crate::sql::Sql;
use crate::terminal;

/// What every request may need.
pub struct Server {
    config: Config,
    pub(crate) db: Db,
    hub: Hub,
    pub(crate) keys: Keys,
    limits: Limits,
    metrics: Metrics,
    shutdown: Shutdown,
}

type Shared = State<Arc<Server>>;

/// A request's body is there within this time.
const PATIENCE: Duration = Duration::from_secs(60);

/// What no page of this server needs is forbidden to it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const SECURITY_HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
];

/// Connects to the database, and makes what serves.
///
/// # Errors
/// A setting that cannot be used, a database that cannot be reached.
pub async fn prepare(config: Config, shutdown: Shutdown) -> Result<Arc<Server>, Error> {
    let size = usize::try_from(config.pool_size.get()).unwrap_or(usize::MAX);
    Ok(Arc::new(Server {
        keys: Keys::new(&config)?,
        db: Db::new(&config.database_url, size)?,
        hub: Hub::start(&config.database_url).await?,
        limits: Limits::new(config.request_rate, config.max_streams, size.div_ceil(2)),
        metrics: Metrics::new(),
        config,
        shutdown,
    }))
}

/// Serves until told to stop: softly, requests are answered and streams end; hard, at once.
///
/// # Errors
/// [`Error::System`].
pub async fn run(listener: TcpListener, server: Arc<Server>) -> Result<(), Error> {
    let (mut soft, mut hard) = (server.shutdown.clone(), server.shutdown.clone());
    tokio::select! {
        () = connections::serve(listener, routes(server), soft.reaches(Stage::Soft)) => Ok(()),
        () = hard.reaches(Stage::Hard) => Ok(()),
    }
}

fn routes(server: Arc<Server>) -> Router {
    Router::new()
        .route("/assets/{*address}", get(asset))
        .route("/rpc/{function}", any(call))
        .route("/sign-in", post(signing_in))
        .route("/sign-out", post(signing_out))
        .route("/session", get(session))
        .route("/events/{command_id}", get(command_events))
        .route("/events/session/{environment_id}", get(session_events))
        .route("/output/{command_id}", get(output))
        .route("/export/{file}", get(exported))
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .merge(page::routes())
        .fallback(async || {
            Refusal::new(
                StatusCode::NOT_FOUND,
                "PGRST125",
                "Invalid path specified in request URL",
            )
            .hint("Functions are at /rpc/NAME, and the page is at /.")
        })
        .layer(from_fn_with_state(server.clone(), around))
        .with_state(server)
}

/// Around every request: counts it, and adds what every answer has.
async fn around(State(server): Shared, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("other", MatchedPath::as_str)
        .to_owned();
    let mut response = next.run(request).await;
    let took = began.elapsed();
    let status = response.status();
    server
        .metrics
        .count(&route, method.as_str(), status.as_u16(), took);
    // The route, never the address: that may hold what is nobody's business.
    tracing::debug!(%method, route, status = status.as_u16(), ms = took.as_secs_f64() * 1e3, "answered");
    let headers = response.headers_mut();
    for (name, value) in SECURITY_HEADERS {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    if server.config.is_https() {
        let year = HeaderValue::from_static("max-age=31536000; includeSubDomains");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, year);
    }
    response
}

/// A request with its sender known.
pub(crate) struct Asked {
    parts: Parts,
    pub(crate) body: Bytes,
    address: IpAddr,
    pub(crate) identity: Identity,
    /// By what its requests are counted.
    key: String,
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
            _ => from,
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
        })
    }

    async fn figures(&self) -> Response {
        let page = self.metrics.page(&self.db, &self.hub).await;
        let media = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        ([(header::CONTENT_TYPE, media)], Body::from(page)).into_response()
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
    pub(crate) fn scope(&self, server: &Server) -> crate::db::Scope {
        let scope = self.identity.scope(
            &self.parts.method,
            self.parts.uri.path(),
            &self.parts.headers,
            self.address,
        );
        crate::db::Scope {
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

async fn call(State(server): Shared, Path(name): Path<String>, request: Request) -> Response {
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

async fn asset(Path(address): Path<String>) -> Result<Response, Refusal> {
    page::ASSETS.file(&address)
}

async fn signing_in(State(server): Shared, mut request: Request) -> Response {
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

async fn signing_out(State(server): Shared, request: Request) -> Response {
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

async fn session(State(server): Shared, request: Request) -> Response {
    server
        .answer(request, async |server, asked| {
            Ok(sign_in::session(&server.keys, &asked.identity))
        })
        .await
}

async fn command_events(
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

async fn session_events(
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
                counted: server.limits.stream(&asked.key)?,
                scope: asked.scope(server),
            };
            let place = server.hub.enter().await;
            events::answer(server.db.clone(), place, server.shutdown.clone(), request).await
        })
        .await
}

/// A command's output as lines of a terminal: HTML, a line a `<div>`.
async fn output(State(server): Shared, Path(id): Path<String>, request: Request) -> Response {
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

async fn exported(State(server): Shared, Path(file): Path<String>, request: Request) -> Response {
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

async fn health(State(server): Shared) -> Response {
    let mut sql = Sql::default();
    sql.push("select 1");
    match server.db.own(&sql).await {
        Ok(_) => "ok\n".into_response(),
        Err(e) => e.refusal(true).into_response(),
    }
}

/// Its own machine may read it, and whoever may see what is other users'.
async fn metrics(State(server): Shared, request: Request) -> Response {
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

fn no_id(what: &str, wanted: &str) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "PSW404",
        format!("This address names no {what}."),
    )
    .hint(format!("It is to be {wanted}."))
}
