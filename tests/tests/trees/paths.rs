//! Paths of every length and depth, and what becomes of them where folders go and trees come back.

use serde_json::json;

use crate::hand::{Change, Hand};

#[test]
fn no_path_is_taken_for_another_s_key() {
    let hand = Hand::new("keys");
    let long = "l/".repeat(1_090) + "f";
    let key: Vec<u8> = hand
        .db
        .one("select shell.path_key($1::bytea)", &[&long.as_bytes()]);
    // As it was once: as long as a path that stands for itself.
    let sql = "select substring($1::bytea from 1 for 1968) || sha256($1::bytea)";
    let taken: Vec<u8> = hand.db.one(sql, &[&long.as_bytes()]);
    assert_eq!((key.len(), &key), (2000, &taken));
    let key_of_it: Vec<u8> = hand.db.one("select shell.path_key($1::bytea)", &[&taken]);
    assert_ne!(key_of_it, taken);
}

#[test]
fn a_deep_path_takes_no_time_to_speak_of() {
    let hand = Hand::new("deep");
    let path = format!("/home/sandbox/{}f", "a/".repeat(600));
    let db = &hand.db;
    db.run("set statement_timeout = '10s'");
    let write = "select shell.write_file($1, $2, $3)";
    for body in [b"one".as_slice(), b"two"] {
        db.one::<i64>(write, &[&hand.session, &path, &body]);
    }
    let read = "select shell.read_file($1, $2)";
    assert_eq!(db.one::<Vec<u8>>(read, &[&hand.session, &path]), b"two");
    db.run("reset statement_timeout");
}

#[test]
fn a_tree_is_read_from_which_many_folders_went() {
    let hand = Hand::new("many went");
    let (mut all, mut none) = (Change::new().file("stays", "x"), Change::new());
    for folder in 0..3_000 {
        all = all.folder(format!("d{folder}"));
        none = none.gone(format!("d{folder}"));
        for file in 0..3 {
            all = all.file(format!("d{folder}/f{file}"), "x");
        }
    }
    hand.run(&all);
    hand.db.run("analyze shell.fs_entries, shell.trees");
    hand.run(&none);
    hand.db.run("set statement_timeout = '20s'");
    assert_eq!(hand.files(hand.session), ["stays:1"]);
    assert_eq!(hand.broken(hand.session), None);
    hand.db.run("reset statement_timeout");
}

#[test]
fn a_command_that_never_ran_left_what_the_one_before_it_did() {
    let hand = Hand::new("never ran");
    let first = hand.run(&Change::new());
    let never = hand.db.submit_to(hand.user, hand.session, "never");
    assert!(hand.db.cancel(never));
    hand.run(&Change::new().file("f", "x"));
    for at in [first, never] {
        assert!(hand.files_at(hand.session, Some(at)).is_empty(), "{at}");
    }
}

#[test]
fn a_path_s_history_knows_what_came_back() {
    let hand = Hand::new("came back to be");
    let db = &hand.db;
    let mut commands = vec![hand.run(&Change::new().file("a", "1"))];
    db.query(
        "select shell.create_snapshot($1, 'with it')",
        &[&hand.session],
    );
    commands.push(hand.run(&Change::new().gone("a")));
    let restore = "select shell.restore_snapshot($1, 'with it')";
    commands.push(db.one(restore, &[&hand.session]));
    commands.push(hand.run(&Change::new().file("a", "22")));
    let sql = "select command_id || ' ' || change from shell.file_history($1, '/home/sandbox/a')";
    let expected: Vec<String> = ["created", "deleted", "created", "modified"]
        .iter()
        .zip(&commands)
        .map(|(change, command)| format!("{command} {change}"))
        .collect();
    assert_eq!(db.column::<String>(sql, &[&hand.session]), expected);
    // What changes nothing of it is no part of its history.
    hand.run(&Change::new().file("b", "x"));
    db.query(
        "select shell.create_snapshot($1, 'as it is')",
        &[&hand.session],
    );
    hand.run(&Change::new().file("b", "y"));
    db.query(
        "select shell.restore_snapshot($1, 'as it is')",
        &[&hand.session],
    );
    assert_eq!(db.column::<String>(sql, &[&hand.session]), expected);
}

/// Two claims that write for two users in opposite orders: one of them is tried again, and no write is lost.
#[test]
fn a_deadlock_is_not_a_write_s_end() {
    let (one, two) = (Hand::new("write one"), Hand::new("write two"));
    let waits = |hand: &Hand| -> i64 {
        let running = hand.db.submit_to(hand.user, hand.session, "runs");
        let (attempt, _) = hand.take(running);
        let write = "select shell.write_file($1, '/home/sandbox/a', 'x')";
        let waiting = hand.db.one(write, &[&hand.session]);
        assert!(hand.finish(running, attempt, json!({})));
        waiting
    };
    let writes = [waits(&one), waits(&two)];
    // As claims of two workers, each with one session of either user, would lock.
    let lock = "begin; select from shell.user_storage where user_id = ";
    for hand in [&one, &two] {
        let sql =
            "insert into shell.user_storage (user_id, bytes) values ($1, 0) on conflict do nothing";
        hand.db.query(sql, &[&hand.user]);
    }
    one.db
        .run(&format!("{lock} '{}' for no key update", one.user));
    two.db
        .run(&format!("{lock} '{}' for no key update", two.user));
    let perform = |hand: &Hand, write: i64| {
        hand.db
            .tried("select shell.perform_action($1)", &[&write])
            .map(|row| row.get::<_, Option<String>>(0))
            .map_err(|refusal| refusal.code)
    };
    let ends = std::thread::scope(|scope| {
        let other = scope.spawn(|| perform(&one, writes[1]));
        let mine = perform(&two, writes[0]);
        two.db.run("rollback");
        [other.join().expect("no panic"), mine]
    });
    one.db.run("rollback");
    let failed = ends.iter().filter_map(|end| end.as_ref().err());
    assert_eq!(failed.collect::<Vec<_>>(), ["40P01"], "{ends:?}");
}
