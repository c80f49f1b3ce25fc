//! Connections for files, apart from the one that claims and writes back: what takes long shall not hold that up.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Config, NoTls, Statement};

use crate::error::Error;

/// With its statements prepared.
pub(super) struct Connection {
    pub(super) client: Client,
    pub(super) missing_chunks: Statement,
    pub(super) add_chunks: Statement,
    pub(super) expect_objects: Statement,
    pub(super) add_objects: Statement,
    pub(super) give_up_objects: Statement,
    pub(super) forget_objects: Statement,
    pub(super) add_tree: Statement,
    pub(super) tree_entries: Statement,
    pub(super) content_chunks: Statement,
    pub(super) read_chunks: Statement,
}

impl Connection {
    async fn open(config: &Config) -> Result<Connection, Error> {
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        let prepare = |sql: &'static str| client.prepare(sql);
        let (
            missing_chunks,
            add_chunks,
            expect_objects,
            add_objects,
            give_up_objects,
            forget_objects,
            add_tree,
            tree_entries,
            content_chunks,
            read_chunks,
        ) = tokio::try_join!(
            prepare("select shell.missing_chunks($1)"),
            prepare("select shell.add_chunks($1, $2, null)"),
            prepare("select shell.expect_objects($1)"),
            prepare("select shell.add_chunks($1, null, $2, $3)"),
            prepare("select shell.give_up_objects($1)"),
            prepare("select shell.forget_objects($1)"),
            prepare("select tree_id, refusal from shell.add_tree($1, $2, $3, $4, $5, $6, $7)"),
            prepare(
                "select path, kind, mode, mtime_ns, size, content, target, link from shell.tree_entries($1)"
            ),
            prepare(
                "select content, chunk, size from shell.content_chunks($1) order by content, number"
            ),
            prepare("select hash, bytes, content_url from shell.read_chunks($1)"),
        )?;
        Ok(Connection {
            missing_chunks,
            add_chunks,
            expect_objects,
            add_objects,
            give_up_objects,
            forget_objects,
            add_tree,
            tree_entries,
            content_chunks,
            read_chunks,
            client,
        })
    }
}

/// Opened when they are needed, and kept for a while.
pub(super) struct Pool {
    config: Config,
    idle: Mutex<Vec<(Connection, Instant)>>,
}

impl Pool {
    pub(super) fn new(config: &Config) -> Pool {
        let mut config = config.clone();
        if config.get_application_name().is_none() {
            config.application_name("exec-worker files");
        }
        Pool {
            config,
            idle: Mutex::default(),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Connection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One to be given back.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub(super) async fn take(&self) -> Result<Connection, Error> {
        loop {
            let known = self.idle().pop();
            match known {
                Some((connection, _)) if connection.client.is_closed() => {}
                Some((connection, _)) => return Ok(connection),
                None => return Connection::open(&self.config).await,
            }
        }
    }

    pub(super) fn put(&self, connection: Connection) {
        self.idle().push((connection, Instant::now()));
    }

    pub(super) fn end_idle(&self, older: Duration) {
        self.idle().retain(|(connection, since)| {
            !connection.client.is_closed() && since.elapsed() < older
        });
    }
}
