//! A connection for tests: blocking, impatient, and with the calls that every test makes.

use std::future::Future;

use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::types::{FromSqlOwned, ToSql};
use tokio_postgres::{AsyncMessage, Client, NoTls, Notification, Row};
use uuid::Uuid;

use crate::PATIENCE;

/// See the module.
#[derive(Debug)]
pub struct Db {
    runtime: Runtime,
    pub(crate) client: Client,
    notices: Mutex<UnboundedReceiver<Notification>>,
}

/// A row of `shell.commands`, as far as tests look at it.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub struct Command {
    pub id: i64,
    pub status: String,
    pub output: Option<String>,
    pub stdout: Option<String>,
    pub stderr: Option<String>,
    pub raw_output: Option<Vec<u8>>,
    pub output_bytes: Option<i64>,
    pub truncated: bool,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub failure: Option<String>,
    pub failure_reason: Option<String>,
    pub attempt: i32,
    pub cwd_after: Option<String>,
    pub env_after: Option<Value>,
    pub shell_state_after: Option<String>,
}

pub(crate) type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Db {
    /// Connects.
    pub fn connect(connection: &str) -> Db {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        let (sender, notices) = unbounded_channel();
        let client = runtime.block_on(async {
            let (client, mut connection) = tokio_postgres::connect(connection, NoTls).await?;
            tokio::spawn(async move {
                let mut next =
                    async || std::future::poll_fn(|cx| connection.poll_message(cx)).await;
                while let Some(Ok(message)) = next().await {
                    if let AsyncMessage::Notification(notice) = message {
                        let _ = sender.send(notice);
                    }
                }
            });
            Ok::<_, tokio_postgres::Error>(client)
        });
        let client = client.unwrap_or_else(|e| panic!("cannot connect with {connection}: {e:?}"));
        Db {
            runtime,
            client,
            notices: Mutex::new(notices),
        }
    }

    pub(crate) fn within<T>(&self, what: &str, work: impl Future<Output = T>) -> T {
        let work = async { tokio::time::timeout(PATIENCE, work).await };
        self.runtime
            .block_on(work)
            .unwrap_or_else(|_| panic!("waited in vain for: {what}"))
    }

    /// Runs a statement that must succeed.
    #[track_caller]
    pub fn query(&self, sql: &str, parameters: Parameters) -> Vec<Row> {
        self.within(sql, self.client.query(sql, parameters))
            .unwrap_or_else(|e| panic!("{sql}: {e:?}"))
    }

    /// The first column of the only row.
    #[track_caller]
    pub fn one<T: FromSqlOwned>(&self, sql: &str, parameters: Parameters) -> T {
        let rows = self.query(sql, parameters);
        assert_eq!(rows.len(), 1, "one row was wanted of {sql}");
        rows[0].try_get(0).unwrap_or_else(|e| panic!("{sql}: {e}"))
    }

    /// The first column of every row.
    #[track_caller]
    pub fn column<T: FromSqlOwned>(&self, sql: &str, parameters: Parameters) -> Vec<T> {
        self.query(sql, parameters)
            .iter()
            .map(|row| row.get(0))
            .collect()
    }

    /// Runs statements that must succeed.
    #[track_caller]
    pub fn run(&self, sql: &str) {
        self.within(sql, self.client.batch_execute(sql))
            .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    /// Waits for the next notification; returns its payload.
    pub fn notice(&self) -> String {
        let next = async { self.notices.lock().await.recv().await };
        self.within("a notification", next)
            .expect("an open connection")
            .payload()
            .into()
    }

    /// Waits until a query gives true. The query itself waits a little between two looks.
    #[track_caller]
    pub fn until(&self, condition: &str, parameters: Parameters) {
        let deadline = std::time::Instant::now() + PATIENCE;
        let sql = format!(
            "select ({condition}), case when not coalesce(({condition}), false) then pg_sleep(0.005) end"
        );
        while !self.query(&sql, parameters)[0]
            .get::<_, Option<bool>>(0)
            .unwrap_or(false)
        {
            assert!(
                std::time::Instant::now() < deadline,
                "waited in vain until: {condition}"
            );
        }
    }

    /// A new user.
    pub fn user(&self, name: &str) -> Uuid {
        self.one(
            "insert into shell.users (username) values ($1) returning id",
            &[&name],
        )
    }

    /// A further session of a user.
    pub fn session(&self, user: Uuid) -> Uuid {
        self.one("select shell.create_session(user_id => $1)", &[&user])
    }

    /// Sets a limit of the user's sandbox; makes the sandbox, if need be.
    pub fn limit(&self, user: Uuid, column: &str, value: i64) {
        self.session(user);
        let sql = format!("update shell.sandboxes set {column} = {value} where owner_id = $1");
        self.query(&sql, &[&user]);
    }

    /// Asks for a command's end; true where it had not finished.
    pub fn cancel(&self, id: i64) -> bool {
        self.one("select shell.cancel_command(command_id => $1)", &[&id])
    }

    /// Submits to the user's default session.
    #[track_caller]
    pub fn submit(&self, user: Uuid, command: &str) -> i64 {
        self.one(
            "select shell.submit_command(user_id => $1, command => $2)",
            &[&user, &command],
        )
    }

    /// Submits to a session.
    #[track_caller]
    pub fn submit_to(&self, user: Uuid, session: Uuid, command: &str) -> i64 {
        self.one(
            "select shell.submit_command($1, $2, $3)",
            &[&user, &command, &session],
        )
    }

    /// Submits to the user's default session, with limits of the command's own.
    #[track_caller]
    pub fn submit_limited(&self, user: Uuid, command: &str, limits: &Value) -> i64 {
        self.one(
            "select shell.submit_command(user_id => $1, command => $2, limits => $3)",
            &[&user, &command, limits],
        )
    }

    /// Waits until a command has finished.
    #[track_caller]
    pub fn wait(&self, id: i64) -> Command {
        let rows = self.query("select * from shell.wait_command($1, '50 seconds')", &[&id]);
        let command = Command::from_row(&rows[0]);
        let finished = ["done", "failed"].contains(&command.status.as_str());
        assert!(
            finished,
            "waited in vain for a command to finish: {command:?}"
        );
        command
    }

    /// Submits, and waits until it has finished.
    #[track_caller]
    pub fn finish(&self, user: Uuid, command: &str) -> Command {
        self.wait(self.submit(user, command))
    }

    /// The same with limits of the command's own.
    #[track_caller]
    pub fn finish_limited(&self, user: Uuid, command: &str, limits: &Value) -> Command {
        self.wait(self.submit_limited(user, command, limits))
    }

    /// A command as it stands.
    #[track_caller]
    pub fn command(&self, id: i64) -> Command {
        Command::from_row(&self.query("select * from shell.commands where id = $1", &[&id])[0])
    }

    /// Waits until a command runs and has printed something.
    #[track_caller]
    pub fn until_prints(&self, id: i64) {
        self.until(
            "exists (select from shell.output_chunks where command_id = $1)",
            &[&id],
        );
    }
}

impl Command {
    fn from_row(row: &Row) -> Command {
        Command {
            id: row.get("id"),
            status: row.get("status"),
            output: row.get("output"),
            stdout: row.get("stdout"),
            stderr: row.get("stderr"),
            raw_output: row.get("raw_output"),
            output_bytes: row.get("output_bytes"),
            truncated: row.get("truncated"),
            exit_code: row.get("exit_code"),
            signal: row.get("signal"),
            failure: row.get("failure"),
            failure_reason: row.get("failure_reason"),
            attempt: row.get("attempt"),
            cwd_after: row.get("cwd_after"),
            env_after: row.get("env_after"),
            shell_state_after: row.get("shell_state_after"),
        }
    }

    /// What it printed.
    pub fn text(&self) -> &str {
        self.output
            .as_deref()
            .unwrap_or_else(|| panic!("no output: {self:?}"))
    }

    /// Why it failed.
    pub fn why(&self) -> &str {
        self.failure
            .as_deref()
            .unwrap_or_else(|| panic!("it did not fail: {self:?}"))
    }

    /// Why it failed, in a sentence.
    pub fn reason(&self) -> &str {
        self.failure_reason
            .as_deref()
            .unwrap_or_else(|| panic!("no reason: {self:?}"))
    }
}
