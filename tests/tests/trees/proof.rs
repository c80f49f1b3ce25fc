//! Whatever of history is altered past the triggers is found.

use serde_json::json;
use uuid::Uuid;

use crate::hand::{Change, Hand};

/// Runs SQL as somebody who turns triggers and constraints off, and takes it back after the look at history.
fn after(hand: &Hand, session: Uuid, sql: &str) -> Option<(i64, String)> {
    hand.db.run(&format!(
        "begin; set local session_replication_role = replica; {sql}"
    ));
    let broken = hand.broken(session);
    hand.db.run("rollback");
    broken
}

/// A session with a fork, a failure, a cancelled command and one that changed nothing.
fn history(name: &str) -> (Hand, Vec<i64>) {
    let hand = Hand::new(name);
    let mut commands =
        vec![hand.run(&Change::new().folder("d").file("d/a", "1").symlink("s", "d"))];
    let cancelled = hand.db.submit_to(hand.user, hand.session, "never ran");
    assert!(hand.db.cancel(cancelled));
    commands.push(cancelled);
    commands.push(hand.run(&Change::new().file("d/a", "2").file("b", "x")));
    commands.push(hand.run(&Change::new()));
    let failing = hand.db.submit_to(hand.user, hand.session, "false");
    let (attempt, _) = hand.take(failing);
    let env = json!({"A": "1"});
    let result = json!({"failure": "exit", "failure_reason": "It failed.", "exit_code": 1, "raw_output": "AAE=",
        "not_kept": ["s: socket"], "cwd_after": "/tmp", "env_after": env, "shell_state_after": "f() { :; }"});
    assert!(hand.finish(failing, attempt, result));
    commands.push(failing);
    commands.push(hand.run(&Change::new().gone("d")));
    assert_eq!(hand.broken(hand.session), None);
    (hand, commands)
}

#[test]
fn each_column_of_a_finished_command_is_bound() {
    let (hand, commands) = history("columns");
    let columns: Vec<(String, String)> = (hand.db)
        .query(
            "select attname::text, format_type(atttypid, null) from pg_attribute
             where attrelid = 'shell.commands'::regclass and attnum > 0 and not attisdropped",
            &[],
        )
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    assert!(columns.len() >= 39, "{}", columns.len());
    let other = |kind: &str| match kind {
        "bigint" | "integer" => "coalesce({}, 0) + 1",
        "boolean" => "not {}",
        "uuid" => "gen_random_uuid()",
        "timestamp with time zone" => "coalesce({}, now()) + interval '1 microsecond'",
        "interval" => "coalesce({}, '0') + interval '1 microsecond'",
        "bytea" | "shell.sha256" => "sha256(coalesce({}, ''))",
        "jsonb" | "shell.variables" => "coalesce({}, '{}') || '{\"other\": \"x\"}'",
        "shell.limits" => "row(1, null, null, null, null, null, null, null)::shell.limits",
        "text[]" => "coalesce({}, '{}') || array['x']",
        "shell.absolute_path" => "coalesce({}, '') || '/x'",
        "text" => "coalesce({}, '') || 'x'",
        kind => panic!("how is a {kind} altered?"),
    };
    for (column, kind) in &columns {
        let value = other(kind).replace("{}", column);
        // Each of the first six finds it, the one that never ran among them.
        for &command in &commands[..5] {
            let constraints = "alter table shell.commands drop constraint status_enum, drop constraint failed_says_why,
                drop constraint done_means_exit_0, drop constraint finished_has_its_time,
                drop constraint failure_enum, drop constraint running_has_its_worker;";
            let sql = format!(
                "{constraints} update shell.commands set {column} = {value} where id = {command}"
            );
            let broken = after(&hand, hand.session, &sql);
            // One that is no longer finished, or another's, is missing from the chain.
            let found = broken
                .unwrap_or_else(|| panic!("{column} of {command} was altered, and nobody noticed"));
            assert!(
                found.0 >= command.min(commands[0]),
                "{column} of {command}: {found:?}"
            );
        }
    }
    for &command in &commands[..5] {
        let cleared = format!("update shell.commands set output = null where id = {command}");
        let broken = after(&hand, hand.session, &cleared);
        let had_none: bool = hand.db.one(
            "select output is null from shell.commands where id = $1",
            &[&command],
        );
        assert_eq!(broken.map(|(id, _)| id), (!had_none).then_some(command));
    }
}

#[test]
fn files_are_bound() {
    let (hand, commands) = history("files");
    let trees: Vec<i64> = hand.db.column(
        "select id from shell.trees where user_id = $1 order by id",
        &[&hand.user],
    );
    for (position, alteration) in [
        (
            0,
            "update shell.fs_entries set mode = 511 where tree_id = {} and kind = 'folder'",
        ),
        (
            0,
            "update shell.fs_entries set mtime_ns = mtime_ns + 1 where tree_id = {} and kind = 'symlink'",
        ),
        (
            0,
            "update shell.fs_entries set target = 'x' where tree_id = {} and kind = 'symlink'",
        ),
        (
            0,
            "update shell.fs_entries set path = 'd/b' where tree_id = {} and path = 'd/a'",
        ),
        (
            1,
            "update shell.fs_entries set content = sha256('1') where tree_id = {} and path = 'd/a'",
        ),
        (
            1,
            "update shell.fs_entries set size = size + 1 where tree_id = {} and path = 'd/a'",
        ),
        (
            1,
            "update shell.fs_entries set link_group = 1 where tree_id = {} and path = 'd/a'",
        ),
        (
            1,
            "delete from shell.fs_entries where tree_id = {} and path = 'b'",
        ),
        (
            1,
            "insert into shell.fs_entries (tree_id, path, kind) values ({}, 'c', 'gone')",
        ),
        (1, "update shell.trees set bytes = bytes + 1 where id = {}"),
        (
            1,
            "update shell.trees set entries = entries + 1 where id = {}",
        ),
        (
            1,
            "update shell.trees set changes = changes + 1 where id = {}",
        ),
        (1, "update shell.trees set shape = shape + 1 where id = {}"),
        (
            1,
            "update shell.trees set command_id = command_id + 1 where id = {}",
        ),
        (1, "update shell.trees set parent_id = null where id = {}"),
        (1, "update shell.trees set hash = sha256('x') where id = {}"),
        (1, "delete from shell.trees where id = {}"),
        (
            2,
            "update shell.fs_entries set replaces = false where tree_id = {}",
        ),
    ] {
        let sql = alteration.replace("{}", &trees[position].to_string());
        let broken = after(&hand, hand.session, &sql);
        let expected = [commands[0], commands[2], commands[5]][position];
        assert_eq!(broken.map(|(id, _)| id), Some(expected), "{sql}");
    }
    // Merged changes are no part of the chain, but looked at all the same.
    hand.db
        .query("select shell.merge_tree($1, false)", &[&trees[1]]);
    assert_eq!(hand.broken(hand.session), None);
    let sql = "update shell.checkpoints set size = 7 where path = 'b'";
    let broken = after(&hand, hand.session, sql).expect("it is found");
    assert!(
        broken.0 == commands[2] && broken.1.contains("checkpoint"),
        "{broken:?}"
    );
}

#[test]
fn order_and_number_are_bound() {
    let (hand, commands) = history("order");
    let session = hand.session;
    for removed in [0, 2, 3] {
        let sql = format!(
            "delete from shell.commands where id = {}",
            commands[removed]
        );
        let broken = after(&hand, session, &sql);
        assert_eq!(
            broken.map(|(id, _)| id),
            Some(commands[if removed == 0 { 2 } else { removed + 1 }])
        );
    }
    // The one that never ran is chained by the next that did.
    let broken = after(
        &hand,
        session,
        &format!("delete from shell.commands where id = {}", commands[1]),
    );
    assert_eq!(broken.map(|(id, _)| id), Some(commands[2]));
    // Another command's row in its place.
    let sql = format!(
        "update shell.commands as c set output = o.output, hash = o.hash from shell.commands as o
         where c.id = {} and o.id = {}",
        commands[2], commands[3]
    );
    assert_eq!(
        after(&hand, session, &sql).map(|(id, _)| id),
        Some(commands[2])
    );
    let sql = format!("update shell.environments set tree_id = null where id = '{session}'");
    let broken = after(&hand, session, &sql).expect("it is found");
    assert!(
        broken.0 == commands[5] && broken.1.contains("the session"),
        "{broken:?}"
    );
}

#[test]
fn a_fork_is_chained_to_what_it_was_forked_from() {
    let (hand, commands) = history("fork");
    for after_it in [true, false] {
        let fork: Uuid = hand.db.one(
            "select shell.fork_session($1, $2, $3)",
            &[&hand.user, &commands[2], &after_it],
        );
        let first = hand.run_in(fork, &Change::new().file("in the fork", "x"));
        assert_eq!(hand.broken(fork), None);
        for sql in [
            format!("update shell.environments set origin_hash = sha256('x') where id = '{fork}'"),
            format!("delete from shell.commands where id = {}", commands[2]),
            format!(
                "update shell.commands set hash = sha256('x') where id = {}",
                commands[2]
            ),
        ] {
            let broken = after(&hand, fork, &sql).expect("it is found");
            assert!(
                [commands[2], first].contains(&broken.0),
                "{sql}: {broken:?}"
            );
        }
    }
    // Of one that still runs, where it began.
    let running = hand.db.submit_to(hand.user, hand.session, "x");
    let (attempt, _) = hand.take(running);
    let fork: Uuid = hand
        .db
        .one("select shell.fork_session($1, $2)", &[&hand.user, &running]);
    hand.run_in(fork, &Change::new().file("in the fork", "x"));
    assert_eq!(hand.broken(fork), None);
    assert!(hand.finish(running, attempt, json!({})));
    assert_eq!(hand.broken(fork), None);
    assert_eq!(hand.broken(hand.session), None);
}

#[test]
fn however_a_command_ends_it_is_chained() {
    let hand = Hand::new("ends");
    let db = &hand.db;
    hand.run(&Change::new().file("a", "1"));
    let lost = db.submit_to(hand.user, hand.session, "lost");
    let waiting = db.submit_to(hand.user, hand.session, "waits");
    hand.take(lost);
    assert!(
        db.cancel(waiting),
        "out of turn: the one before it still runs"
    );
    db.query("select shell.release_commands($1, 1)", &[&hand.worker]);
    let cancelled = db.submit_to(hand.user, hand.session, "cancelled");
    hand.take(cancelled);
    assert!(db.cancel(cancelled));
    db.query("select shell.release_commands($1, 9)", &[&hand.worker]);
    db.one::<i64>(
        "select shell.write_file($1, '/home/sandbox/b', 'x')",
        &[&hand.session],
    );
    hand.run(&Change::new().file("a", "2"));
    let unhashed: i64 = db.one(
        "select count(*) from shell.commands where user_id = $1 and hash is null",
        &[&hand.user],
    );
    assert_eq!(unhashed, 0);
    assert_eq!(hand.broken(hand.session), None);
    let sql = format!("update shell.commands set failure_reason = 'another' where id = {lost}");
    assert_eq!(
        after(&hand, hand.session, &sql).map(|(id, _)| id),
        Some(lost)
    );
    let nobody = db.refused("select * from shell.verify_history($1)", &[&Uuid::new_v4()]);
    assert_eq!(nobody.code, "PS002");
}
