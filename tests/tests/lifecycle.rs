//! How a worker starts, is refused, and stops.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use pg_shell_tests::{Cluster, Db, Stage, Worker, is_root, postgres_user, shared, worker_user};

/// Starts a command that waits, on a worker of its own.
fn busy(cluster: &Cluster, db: &Db, script: &str) -> (Worker, i64) {
    let worker = cluster.worker(&["--concurrency", "1"]);
    let id = db.submit(db.user("busy"), script);
    db.until_prints(id);
    (worker, id)
}

#[test]
fn sigterm_finishes_what_runs() {
    let cluster = Cluster::new();
    let db = cluster.db();
    // Long enough to be running still when the signal comes.
    let (worker, id) = busy(&cluster, &db, "echo begun; sleep 2; cd /tmp");
    let later = db.submit(db.user("later"), "true");
    worker.terminate();
    worker.wait_for_log("told to stop");
    assert!(worker.wait().success(), "{}", worker.log());
    let command = db.command(id);
    assert_eq!(
        (command.status.as_str(), command.cwd_after.as_deref()),
        ("done", Some("/tmp"))
    );
    assert_eq!(db.command(later).status, "pending", "it claims no more");
    let state: String = db.one("select state from shell.worker_status", &[]);
    assert_eq!(state, "stopped");
}

#[test]
fn a_second_sigterm_ends_at_once_and_puts_back() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let (worker, id) = busy(
        &cluster,
        &db,
        "if [ -z \"$SECOND\" ]; then echo begun; sleep 1000; fi; echo again",
    );
    worker.terminate();
    worker.wait_for_log("told to stop");
    assert!(worker.process().is_running());
    worker.terminate();
    assert!(worker.wait().success(), "{}", worker.log());
    let command = db.command(id);
    assert_eq!((command.status.as_str(), command.output), ("pending", None));
    db.query(
        "update shell.environments set env = '{\"SECOND\": \"1\"}'",
        &[],
    );
    let _next = cluster.worker(&[]);
    let command = db.wait(id);
    assert_eq!((command.text(), command.attempt), ("again\n", 2));
}

#[test]
fn sigint_does_the_same_and_an_idle_worker_leaves_at_once() {
    let worker = shared::cluster().worker(&[]);
    worker.process().signal(nix::sys::signal::Signal::SIGINT);
    assert!(worker.wait().success(), "{}", worker.log());
}

#[test]
fn a_worker_waits_for_a_database_that_is_not_there_and_can_be_stopped() {
    let cluster = Cluster::new();
    cluster.crash();
    let worker = cluster.starting_worker(&[]);
    worker.wait_for_log("cannot reach the database");
    cluster.start();
    let worker = worker.ready();
    cluster.crash();
    worker.wait_for_log("connection to the database lost");
    worker.terminate();
    assert!(worker.wait().success(), "{}", worker.log());
}

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(Stage::find().worker());
    command
        .env_clear()
        .args(arguments)
        .envs(environment.iter().copied());
    command.output().expect("a worker")
}

#[test]
fn help_and_version() {
    let help = run(&["--help"], &[]);
    assert!(help.status.success());
    let text = String::from_utf8(help.stdout).unwrap();
    for flag in [
        "database-url",
        "concurrency",
        "launcher",
        "lease",
        "grace",
        "max-attempts",
        "log-format",
    ] {
        assert!(text.contains(&format!("--{flag}")), "{text}");
        let variable = format!("PG_SHELL_{}", flag.to_uppercase().replace('-', "_"));
        assert!(text.contains(&variable), "{variable} is missing in: {text}");
    }
    let version = String::from_utf8(run(&["--version"], &[]).stdout).unwrap();
    assert_eq!(
        version,
        concat!("exec-worker ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn wrong_settings_are_refused_by_name() {
    let url = ["--database-url", "host=/nowhere user=x"];
    for (flag, value) in [
        ("--concurrency", "0"),
        ("--concurrency", "many"),
        ("--lease", "0"),
        ("--grace", "soon"),
        ("--max-attempts", "0"),
        ("--log-format", "xml"),
        ("--no-such-flag", "1"),
    ] {
        assert_named(&run(&[url[0], url[1], flag, value], &[]), flag);
    }
    assert_named(
        &run(&[url[0], url[1]], &[("PG_SHELL_CONCURRENCY", "-1")]),
        "--concurrency",
    );
    assert_named(&run(&[], &[]), "--database-url");
    assert_named(&run(&["--database-url", "nonsense"], &[]), "--database-url");
}

#[track_caller]
fn assert_named(output: &Output, name: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(name), "{name} is not in: {text}");
}

/// Starts a worker that must refuse to work; returns what it says.
#[track_caller]
fn refused(user: &str, flags: &[&str]) -> String {
    let connection = shared::cluster().connection("shell_worker", "pg_shell");
    let mut all = vec!["--database-url", &connection];
    all.extend(flags);
    Worker::run_as(user, &Stage::find().worker(), &all).refusal()
}

#[test]
fn wrong_launchers_are_refused() {
    let allowed = if is_root() {
        vec![]
    } else {
        vec!["--allow-postgres-user"]
    };
    for launcher in ["pg-shell-launch", "/no/such/launcher", "/etc/passwd"] {
        let mut flags = allowed.clone();
        flags.extend(["--launcher", launcher]);
        let text = refused(&worker_user(), &flags);
        assert!(
            text.contains("--launcher") && text.contains(launcher),
            "{text}"
        );
    }
    let mut flags = allowed;
    flags.extend(["--log", "==="]);
    assert!(refused(&worker_user(), &flags).contains("--log"));
}

#[test]
fn root_and_the_user_of_postgres_are_refused() {
    if is_root() {
        let text = refused("root", &[]);
        assert!(text.contains("does not run as root"), "{text}");
    }
    let text = refused(&postgres_user(), &[]);
    assert!(text.contains("--allow-postgres-user"), "{text}");
}

#[test]
fn an_unknown_version_and_a_missing_extension_are_refused() {
    let cluster = Cluster::new();
    let db = cluster.db();
    db.run("update pg_extension set extversion = '9.9' where extname = 'pg_shell'");
    let log = cluster.starting_worker(&[]).refusal();
    assert!(log.contains("has pg_shell 9.9"), "{log}");
    db.run("update pg_extension set extversion = '0.1.0' where extname = 'pg_shell'; drop extension pg_shell");
    let log = cluster.starting_worker(&[]).refusal();
    assert!(log.contains("create extension pg_shell"), "{log}");
}

#[test]
fn logs_for_machines() {
    let worker = shared::cluster().worker(&["--log-format", "json", "--log", "debug"]);
    worker.terminate();
    assert!(worker.wait().success());
    let log = worker.log();
    for line in log.lines() {
        let line: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(
            line["timestamp"].is_string() && line["level"].is_string(),
            "{line}"
        );
    }
    assert!(log.contains("\"ready\""), "{log}");
}

#[test]
fn logs_for_people_are_plain_text_in_a_pipe() {
    let worker = shared::cluster().worker(&[]);
    worker.terminate();
    worker.wait();
    assert!(!worker.log().contains('\u{1b}'), "{}", worker.log());
}

#[test]
fn a_kill_is_seen_as_one() {
    let worker = shared::cluster().worker(&[]);
    worker.kill();
    assert_eq!(worker.wait().signal(), Some(9));
}
