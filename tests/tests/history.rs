//! A long history costs its readers nothing.

use pg_shell_tests::{Cluster, Db};
use uuid::Uuid;

/// Runs an `explain (analyze, buffers, format json)` and returns the pages it counted.
fn pages_read(db: &Db, explain: &str) -> i64 {
    let plan: serde_json::Value = db.one(explain, &[]);
    let plan = &plan[0]["Plan"];
    plan["Shared Hit Blocks"].as_i64().unwrap() + plan["Shared Read Blocks"].as_i64().unwrap()
}

#[test]
fn reads_of_a_long_history_use_its_indexes() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let (user, other) = (db.user("long"), db.user("longer"));
    for user in [user, other] {
        let session = db.session(user);
        db.query(
            "insert into shell.commands (user_id, environment_id, command, status, output, exit_code, finished_at)
             select $1, $2, 'true', 'done', '', 0, now() from generate_series(1, 50000)",
            &[&user, &session],
        );
    }
    db.run("analyze shell.commands");
    // The first user's commands are the older half: nothing near the end of the log is theirs.
    for user in [user, other] {
        let sql = format!(
            "explain (analyze, buffers, format json) select * from shell.latest_output('{user}', 20)"
        );
        // The first call reads the catalogs, too.
        db.query(&sql, &[]);
        let pages = pages_read(&db, &sql);
        assert!(pages < 100, "20 rows cost {pages} pages");
    }

    // What a session's next command and a worker's look at.
    let sessions: Vec<Uuid> = db.column(
        "select id from shell.environments where user_id = $1",
        &[&user],
    );
    let queue = format!(
        "explain (costs off) select 1 from shell.commands c where c.status = 'pending' and c.user_id > '{user}'
         order by c.user_id limit 1"
    );
    let plan: Vec<String> = db.column(&queue, &[]);
    assert!(plan.join("\n").contains("commands_pending"), "{plan:?}");
    let session = format!(
        "explain (costs off) select * from shell.commands c where c.environment_id = '{}' order by c.id desc limit 20",
        sessions[0]
    );
    let plan: Vec<String> = db.column(&session, &[]);
    let plan = plan.join("\n");
    assert!(
        plan.contains("Index Scan") && !plan.contains("Seq Scan"),
        "{plan}"
    );
    let size: i64 = db.one("select pg_relation_size('shell.commands_pending')", &[]);
    assert!(
        size <= 16384,
        "finished commands are in the queue's index: {size} bytes"
    );
}

/// A worker lives long: what it planned when nothing was there yet must do for a long queue and history.
#[test]
fn a_worker_that_began_on_empty_tables_finds_its_rows_by_index() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let user = db.user("busy");
    let session = db.session(user);
    let submit = "insert into shell.commands (user_id, environment_id, command)
                  select $1, $2, 'true' from generate_series(1, $3)";
    let worker: i64 = db.one("select shell.register_worker('test', 'test', '0', 1)", &[]);
    let claim = format!(
        "explain (analyze, buffers, format json) select * from shell.work({worker}, null, 1, null)"
    );
    let finish = format!(
        "explain (analyze, buffers, format json) select * from shell.work({worker}, (
           select json_agg(json_build_object('command_id', id, 'attempt', attempt, 'exit_code', 0,
             'truncated', false, 'age_us', 0, 'duration_us', 0))
           from shell.commands where status = 'running'), 0, null)"
    );
    // Postgres decides for good what to plan only once after some executions.
    db.query(submit, &[&user, &session, &10]);
    for _ in 0..10 {
        pages_read(&db, &claim);
        pages_read(&db, &finish);
    }

    db.query(
        "insert into shell.commands (user_id, environment_id, command, status, output, exit_code, finished_at, attempt)
         select $1, $2, 'true', 'done', '', 0, now(), 1 from generate_series(1, 20000)",
        &[&user, &session],
    );
    db.query(submit, &[&user, &session, &20_000]);
    for (what, explain) in [("claim", &claim), ("write-back", &finish)] {
        let pages = pages_read(&db, explain);
        assert!(pages < 100, "a {what} cost {pages} pages");
    }
    let done: i64 = db.one(
        "select count(*) from shell.commands where worker_id = $1 and status = 'done'",
        &[&worker],
    );
    assert_eq!(done, 11);
}
