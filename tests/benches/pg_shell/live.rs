//! From a command's first write to its arrival over a stream of events, with many sessions at a time.
//!
//! Every session has one command after the other, which prints what time it is and goes on for a while. So as many
//! commands as there are sessions run at any time, and each one's first byte counts: the stream's form is text, for
//! what a terminal makes of it is the reader's business.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pg_shell_tests::{Cluster, Web};
use tokio::time::timeout;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::http::Http;
use crate::rest::User;

/// Sessions with a command that runs.
pub const SESSIONS: usize = 50;
/// What each runs, again and again.
const COMMAND: &str = "echo $EPOCHREALTIME; sleep 2";
/// Between the first commands of two sessions.
const APART: Duration = Duration::from_millis(40);
/// A stream that is silent for so long has nothing more to tell.
const PATIENCE: Duration = Duration::from_secs(20);

/// How late each command's first byte was, of `rounds` commands a session; a first round warms up.
pub async fn first_bytes(
    cluster: &Cluster,
    ours: &Client,
    web: &Web,
    rounds: usize,
) -> Vec<Duration> {
    let worker = cluster.worker(&["--concurrency", &SESSIONS.to_string()]);
    let mut readers = Vec::new();
    for n in 0..SESSIONS {
        let user = User::sign_in(ours, &format!("live {n}")).await;
        let session = user.session(ours).await;
        let mut http = Http::connect(web.url(), user.token()).await;
        http.begin_get(&format!("/events/session/{session}?as=text"))
            .await;
        readers.push(tokio::spawn(async move { read(&mut http, rounds).await }));
        for _ in 0..=rounds {
            submit(ours, &user, session).await;
        }
        tokio::time::sleep(APART).await;
    }
    let mut all = Vec::new();
    for reader in readers {
        all.extend(reader.await.expect("a reader"));
    }
    worker.terminate();
    worker.wait();
    all
}

async fn submit(ours: &Client, user: &User, session: Uuid) {
    let submit = "select shell.submit_command($1, $2, $3)";
    let submitted = ours
        .execute(submit, &[&user.id(), &COMMAND, &session])
        .await;
    submitted.expect("a command");
}

async fn read(http: &mut Http, rounds: usize) -> Vec<Duration> {
    let mut late = Vec::new();
    while late.len() <= rounds {
        let event = timeout(PATIENCE, http.read_until("\n\n")).await;
        let event = event.expect("an event in time");
        let received = SystemTime::now().duration_since(UNIX_EPOCH);
        if let Some(written) = written_at(&event) {
            late.push(received.expect("a clock").saturating_sub(written));
        }
    }
    late.split_off(1)
}

/// The time that an event of output tells.
fn written_at(event: &str) -> Option<Duration> {
    let (_, data) = event.split_once("\"data\":\"")?;
    let (seconds, _) = data.split_once("\\n")?;
    seconds.parse().ok().map(Duration::from_secs_f64)
}
