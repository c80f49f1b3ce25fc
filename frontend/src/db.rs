//! The pools, and transactions under a request's identity.

use std::io;
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{Manager, Metrics, Object, Pool, RecycleError, RecycleResult, Status};
use tokio_postgres::Config;

use crate::error::Error;
use crate::sql::{Sql, Text};
pub use crate::wire::Row;
use crate::wire::{Next, Wire};

/// How long a request waits for a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections of streams: they read often and briefly, and never wait behind a `wait_command`.
const FOR_STREAMS: usize = 4;

/// What a transaction is for: its role, and settings that functions read.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// The role it runs as.
    pub role: String,
    /// `request.jwt.claims`, as JSON.
    pub claims: String,
    /// `request.method`.
    pub method: String,
    /// `request.path`.
    pub path: String,
    /// `request.headers`, as JSON.
    pub headers: String,
    /// `request.cookies`, as JSON.
    pub cookies: String,
    /// A function to call first, quoted. The role that the server logs in as must be allowed to call it.
    pub before: Option<String>,
    /// True where it may write.
    pub writes: bool,
}

/// One statement that sets them all, for the transaction only. The role comes last: the settings are then the
/// server's whatever the role may do.
const SETTINGS: &str = "select
  set_config('transaction_read_only', $1, true),
  set_config('search_path', 'shell_api, pg_temp', true),
  set_config('request.jwt.claims', $2, true),
  set_config('request.method', $3, true),
  set_config('request.path', $4, true),
  set_config('request.headers', $5, true),
  set_config('request.cookies', $6, true),
  set_config('role', $7, true)";

impl Scope {
    /// [`SETTINGS`], and then the call of the function that goes first: a statement less for each request.
    fn settings(&self) -> Sql {
        let text = match &self.before {
            Some(function) => format!("{SETTINGS}, {function}()"),
            None => SETTINGS.to_owned(),
        };
        let read_only = if self.writes { "off" } else { "on" };
        let values = [
            read_only,
            &self.claims,
            &self.method,
            &self.path,
            &self.headers,
            &self.cookies,
            &self.role,
        ];
        Sql {
            text,
            parameters: values.map(Text::from).into(),
        }
    }

    /// A statement of this role's own: a function that is inlined into a plan is not asked again whether another role
    /// may call it. Escaped, a name cannot end the comment.
    fn own(&self, sql: &Sql) -> Sql {
        Sql {
            text: format!("{}\n-- {}", sql.text, self.role.escape_default()),
            parameters: sql.parameters.clone(),
        }
    }
}

/// The database, as this server knows it.
#[derive(Clone)]
pub struct Db {
    requests: Pool<Connections>,
    streams: Pool<Connections>,
}

impl Db {
    /// Pools that connect when they are first used.
    ///
    /// # Errors
    /// [`Error::Setting`] where a pool cannot be.
    pub fn new(config: &Config, size: usize) -> Result<Db, Error> {
        Ok(Db {
            requests: pool(config, size)?,
            streams: pool(config, FOR_STREAMS)?,
        })
    }

    /// A statement of the server's own, as the role it logs in as.
    ///
    /// # Errors
    /// [`Error::Raised`], [`Error::Lost`], [`Error::Pool`].
    pub async fn own(&self, sql: &Sql) -> Result<Vec<Row>, Error> {
        let mut wire = Borrowed::of(&self.requests).await?;
        wire.add(sql)?;
        wire.send().await?;
        wire.rows().await
    }

    /// A transaction of one statement for a request.
    ///
    /// # Errors
    /// [`Error::Raised`], [`Error::Lost`], [`Error::Pool`]; nothing is written then.
    pub async fn call(&self, scope: &Scope, sql: &Sql) -> Result<Vec<Row>, Error> {
        call(&self.requests, scope, sql).await
    }

    /// The same where `accept` looks at the rows before anything is committed.
    ///
    /// # Errors
    /// The same, and what `accept` gives; nothing is written then.
    pub async fn call_if(
        &self,
        scope: &Scope,
        sql: &Sql,
        accept: impl FnOnce(&[Row]) -> Result<(), Error>,
    ) -> Result<Vec<Row>, Error> {
        let mut wire = Borrowed::of(&self.requests).await?;
        wire.add(&Sql::from("begin"))?;
        wire.add(&scope.settings())?;
        wire.add(&scope.own(sql))?;
        wire.send().await?;
        let accepted = match wire.rows().await {
            Ok(rows) => accept(&rows).map(|()| rows),
            Err(e) => Err(e),
        };
        let end = if accepted.is_ok() {
            "commit"
        } else {
            "rollback"
        };
        wire.add(&Sql::from(end))?;
        wire.send().await?;
        wire.rows().await?;
        accepted
    }

    /// The same for a stream, which only reads.
    ///
    /// # Errors
    /// As of [`Db::call`].
    pub async fn look(&self, scope: &Scope, sql: &Sql) -> Result<Vec<Row>, Error> {
        call(&self.streams, scope, sql).await
    }

    /// A transaction whose rows are read one by one.
    ///
    /// # Errors
    /// As of [`Db::call`]; what the statement raises comes with the rows.
    pub async fn read(&self, scope: &Scope, sql: &Sql) -> Result<Reading, Error> {
        let mut wire = Borrowed::of(&self.requests).await?;
        send(&mut wire, scope, sql).await?;
        // The settings', and with them what the function that goes first raises.
        while !matches!(wire.next().await?, None | Some(Next::Row(_))) {}
        Ok(Reading { wire })
    }

    /// Connections in use, open, and allowed, of requests and of streams.
    pub fn status(&self) -> [Status; 2] {
        [self.requests.status(), self.streams.status()]
    }
}

/// Rows to come, and the transaction they are of.
pub struct Reading {
    wire: Borrowed,
}

impl Reading {
    /// The next row; the transaction has ended after the last.
    ///
    /// # Errors
    /// [`Error::Raised`], [`Error::Lost`].
    pub async fn next(&mut self) -> Result<Option<Row>, Error> {
        loop {
            match self.wire.next().await? {
                Some(Next::Row(row)) => return Ok(Some(row)),
                Some(Next::Statement) => {}
                None => return Ok(None),
            }
        }
    }
}

async fn call(pool: &Pool<Connections>, scope: &Scope, sql: &Sql) -> Result<Vec<Row>, Error> {
    let mut wire = Borrowed::of(pool).await?;
    send(&mut wire, scope, sql).await?;
    wire.rows().await
}

async fn send(wire: &mut Wire, scope: &Scope, sql: &Sql) -> Result<(), Error> {
    wire.add(&scope.settings())?;
    wire.add(&scope.own(sql))?;
    wire.send().await
}

/// A connection of a pool. One that is given back within a transaction (its request was given up) is closed:
/// nobody else may find that role and those settings. Until what runs there has ended it keeps its place in the pool,
/// or requests that are given up at once would have Postgres run out of connections.
struct Borrowed(Option<Object<Connections>>);

impl Borrowed {
    async fn of(pool: &Pool<Connections>) -> Result<Borrowed, Error> {
        Ok(Borrowed(Some(pool.get().await?)))
    }
}

impl std::ops::Deref for Borrowed {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        // Taken in drop only.
        self.0.as_ref().expect("a connection until dropped")
    }
}

impl std::ops::DerefMut for Borrowed {
    fn deref_mut(&mut self) -> &mut Wire {
        self.0.as_mut().expect("a connection until dropped")
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if !self.is_idle()
            && let Some(mut wire) = self.0.take()
        {
            tokio::spawn(async move {
                wire.give_up().await;
                drop(Object::take(wire));
            });
        }
    }
}

/// Makes connections, and sorts out those that have ended meanwhile.
struct Connections(Config);

impl Manager for Connections {
    type Type = Wire;
    type Error = io::Error;

    async fn create(&self) -> io::Result<Wire> {
        Wire::open(&self.0).await
    }

    async fn recycle(&self, wire: &mut Wire, _: &Metrics) -> RecycleResult<io::Error> {
        match wire.has_news() {
            false => Ok(()),
            true => Err(RecycleError::message("the connection has ended")),
        }
    }
}

fn pool(config: &Config, size: usize) -> Result<Pool<Connections>, Error> {
    let mut config = config.clone();
    if config.get_application_name().is_none() {
        config.application_name("pg-shell-web");
    }
    Pool::builder(Connections(config))
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(PATIENCE))
        .create_timeout(Some(PATIENCE))
        .build()
        .map_err(|e| Error::Setting {
            name: "pool-size",
            problem: e.to_string(),
        })
}
