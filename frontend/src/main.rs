//! pg-shell-web: the page, `/rpc/*`, and streams. See `--help`, and `server.rs` for the routes.

mod assets;
mod cast;
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
mod sign_in;
mod sql;
mod terminal;
mod wire;

use std::process::ExitCode;

use clap::Parser;
use daemon::shutdown::{self, Shutdown};
use tokio::net::TcpListener;

use config::Config;
use error::Error;

fn main() -> ExitCode {
    let config = Config::parse();
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("pg-shell-web: {e}");
            ExitCode::from(e.exit_code())
        }
    }
}

fn run(config: Config) -> Result<(), Error> {
    config.log.start().map_err(|problem| Error::Setting {
        name: "log",
        problem,
    })?;
    daemon::hide();
    let system = |what| move |source| Error::System { what, source };
    // One thread for each two CPUs: most of the work is Postgres's.
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get().div_ceil(2));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(system("starting the runtime"))?;
    runtime.block_on(async {
        let shutdown = Shutdown::on_signals().map_err(system("watching for signals"))?;
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
