//! What can stop a worker, each with what to do about it and an exit code of its own.

use std::path::PathBuf;

/// A failure of the worker itself; what happens to a command is in that command's row.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that cannot be used.
    #[error("--{name}: {problem}")]
    Setting {
        /// The flag, without its dashes.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The database does not have the extension.
    #[error("this database has no extension pg_shell; run: create extension pg_shell")]
    NoExtension,
    /// The database has a version of the extension that this worker was not built for.
    #[error("the database has pg_shell {found}, and this worker knows {known}; update one of them")]
    UnknownVersion {
        /// The extension's version.
        found: String,
        /// The versions that would do.
        known: String,
    },
    /// Commands would run as the user that owns the database's files.
    #[error(
        "this worker runs as the user that Postgres runs as (its socket {socket} says so), and so would commands; \
         run it as another user, or accept that with --allow-postgres-user"
    )]
    PostgresUser {
        /// The server's socket.
        socket: PathBuf,
    },
    /// Commands would run as root.
    #[error("this worker does not run as root; run it as a user of its own")]
    Root,
    /// No command could ever run.
    #[error(transparent)]
    Confine(#[from] confine::Error),
    /// No command could ever run: a launch of nothing has failed.
    #[error("a trial launch failed: {problem}. {hint}")]
    Trial {
        /// What went wrong.
        problem: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// The database refused something, or is gone.
    #[error("database: {}", daemon::describe(.0))]
    Database(#[from] tokio_postgres::Error),
    /// A chunk is in a content store, and this worker has none.
    #[error(
        "chunk {0} is kept outside the database, and this worker has no --content-store (PG_SHELL_CONTENT_STORE)"
    )]
    NoContentStore(files::Hash),
    /// A chunk's row names what is no object of this worker's content store.
    #[error("chunk {0} is kept outside the database, and not in this worker's --content-store")]
    Elsewhere(files::Hash),
    /// The content store does not answer.
    #[error("chunk {0} cannot be read from the content store; the worker's log says why")]
    NotRead(files::Hash),
    /// The content store does not take it.
    #[error("chunk {0} cannot be written to the content store; the worker's log says why")]
    NotWritten(files::Hash),
    /// A session's files cannot be read or kept.
    #[error("{0}")]
    Files(#[from] files::Error),
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

impl Error {
    /// The process's exit code: 2 for what the administrator must change, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Database(_) | Error::System { .. } => 1,
            _ => 2,
        }
    }

    /// True where another attempt over a new connection may succeed.
    pub fn is_connection(&self) -> bool {
        match self {
            Error::Database(e) => is_connection(e),
            _ => false,
        }
    }

    /// The same, or a statement that was given up for its time: of no use again at once, and no reason to end.
    pub fn is_passing(&self) -> bool {
        let timed_out = |e: &tokio_postgres::Error| {
            e.code()
                .is_some_and(|code| begins_with(code.code(), &["55P03", "57014"]))
        };
        self.is_connection() || matches!(self, Error::Database(e) if timed_out(e))
    }
}

/// True where the server is gone or not ready, or has ended a deadlock, and not where it has refused a statement.
pub fn is_connection(e: &tokio_postgres::Error) -> bool {
    e.is_closed()
        || (e.code()).is_none_or(|code| begins_with(code.code(), &["08", "40", "53", "57P"]))
}

fn begins_with(code: &str, beginnings: &[&str]) -> bool {
    beginnings.iter().any(|b| code.starts_with(b))
}
