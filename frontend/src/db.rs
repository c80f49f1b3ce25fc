//! The pools, and transactions under a request's identity.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use tokio::join;
use tokio::sync::oneshot;
use tokio_postgres::types::Type;
use tokio_postgres::{Config, NoTls, Row, Statement};

use crate::error::Error;
use crate::sql::{Sql, Text};

/// How long a request waits for a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections of streams: they read often and briefly, and never wait behind a `wait_command`.
const FOR_STREAMS: usize = 4;

/// Statements that a connection keeps prepared; with more it begins anew, for requests choose their texts.
const MOST_PREPARED: usize = 64;

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
  set_config('search_path', 'shell_api, pg_temp', true),
  set_config('request.jwt.claims', $1, true),
  set_config('request.method', $2, true),
  set_config('request.path', $3, true),
  set_config('request.headers', $4, true),
  set_config('request.cookies', $5, true),
  set_config('role', $6, true)";

impl Scope {
    fn begin(&self) -> &'static str {
        if self.writes {
            "begin read write"
        } else {
            "begin read only"
        }
    }

    /// [`SETTINGS`], and then the call of the function that goes first: a statement less for each request.
    fn opening(&self) -> Cow<'static, str> {
        match &self.before {
            Some(function) => format!("{SETTINGS}, {function}()").into(),
            None => SETTINGS.into(),
        }
    }

    /// The values of [`SETTINGS`].
    fn settings(&self) -> Vec<Text> {
        let values = [
            &self.claims,
            &self.method,
            &self.path,
            &self.headers,
            &self.cookies,
            &self.role,
        ];
        values.map(|value| Text::from(value.as_str())).into()
    }

    /// A statement of this role's own: a function that is inlined into a plan is not asked again whether another role
    /// may call it. Escaped, a name cannot end the comment.
    fn own(&self, text: &str) -> String {
        format!("{text}\n-- {}", self.role.escape_default())
    }
}

/// The database, as this server knows it.
#[derive(Clone)]
pub struct Db {
    requests: Pool,
    streams: Pool,
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
    /// [`Error::Database`], [`Error::Pool`].
    pub async fn own(&self, sql: &Sql) -> Result<Vec<Row>, Error> {
        let client = self.requests.get().await?;
        let statement = client.prepare_cached(&sql.text).await?;
        Ok(run(&client, &statement, &sql.parameters).await?)
    }

    /// A transaction of one statement for a request. `accept` looks at the rows before anything is
    /// committed; without it everything is sent at once, and answered in one round trip.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Pool`], and what `accept` gives; nothing is written then.
    pub async fn call(
        &self,
        scope: &Scope,
        sql: &Sql,
        accept: Option<impl FnOnce(&[Row]) -> Result<(), Error>>,
    ) -> Result<Vec<Row>, Error> {
        call(self.requests.get().await?, scope, sql, accept).await
    }

    /// The same for a stream, which only reads.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Pool`].
    pub async fn look(&self, scope: &Scope, sql: &Sql) -> Result<Vec<Row>, Error> {
        let accept = None::<fn(&[Row]) -> Result<(), Error>>;
        call(self.streams.get().await?, scope, sql, accept).await
    }

    /// A transaction whose rows are read one by one.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Pool`].
    pub async fn read(&self, scope: &Scope, sql: &Sql) -> Result<Reading, Error> {
        let client = Borrowed::new(self.requests.get().await?);
        let (set, settings) = (
            client.prepare_cached(&scope.opening()).await?,
            scope.settings(),
        );
        let (begun, set) = join!(
            biased;
            client.batch_execute(scope.begin()),
            run(&client, &set, &settings),
        );
        begun?;
        set?;
        let parameters = sql.parameters.iter().map(|value| (value, Type::UNKNOWN));
        let rows = client.query_typed_raw(&sql.text, parameters).await?;
        Ok(Reading {
            rows: Box::pin(rows),
            client,
        })
    }

    /// Connections in use, open, and allowed, of requests and of streams.
    pub fn status(&self) -> [deadpool_postgres::Status; 2] {
        [self.requests.status(), self.streams.status()]
    }
}

/// Rows to come, and the transaction they are of.
pub struct Reading {
    rows: std::pin::Pin<Box<tokio_postgres::RowStream>>,
    client: Borrowed,
}

impl Reading {
    /// The next row; ends the transaction after the last.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn next(&mut self) -> Result<Option<Row>, Error> {
        use futures_util::TryStreamExt;
        let row = self.rows.try_next().await?;
        if row.is_none() {
            self.client.batch_execute("commit").await?;
            self.client.ended();
        }
        Ok(row)
    }
}

async fn call(
    client: Object,
    scope: &Scope,
    sql: &Sql,
    accept: Option<impl FnOnce(&[Row]) -> Result<(), Error>>,
) -> Result<Vec<Row>, Error> {
    let client = Borrowed::new(client);
    if client.statement_cache.size() >= MOST_PREPARED {
        client.statement_cache.clear();
    }
    let (set, settings) = (
        client.prepare_cached(&scope.opening()).await?,
        scope.settings(),
    );
    // Sent in this order, all before the first answer, but for a statement that this connection does not know yet: it
    // is prepared in its place, under the role, and what comes after waits for that. After a failure Postgres refuses
    // the rest of the transaction, and its commit is a rollback.
    let (sent, all_sent) = oneshot::channel();
    let begun = client.batch_execute(scope.begin());
    let set = run(&client, &set, &settings);
    let worked = work(&client, scope, sql, sent);
    let Some(accept) = accept else {
        let commit = async {
            // Without a statement nothing is to be sent.
            let _ = all_sent.await;
            client.batch_execute("commit").await
        };
        let (begun, set, rows, committed) = join!(biased; begun, set, worked, commit);
        client.ended();
        begun?;
        set?;
        let rows = rows?;
        committed?;
        return Ok(rows);
    };
    let (begun, set, rows) = join!(biased; begun, set, worked);
    let accepted = (|| {
        begun?;
        set?;
        let rows = rows?;
        accept(&rows)?;
        Ok(rows)
    })();
    let end = if accepted.is_ok() {
        "commit"
    } else {
        "rollback"
    };
    client.batch_execute(end).await?;
    client.ended();
    accepted
}

/// The statement, as what runs under the role. Tells when it is sent.
async fn work(
    client: &Object,
    scope: &Scope,
    sql: &Sql,
    sent: oneshot::Sender<()>,
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let statement = client.prepare_cached(&scope.own(&sql.text)).await?;
    // Nothing is waited for from here until it is sent.
    let _ = sent.send(());
    run(client, &statement, &sql.parameters).await
}

async fn run(
    client: &Object,
    statement: &Statement,
    values: &[Text],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let values: Vec<_> = values
        .iter()
        .map(|value| value as &(dyn tokio_postgres::types::ToSql + Sync))
        .collect();
    client.query(statement, &values).await
}

/// A connection of a pool. One that is given back within a transaction (its request was given up) is closed:
/// nobody else may find that role and those settings.
struct Borrowed {
    client: Option<Object>,
    ended: AtomicBool,
}

impl Borrowed {
    fn new(client: Object) -> Borrowed {
        Borrowed {
            client: Some(client),
            ended: AtomicBool::new(false),
        }
    }

    fn ended(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

impl std::ops::Deref for Borrowed {
    type Target = Object;

    fn deref(&self) -> &Object {
        // Taken in drop only.
        self.client.as_ref().expect("a connection until dropped")
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if !self.ended.load(Ordering::Relaxed)
            && let Some(client) = self.client.take()
        {
            drop(Object::take(client));
        }
    }
}

fn pool(config: &Config, size: usize) -> Result<Pool, Error> {
    let mut config = config.clone();
    if config.get_application_name().is_none() {
        config.application_name("pg-shell-web");
    }
    config.connect_timeout(PATIENCE);
    let manager = ManagerConfig {
        recycling_method: RecyclingMethod::Fast,
    };
    let manager = Manager::from_config(config, NoTls, manager);
    Pool::builder(manager)
        .max_size(size)
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(PATIENCE))
        .build()
        .map_err(|e| Error::Setting {
            name: "pool-size",
            problem: e.to_string(),
        })
}
