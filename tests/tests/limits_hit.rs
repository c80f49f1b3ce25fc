//! Limits: how a command ends that runs into one, as a row and in `run_command`.

use pg_shell_tests::{Cluster, Db, shared};
use serde_json::json;
use uuid::Uuid;

fn cluster() -> &'static Cluster {
    shared::with_worker(&["--concurrency", "4"])
}

fn usual_open_files(db: &Db) -> i64 {
    db.one("select open_files from shell.default_limits()", &[])
}

#[test]
fn each_limit_that_a_command_asked_for_ends_it_and_says_so() {
    let db = cluster().db();
    let user = db.user("each limit");
    let cases = [
        (
            json!({"wall_seconds": 1}),
            "echo kept; sleep 1000",
            "timeout",
            "The command took longer than 1 second and was ended.",
        ),
        (
            json!({"cpu_seconds": 1}),
            "echo kept; while :; do :; done",
            "limit",
            "The command used more than 1 second of CPU and was ended.",
        ),
        (
            json!({"cpu_seconds": 1}),
            "echo kept; sh -c 'while :; do :; done' 2>/dev/null",
            "limit",
            "The command used more than 1 second of CPU and was ended.",
        ),
        (
            json!({"memory_bytes": 64 << 20}),
            "echo kept; tail /dev/zero 2>/dev/null",
            "out_of_memory",
            "The command ran out of memory: it may use 67108864 bytes.",
        ),
        (
            json!({"cpu_seconds": 2}),
            "echo kept; for i in {1..50}; do timeout 0.5 sh -c 'while :; do :; done'; done",
            "limit",
            "The command used more than 2 seconds of CPU and was ended.",
        ),
        (
            json!({"memory_bytes": 64 << 20}),
            "echo kept; for i in {1..4}; do perl -e '$x = q(x); $x x= 30 << 20; sleep 1000' & done; wait",
            "out_of_memory",
            "The command ran out of memory: it may use 67108864 bytes.",
        ),
        (
            json!({"file_size_bytes": 65536}),
            "echo kept; printf '%70000s' x >/tmp/file",
            "limit",
            "A process of the command wrote more than 65536 bytes into one file and was ended.",
        ),
        (
            json!({"output_bytes": 5}),
            "echo kept; echo lost",
            "limit",
            "The command printed more than 5 bytes and was ended; the first 5 are kept.",
        ),
    ];
    for (limits, command, failure, reason) in cases {
        let command = db.finish_limited(user, command, &limits);
        assert_eq!(
            (command.why(), command.reason()),
            (failure, reason),
            "{command:?}"
        );
        assert_eq!(command.stdout.as_deref(), Some("kept\n"), "{command:?}");
    }
    assert_eq!(
        db.finish(user, "ulimit -n").text(),
        format!("{}\n", usual_open_files(&db)),
        "the next command has the usual limits"
    );
}

#[test]
fn the_limits_that_only_say_no_are_left_to_the_command() {
    let db = cluster().db();
    let user = db.user("no");
    let disk = db.finish_limited(
        user,
        "head -c 1000000 /dev/zero >/tmp/file",
        &json!({"disk_bytes": 65536}),
    );
    assert_eq!(disk.why(), "exit");
    assert!(disk.text().contains("No space left"), "{disk:?}");
    let files = db.finish_limited(
        user,
        "for i in {10..60}; do eval \"exec $i</dev/null\" || exit 9; done",
        &json!({"open_files": 32}),
    );
    assert_eq!((files.why(), files.exit_code), ("exit", Some(9)));
    assert!(files.text().contains("file descriptor"), "{files:?}");
    let processes = db.finish_limited(
        user,
        "sleep 1000 & sleep 1000 & sleep 1000",
        &json!({"processes": 2, "wall_seconds": 2}),
    );
    assert_eq!(processes.why(), "timeout");
    assert!(processes.text().contains("fork"), "{processes:?}");
}

#[test]
fn a_replay_has_the_limits_of_the_original() {
    let db = cluster().db();
    let user = db.user("replayed");
    let original = db.finish_limited(user, "ulimit -n", &json!({"open_files": 77}));
    assert_eq!(original.text(), "77\n");
    let session: Uuid = db.one(
        "select shell.replay_session(environment_id) from shell.commands where id = $1",
        &[&original.id],
    );
    let replay: i64 = db.one(
        "select max(id) from shell.commands where environment_id = $1",
        &[&session],
    );
    assert_eq!(db.wait(replay).text(), "77\n");
}

/// What `run_command` returns, and its warnings.
fn run_command(cluster: &Cluster, set: &str, command: &str, limits: &str) -> (String, String) {
    let call = format!(
        "select exit_code, output from shell.run_command('/tmp', '{{}}', $c${command}$c$, '{limits}')"
    );
    let arguments = [
        "-X", "-A", "-t", "-q", "-d", "pg_shell", "-c", set, "-c", &call,
    ];
    let output = cluster.client("psql", &arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn run_command_ends_at_each_limit_too_and_warns() {
    let cluster = cluster();
    let cases = [
        (
            "{\"wall_seconds\": 1}",
            "echo kept; sleep 1000",
            124,
            "took longer than 1 second",
        ),
        (
            "{\"cpu_seconds\": 1}",
            "echo kept; while :; do :; done",
            152,
            "more than 1 second of CPU",
        ),
        (
            "{\"memory_bytes\": 67108864}",
            "echo kept; tail /dev/zero 2>&-",
            1,
            "ran out of memory",
        ),
        (
            "{\"file_size_bytes\": 65536}",
            "echo kept; printf '%70000s' x >file",
            153,
            "into one file",
        ),
        (
            "{\"output_bytes\": 5}",
            "echo kept; echo lost",
            137,
            "printed more than 5 bytes",
        ),
    ];
    for (limits, command, code, warning) in cases {
        let (row, warnings) = run_command(cluster, "", command, limits);
        assert_eq!(row, format!("{code}|kept\n\n"), "{warnings}");
        assert!(warnings.contains("WARNING"), "{warnings}");
        assert!(warnings.contains(warning), "{warnings}");
        // The same as a maximum, with more asked for.
        let set = format!("set pg_shell.max_limits = '{limits}'");
        let (row, warnings) = run_command(cluster, &set, command, "{\"wall_seconds\": 3600}");
        assert_eq!(row, format!("{code}|kept\n\n"), "{warnings}");
        assert!(warnings.contains(warning), "{warnings}");
    }
    let (row, warnings) = run_command(cluster, "", "ulimit -n", "{\"open_files\": 50}");
    assert_eq!((row.as_str(), warnings.as_str()), ("0|50\n\n", ""));
    let (row, _) = run_command(cluster, "", "ulimit -n", "{\"open_files\": 60000}");
    assert_eq!(
        row,
        format!("0|{}\n\n", usual_open_files(&cluster.db())),
        "never more"
    );
}
