//! A long history costs its readers nothing.

use pg_shell_tests::Cluster;
use uuid::Uuid;

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
        let plan: serde_json::Value = db.one(&sql, &[]);
        let plan = &plan[0]["Plan"];
        let pages = plan["Shared Hit Blocks"].as_i64().unwrap()
            + plan["Shared Read Blocks"].as_i64().unwrap();
        assert!(pages < 100, "20 rows cost {pages} pages: {plan:#}");
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
