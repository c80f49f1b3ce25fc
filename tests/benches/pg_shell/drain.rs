//! How fast a full queue empties.

use std::time::{Duration, Instant};

use confine::shell::Shell;
use tokio_postgres::Client;

use crate::bare;

const EMPTY: &str = "
    select not exists (select from shell.commands where status = 'pending')
       and not exists (select from shell.commands where status = 'running')";

/// Commands a second of a drain, and shells a second without a database, measured half before it and half
/// after it.
pub async fn compare(client: &Client, shell: Shell, count: usize) -> (f64, f64) {
    bare::spawn_many(shell, count / 20);
    let before = bare::spawn_many(shell, count / 2);
    let drained = drain(client, count).await;
    let after = bare::spawn_many(shell, count / 2);
    (
        count as f64 / drained.as_secs_f64(),
        count as f64 / (before + after).as_secs_f64(),
    )
}

/// Submits `count` commands over the sessions of [`crate::history::SESSIONS`] in one transaction, and waits
/// from its commit until the last is done.
async fn drain(client: &Client, count: usize) -> Duration {
    client
        .batch_execute("checkpoint")
        .await
        .expect("checkpoint");
    let per_session = i32::try_from(count / crate::history::SESSIONS).expect("a small number");
    let submit = "
        select count(shell.submit_command(d.user_id, 'true', d.id))
        from (select e.user_id, e.id from generate_series(1, $1) as n, shell.environments as e
              join shell.users as u on u.id = e.user_id
              where u.username like 'drain %' order by n, e.id) as d";
    client
        .query_one(submit, &[&per_session])
        .await
        .expect("submit");
    let began = Instant::now();
    let empty = client.prepare(EMPTY).await.expect("prepare");
    while !client
        .query_one(&empty, &[])
        .await
        .expect("look")
        .get::<_, bool>(0)
    {
        assert!(
            began.elapsed() < Duration::from_secs(600),
            "the queue did not empty"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = began.elapsed();
    let failed = "select count(*) from (select * from shell.commands order by id desc limit $1) as c where status = 'failed'";
    let failed: i64 = client
        .query_one(failed, &[&(count as i64)])
        .await
        .expect("count")
        .get(0);
    assert_eq!(failed, 0, "commands failed");
    took
}
