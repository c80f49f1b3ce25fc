//! A request over HTTP against the same call over a connection to Postgres.
//!
//! The same call is the same function as the same user: a prepared statement, on a connection that was given role,
//! claims and search path beforehand, a transaction each with a durable commit. What only a request does counts for
//! the request: the token, its own transaction's settings, `shell.check_request()` with a session to look up, and JSON.
//! Either side has one kept connection and one call at a time, and they take turns in blocks.

use std::time::{Duration, Instant};

use pg_shell_tests::{Cluster, Web, token};
use serde_json::json;
use tokio_postgres::types::{FromSqlOwned, ToSql};
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use crate::cluster::{self, PG_SHELL};
use crate::http::Http;

/// Calls of one side in a row.
const BLOCK: usize = 20;
/// What is submitted.
const COMMAND: &str = "true";
/// Users at a time, under load.
pub const USERS: usize = 50;
/// Between two requests of one of them.
const PAUSE: Duration = Duration::from_millis(500);
/// Every so many requests of one of them, a command instead of a look.
const SUBMITS: usize = 5;

/// A user who has signed in.
pub struct User {
    id: Uuid,
    claims: String,
    token: String,
}

impl User {
    /// A new one.
    pub async fn sign_in(ours: &Client, name: &str) -> User {
        let made = "with u as (insert into shell.users (username) values ($1) returning id) select id from u";
        let id: Uuid = first(ours, made, &[&name]).await;
        let session = "select session_id from shell.new_session($1, 'session', 'bench', now() + interval '1 day')";
        let session: Uuid = first(ours, session, &[&id]).await;
        let claims = json!({"sub": id.to_string(), "role": "shell_user", "sid": session.to_string(), "exp": 4_000_000_000_u64});
        User {
            id,
            token: token(&claims),
            claims: claims.to_string(),
        }
    }

    /// The user's id.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// What its requests are sent with.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A session of the user's.
    pub async fn session(&self, ours: &Client) -> Uuid {
        first(ours, "select shell.create_session($1)", &[&self.id]).await
    }

    /// A connection that is this user's from now on.
    async fn client(&self, cluster: &Cluster) -> Client {
        let client = cluster::client(cluster, PG_SHELL).await;
        let logged_in = client.batch_execute("set session authorization shell_authenticator");
        logged_in.await.expect("the server's role");
        let settings = "select set_config('search_path', 'shell_api, pg_temp', false),
            set_config('request.jwt.claims', $1, false), set_config('role', 'shell_user', false)";
        client
            .query_one(settings, &[&self.claims])
            .await
            .expect("settings");
        client
    }
}

/// The server, with no limit that a bench would meet.
pub fn server(cluster: &Cluster) -> Web {
    cluster.web(&["--request-rate", "0"])
}

/// Times of submit_command by request and by statement, `count` each.
pub async fn compare(
    cluster: &Cluster,
    ours: &Client,
    web: &Web,
    count: usize,
) -> (Vec<Duration>, Vec<Duration>) {
    let user = User::sign_in(ours, "rest").await;
    let mut http = Http::connect(web.url(), &user.token).await;
    let client = user.client(cluster).await;
    let call = "select shell_api.submit_command(command => $1)";
    let call = client.prepare(call).await.expect("prepare");
    let (mut times, mut bare_times) = (Vec::new(), Vec::new());
    // The first block of each warms up.
    while times.len() < count + BLOCK {
        for _ in 0..BLOCK {
            times.push(submit(&mut http).await.expect("submit_command"));
        }
        for _ in 0..BLOCK {
            let began = Instant::now();
            let row = client.query_one(&call, &[&COMMAND]).await;
            let _: i64 = row.expect("submit_command").get(0);
            bare_times.push(began.elapsed());
        }
    }
    (times.split_off(BLOCK), bare_times.split_off(BLOCK))
}

async fn submit(http: &mut Http) -> Result<Duration, String> {
    let body = json!({"command": COMMAND}).to_string();
    timed(http, "/rpc/submit_command", &body).await
}

async fn timed(http: &mut Http, path: &str, body: &str) -> Result<Duration, String> {
    let began = Instant::now();
    let (status, body) = http.post(path, body).await;
    match status {
        200 => Ok(began.elapsed()),
        _ => Err(format!("{status}: {}", String::from_utf8_lossy(body))),
    }
}

/// What many users at a time have.
#[derive(Default)]
pub struct Load {
    /// Looks at the latest output.
    pub looks: Vec<Duration>,
    /// The same by statement, meanwhile.
    pub bare: Vec<Duration>,
    /// Commands.
    pub submits: Vec<Duration>,
    /// What failed.
    pub errors: Vec<String>,
}

/// Has many users look at their output, and submit, for `window`.
pub async fn load(cluster: &Cluster, ours: &Client, web: &Web, window: Duration) -> Load {
    let mut users = Vec::new();
    for n in 0..USERS {
        users.push(User::sign_in(ours, &format!("load {n}")).await);
    }
    let client = users[0].client(cluster).await;
    let look = "select * from shell_api.latest_output()";
    let look = client.prepare(look).await.expect("prepare");
    let end = Instant::now() + window;
    let mut all = Load::default();
    let mut tasks = Vec::new();
    for (n, user) in users.into_iter().enumerate() {
        let mut http = Http::connect(web.url(), &user.token).await;
        let late = PAUSE * u32::try_from(n).expect("few") / USERS as u32;
        tasks.push(tokio::spawn(async move {
            let mut own = Load::default();
            tokio::time::sleep(late).await;
            for turn in n.. {
                if Instant::now() >= end {
                    break;
                }
                let (times, done) = if turn % SUBMITS == 0 {
                    (&mut own.submits, submit(&mut http).await)
                } else {
                    let done = timed(&mut http, "/rpc/latest_output", "{}").await;
                    (&mut own.looks, done)
                };
                match done {
                    Ok(took) => times.push(took),
                    Err(e) => own.errors.push(e),
                }
                tokio::time::sleep(PAUSE).await;
            }
            own
        }));
    }
    while Instant::now() < end {
        all.bare.push(once(&client, &look).await);
        tokio::time::sleep(PAUSE / 10).await;
    }
    for task in tasks {
        let own = task.await.expect("a user");
        all.looks.extend(own.looks);
        all.submits.extend(own.submits);
        all.errors.extend(own.errors);
    }
    all
}

async fn once(client: &Client, statement: &Statement) -> Duration {
    let began = Instant::now();
    client.query(statement, &[]).await.expect("a look");
    began.elapsed()
}

async fn first<T: FromSqlOwned>(
    client: &Client,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> T {
    let row = client.query_one(sql, parameters).await;
    row.expect("a row").get(0)
}
