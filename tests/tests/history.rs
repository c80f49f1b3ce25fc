//! A long history costs its readers nothing.

use std::sync::OnceLock;

use pg_shell_tests::{Caller, Cluster, Db, shared};
use uuid::Uuid;

/// A connection to where two users have run much. The first one's commands are the older half: nothing near the end
/// of the log is theirs.
fn long() -> (Db, [Uuid; 2]) {
    static USERS: OnceLock<[Uuid; 2]> = OnceLock::new();
    let db = shared::cluster().db();
    let users = USERS.get_or_init(|| {
        let users = ["long", "longer"].map(|name| db.user(name));
        for user in users {
            finished(&db, user, db.session(user), 50_000);
        }
        db.run("vacuum analyze shell.commands");
        users
    });
    (db, *users)
}

/// Gives a session so many finished commands.
fn finished(db: &Db, user: Uuid, session: Uuid, commands: i32) {
    db.query(
        "insert into shell.commands (user_id, environment_id, command, status, output, exit_code, finished_at, attempt)
         select $1, $2, 'true', 'done', '', 0, now(), 1 from generate_series(1, $3)",
        &[&user, &session, &commands],
    );
}

/// Runs a query, and returns the pages that it read.
fn pages_read(db: &Db, sql: &str) -> i64 {
    let explain = format!("explain (analyze, buffers, format json) {sql}");
    let plan: serde_json::Value = db.one(&explain, &[]);
    let of = |kind: &str| plan[0]["Plan"][kind].as_i64().unwrap();
    of("Shared Hit Blocks") + of("Shared Read Blocks")
}

#[test]
fn reads_of_a_long_history_use_its_indexes() {
    let (db, [user, other]) = long();
    for user in [user, other] {
        let sql = format!("select * from shell.latest_output('{user}', 20)");
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

#[test]
fn both_forms_of_latest_output_find_the_same_rows_by_index() {
    let (db, [user, other]) = long();
    let forms = [
        format!("select * from shell_api.latest_output('{user}')"),
        format!("select * from shell_api.latest_output() where user_id = '{user}'"),
        format!(
            "select * from shell_api.latest_output(n => 20) where user_id = '{user}' order by id desc limit 20"
        ),
    ];
    let whole = format!(
        "select * from shell_api.session_commands((select id from shell.environments where user_id = '{user}' and not is_default), n => 20)"
    );
    for caller in [Caller::user(user), Caller::nobody("shell_admin")] {
        let mut found = Vec::new();
        for sql in forms.iter().chain([&whole]) {
            let ids: Vec<i64> = db.request(&caller, |db| db.column(sql, &[]));
            assert!(ids.is_sorted_by(|a, b| a > b) && ids.len() == 20, "{sql}");
            let pages = db.request(&caller, |db| pages_read(db, sql));
            assert!(pages < 60, "{sql} cost {pages} pages");
            found.push(ids);
        }
        assert!(found.windows(2).all(|pair| pair[0] == pair[1]));
        for sql in &forms {
            let plan: Vec<String> = db.request(&caller, |db| {
                db.column(&format!("explain (costs off) {sql}"), &[])
            });
            let plan = plan.join("\n");
            let inlined = !plan.contains("Function Scan")
                && plan.contains("Index Scan Backward using commands_of_user");
            assert!(inlined, "{sql}: {plan}");
        }
    }
    let none: i64 = db.asked(
        &Caller::user(user),
        "select count(*) from shell_api.latest_output() where user_id = $1",
        &[&other],
    );
    assert_eq!(none, 0);
}

/// Whoever has been idle for long has no row near the end of the log.
#[test]
fn the_audit_log_is_read_from_where_its_readers_part_of_it_is() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let users: Vec<Uuid> = (0..40).map(|n| db.user(&format!("user {n}"))).collect();
    for user in &users {
        finished(&db, *user, db.session(*user), 2_000);
    }
    db.run("vacuum analyze");
    let (idle, busy) = (Caller::user(users[0]), Caller::user(users[39]));
    for caller in [idle, busy, Caller::nobody("shell_auditor")] {
        for below in ["", "where id < 79999"] {
            let sql =
                format!("select * from shell_api.audit_log() {below} order by id desc limit 20");
            let ids: Vec<i64> = db.request(&caller, |db| db.column(&sql, &[]));
            assert!(ids.is_sorted_by(|a, b| a > b) && ids.len() == 20, "{sql}");
            let pages = db.request(&caller, |db| pages_read(db, &sql));
            assert!(pages < 60, "{sql} cost {pages} pages");
        }
    }
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
    let claim = format!("select * from shell.work({worker}, null, 1, null)");
    let finish = format!(
        "select * from shell.work({worker}, (
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

    finished(&db, user, session, 20_000);
    db.query(submit, &[&user, &session, &20_000]);
    for (what, sql) in [("claim", &claim), ("write-back", &finish)] {
        let pages = pages_read(&db, sql);
        assert!(pages < 100, "a {what} cost {pages} pages");
    }
    let done: i64 = db.one(
        "select count(*) from shell.commands where worker_id = $1 and status = 'done'",
        &[&worker],
    );
    assert_eq!(done, 11);
}
