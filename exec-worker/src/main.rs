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
mod trial;
mod worker;

use std::process::ExitCode;

use clap::Parser;
use daemon::shutdown::{self, Shutdown};

use config::Config;
use doctor::{DOCTOR, Doctor};
use error::Error;
use worker::Worker;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.peek().is_some_and(|first| first == DOCTOR) {
        return Doctor::parse_from(arguments).run();
    }
    let config = Config::parse();
    if let Err(problem) = config.log.start() {
        let e = Error::Setting {
            name: "log",
            problem,
        };
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

fn run(config: Config) -> Result<(), Error> {
    daemon::hide();
    let system = |what| move |source| Error::System { what, source };
    // One thread: its work is waiting, and a second one would only add hops between them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(system("starting the runtime"))?;
    runtime.block_on(async {
        let shutdown = Shutdown::on_signals().map_err(system("watching for signals"))?;
        Worker::new(config)?.run(shutdown).await
    })
}
