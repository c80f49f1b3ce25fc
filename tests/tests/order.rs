//! Order, atomicity and fairness under many workers.

use std::sync::atomic::{AtomicBool, Ordering};

use pg_shell_tests::{Cluster, Db, Worker};
use uuid::Uuid;

const USERS: usize = 10;
const SESSIONS_EACH: usize = 20;
const COMMANDS_EACH: usize = 10;

/// What no transaction may ever see, each row of it.
const VIOLATIONS: &str = "
    select 'finished without output or exit code: ' || id from shell.commands
    where status in ('done', 'failed') and (output is null or exit_code is null or finished_at is null)
  union all
    select 'output before its end: ' || id from shell.commands
    where status in ('pending', 'running') and (output is not null or exit_code is not null)
  union all
    select 'two run in session ' || environment_id from shell.commands
    where status = 'running' group by environment_id having count(*) > 1
  union all
    select 'out of order in session ' || environment_id from shell.commands
    group by environment_id
    having max(id) filter (where status in ('done', 'failed')) > min(id) filter (where status in ('pending', 'running'))
  union all
    select 'state and history differ in session ' || e.id
    from shell.environments e
    join shell.commands c on c.environment_id = e.id
    group by e.id
    having coalesce(substring(e.shell_state from '\\mn=[\"'']?(\\d+)')::int, 0) <> count(*) filter (where c.status = 'done')";

#[test]
fn order_and_atomicity_under_8_workers_and_200_sessions() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let users: Vec<Uuid> = (0..USERS).map(|i| db.user(&format!("user {i}"))).collect();
    let sessions: Vec<(Uuid, Uuid)> = users
        .iter()
        .flat_map(|&user| (0..SESSIONS_EACH).map(move |_| user))
        .map(|user| (user, db.session(user)))
        .collect();
    let workers: Vec<Worker> = (0..8)
        .map(|_| cluster.starting_worker(&["--concurrency", "2"]))
        .collect();
    let workers: Vec<Worker> = workers.into_iter().map(Worker::ready).collect();

    let over = AtomicBool::new(false);
    let looks = std::thread::scope(|scope| {
        let observer = scope.spawn(|| observe(&cluster.db(), &over));
        // Two submit side by side, round by round, so that sessions grow while they are worked on.
        let halves = sessions.chunks(sessions.len() / 2);
        let submitters = halves.map(|half| {
            let cluster = &cluster;
            scope.spawn(move || submit_rounds(&cluster.db(), half))
        });
        let submitters: Vec<_> = submitters.collect();
        submitters
            .into_iter()
            .for_each(|submitter| submitter.join().unwrap());
        db.until(
            "not exists (select from shell.commands where status in ('pending', 'running'))",
            &[],
        );
        over.store(true, Ordering::Relaxed);
        observer.join().unwrap()
    });
    assert!(looks > 20, "the observer has looked {looks} times only");

    let outputs: Vec<Vec<String>> = db.column(
        "select array_agg(output order by id) from shell.commands group by environment_id",
        &[],
    );
    assert_eq!(outputs.len(), USERS * SESSIONS_EACH);
    let expected: Vec<String> = (1..=COMMANDS_EACH).map(|n| format!("{n}\n")).collect();
    assert!(
        outputs.iter().all(|outputs| *outputs == expected),
        "{outputs:?}"
    );
    let busy: i64 = db.one("select count(distinct worker_id) from shell.commands", &[]);
    assert!(busy >= 4, "{busy} workers had a share only");
    let retried: i64 = db.one(
        "select count(*) from shell.commands where status <> 'done'",
        &[],
    );
    assert_eq!(retried, 0);
    drop(workers);
}

fn submit_rounds(db: &Db, sessions: &[(Uuid, Uuid)]) {
    for _ in 0..COMMANDS_EACH {
        for &(user, session) in sessions {
            db.submit_to(user, session, "n=$((n+1)); echo $n");
        }
    }
}

fn observe(db: &Db, over: &AtomicBool) -> usize {
    let mut looks = 0;
    while !over.load(Ordering::Relaxed) {
        let violations: Vec<String> = db.column(VIOLATIONS, &[]);
        assert!(violations.is_empty(), "{violations:#?}");
        looks += 1;
    }
    looks
}

#[test]
fn one_session_runs_in_the_order_of_submission() {
    let cluster = Cluster::new();
    let _workers = [
        cluster.worker(&["--concurrency", "4"]),
        cluster.worker(&["--concurrency", "4"]),
    ];
    let db = cluster.db();
    let user = db.user("one session");
    let ids: Vec<i64> = (0..100)
        .map(|i| db.submit(user, &format!("all=\"$all {i}\"; echo $all")))
        .collect();
    let all: Vec<String> = (0..100).map(|i| i.to_string()).collect();
    assert_eq!(db.wait(ids[99]).text(), all.join(" ") + "\n");
    let overlaps: i64 = db.one(
        "select count(*) from shell.commands a join shell.commands b on b.id = a.id + 1 where b.started_at < a.finished_at",
        &[],
    );
    assert_eq!(overlaps, 0);
}

#[test]
fn a_user_with_much_does_not_keep_others_waiting() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let (greedy, modest) = (db.user("greedy"), db.user("modest"));
    let sessions: Vec<Uuid> = (0..50).map(|_| db.session(greedy)).collect();
    db.run("begin");
    for i in 0..500 {
        db.submit_to(greedy, sessions[i % 50], "true");
    }
    db.run("commit");
    let _worker = cluster.worker(&["--concurrency", "2"]);
    let finished = "(select count(*) from shell.commands where user_id = $1 and finished_at is not null) >= 20";
    db.until(finished, &[&greedy]);
    let id = db.submit(modest, "true");
    db.wait(id);
    let before: i64 = db.one(
        "select count(*) from shell.commands as g, shell.commands as m
         where m.id = $1 and g.user_id = $2 and g.finished_at between m.submitted_at and m.finished_at",
        &[&id, &greedy],
    );
    assert!(
        before < 50,
        "{before} of the other user's commands came first"
    );
}
