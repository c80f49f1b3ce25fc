//! The views for metrics and monitoring say what is so.

use pg_shell_tests::{Cluster, worker_user};

#[test]
fn metrics_of_commands_and_users() {
    let cluster = Cluster::new();
    let _worker = cluster.worker(&[]);
    let db = cluster.db();
    let (user, idle) = (db.user("busy"), db.user("idle"));
    let id = db.finish(user, "printf 12345; sleep 0.2").id;
    db.finish(user, "printf 123; for i in {1..20000}; do :; done; exit 1");

    let sane: bool = db.one(
        "select queue_time between '0' and '20 s' and duration between '0.2 s' and '20 s'
           and cpu_time between '0' and duration and peak_memory_bytes between 1000000 and 1000000000
           and output_bytes = 5 and not truncated and attempt = 1 and status = 'done' and failure is null
         from shell.command_metrics where id = $1",
        &[&id],
    );
    assert!(sane);
    let used: bool = db.one(
        "select commands = 2 and failed = 1 and output_bytes = 8 and duration > '0.2 s' and cpu_time > '0'
           and last_submitted_at > now() - interval '1 minute'
         from shell.user_usage where user_id = $1",
        &[&user],
    );
    assert!(used);
    let unused: bool = db.one(
        "select commands = 0 and failed = 0 and output_bytes = 0 and duration = '0' and last_submitted_at is null
         from shell.user_usage where user_id = $1",
        &[&idle],
    );
    assert!(unused);
}

#[test]
fn the_queue() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let empty: bool = db.one(
        "select pending = 0 and oldest_age is null from shell.queue",
        &[],
    );
    assert!(empty);
    let (one, two) = (db.user("one"), db.user("two"));
    let ids = [
        db.submit(one, "true"),
        db.submit(one, "true"),
        db.submit(two, "true"),
    ];
    let second = db.session(two);
    db.submit_to(two, second, "true");
    let counted: bool = db.one(
        "select pending = 4 and sessions = 3 and users = 2 and oldest_age between '0' and '1 minute'
           and oldest_submitted_at = (select submitted_at from shell.commands where id = $1)
         from shell.queue",
        &[&ids[0]],
    );
    assert!(counted);
}

#[test]
fn workers_and_what_they_hold() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let worker = cluster.worker(&["--concurrency", "3", "--lease", "2", "--grace", "0.5"]);
    let id = db.submit(db.user("held"), "echo begun; sleep 1000");
    db.until_prints(id);
    let held: bool = db.one(
        "select state = 'alive' and concurrency = 3 and running = 1 and command_ids = array[$1::bigint]
           and os_user = $2 and name like '%:' || $3 and silent_for < '10 s' from shell.worker_status",
        &[&id, &worker_user(), &worker.process().pid().to_string()],
    );
    assert!(held);
    let beat = "(select count(*) from shell.worker_status where heartbeat_at > started_at + interval '0.5 s') = 1";
    db.until(beat, &[]);

    worker.kill();
    let next = cluster.worker(&["--lease", "2", "--grace", "0.5"]);
    db.until(
        "(select state from shell.worker_status order by id limit 1) = 'stopped'",
        &[],
    );
    // Soft, then hard: the rescued command waits for ever. Two signals at once would count as one.
    next.terminate();
    next.wait_for_log("told to stop");
    next.terminate();
    next.wait();
    let states: Vec<String> = db.column("select state from shell.worker_status order by id", &[]);
    assert_eq!(states, ["stopped", "stopped"]);
}
