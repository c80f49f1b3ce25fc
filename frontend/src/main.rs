//! pg-shell-web: the page, `/rpc/*`, and streams. See `--help`, and `server.rs` for the routes.

mod assets;
mod catalogue;
mod config;
mod db;
mod error;
mod events;
mod export;
mod identity;
mod limits;
mod listener;
mod metrics;
mod page;
mod rpc;
mod server;
mod shutdown;
mod sign_in;
mod sql;
mod terminal;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

use config::{Config, LogFormat};
use error::Error;
use shutdown::Shutdown;

fn main() -> ExitCode {
    let config = Config::parse();
    let done = log_to_stderr(&config).and_then(|()| run(config));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("pg-shell-web: {e}");
            ExitCode::from(e.exit_code())
        }
    }
}

fn log_to_stderr(config: &Config) -> Result<(), Error> {
    let filter = EnvFilter::try_new(&config.log).map_err(|e| Error::Setting {
        name: "log",
        problem: e.to_string(),
    })?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    match config.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

fn run(config: Config) -> Result<(), Error> {
    hide();
    let system = |what| move |source| Error::System { what, source };
    // One thread for each two CPUs: most of the work is Postgres's.
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().div_ceil(2));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(system("starting the runtime"))?;
    runtime.block_on(async {
        let shutdown = Shutdown::on_signals()?;
        let listen = config.listen;
        let server = server::prepare(config, shutdown).await?;
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|e| Error::Setting {
                name: "listen",
                problem: format!("{listen}: {e}"),
            })?;
        let address = listener.local_addr().map_err(system("listening"))?;
        tracing::info!("ready on http://{address}");
        server::run(listener, server).await
    })
}

/// Other processes of this user may not look into this one, which holds keys and the way to the database.
fn hide() {
    if let Err(e) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(error = %e, "cannot become undumpable");
    }
}
