//! What the worker and the web server have in common as daemons: what they log, how they stop, what they hide.

pub mod log;
pub mod shutdown;

/// Other processes of this user may not look into this one, which holds keys and the way to the database.
pub fn hide() {
    if let Err(e) = nix::sys::prctl::set_dumpable(false) {
        tracing::warn!(error = %e, "cannot become undumpable");
    }
}

/// An error with its cause: tokio-postgres says only "db error" by itself.
pub fn describe(e: &tokio_postgres::Error) -> String {
    match (e.as_db_error(), std::error::Error::source(e)) {
        (Some(db), _) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        (None, Some(source)) => format!("{e}: {source}"),
        (None, None) => e.to_string(),
    }
}
