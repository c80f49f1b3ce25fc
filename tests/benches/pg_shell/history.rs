//! Users, sessions, and a long past.

use tokio_postgres::Client;
use uuid::Uuid;

/// Sessions that a drain uses.
pub const SESSIONS: usize = 100;

/// Ten users with ten sessions each for the drain, and one with one session for the rest.
pub async fn make_sessions(client: &Client) -> (Uuid, Uuid) {
    client
        .batch_execute(
            "insert into shell.users (username) select 'drain ' || n from generate_series(1, 10) as n;
             select shell.default_session(id) from shell.users where username like 'drain %';
             select shell.create_session(id, n::text)
             from shell.users, generate_series(1, 9) as n where username like 'drain %'",
        )
        .await
        .expect("sessions");
    let made: i64 = client
        .query_one("select count(*) from shell.environments", &[])
        .await
        .expect("count")
        .get(0);
    assert_eq!(made, SESSIONS as i64, "sessions");
    let row = client
        .query_one(
            "with u as (insert into shell.users (username) values ('one at a time') returning id) select id from u",
            &[],
        )
        .await
        .expect("a user");
    let user: Uuid = row.get(0);
    let session = client
        .query_one("select shell.default_session($1)", &[&user])
        .await
        .expect("a session")
        .get(0);
    (user, session)
}

/// Fills the tables with `commands` finished commands over `sessions` sessions, a hundredth of them failed.
pub async fn fill(client: &Client, commands: usize, sessions: usize) {
    let filling = format!(
        "set session_replication_role = replica;
         insert into shell.users (username) select 'past ' || n from generate_series(1, {sessions} / 10) as n;
         insert into shell.sandboxes (owner_id) select id from shell.users where username like 'past %';
         insert into shell.environments (sandbox_id, user_id, name, is_default, env)
         select s.id, s.owner_id, n::text, n = 1, '{{\"EDITOR\": \"vi\", \"PAGER\": \"less\"}}'
         from shell.sandboxes as s join shell.users as u on u.id = s.owner_id, generate_series(1, 10) as n
         where u.username like 'past %';
         create temp table past as
           select row_number() over () as n, id, user_id, cwd, env from shell.environments where name ~ '^[0-9]+$';
         insert into shell.commands
           (user_id, environment_id, command, submitted_at, status, failure, failure_reason, output, stdout, stderr,
            exit_code, output_bytes, cwd_snapshot, env_snapshot, shell_state_snapshot, claimed_at, started_at,
            finished_at, duration, cpu_time, peak_memory_bytes, attempt)
         select p.user_id, p.id, 'echo ' || g, now() - interval '1 day', case when g % 100 = 0 then 'failed' else 'done' end,
           case when g % 100 = 0 then 'exit' end, case when g % 100 = 0 then 'The command exited with code 1.' end,
           g || e'\\n', g || e'\\n', '', (g % 100 = 0)::int, 8, p.cwd, p.env, '', now() - interval '1 day',
           now() - interval '1 day', now() - interval '1 day', '3 ms', '2 ms', 4000000, 1
         from generate_series(1, {commands}) as g
         join past as p on p.n = 1 + g % (select count(*) from past);
         drop table past;
         set session_replication_role = origin"
    );
    client.batch_execute(&filling).await.expect("a past");
    client
        .batch_execute("vacuum analyze")
        .await
        .expect("vacuum");
    client
        .batch_execute("checkpoint")
        .await
        .expect("checkpoint");
}
