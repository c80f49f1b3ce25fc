//! Nothing lost, nothing twice: workers and Postgres die at any instant.
//!
//! The effects are counted: every command adds one to a variable of its session and prints it, so a
//! session's outputs are 1, 2, 3 … exactly if each state was left once and by one attempt.
//!
//! The instants are random. `PG_SHELL_SEED` sets the seed that a failed run has printed.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use pg_shell_tests::{Cluster, Db, Worker, marked_processes, wait_until_gone};
use uuid::Uuid;

const FLAGS: &[&str] = &[
    "--concurrency",
    "2",
    "--grace",
    "0.05",
    "--lease",
    "2",
    "--max-attempts",
    "1000",
];

/// A xorshift generator: good enough to choose instants.
struct Random(u64);

impl Random {
    fn new() -> Random {
        let seed = match std::env::var("PG_SHELL_SEED") {
            Ok(seed) => seed.parse().expect("PG_SHELL_SEED is a number"),
            Err(_) => {
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap()
                    .as_nanos() as u64
                    | 1
            }
        };
        eprintln!("PG_SHELL_SEED={seed}");
        Random(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    /// Lets a random time pass; nothing is waited for.
    fn pause(&mut self, most: Duration) {
        std::thread::sleep(most.mul_f64(self.below(1000) as f64 / 1000.0));
    }
}

/// Sessions that count, and how often each was told to.
struct Load {
    sessions: Vec<(Uuid, Uuid)>,
    submitted: HashMap<Uuid, i64>,
    random: Random,
}

impl Load {
    fn new(db: &Db) -> Load {
        let users = ["ann", "ben", "cem"].map(|name| db.user(name));
        let sessions = users
            .iter()
            .flat_map(|&user| [user, user])
            .map(|user| (user, db.session(user)));
        Load {
            sessions: sessions.collect(),
            submitted: HashMap::new(),
            random: Random::new(),
        }
    }

    /// Keeps this many waiting.
    fn top_up(&mut self, db: &Db, wanted: i64) {
        let waiting: i64 = db.one(
            "select count(*) from shell.commands where status = 'pending'",
            &[],
        );
        for _ in waiting..wanted {
            let (user, session) =
                self.sessions[self.random.below(self.sessions.len() as u64) as usize];
            let pause = ["", "sleep 0.01; ", "sleep 0.03; "][self.random.below(3) as usize];
            db.submit_to(user, session, &format!("{pause}n=$((n+1)); echo $n"));
            *self.submitted.entry(session).or_default() += 1;
        }
    }

    /// Waits until all is done, and counts.
    fn check(&self, db: &Db) {
        db.until(
            "not exists (select from shell.commands where status in ('pending', 'running'))",
            &[],
        );
        for &(user, session) in &self.sessions {
            let count = self.submitted.get(&session).copied().unwrap_or_default();
            let outputs: Vec<String> = db.column(
                "select coalesce(output, status || ' ' || failure) from shell.commands where environment_id = $1 order by id",
                &[&session],
            );
            let expected: Vec<String> = (1..=count).map(|n| format!("{n}\n")).collect();
            assert_eq!(outputs, expected, "session {session}");
            let last = db.wait(db.submit_to(user, session, "echo ${n-0}"));
            assert_eq!(last.text(), format!("{count}\n"), "session {session}");
        }
        let open: i64 = db.one(
            "select count(*) from shell.commands where status <> 'done' or finished_at is null or attempt < 1",
            &[],
        );
        assert_eq!(open, 0);
    }
}

#[test]
fn a_hundred_kills_at_random_instants() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let mut load = Load::new(&db);
    load.top_up(&db, 20);
    let mut workers = [cluster.worker(FLAGS), cluster.worker(FLAGS)];
    for _ in 0..100 {
        load.random.pause(Duration::from_millis(120));
        let at = load.random.below(2) as usize;
        // Now and then all of them die.
        let dies = if load.random.below(10) == 0 {
            0..2
        } else {
            at..at + 1
        };
        workers[dies.clone()].iter().for_each(Worker::kill);
        // The new one may be killed before it is ready, too.
        dies.for_each(|at| workers[at] = cluster.starting_worker(FLAGS));
        load.top_up(&db, 20);
    }
    load.check(&db);
    let again: i64 = db.one("select count(*) from shell.commands where attempt > 1", &[]);
    assert!(
        again > 20,
        "only {again} commands were hit by a kill: the test tests little"
    );
}

#[test]
fn postgres_crashes_under_load() {
    let cluster = Cluster::new();
    let mut load = Load::new(&cluster.db());
    let workers = [cluster.worker(FLAGS), cluster.worker(FLAGS)];
    for _ in 0..5 {
        let db = cluster.db();
        load.top_up(&db, 60);
        load.random.pause(Duration::from_millis(300));
        cluster.crash();
        cluster.start();
        let db = cluster.db();
        // Each comes back by itself.
        db.until(
            "(select count(*) from pg_stat_activity where application_name = 'exec-worker') = 2",
            &[],
        );
    }
    load.check(&cluster.db());
    for worker in &workers {
        assert!(worker.process().is_running());
        assert!(worker.log().contains("connected again"), "{}", worker.log());
    }
}

#[test]
fn a_paused_worker_cannot_finish_what_another_has_taken() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let user = db.user("paused");
    let paused = cluster.worker(FLAGS);
    let id = db.submit(user, "n=$((n+1)); echo begun; sleep 5; echo $n");
    db.until_prints(id);
    // Long enough for a busy machine to stop it while its command runs; what it sees first when it goes on,
    // the end of its command or its own loss, must not matter.
    paused.process().signal(Signal::SIGSTOP);
    let other = cluster.worker(FLAGS);
    db.until(
        "(select attempt from shell.commands where id = $1) = 2",
        &[&id],
    );
    paused.process().signal(Signal::SIGCONT);
    paused.wait_for_log("given up for lost");

    let command = db.wait(id);
    assert_eq!((command.text(), command.attempt), ("begun\n1\n", 2));
    let finished_by: String = db.one(
        "select w.name from shell.commands c join shell.workers w on w.id = c.worker_id where c.id = $1",
        &[&id],
    );
    assert!(
        finished_by.ends_with(&format!(":{}", other.process().pid())),
        "{finished_by}"
    );
    assert_eq!(db.finish(user, "echo $n").text(), "1\n");
    assert!(paused.process().is_running(), "it works on as a new worker");
}

#[test]
fn a_command_that_loses_its_worker_too_often_fails() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let user = db.user("unlucky");
    let flags = &["--grace", "0.05", "--max-attempts", "2"];
    let id = db.submit(user, "cd /tmp; echo begun; sleep 1000");
    for attempt in 1..=2 {
        let worker = cluster.worker(flags);
        let running = "exists (select from shell.commands where id = $1 and attempt = $2 and status = 'running')";
        db.until(running, &[&id, &attempt]);
        db.until_prints(id);
        worker.kill();
    }
    let _worker = cluster.worker(flags);
    let command = db.wait(id);
    assert_eq!((command.why(), command.attempt), ("worker_lost", 2));
    assert_eq!(
        command.reason(),
        "The worker was lost 2 times while the command ran; it was not tried again."
    );
    assert_eq!(
        db.finish(user, "pwd").text(),
        "/home/sandbox\n",
        "the session goes on as it was before"
    );
}

#[test]
fn a_killed_worker_leaves_no_process() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let user = db.user("orphans");
    let mark = format!("orphan-{}", std::process::id());
    let worker = cluster.worker(&[]);
    let id = db.submit(
        user,
        &format!("(exec -a {mark} setsid sleep 1000) & echo begun; (exec -a {mark} sleep 1000)"),
    );
    db.until_prints(id);
    let pids = marked_processes(&mark);
    assert!(!pids.is_empty(), "the command runs");
    worker.kill();
    wait_until_gone(&pids);
    assert!(marked_processes(&mark).is_empty());
}

#[test]
fn a_write_back_under_an_old_lease_writes_nothing() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let user = db.user("old lease");
    let id = db.submit(user, "echo begun; sleep 1000");
    let lost = cluster.worker(FLAGS);
    db.until_prints(id);
    let holder = "select worker_id from shell.commands where id = $1";
    let old: i64 = db.one(holder, &[&id]);
    lost.kill();
    let _other = cluster.worker(FLAGS);
    db.until(
        "(select attempt from shell.commands where id = $1) = 2",
        &[&id],
    );
    let new: i64 = db.one(holder, &[&id]);
    db.until_prints(id);

    // What the lost worker would send, and what its successor would under the wrong attempt.
    let write_back = "select count(*) from shell.work($1, json_build_array(json_build_object(
        'command_id', $2::bigint, 'attempt', $3::int, 'exit_code', 0, 'output', 'forged', 'truncated', false,
        'age_us', 0, 'duration_us', 0, 'cpu_us', 0, 'cwd_after', '/forged', 'env_after', '{}'::json,
        'shell_state_after', '')), 0, null)";
    for (worker, attempt) in [(old, 1), (old, 2), (new, 1), (new, 3)] {
        db.query(write_back, &[&worker, &id, &attempt]);
        let command = db.command(id);
        assert_eq!((command.status.as_str(), command.output), ("running", None));
    }
    let cwd: String = db.one(
        "select cwd::text from shell.environments where user_id = $1",
        &[&user],
    );
    assert_eq!(cwd, "/home/sandbox");
    db.query(write_back, &[&new, &id, &2]);
    assert_eq!(db.command(id).text(), "forged", "the right lease is taken");
}

/// A command's last output and its result are under way as the connection ends: first the one, behind it the other.
#[test]
fn a_result_that_was_under_way_is_written_over_the_next_connection() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let user = db.user("under way");
    db.run(
        "create function public.slowly() returns trigger language plpgsql as
           $$ begin perform pg_sleep(0.3); return null; end $$;
         create trigger slowly after insert on shell.output_chunks
         for each statement execute function public.slowly()",
    );
    let _worker = cluster.worker(&["--max-attempts", "1"]);
    let shows =
        "pg_stat_activity where query like '%shell.append_output%' and wait_event = 'PgSleep'";
    for round in 0..6 {
        let id = db.submit(user, "echo begun; sleep 0.1; echo ended");
        let last = format!(
            "exists (select from shell.output_chunks where command_id = $1) and exists (select from {shows})"
        );
        db.until(&last, &[&id]);
        db.run(&format!("select pg_terminate_backend(pid) from {shows}"));
        let ran = db.wait(id);
        assert_eq!(
            (&ran.failure_reason, ran.text()),
            (&None, "begun\nended\n"),
            "round {round}"
        );
    }
}
