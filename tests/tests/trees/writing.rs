//! Files written by SQL, snapshots, forks and replays.

use serde_json::json;
use uuid::Uuid;

use crate::hand::{Change, Hand};

#[test]
fn a_file_is_written_by_a_command_of_its_own() {
    let hand = Hand::new("write");
    let db = &hand.db;
    let write = |path: &str, content: &[u8]| -> i64 {
        db.one(
            "select shell.write_file($1, $2, $3)",
            &[&hand.session, &path, &content],
        )
    };
    let first = write("/home/sandbox/in/deep/a.csv", b"1,2\n");
    assert_eq!(
        hand.files(hand.session),
        ["in/", "in/deep/", "in/deep/a.csv:4"]
    );
    let command = db.command(first);
    assert_eq!(
        (command.status.as_str(), command.exit_code),
        ("done", Some(0))
    );
    let told: String = db.one(
        "select command from shell.commands where id = $1",
        &[&first],
    );
    assert!(
        told.starts_with("# write_file /home/sandbox/in/deep/a.csv: 4 bytes"),
        "{told}"
    );
    write("/home/sandbox/in/deep/a.csv", b"");
    let mode = "select mode from shell.files($1) where type = 'file'";
    db.one::<i64>(
        "select shell.write_file($1, '/home/sandbox/in/deep/a.csv', 'x', 448)",
        &[&hand.session],
    );
    assert_eq!(db.one::<String>(mode, &[&hand.session]), "0700");
    write("/home/sandbox/in/deep/a.csv", b"same mode");
    assert_eq!(db.one::<String>(mode, &[&hand.session]), "0700");
    assert_eq!(
        hand.files_at(hand.session, Some(first)),
        ["in/", "in/deep/", "in/deep/a.csv:4"]
    );
    assert_eq!(hand.broken(hand.session), None);
}

#[test]
fn what_cannot_be_written() {
    let hand = Hand::new("refused");
    let db = &hand.db;
    hand.run(
        &Change::new()
            .file("file", "x")
            .folder("folder")
            .symlink("link", "/etc"),
    );
    let commands = || -> i64 {
        db.one(
            "select count(*) from shell.commands where user_id = $1",
            &[&hand.user],
        )
    };
    let before = commands();
    let write = "select shell.write_file($1, $2, 'x')";
    for (path, code) in [
        ("/home/sandbox/folder", "PS034"),
        ("/home/sandbox/link", "PS034"),
        ("/home/sandbox/file/below", "PS034"),
        ("/home/sandbox/link/passwd", "PS034"),
        ("/etc/passwd", "PS037"),
        ("/home/sandbox/../x", "PS037"),
        ("/home/sandbox/", "PS037"),
        ("/home/sandbox/a//b", "PS037"),
        (&format!("/home/sandbox/{}", "x".repeat(256)), "PS037"),
        (&format!("/home/sandbox/{}", "x/".repeat(2100)), "PS037"),
    ] {
        let refusal = db.refused(write, &[&hand.session, &path]);
        assert!(
            refusal.code == code && !refusal.hint.is_empty(),
            "{path}: {refusal:?}"
        );
    }
    for (sql, code) in [
        (
            "select shell.write_file($1, '/home/sandbox/a', null)",
            "PS040",
        ),
        (
            "select shell.write_file($1, '/home/sandbox/a', 'x', 4095)",
            "PS040",
        ),
        ("select shell.write_file($1, null, 'x')", "PS037"),
    ] {
        assert_eq!(db.refused(sql, &[&hand.session]).code, code, "{sql}");
    }
    assert_eq!(
        db.refused(write, &[&Uuid::new_v4(), &"/home/sandbox/a"])
            .code,
        "PS002"
    );
    db.limit(hand.user, "storage_bytes", 5);
    let over = db.refused(
        "select shell.write_file($1, '/home/sandbox/a', 'too much')",
        &[&hand.session],
    );
    assert!(
        over.code == "PS034" && over.message.contains("5 are allowed"),
        "{over:?}"
    );
    assert_eq!(commands(), before, "nothing of it is kept");
}

#[test]
fn it_waits_for_its_turn() {
    // A claim takes whose turn it is, so nobody else's commands are to wait.
    let cluster = pg_shell_tests::Cluster::new();
    let hand = Hand::of(cluster.db(), "turn");
    let db = &hand.db;
    let first = db.submit_to(hand.user, hand.session, "first");
    let written: i64 = db.one(
        "select shell.write_file($1, '/home/sandbox/a', 'x')",
        &[&hand.session],
    );
    let blocked: i64 = db.one(
        "select shell.write_file($1, '/home/sandbox/a/b', 'x')",
        &[&hand.session],
    );
    let last = db.submit_to(hand.user, hand.session, "last");
    let claim = |results: Option<serde_json::Value>| -> Vec<(i64, i32, Option<i64>)> {
        let sql = "select command_id, attempt, tree from shell.work($1, $2, 5, null)";
        let rows = db.query(sql, &[&hand.worker, &results]);
        rows.iter()
            .map(|row| (row.get(0), row.get(1), row.get(2)))
            .collect()
    };
    assert_eq!(claim(None), [(first, 1, None)]);
    assert_eq!(db.command(written).status, "pending");
    let tree = hand.store(first, 1, &Change::new().file("b", "y")).unwrap();
    let result = json!([{"command_id": first, "attempt": 1, "exit_code": 0, "truncated": false, "age_us": 1,
        "duration_us": 1, "cpu_us": 0, "tree_after": tree}]);
    // Both are done between the two that a worker runs.
    let claimed = claim(Some(result));
    assert_eq!(claimed, [(last, 1, hand.tree(hand.session))]);
    assert_eq!(db.command(written).status, "done");
    let blocked = db.command(blocked);
    assert_eq!(
        (blocked.why(), blocked.reason()),
        ("refused", "/home/sandbox/a is a file, not a folder.")
    );
    assert_eq!(hand.files(hand.session), ["a:1", "b:1"]);
    assert!(hand.finish(last, 1, json!({})));
    assert_eq!(hand.broken(hand.session), None);

    let waiting = db.submit_to(hand.user, hand.session, "waits");
    let cancelled: i64 = db.one(
        "select shell.write_file($1, '/home/sandbox/c', 'x')",
        &[&hand.session],
    );
    assert!(db.cancel(cancelled) && db.cancel(waiting));
    assert_eq!(hand.files(hand.session), ["a:1", "b:1"]);
}

#[test]
fn snapshots_bring_all_back() {
    let hand = Hand::new("snapshots");
    let db = &hand.db;
    let session = hand.session;
    let named = |function: &str, name: &str| {
        format!("select shell.{function}('{session}', name => '{name}')")
    };
    db.run(&named("create_snapshot", "empty"));
    let command = db.submit_to(hand.user, session, "cd /tmp");
    let (attempt, _) = hand.take(command);
    let tree = hand
        .store(
            command,
            attempt,
            &Change::new().folder("d").file("d/a", "1"),
        )
        .unwrap();
    let state = json!({"tree_after": tree, "cwd_after": "/tmp", "env_after": {"A": "1"}, "shell_state_after": "x"});
    assert!(hand.finish(command, attempt, state));
    db.run(&named("create_snapshot", "before refactoring"));
    hand.run(&Change::new().gone("d").file("b", "2"));
    let restored: i64 = db.one(&named("restore_snapshot", "before refactoring"), &[]);
    assert_eq!(hand.files(session), ["d/", "d/a:1"]);
    let changes: Vec<String> = db.column(
        "select change || ' ' || substring(path from 15) from shell.file_changes($1)",
        &[&restored],
    );
    assert_eq!(changes, ["deleted b", "created d", "created d/a"]);
    db.run(&named("restore_snapshot", "empty"));
    assert!(hand.files(session).is_empty());
    let cwd = "select cwd::text from shell.environments where id = $1";
    assert_eq!(db.one::<String>(cwd, &[&session]), "/home/sandbox");
    db.run(&named("restore_snapshot", "before refactoring"));
    assert_eq!(db.one::<String>(cwd, &[&session]), "/tmp");
    hand.run(&Change::new().file("d/a", "changed after"));
    assert_eq!(hand.files(session), ["d/", "d/a:13"]);
    assert_eq!(hand.broken(session), None);

    for function in ["restore_snapshot", "delete_snapshot"] {
        let refusal = db.refused(&named(function, "unknown"), &[]);
        assert!(
            refusal.code == "PS036" && !refusal.hint.is_empty(),
            "{refusal:?}"
        );
    }
    assert_eq!(
        db.refused(&named("create_snapshot", "empty"), &[]).code,
        "PS036"
    );
    assert_eq!(db.refused(&named("create_snapshot", ""), &[]).code, "23514");
    db.run(&named("delete_snapshot", "empty"));
    db.run(&named("create_snapshot", "empty"));
}

#[test]
fn forks_have_the_files_as_they_were() {
    let hand = Hand::new("forks");
    let first = hand.run(&Change::new().file("a", "1"));
    let second = hand.run(&Change::new().file("a", "12"));
    hand.run(&Change::new().gone("a"));
    let fork = |command: i64, after: bool| -> Uuid {
        hand.db.one(
            "select shell.fork_session($1, $2, $3)",
            &[&hand.user, &command, &after],
        )
    };
    assert!(hand.files(fork(first, false)).is_empty());
    assert_eq!(hand.files(fork(second, false)), ["a:1"]);
    let last = fork(second, true);
    assert_eq!(hand.files(last), ["a:2"]);
    hand.run_in(last, &Change::new().file("b", "1"));
    assert_eq!(hand.files(last), ["a:2", "b:1"]);
    assert!(hand.files(hand.session).is_empty());
    let at = "select * from shell.files($1, $2)";
    assert_eq!(
        hand.db.refused(at, &[&last, &first]).code,
        "PS006",
        "that is a command of another session"
    );
}

#[test]
fn a_replay_tells_which_command_diverged_and_how() {
    let hand = Hand::new("replay");
    let db = &hand.db;
    hand.run(&Change::new().file("a", "same"));
    db.one::<i64>(
        "select shell.write_file($1, '/home/sandbox/in', 'data')",
        &[&hand.session],
    );
    let diverging = hand.run(&Change::new().file("b", "12:00").file("c", "same"));
    hand.run(&Change::new().file("d", "same"));
    let replay: Uuid = db.one("select shell.replay_session($1)", &[&hand.session]);
    let commands: Vec<i64> = db.column(
        "select id from shell.commands where environment_id = $1 order by id",
        &[&replay],
    );
    let play = |command: i64, change: &Change| {
        let (attempt, _) = hand.take(command);
        let tree = hand.store(command, attempt, change).unwrap();
        assert!(hand.finish(command, attempt, json!({"tree_after": tree})));
    };
    // At another time, which does not count.
    play(commands[0], &Change::new().timed("a", "same", 77));
    db.query("select shell.perform_action($1)", &[&commands[1]]);
    let report = || db.query("select * from shell.replay_report($1)", &[&replay]);
    assert!(report().is_empty());
    play(
        commands[2],
        &Change::new()
            .file("b", "13:00")
            .file("c", "same")
            .file("more", ""),
    );
    play(commands[3], &Change::new().file("d", "same"));
    let differing: Vec<bool> = db.column(
        "select differs from shell.replay_differences where replay_id = $1 order by replay_command_id",
        &[&replay],
    );
    assert_eq!(differing, [false, false, true, true]);
    let rows = report();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].get::<_, i64>("original_command_id"), diverging);
    assert_eq!(
        rows[0].get::<_, Vec<String>>("differences"),
        [
            "file: modified /home/sandbox/b",
            "file: created /home/sandbox/more"
        ]
    );
}
