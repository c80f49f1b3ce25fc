//! exec-worker: makes the rows of `shell.commands` true. See `--help`, and `worker.rs` for the loop.

mod batch;
mod command;
mod config;
mod db;
mod doctor;
mod error;
mod execute;
mod groups;
mod held;
mod home;
mod shutdown;
mod trial;
mod worker;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use config::{Config, LogFormat};
use doctor::{DOCTOR, Doctor};
use error::Error;
use shutdown::Shutdown;
use worker::Worker;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.peek().is_some_and(|first| first == DOCTOR) {
        return Doctor::parse_from(arguments).run();
    }
    let config = Config::parse();
    if let Err(e) = log_to_stderr(&config) {
        eprintln!("exec-worker: {e}");
        return ExitCode::from(e.exit_code());
    }
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!("{e}");
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
    // One thread: its work is waiting, and a second one would only add hops between them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::System {
            what: "starting the runtime",
            source,
        })?;
    runtime.block_on(async {
        let shutdown = Shutdown::on_signals()?;
        Worker::new(config)?.run(shutdown).await
    })
}

/// Other processes of this user may not look into this one, which knows the way to the database.
fn hide() {
    if let Err(e) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(error = %e, "cannot become undumpable");
    }
}
