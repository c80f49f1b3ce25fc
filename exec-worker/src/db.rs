//! The one connection to the database: LISTEN, the worker's calls, and its place among the living.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_postgres::types::{Json, ToSql};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Statement};
use uuid::Uuid;

use crate::command::{Claimed, Finished};
use crate::error::Error;
use crate::execute::Chunk;

/// Versions of the extension whose functions this worker knows how to call.
const KNOWN_VERSIONS: &[&str] = &["0.1.0"];

/// What the database tells a worker unasked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Commands wait.
    Submitted,
    /// This command shall end.
    Cancel(i64),
    /// The connection is gone.
    Closed,
}

/// What the slow poll says.
#[derive(Debug)]
pub struct Pulse {
    /// This worker still counts as alive.
    pub alive: bool,
    /// Commands taken back from lost workers.
    pub rescued: i64,
    /// Commands wait.
    pub waiting: bool,
    /// Commands of this worker that shall end.
    pub cancelled: Vec<i64>,
    /// Another worker may be lost; it is worth looking again after the grace.
    pub lost: bool,
    /// Upkeep has more to do.
    pub upkeep_left: bool,
    /// Objects outside the database are to be removed.
    pub objects_left: bool,
}

/// Terms that the worker's administrator sets, in the database's types.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// See [`crate::config::Config::grace`].
    pub grace: Duration,
    /// See [`crate::config::Config::lease`].
    pub lease: Duration,
    /// See [`crate::config::Config::max_attempts`].
    pub max_attempts: i32,
}

/// An open connection with its statements prepared.
pub struct Db {
    client: Client,
    work: Statement,
    append: Statement,
    heartbeat: Statement,
    release: Statement,
}

impl Db {
    /// Connects and listens; notices go to `notices` until the connection ends.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::NoExtension`], [`Error::UnknownVersion`].
    pub async fn connect(
        config: &Config,
        notices: mpsc::UnboundedSender<Notice>,
    ) -> Result<Db, Error> {
        let mut config = config.clone();
        if config.get_application_name().is_none() {
            config.application_name("exec-worker");
        }
        let (client, mut connection) = config.connect(NoTls).await?;
        tokio::spawn(async move {
            loop {
                match std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                    Some(Ok(AsyncMessage::Notification(n))) => {
                        let notice = match n.channel() {
                            "shell_cancel" => n.payload().parse().ok().map(Notice::Cancel),
                            _ => Some(Notice::Submitted),
                        };
                        if let Some(notice) = notice {
                            let _ = notices.send(notice);
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => {
                        let _ = notices.send(Notice::Closed);
                        return;
                    }
                }
            }
        });
        check_version(&client).await?;
        client
            .batch_execute("listen shell_commands; listen shell_cancel")
            .await?;
        let work = client
            .prepare("select * from shell.work($1, $2, $3, $4)")
            .await?;
        let append = client.prepare("select shell.append_output($1, $2)").await?;
        let heartbeat = client
            .prepare(
                "select * from shell.heartbeat($1, make_interval(secs => $2), make_interval(secs => $3), $4)",
            )
            .await?;
        let release = client
            .prepare("select shell.release_commands($1, $2, $3)")
            .await?;
        Ok(Db {
            client,
            work,
            append,
            heartbeat,
            release,
        })
    }

    /// Takes a place among the workers; the connection holds it.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn register(
        &self,
        name: &str,
        os_user: &str,
        concurrency: i32,
    ) -> Result<i64, Error> {
        let version = env!("CARGO_PKG_VERSION");
        let parameters: [&(dyn ToSql + Sync); 4] = [&name, &os_user, &version, &concurrency];
        let row = self
            .client
            .query_one("select shell.register_worker($1, $2, $3, $4)", &parameters)
            .await?;
        Ok(row.get(0))
    }

    /// Takes its place again over a new connection; false if it was given up for lost.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn resume(
        &self,
        worker: i64,
        holding: &[i64],
        max_attempts: i32,
    ) -> Result<bool, Error> {
        let parameters: [&(dyn ToSql + Sync); 3] = [&worker, &holding, &max_attempts];
        Ok(self
            .client
            .query_one("select shell.resume_worker($1, $2, $3)", &parameters)
            .await?
            .get(0))
    }

    /// Finishes and claims in one commit.
    ///
    /// # Errors
    /// [`Error::Database`]; nothing was written then, or all of it and the answer was lost.
    pub async fn work(
        &self,
        worker: i64,
        results: &[Finished],
        want: i32,
        turn: Option<Uuid>,
    ) -> Result<Vec<Claimed>, Error> {
        let results = (!results.is_empty()).then_some(Json(results));
        let parameters: [&(dyn ToSql + Sync); 4] = [&worker, &results, &want, &turn];
        let rows = self.client.query(&self.work, &parameters).await?;
        Ok(rows
            .iter()
            .map(Claimed::from_row)
            .collect::<Result<_, _>>()?)
    }

    /// Shows live output.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn append(&self, worker: i64, chunks: &[Chunk]) -> Result<(), Error> {
        self.call(&self.append, &[&worker, &Json(chunks)]).await
    }

    /// The slow poll.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn heartbeat(&self, worker: i64, terms: Terms) -> Result<Pulse, Error> {
        let (grace, lease) = (terms.grace.as_secs_f64(), terms.lease.as_secs_f64());
        let parameters: [&(dyn ToSql + Sync); 4] = [&worker, &grace, &lease, &terms.max_attempts];
        let row = self.client.query_one(&self.heartbeat, &parameters).await?;
        Ok(Pulse {
            alive: row.try_get("alive")?,
            rescued: row.try_get("rescued")?,
            waiting: row.try_get("waiting")?,
            cancelled: row.try_get("cancelled")?,
            lost: row.try_get("lost")?,
            upkeep_left: row.try_get::<_, i64>("upkeep_left")? > 0,
            objects_left: row.try_get("objects_left")?,
        })
    }

    /// Puts commands back that did not run; this is no failed attempt.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn release(&self, worker: i64, ids: &[i64]) -> Result<(), Error> {
        self.call(&self.release, &[&worker, &i32::MAX, &ids]).await
    }

    /// Says goodbye.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn stop(&self, worker: i64) -> Result<(), Error> {
        self.client
            .execute("select shell.stop_worker($1)", &[&worker])
            .await?;
        Ok(())
    }

    async fn call(
        &self,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<(), Error> {
        self.client.query(statement, parameters).await?;
        Ok(())
    }
}

async fn check_version(client: &Client) -> Result<(), Error> {
    let found = client
        .query_opt(
            "select extversion from pg_catalog.pg_extension where extname = 'pg_shell'",
            &[],
        )
        .await?
        .ok_or(Error::NoExtension)?
        .get::<_, String>(0);
    if KNOWN_VERSIONS.contains(&found.as_str()) {
        return Ok(());
    }
    Err(Error::UnknownVersion {
        found,
        known: KNOWN_VERSIONS.join(", "),
    })
}
