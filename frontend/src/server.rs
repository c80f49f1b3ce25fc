//! The routes, and what all of them share.

mod around;
mod asked;
mod calls;
mod connections;
mod figures;
mod files;
mod streams;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{any, get, post};
use tokio::net::TcpListener;

use crate::config::Config;
use crate::db::Db;
use crate::error::{Error, Refusal};
use crate::identity::Keys;
use crate::limits::{Limits, Streams};
use crate::listener::Hub;
use crate::metrics::Metrics;
use crate::page;
use crate::shutdown::{Shutdown, Stage};
pub(crate) use asked::Asked;

/// What every request may need.
pub struct Server {
    config: Config,
    pub(crate) db: Db,
    hub: Hub,
    pub(crate) keys: Keys,
    limits: Limits,
    streams: Streams,
    metrics: Metrics,
    shutdown: Shutdown,
}

type Shared = State<Arc<Server>>;

/// Connects to the database, and makes what serves.
///
/// # Errors
/// A setting that cannot be used, a database that cannot be reached.
pub async fn prepare(config: Config, shutdown: Shutdown) -> Result<Arc<Server>, Error> {
    let size = usize::try_from(config.pool_size.get()).unwrap_or(usize::MAX);
    let connections = config.max_connections.get();
    Ok(Arc::new(Server {
        keys: Keys::new(&config)?,
        db: Db::new(&config.database_url, size)?,
        hub: Hub::start(&config.database_url).await?,
        limits: Limits::new(config.request_rate, size.div_ceil(2)),
        streams: Streams::new(
            config.max_streams,
            config.max_streams_per_address,
            // Requests keep a quarter of the connections.
            (connections / 4 * 3).max(1),
        ),
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
    let most = server.config.max_connections;
    tokio::select! {
        () = connections::serve(listener, most, routes(server), soft.reaches(Stage::Soft)) => Ok(()),
        () = hard.reaches(Stage::Hard) => Ok(()),
    }
}

fn routes(server: Arc<Server>) -> Router {
    Router::new()
        .route("/assets/{*address}", get(asset))
        .route("/rpc/{function}", any(calls::call))
        .route("/sign-in", post(calls::signing_in))
        .route("/sign-out", post(calls::signing_out))
        .route("/session", get(calls::session))
        .route("/events/{command_id}", get(streams::of_command))
        .route("/events/session/{environment_id}", get(streams::of_session))
        .route("/output/{command_id}", get(files::output))
        .route("/export/{file}", get(files::exported))
        .route("/healthz", get(figures::health))
        .route("/metrics", get(figures::metrics))
        .merge(page::routes())
        .fallback(async || {
            Refusal::new(
                StatusCode::NOT_FOUND,
                "PGRST125",
                "Invalid path specified in request URL",
            )
            .hint("Functions are at /rpc/NAME, and the page is at /.")
        })
        .layer(from_fn_with_state(server.clone(), around::around))
        .with_state(server)
}

async fn asset(Path(address): Path<String>) -> Result<Response, Refusal> {
    page::ASSETS.file(&address)
}

fn no_id(what: &str, wanted: &str) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "PSW404",
        format!("This address names no {what}."),
    )
    .hint(format!("It is to be {wanted}."))
}
