//! Log lines, to the standard error output.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The settings of the log.
#[derive(Debug, Clone, Args)]
pub struct Log {
    /// How log lines look.
    #[arg(
        long = "log-format",
        env = "PG_SHELL_LOG_FORMAT",
        value_enum,
        default_value = "text"
    )]
    pub format: Format,

    /// What is logged, in the syntax of tracing's EnvFilter.
    #[arg(
        long = "log",
        env = "PG_SHELL_LOG",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub filter: String,
}

impl Log {
    /// Begins to log.
    ///
    /// # Errors
    /// What is wrong with `--log`.
    pub fn start(&self) -> Result<(), String> {
        let filter = EnvFilter::try_new(&self.filter).map_err(|e| e.to_string())?;
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_target(false);
        match self.format {
            Format::Text => log.init(),
            Format::Json => log.json().init(),
        }
        Ok(())
    }
}
