//! What can be stored, and what it becomes.

use std::collections::BTreeMap;

use pg_shell_tests::{Cluster, shared};
use serde_json::{Value, json};

use crate::hand::{Change, Hand, base64};

#[test]
fn a_tree_is_what_its_changes_say() {
    let hand = Hand::new("changes");
    let files = || hand.files(hand.session);
    assert!(files().is_empty());
    let first = Change::new()
        .folder("d")
        .file("d/a", "hello")
        .folder("d/empty")
        .file("d-b", "")
        .symlink("s", "/");
    let first = hand.run(&first);
    assert_eq!(files(), ["d/", "d-b:0", "d/a:5", "d/empty/", "s@"]);
    hand.run(&Change::new().file("d/a", "hello, world"));
    assert_eq!(files(), ["d/", "d-b:0", "d/a:12", "d/empty/", "s@"]);
    hand.run(&Change::new().gone("d"));
    assert_eq!(files(), ["d-b:0", "s@"]);
    // What was below does not come again with the folder.
    hand.run(&Change::new().folder("d").file("d/new", "1"));
    assert_eq!(files(), ["d/", "d-b:0", "d/new:1", "s@"]);
    hand.run(&Change::new().new_folder("d").file("d/newer", "1"));
    assert_eq!(files(), ["d/", "d-b:0", "d/newer:1", "s@"]);
    hand.run(&Change::new().file("d", "now a file"));
    assert_eq!(files(), ["d:10", "d-b:0", "s@"]);
    hand.run(&Change::new().folder("d").file("d/a", "x"));
    assert_eq!(files(), ["d/", "d-b:0", "d/a:1", "s@"]);
    hand.run(
        &Change::new()
            .symlink("d", "s")
            .gone("s")
            .gone("was never there"),
    );
    assert_eq!(files(), ["d@", "d-b:0"]);
    hand.run(&Change::new().gone("d").gone("d-b"));
    assert!(files().is_empty());
    assert_eq!(
        hand.files_at(hand.session, Some(first)),
        ["d/", "d-b:0", "d/a:5", "d/empty/", "s@"]
    );
    let sizes = "select count(*) from shell.trees as t
        where t.entries <> (select count(*) from shell.tree_entries(t.id))
          or t.bytes <> (select coalesce(sum(size), 0) from shell.tree_entries(t.id))
          or t.changes <> (select count(*) from shell.fs_entries as e where e.tree_id = t.id)
          or t.shape <> (select coalesce(bit_xor(shell.entry_shape(path, kind, mode, content, target)), 0)
            from shell.tree_entries(t.id))";
    assert_eq!(hand.db.one::<i64>(sizes, &[]), 0);
    assert_eq!(hand.broken(hand.session), None);
}

#[test]
fn what_changes_nothing_leaves_no_tree() {
    let hand = Hand::new("nothing");
    let nothing = hand.run(&Change::new());
    assert_eq!(hand.tree(hand.session), None);
    hand.run(&Change::new().folder("d").file("d/a", "x"));
    let tree = hand.tree(hand.session);
    for same in [
        Change::new(),
        Change::new().folder("d").file("d/a", "x"),
        Change::new().gone("d/b").gone("e"),
    ] {
        hand.run(&same);
        assert_eq!(hand.tree(hand.session), tree);
    }
    let left: Option<i64> = hand.db.one(
        "select tree_after from shell.commands where id = $1",
        &[&nothing],
    );
    assert_eq!(left, None);
}

#[test]
fn names_are_bytes() {
    let hand = Hand::new("names");
    let long = [vec![b'x'; 250], vec![b'y'; 250]].join(&b'/');
    let mut deep = long.clone();
    while deep.len() < 3900 {
        deep = [&deep[..], b"/", &[b'z'; 200]].concat();
    }
    let names: [&[u8]; 8] = [
        b"\xff\xfe",
        "ü".as_bytes(),
        b"a\nb",
        b" ",
        b"-rf",
        b"back\\slash",
        b"\x01",
        &deep,
    ];
    let mut change = Change::new();
    for (end, _) in deep.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        change = change.folder(&deep[..end]);
    }
    for name in names {
        change = change.file(name, name);
    }
    hand.run(&change);
    let stored: Vec<Vec<u8>> = hand.db.column(
        "select path from shell.tree_entries($1) where kind = 'file'",
        &[&hand.tree(hand.session)],
    );
    let mut expected = names.map(<[u8]>::to_vec);
    expected.sort();
    assert_eq!(stored, expected);
    // A path that is given out is taken back.
    let read: Vec<Vec<u8>> = hand.db.column(
        "select shell.read_file($1, path) from shell.files($1) where type = 'file' order by sha256",
        &[&hand.session],
    );
    assert_eq!(read.len(), names.len());
    assert!(
        read.iter().all(|body| names.contains(&body.as_slice())),
        "each holds its own name"
    );
    // Two long names that an index tells apart by a hash only.
    let sibling = [&deep[..], b"!"].concat();
    hand.run(&Change::new().file(&sibling, "1").gone(&deep));
    let count = "select count(*) from shell.tree_entries($1) where octet_length(path) > 3000 and kind = 'file'";
    assert_eq!(hand.db.one::<i64>(count, &[&hand.tree(hand.session)]), 1);
    assert_eq!(hand.broken(hand.session), None);
}

#[test]
fn hard_links_are_told() {
    let hand = Hand::new("links");
    let linked = Change::new()
        .file("a", "x")
        .set("link", json!(1))
        .file("b", "x")
        .set("link", json!(1))
        .file("c", "x")
        .set("link", json!(2))
        .file("d", "x")
        .set("link", json!(2))
        .file("e", "x");
    hand.run(&linked);
    hand.run(
        &Change::new()
            .file("f", "y")
            .set("link", json!(1))
            .file("g", "y")
            .set("link", json!(1)),
    );
    let groups = || -> Vec<String> {
        hand.db.column(
            "select string_agg(substring(path from 15), '') from shell.files($1) where link is not null
             group by link order by 1",
            &[&hand.session],
        )
    };
    assert_eq!(groups(), ["ab", "cd", "fg"]);
    hand.db.query(
        "select shell.merge_tree($1, true)",
        &[&hand.tree(hand.session)],
    );
    assert_eq!(groups(), ["ab", "cd", "fg"]);
}

#[test]
fn what_is_the_same_is_stored_once() {
    let hand = Hand::new("once");
    let body = vec![b'q'; 100_000];
    let count = |of: &str| -> i64 {
        hand.db.one(
            &format!("select count(*) from shell.{of} where size = 100000 and hash = sha256($1)"),
            &[&body],
        )
    };
    let first = hand.run(&Change::new().file("a", &body).file("b", &body));
    for _ in 0..3 {
        let fork = hand.db.one(
            "select shell.fork_session($1, $2, true)",
            &[&hand.user, &first],
        );
        hand.run_in(fork, &Change::new().file("c", &body));
    }
    let other = Hand::new("once more");
    other.run(&Change::new().file("a", &body));
    assert_eq!((count("chunks"), count("contents")), (1, 1));
    let counted: Vec<i64> = hand.db.column(
        "select bytes from shell.user_storage where user_id in ($1, $2)",
        &[&hand.user, &other.user],
    );
    assert_eq!(counted, [100_000, 100_000]);
}

#[test]
fn entries_that_cannot_be() {
    let hand = Hand::new("impossible");
    let command = hand.db.submit_to(hand.user, hand.session, "x");
    let (attempt, _) = hand.take(command);
    let file = || Change::new().file("a", "x");
    let link = || Change::new().symlink("a", "x");
    let named = |name: &[u8]| file().set("path", json!(base64(name)));
    let wrong = [
        named(b""),
        named(b"/a"),
        named(b"a/"),
        named(b"a//b"),
        named(b"."),
        named(b".."),
        named(b"a/../b"),
        named(b"../a"),
        named(b"a/."),
        named(b"a\0b"),
        named(&[b'x'; 4096]),
        file().set("mode", json!(0o4755)),
        file().set("mode", json!(-1)),
        file().set("mode", Value::Null),
        file().set("kind", json!("device")),
        file().set("kind", json!("folder")),
        file().set("size", Value::Null),
        file().set("size", json!(-1)),
        file().set("target", json!(base64(b"x"))),
        file().set("mtime_ns", Value::Null),
        file().set("body", Value::Null),
        file().set("link", json!(0)),
        link().set("target", Value::Null),
        link().set("target", json!("")),
        link().set("target", json!(base64(b"a\0b"))),
        link().set("mode", json!(0o777)),
        link().set("link", json!(1)),
    ];
    for change in wrong {
        let refusal = hand
            .stored(command, attempt, &change)
            .expect_err(&format!("{:?}", change.entries));
        assert!(
            ["23514", "PS030"].contains(&refusal.code.as_str()),
            "{:?}: {refusal:?}",
            change.entries
        );
    }
    let twice = file().file("a", "y");
    assert_eq!(
        hand.stored(command, attempt, &twice).unwrap_err().code,
        "23505"
    );
    let trees: i64 = hand.db.one(
        "select count(*) from shell.trees where user_id = $1",
        &[&hand.user],
    );
    assert_eq!(trees, 0);
}

#[test]
fn chunks_are_what_their_hashes_say() {
    let hand = Hand::new("chunks");
    let db = &hand.db;
    let forged = db.refused(
        "select shell.add_chunks(array[sha256('a')], array['b'::bytea], null)",
        &[],
    );
    assert_eq!(forged.code, "23514");
    assert_eq!(
        db.refused(
            "select shell.add_chunks(array[sha256('')], array[''::bytea], null)",
            &[]
        )
        .code,
        "23514"
    );
    db.run("select shell.add_chunks(array[sha256('here'), sha256('here')], array['here', 'here'::bytea], null)");
    db.run("select shell.add_chunks(array[sha256('here')], array['here'::bytea], null)");
    let there = "select shell.add_chunks(array[sha256('there')], null, array['s3://bucket/there'], array[5])";
    assert_eq!(db.refused(there, &[]).code, "PS043");
    db.run("select shell.expect_objects(array['s3://bucket/there'])");
    db.run(there);
    db.run(there);
    let missing: Vec<Vec<u8>> = db.column(
        "select * from shell.missing_chunks(array[sha256('here'), sha256('there'), sha256('nowhere'), sha256('nowhere')])",
        &[],
    );
    assert_eq!(
        missing,
        [db.one::<Vec<u8>>("select sha256('nowhere')", &[])]
    );

    // Half of it is not stored.
    let command = db.submit_to(hand.user, hand.session, "x");
    let (attempt, _) = hand.take(command);
    let add = |chunks: &str| {
        let sql = format!(
            "select (shell.add_tree({}, {command}, {attempt},
               json_build_array(json_build_object('path', encode('f', 'base64'), 'kind', 'file', 'mode', 420,
                 'mtime_ns', 1, 'size', 8, 'content', encode(sha256('herehere'), 'hex'))),
               json_build_array(json_build_object('hash', encode(sha256('herehere'), 'hex'), 'size', 8,
                 'chunks', array[{chunks}])))).tree_id::text",
            hand.worker
        );
        db.attempt(&sql)
    };
    let (here, nowhere) = (
        "encode(sha256('here'), 'hex')",
        "encode(sha256('nowhere'), 'hex')",
    );
    let refusal = add(&format!("{here}, {nowhere}")).unwrap_err();
    assert_eq!(refusal.code, "PS030");
    assert!(refusal.hint.contains("add_chunks"), "{refusal:?}");
    let tree = add(&format!("{here}, {here}")).unwrap().expect("a tree");
    let tree: i64 = tree.parse().unwrap();
    let chunks: Vec<i32> = db.column(
        "select k.size from shell.tree_entries($1) as e, shell.content_chunks(array[e.content]) as k order by number",
        &[&tree],
    );
    assert_eq!(chunks, [4, 4]);
    assert!(hand.finish(command, attempt, json!({"tree_after": tree})));
    let read: Vec<u8> = db.one(
        "select shell.read_file($1, '/home/sandbox/f')",
        &[&hand.session],
    );
    assert_eq!(read, b"herehere");
}

#[test]
fn only_who_holds_a_command_stores_its_files() {
    let hand = Hand::new("first worker");
    let other = Hand::new("second worker");
    let command = hand.db.submit_to(hand.user, hand.session, "x");
    let (attempt, began_with) = hand.take(command);
    let change = Change::new().file("a", "first");
    let lost = hand.store(command, attempt, &change).unwrap();
    // Its worker is given up, and another has the command.
    hand.db
        .query("select shell.release_commands($1, 9)", &[&hand.worker]);
    let (second, again_with) = Hand {
        worker: other.worker,
        ..Hand::of(shared::cluster().db(), "third")
    }
    .take(command);
    assert_eq!((second, again_with), (attempt + 1, began_with));
    let late = hand.stored(command, attempt, &change).unwrap_err();
    assert_eq!((late.code.as_str(), late.hint.is_empty()), ("PS033", false));
    assert!(
        !hand.finish(command, attempt, json!({"tree_after": lost})),
        "the lease is lost"
    );
    assert_eq!(hand.tree(hand.session), None, "nothing came of it");

    let other = Hand {
        user: hand.user,
        session: hand.session,
        ..other
    };
    let tree = other
        .store(command, second, &Change::new().file("a", "second"))
        .unwrap();
    assert!(other.finish(command, second, json!({"tree_after": tree})));
    assert!(
        !other.finish(command, second, json!({"tree_after": tree})),
        "only once"
    );
    assert_eq!(hand.tree(hand.session), tree);
    assert_eq!(hand.broken(hand.session), None);
    let done = hand.stored(command, second, &change).unwrap_err();
    assert_eq!(done.code, "PS033", "a finished command stores nothing");
}

#[test]
fn nobody_leaves_another_s_tree() {
    let (hand, other) = (Hand::new("mine"), Hand::new("theirs"));
    other.run(&Change::new().file("secret", "x"));
    let command = hand.db.submit_to(hand.user, hand.session, "x");
    let (attempt, _) = hand.take(command);
    for tree in [other.tree(other.session), Some(1 << 40)] {
        let result = json!([{"command_id": command, "attempt": attempt, "exit_code": 0, "truncated": false,
            "age_us": 1, "duration_us": 1, "cpu_us": 0, "tree_after": tree}]);
        let refusal = hand.db.refused(
            "select shell.finish_commands($1, $2)",
            &[&hand.worker, &result],
        );
        assert_eq!(refusal.code, "PS038");
    }
}

#[test]
fn quotas_of_a_session_and_of_a_user() {
    let hand = Hand::new("quota");
    let db = &hand.db;
    db.limit(hand.user, "storage_bytes", 1000);
    db.query(
        "update shell.users set storage_bytes = 1500 where id = $1",
        &[&hand.user],
    );
    hand.run(&Change::new().file("a", [b'a'; 900]));
    let tree = hand.tree(hand.session);
    let refused = |session, change: &Change| {
        let command = db.submit_to(hand.user, session, "x");
        let (attempt, _) = hand.take(command);
        let why = hand
            .store(command, attempt, change)
            .expect_err("over the quota");
        assert!(hand.finish(
            command,
            attempt,
            json!({"failure": "limit", "failure_reason": why, "exit_code": null})
        ));
        why
    };
    let why = refused(hand.session, &Change::new().file("b", [b'b'; 200]));
    assert_eq!(
        why,
        "The session's files would have 1100 bytes; 1000 are allowed."
    );
    assert_eq!(hand.tree(hand.session), tree, "the state is as it was");
    // Copies count for the session, not for the user.
    refused(hand.session, &Change::new().file("b", [b'a'; 900]));
    let second = db.session(hand.user);
    hand.run_in(second, &Change::new().file("a", [b'a'; 900]));
    let why = refused(second, &Change::new().file("a", [b'c'; 900]));
    assert_eq!(
        why,
        "All files of the user would have 1800 bytes, each content once; 1500 are allowed."
    );
    hand.run_in(second, &Change::new().file("a", [b'd'; 600]));
    // Who has too much already may have less.
    db.limit(hand.user, "storage_bytes", 10);
    hand.run(&Change::new().file("a", [b'a'; 900]).gone("a"));
    let stored: i64 = db.one(
        "select bytes from shell.user_storage where user_id = $1",
        &[&hand.user],
    );
    assert_eq!(stored, 1500);
    let counted: i64 = db.one(
        "select sum(size)::bigint from shell.user_contents where user_id = $1",
        &[&hand.user],
    );
    assert_eq!(counted, stored);
    assert_eq!(hand.broken(hand.session), None);

    let db = shared::cluster().db();
    db.run("load 'pg_shell'; set pg_shell.max_session_storage = '1MB'");
    let hand = Hand::of(db, "administrator's quota");
    let command = hand.db.submit_to(hand.user, hand.session, "x");
    let (attempt, _) = hand.take(command);
    let why = hand
        .store(
            command,
            attempt,
            &Change::new().file("a", vec![0; 1_048_577]),
        )
        .unwrap_err();
    assert_eq!(
        why,
        "The session's files would have 1048577 bytes; 1048576 are allowed."
    );
}

/// However many files there are, however quickly changes come, and without statistics.
#[test]
fn storing_takes_as_long_as_the_change_is_large() {
    // Nobody else is to do upkeep meanwhile.
    let cluster = Cluster::new();
    let hand = Hand::of(cluster.db(), "two thousand");
    let db = &hand.db;
    let mut all = Change::new();
    for file in 0..2000 {
        all = all.file(format!("file{file}"), format!("old {file}"));
    }
    hand.run(&all);
    for i in 0..100 {
        hand.run(&Change::new().file("file7", format!("new {i}")));
    }
    let deepest: i32 = db.one(
        "select max(depth) from shell.trees where user_id = $1",
        &[&hand.user],
    );
    assert!(deepest <= 34, "{deepest}");
    db.run("begin");
    hand.run(&Change::new().file("file7", "the last"));
    let read: i64 = db.one(
        "select coalesce(idx_tup_fetch, 0) from pg_stat_xact_all_tables where relid = 'shell.user_contents'::regclass",
        &[],
    );
    db.run("commit");
    assert!(read < 20, "{read} rows of contents");
    let text: String = db.one(
        "select convert_from(shell.read_file($1, '/home/sandbox/file7'), 'utf8')",
        &[&hand.session],
    );
    assert_eq!(text, "the last");
    assert_eq!(hand.broken(hand.session), None);
}

/// What a worker is granted is enough for all that it does.
#[test]
fn all_of_it_under_the_worker_s_role() {
    let hand = Hand::new("granted");
    let db = &hand.db;
    let command = db.submit_to(hand.user, hand.session, "x");
    let (attempt, _) = hand.take(command);
    db.run("set role shell_worker");
    let tree = hand
        .store(command, attempt, &Change::new().file("a", "x"))
        .unwrap();
    let work = "select * from shell.work($1, $2, 0, null)";
    let result = json!([{"command_id": command, "attempt": attempt, "exit_code": 0, "truncated": false,
        "age_us": 1, "duration_us": 1, "cpu_us": 0, "tree_after": tree, "not_kept": ["s: a socket"]}]);
    db.query(work, &[&hand.worker, &result]);
    for call in [
        "tree_entries($1)",
        "tree_changes($1)",
        "upkeep()",
        "heartbeat($1, '1 min', '1 min', 3)",
        "missing_chunks(array[sha256('x')])",
        "content_chunks(array[sha256('x')])",
        "read_chunks(array[sha256('x')])",
    ] {
        let sql = format!("select count(*) from shell.{call} where $1::bigint is not null");
        db.query(&sql, &[&tree]);
    }
    db.run("reset role");
    let kept: Vec<String> = db.one(
        "select not_kept from shell.commands where id = $1",
        &[&command],
    );
    assert_eq!(kept, ["s: a socket"]);
    assert_eq!(hand.files(hand.session), ["a:1"]);
}

/// Random changes beside the simplest model of them, with merges in between.
#[test]
fn random_histories_are_what_a_model_says() {
    let hand = Hand::new("random");
    let mut seed = 88_172_645_463_325_252_u64;
    let mut random = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    // A path, and the body of a file there, or none of a folder.
    type Model = BTreeMap<String, Option<String>>;
    let mut model = Model::new();
    let mut past: Vec<(i64, Model)> = Vec::new();
    let below = |model: &mut Model, path: &str| {
        let prefix = format!("{path}/");
        model.retain(|other, _| !other.starts_with(&prefix));
    };
    let mut session = hand.session;
    for step in 0..150 {
        let mut change = Change::new();
        let mut touched: Vec<String> = Vec::new();
        for _ in 0..=random(3) {
            let depth = 1 + random(3);
            let path = (0..depth)
                .map(|_| format!("{}", random(4)))
                .collect::<Vec<_>>()
                .join("/");
            let parent = path.rsplit_once('/').map(|(parent, _)| parent);
            // One change a path, and none within another: as a worker would tell them.
            if touched
                .iter()
                .any(|t| path.starts_with(t.as_str()) || t.starts_with(path.as_str()))
                || parent.is_some_and(|parent| model.get(parent) != Some(&None))
            {
                continue;
            }
            touched.push(path.clone());
            match random(5) {
                0 => {
                    change = change.gone(&path);
                    below(&mut model, &path);
                    model.remove(&path);
                }
                1 => {
                    change = change.new_folder(&path);
                    below(&mut model, &path);
                    model.insert(path, None);
                }
                2 => {
                    change = change.folder(&path);
                    if model.insert(path.clone(), None) != Some(None) {
                        below(&mut model, &path);
                    }
                }
                _ => {
                    let body = format!("body {}", random(20));
                    change = change.file(&path, &body);
                    below(&mut model, &path);
                    model.insert(path, Some(body));
                }
            }
        }
        let command = hand.run_in(session, &change);
        past.push((command, model.clone()));
        if random(6) == 0 {
            let tree = hand.tree(session);
            hand.db.query(
                "select shell.merge_tree(id, $2) from shell.trees where id = $1",
                &[&tree, &(random(2) == 0)],
            );
        }
        if random(25) == 0 {
            let (command, then) = &past[random(step + 1) as usize];
            session = hand.db.one(
                "select shell.fork_session($1, $2, true)",
                &[&hand.user, command],
            );
            model = then.clone();
        }
    }
    for (command, model) in past {
        let expected: Vec<String> = (model.iter())
            .map(|(path, body)| match body {
                Some(body) => format!("{path}:{}", body.len()),
                None => format!("{path}/"),
            })
            .collect();
        let mut found = hand.db.column::<String>(
            "select substring(path from 15) || coalesce(':' || size, '/')
             from shell.commands as c, shell.files(c.environment_id, c.id) where c.id = $1",
            &[&command],
        );
        let sum: i64 = hand.db.one(
            "select coalesce(t.entries, 0) from shell.commands as c
             left join shell.trees as t on t.id = coalesce(tree_after, tree_id) where c.id = $1",
            &[&command],
        );
        assert_eq!(
            sum as usize,
            expected.len(),
            "the count after command {command}"
        );
        found.sort();
        let mut expected = expected;
        expected.sort();
        assert_eq!(found, expected, "after command {command}");
    }
    let sessions: Vec<uuid::Uuid> = hand.db.column(
        "select id from shell.environments where user_id = $1",
        &[&hand.user],
    );
    for session in sessions {
        assert_eq!(hand.broken(session), None);
    }
}
