//! What pg_shell is measured against: the least that could do the same work.

use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use confine::shell::Shell;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Config, NoTls};

/// The bare loop's own table, as small as a queue can be.
pub const TABLE: &str = "
    create table queue (
      id bigint generated always as identity primary key,
      command text not null,
      status text not null default 'pending'
    );
    create index queue_pending on queue (id) where status = 'pending'";

/// Submits as `shell.submit_command` does: a row and a notification in one commit.
pub const SUBMIT: &str = "with queued as (insert into queue (command) values ('true') returning id) select id, pg_notify('queue', '') from queued";

const CLAIM: &str = "
    update queue set status = 'running'
    where id = (select id from queue where status = 'pending' order by id limit 1 for update skip locked)
    returning id, command";
const DONE: &str = "update queue set status = 'done' where id = $1";

/// Starts the bare loop in a thread of its own: LISTEN, claim, spawn and wait, done; it ends with its
/// connection.
pub fn start(config: Config, shell: Shell) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(serve(config, shell));
    })
}

async fn serve(config: Config, shell: Shell) {
    let (client, mut connection) = config.connect(NoTls).await.expect("a connection");
    let (notify, mut notices) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            if matches!(message, AsyncMessage::Notification(_)) {
                let _ = notify.send(());
            }
        }
    });
    client.batch_execute("listen queue").await.expect("listen");
    let claim = client.prepare(CLAIM).await.expect("prepare");
    let done = client.prepare(DONE).await.expect("prepare");
    while notices.recv().await.is_some() {
        let Ok(Some(row)) = client.query_opt(&claim, &[]).await else {
            continue;
        };
        let (id, command): (i64, String) = (row.get(0), row.get(1));
        spawn(shell, &command);
        if client.execute(&done, &[&id]).await.is_err() {
            return;
        }
    }
}

/// Runs a command in the shell and the environment that a session has, confined by nothing.
pub fn spawn(shell: Shell, command: &str) {
    let status = Command::new(shell.path())
        .args(["-c", command])
        .env_clear()
        .envs(shell.base_environment())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(
        status.is_ok_and(|s| s.success()),
        "{} -c {command} fails",
        shell.path()
    );
}

/// Runs `count` shells, two at a time, with no database.
pub fn spawn_many(shell: Shell, count: usize) -> Duration {
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| (0..count / 2).for_each(|_| spawn(shell, "true")));
        }
    });
    began.elapsed()
}
