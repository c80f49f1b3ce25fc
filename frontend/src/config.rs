//! Settings, from flags and environment.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use axum::http::{HeaderValue, Uri};
use clap::Parser;
use daemon::log::Log;

/// Serves the terminal page, answers `/rpc/*` as PostgREST does, and streams what running commands print.
#[derive(Debug, Clone, Parser)]
#[command(name = "pg-shell-web", version)]
pub struct Config {
    /// Where the database is, and as whom (shell_authenticator): a URL or "host=… port=… user=… dbname=…".
    #[arg(
        long,
        env = "PG_SHELL_WEB_DATABASE_URL",
        value_name = "CONNECTION",
        hide_env_values = true
    )]
    pub database_url: tokio_postgres::Config,

    /// Where to listen.
    #[arg(
        long,
        env = "PG_SHELL_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8080"
    )]
    pub listen: SocketAddr,

    /// The file with the secret that pg_shell.jwt_secret has too: 32 bytes or more, spaces at its end ignored.
    #[arg(long, env = "PG_SHELL_JWT_SECRET_FILE", value_name = "PATH")]
    pub jwt_secret_file: PathBuf,

    /// What people have in their address bar. With https, cookies are for https only.
    #[arg(
        long,
        env = "PG_SHELL_PUBLIC_URL",
        value_name = "URL",
        default_value = "http://localhost:8080"
    )]
    pub public_url: Uri,

    /// The role of a request without a token; "" refuses such requests.
    #[arg(
        long,
        env = "PG_SHELL_ANONYMOUS_ROLE",
        value_name = "ROLE",
        default_value = "shell_anonymous"
    )]
    pub anonymous_role: String,

    /// A function that runs before every request's own, in its transaction: schema.name. The role that the server logs
    /// in as must be allowed to call it, and it runs as the request's.
    #[arg(
        long,
        env = "PG_SHELL_PRE_REQUEST",
        value_name = "FUNCTION",
        default_value = "shell.check_request",
        value_parser = qualified
    )]
    pub pre_request: String,

    /// Other sites whose scripts may call /rpc, with credentials; none given: any site, without credentials.
    #[arg(
        long,
        env = "PG_SHELL_CORS_ORIGINS",
        value_name = "ORIGIN",
        value_delimiter = ','
    )]
    pub cors_origins: Vec<HeaderValue>,

    /// Connections for requests; streams have four more, and one listens.
    #[arg(
        long,
        env = "PG_SHELL_POOL_SIZE",
        value_name = "N",
        default_value = "16"
    )]
    pub pool_size: NonZeroU32,

    /// Bytes a request's body may have.
    #[arg(
        long,
        env = "PG_SHELL_MAX_BODY",
        value_name = "BYTES",
        default_value = "4194304"
    )]
    pub max_body: usize,

    /// Requests a second of one user, or of one address that has not signed in; ten times as many in a burst. 0: any.
    #[arg(
        long,
        env = "PG_SHELL_REQUEST_RATE",
        value_name = "N",
        default_value = "50"
    )]
    pub request_rate: u32,

    /// Streams open at a time, of one user.
    #[arg(
        long,
        env = "PG_SHELL_MAX_STREAMS",
        value_name = "N",
        default_value = "32"
    )]
    pub max_streams: u32,

    /// Streams open at a time, from one address.
    #[arg(
        long,
        env = "PG_SHELL_MAX_STREAMS_PER_ADDRESS",
        value_name = "N",
        default_value = "256"
    )]
    pub max_streams_per_address: u32,

    /// Connections of HTTP open at a time, each a descriptor; streams have three quarters of them at most.
    #[arg(
        long,
        env = "PG_SHELL_MAX_CONNECTIONS",
        value_name = "N",
        default_value = "900"
    )]
    pub max_connections: NonZeroU32,

    /// Believe X-Forwarded-For: a proxy in front of this server sets it.
    #[arg(long, env = "PG_SHELL_TRUST_PROXY")]
    pub trust_proxy: bool,

    #[command(flatten)]
    pub log: Log,
}

impl Config {
    /// True where people come by https.
    pub fn is_https(&self) -> bool {
        self.public_url.scheme_str() == Some("https")
    }
}

/// A function's name with its schema, quoted for SQL.
fn qualified(text: &str) -> Result<String, String> {
    match text.split_once('.') {
        Some((schema, name)) if !schema.is_empty() && !name.is_empty() => Ok(format!(
            "{}.{}",
            crate::sql::identifier(schema),
            crate::sql::identifier(name)
        )),
        _ => Err("a function with its schema is wanted: schema.name".into()),
    }
}
