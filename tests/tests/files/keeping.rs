use pg_shell_tests::shared;
use uuid::Uuid;

use super::{done, listing, session_of, text};

#[test]
fn the_next_command_finds_what_the_last_one_left() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("keeps");
    let session = session_of(&db, user);
    done(
        &db,
        user,
        "mkdir -p src/empty; echo one >src/a; ln -s src/a link; chmod 640 src/a; ln src/a hard",
    );
    assert_eq!(
        listing(&db, session),
        ["hard", "link@", "src/", "src/a", "src/empty/"]
    );
    assert_eq!(
        done(&db, user, "cat link; stat -c %a.%h src/a"),
        "one\n640.2\n"
    );
    done(
        &db,
        user,
        "echo two >>src/a; rm -r src/empty; mv hard moved",
    );
    assert_eq!(text(&db, session, "src/a"), "one\ntwo\n");
    assert_eq!(
        done(&db, user, "find . | sort"),
        ".\n./link\n./moved\n./src\n./src/a\n"
    );
    done(&db, user, "rm -r src link moved");
    assert!(listing(&db, session).is_empty());
    assert_eq!(done(&db, user, "mkdir src; ls -A src"), "");
}

#[test]
fn what_a_shell_does_that_was_ended_is_not_kept() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("ended");
    let session = session_of(&db, user);
    done(&db, user, "echo kept >a");
    for command in [
        "echo lost >a; kill -9 $$",
        "echo lost >a; ulimit -t 1; while :; do :; done",
    ] {
        assert_eq!(db.finish(user, command).why(), "signal");
        assert_eq!(text(&db, session, "a"), "kept\n");
        assert_eq!(done(&db, user, "cat a"), "kept\n");
    }
    // These end by themselves, whatever they say.
    assert_eq!(
        db.finish(user, "echo kept too >b; exit 3").exit_code,
        Some(3)
    );
    assert_eq!(
        db.finish(user, "exec sh -c 'echo more >c'").exit_code,
        Some(0)
    );
    assert_eq!(listing(&db, session), ["a", "b", "c"]);
}

#[test]
fn a_fork_has_the_files_as_they_were() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("forks files");
    let session = session_of(&db, user);
    done(&db, user, "echo one >a");
    let second = db.submit(user, "echo two >a; echo b >b");
    db.wait(second);
    let fork = |after: bool| -> Uuid {
        let sql = "select shell.fork_session($1, $2, after => $3)";
        db.one(sql, &[&user, &second, &after])
    };
    let (before, after) = (fork(false), fork(true));
    let cat = |session| {
        db.wait(db.submit_to(user, session, "cat *; echo x >>a"))
            .text()
            .to_owned()
    };
    assert_eq!(cat(before), "one\n");
    assert_eq!(cat(after), "two\nb\n");
    assert_eq!(text(&db, session, "a"), "two\n");
    assert_eq!(text(&db, before, "a"), "one\nx\n");
}

#[test]
fn history_is_read_file_by_file() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("reads history");
    let session = session_of(&db, user);
    let first = db.submit(user, "printf 'a\\nb\\n' >f");
    db.wait(first);
    let second = db.submit(user, "printf 'a\\nc\\n' >f; mv f g");
    db.wait(second);
    let changes: Vec<String> = db.column(
        "select change || ' ' || path from shell.file_changes($1) order by 1",
        &[&second],
    );
    assert!(!changes.is_empty());
    let at: String = db.one(
        "select convert_from(shell.read_file($1, '/home/sandbox/f', at => $2), 'utf8')",
        &[&session, &first],
    );
    assert_eq!(at, "a\nb\n");
    let broken: i64 = db.one("select count(*) from shell.verify_history($1)", &[&session]);
    assert_eq!(broken, 0);
    // A file that was written by SQL is there for the next command.
    let sql = "select shell.write_file($1, '/home/sandbox/in.csv', '\\x310a')";
    db.query(sql, &[&session]);
    assert_eq!(done(&db, user, "cat in.csv"), "1\n");
}

#[test]
fn a_replay_that_leaves_other_files_says_so() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("replays files");
    let session = session_of(&db, user);
    done(&db, user, "echo same >a");
    done(&db, user, "head -c 8 /dev/urandom >b");
    let replay: Uuid = db.one("select shell.replay_session($1)", &[&session]);
    db.until(
        "not exists (select from shell.commands where environment_id = $1 and finished_at is null)",
        &[&replay],
    );
    let report: Vec<String> = db.column(
        "select r::text from shell.replay_report($1) as r",
        &[&replay],
    );
    assert!(
        report.iter().any(|line| line.contains("/home/sandbox/b")),
        "{report:?}"
    );
    assert!(
        !report.iter().any(|line| line.contains("/home/sandbox/a")),
        "{report:?}"
    );
}

#[test]
fn a_file_that_is_closed_to_its_owner_stays_so() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("closed");
    // So large that it is read a second time, by another thread.
    let make = "head -c 100000 /dev/urandom >z; echo a >a; echo b >b; chmod 000 a; chmod 200 b";
    done(&db, user, make);
    assert_eq!(done(&db, user, "stat -c %a a b"), "0\n200\n");
}
