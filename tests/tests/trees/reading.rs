//! What people read of files, and how much is read for it.

use pg_shell_tests::{Cluster, Db};
use serde_json::Value;

use crate::hand::{Change, Hand};

fn lines(db: &Db, sql: &str, command: i64) -> Vec<String> {
    db.column(sql, &[&command])
}

const CHANGES: &str =
    "select concat_ws(' ', change, substring(old_path from 15), substring(path from 15))
    from shell.file_changes($1)";

#[test]
fn files_say_what_they_are_and_who_made_them_so() {
    let hand = Hand::new("listing");
    let made =
        Change::new()
            .folder("bin")
            .timed("bin/run", "#!/bin/sh\n", 1_700_000_000_123_456_789);
    let first = hand.run(
        &made
            .set("mode", serde_json::json!(0o755))
            .symlink("run", "bin/run"),
    );
    let second = hand.run(&Change::new().file("new", "x"));
    let rows = hand
        .db
        .query("select * from shell.files($1)", &[&hand.session]);
    let told: Vec<_> = (rows.iter())
        .map(|r| {
            (
                r.get::<_, String>("path"),
                r.get::<_, String>("type"),
                r.get::<_, Option<String>>("mode"),
                r.get::<_, Option<String>>("target"),
                r.get::<_, i64>("changed_by"),
            )
        })
        .collect();
    let row = |path: &str, kind: &str, mode: Option<&str>, target: Option<&str>, by| {
        (
            path.to_owned(),
            kind.to_owned(),
            mode.map(str::to_owned),
            target.map(str::to_owned),
            by,
        )
    };
    assert_eq!(
        told,
        [
            row("/home/sandbox/bin", "folder", Some("0755"), None, first),
            row("/home/sandbox/bin/run", "file", Some("0755"), None, first),
            row("/home/sandbox/new", "file", Some("0644"), None, second),
            row("/home/sandbox/run", "symlink", None, Some("bin/run"), first),
        ]
    );
    let exact: bool = hand.db.one(
        "select sha256 = encode(sha256(E'#!/bin/sh\\n'), 'hex') and size = 10
           and modified_at = '2023-11-14 22:13:20.123456+00'
         from shell.files($1) where path = '/home/sandbox/bin/run'",
        &[&hand.session],
    );
    assert!(exact);
    assert_eq!(
        hand.files_at(hand.session, Some(first)),
        ["bin/", "bin/run:10", "run@"]
    );
}

#[test]
fn what_a_command_changed() {
    let hand = Hand::new("changed");
    let of = |command| lines(&hand.db, CHANGES, command);
    let first = hand.run(
        &Change::new()
            .folder("d")
            .file("d/a", "same")
            .file("b", "b")
            .file("empty", ""),
    );
    assert_eq!(
        of(first),
        ["created b", "created d", "created d/a", "created empty"]
    );
    let second = hand.run(&Change::new().file("b", "B").file("c", "c").gone("empty"));
    assert_eq!(of(second), ["modified b", "created c", "deleted empty"]);
    // A folder that is called otherwise: what is in it was renamed, the folders themselves came and went.
    let third = hand.run(
        &Change::new()
            .gone("d")
            .folder("e")
            .file("e/a", "same")
            .file("made", ""),
    );
    assert_eq!(
        of(third),
        ["deleted d", "created e", "renamed d/a e/a", "created made"]
    );
    let copied = hand.run(&Change::new().file("copy", "same"));
    assert_eq!(
        of(copied),
        ["created copy"],
        "what is still there was not renamed"
    );
    let fourth = hand.run(
        &Change::new()
            .gone("e")
            .gone("copy")
            .file("1", "same")
            .file("2", "same")
            .file("3", "same"),
    );
    assert_eq!(
        of(fourth),
        ["renamed copy 1", "renamed e/a 2", "created 3", "deleted e"]
    );
    assert!(of(hand.run(&Change::new())).is_empty());
    let db = &hand.db;
    let waiting = db.submit_to(hand.user, hand.session, "x");
    assert_eq!(db.refused(CHANGES, &[&waiting]).code, "PS007");
    assert_eq!(db.refused(CHANGES, &[&(1_i64 << 40)]).code, "PS006");
}

#[test]
fn the_history_of_a_file() {
    let hand = Hand::new("history of a file");
    let of = |session| -> Vec<String> {
        hand.db.column(
            "select command_id || ' ' || change from shell.file_history($1, '/home/sandbox/d/a')",
            &[&session],
        )
    };
    let made = hand.run(&Change::new().folder("d").file("d/a", "1"));
    hand.run(&Change::new().file("other", "1"));
    let changed = hand.run(&Change::new().file("d/a", "2"));
    let fork = hand.db.one(
        "select shell.fork_session($1, $2, true)",
        &[&hand.user, &changed],
    );
    let gone = hand.run(&Change::new().gone("d"));
    let again = hand.run(&Change::new().folder("d").file("d/a", "3"));
    let told = [
        format!("{made} created"),
        format!("{changed} modified"),
        format!("{gone} deleted"),
        format!("{again} created"),
    ];
    assert_eq!(of(hand.session), told);
    let in_fork = hand.run_in(fork, &Change::new().file("d/a", "4"));
    assert_eq!(
        of(fork),
        [&told[..2], &[format!("{in_fork} modified")]].concat()
    );
}

#[test]
fn texts_side_by_side() {
    let hand = Hand::new("diff");
    let db = &hand.db;
    let first = hand.run(&Change::new().file("a", "one\ntwo\n").file("raw", b"\0"));
    let second = hand.run(
        &Change::new()
            .file("a", "one\n2\n")
            .file("raw", b"\0\0")
            .file("new", "n"),
    );
    let diff = |from: i64, to: i64, path: &str| -> String {
        db.one(
            "select shell.diff($1, $2, path => $3)",
            &[&from, &to, &format!("/home/sandbox/{path}")],
        )
    };
    let text = diff(first, second, "a");
    let hunk = "@@ -1,2 +1,2 @@\n one\n-two\n+2\n";
    assert_eq!(
        text,
        format!(
            "--- /home/sandbox/a (command {first})\n+++ /home/sandbox/a (command {second})\n{hunk}"
        )
    );
    assert_eq!(diff(second, second, "a"), "");
    assert!(diff(first, second, "raw").starts_with("Binary files /home/sandbox/raw"));
    assert!(diff(first, second, "new").starts_with("--- /dev/null\n"));
    assert!(diff(second, first, "new").contains("+++ /dev/null\n"));
    let all: String = db.one("select shell.diff($1, $2)", &[&first, &second]);
    assert!(all.contains(hunk) && all.contains("Binary") && all.contains("/dev/null"));
    let nowhere = "select shell.diff($1, $1, '/home/sandbox/nowhere')";
    assert_eq!(db.refused(nowhere, &[&first]).code, "PS032");
}

#[test]
fn what_was_altered_or_is_missing_is_never_served() {
    let hand = Hand::new("altered");
    let db = &hand.db;
    let change = Change::new()
        .file("a", "unlikely to be anywhere else")
        .file("b", "nor is this")
        .file("ok", "fine");
    hand.run(&change.symlink("link", "a").folder("folder"));
    let read = |name: &str| {
        format!(
            "select shell.read_file('{}', '/home/sandbox/{name}')::text",
            hand.session
        )
    };
    let refused = |name: &str| db.refused(&read(name), &[]);
    assert_eq!(refused("nothing").code, "PS032");
    assert_eq!(refused("folder").code, "PS032");
    assert_eq!(
        (refused("link").code, refused("link").hint),
        ("PS032".into(), "It points to a.".into())
    );
    for outside in [
        "/etc/passwd",
        "/home/sandbox",
        "/home/sandbox/",
        "/home/sandbox/../x",
        "a",
        "/home/sandbox/a\\9",
    ] {
        let sql = "select shell.read_file($1, $2)";
        assert_eq!(
            db.refused(sql, &[&hand.session, &outside]).code,
            "PS037",
            "{outside}"
        );
    }
    db.run("begin; alter table shell.chunks drop constraint chunk_is_what_its_hash_says;
            update shell.chunks set bytes = 'unlikely to be anywhere els3' where hash = sha256('unlikely to be anywhere else');
            delete from shell.chunks where hash = sha256('nor is this')");
    for (name, what) in [("a", "was altered"), ("b", "is missing")] {
        db.run("savepoint before");
        let refusal = refused(name);
        db.run("rollback to before");
        assert_eq!(refusal.code, "PS031");
        assert!(
            refusal.message.starts_with("chunk ") && refusal.message.ends_with(what),
            "{refusal:?}"
        );
        assert!(!refusal.hint.is_empty());
    }
    let wrong: Vec<String> = db.column(
        "select path || ' ' || split_part(problem, ' ', 4) from shell.verify_files($1)",
        &[&hand.session],
    );
    assert_eq!(
        wrong,
        ["/home/sandbox/a altered", "/home/sandbox/b missing"]
    );
    assert_eq!(
        db.attempt(&read("ok")).unwrap().as_deref(),
        Some("\\x66696e65")
    );
    db.run("rollback");
    assert!(db.attempt(&read("a")).is_ok());

    // A content that claims to consist of something else.
    db.run(
        "begin; set local session_replication_role = replica;
            alter table shell.contents drop constraint single_chunk_is_the_content;
            update shell.contents set chunks = sha256('fine') where hash = sha256('nor is this');
            savepoint before",
    );
    let refusal = refused("b");
    assert!(
        refusal.code == "PS031" && refusal.message.starts_with("content "),
        "{refusal:?}"
    );
    db.run("rollback to before; delete from shell.contents where hash = sha256('nor is this')");
    let refusal = refused("b");
    assert!(
        refusal.code == "PS031" && refusal.message.ends_with("is missing"),
        "{refusal:?}"
    );
    db.run("rollback");
}

#[test]
fn a_large_file_is_put_together_from_its_chunks() {
    let hand = Hand::new("large");
    let db = &hand.db;
    let body: Vec<u8> = (0..3_000_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let write = "select shell.write_file($1, '/home/sandbox/large', $2)";
    db.one::<i64>(write, &[&hand.session, &body]);
    let before: i64 = db.one("select count(*) from shell.chunks", &[]);
    let read: Vec<u8> = db.one(
        "select shell.read_file($1, '/home/sandbox/large')",
        &[&hand.session],
    );
    assert!(read == body);
    // A little change costs a little.
    let mut changed = body;
    changed[2_999_999] ^= 1;
    db.one::<i64>(write, &[&hand.session, &changed]);
    assert_eq!(
        db.one::<i64>("select count(*) from shell.chunks", &[]) - before,
        1
    );
}

/// Buffers that a query reads.
fn buffers(db: &Db, sql: &str) -> i64 {
    let plan: Value = db.one(
        &format!("explain (analyze, buffers, format json) {sql}"),
        &[],
    );
    let plan = &plan[0]["Plan"];
    plan["Shared Hit Blocks"].as_i64().unwrap() + plan["Shared Read Blocks"].as_i64().unwrap()
}

/// 10,000 files, and a history of hundreds of commands: a tree is read by its size, a path by far less, and a fork reads
/// none of it.
#[test]
fn reading_takes_as_long_as_a_tree_is_large() {
    // Only one at a time does upkeep, so no other test is to.
    let cluster = Cluster::new();
    let hand = Hand::of(cluster.db(), "ten thousand");
    let db = &hand.db;
    let mut all = Change::new();
    for folder in 0..100 {
        all = all.folder(format!("folder{folder}"));
        for file in 0..100 {
            all = all.file(
                format!("folder{folder}/file{file}"),
                format!("{folder} {file}"),
            );
        }
    }
    let first = hand.run(&all);
    db.run("analyze");
    let tree = || hand.tree(hand.session).unwrap();
    let whole = |tree: i64| buffers(db, &format!("select * from shell.tree_entries({tree})"));
    let one = |tree: i64| {
        let sql =
            format!("select * from shell.find_entries({tree}, array['folder7/file7'::bytea])");
        // Planned first.
        buffers(db, &sql);
        buffers(db, &sql)
    };
    let (whole_before, one_before) = (whole(tree()), one(tree()));
    // Not even where the planner takes trees for small, as most are, does it read this one's 10,000 rows for one path.
    let column = "alter table shell.fs_entries alter column tree_id";
    db.run(&format!(
        "{column} set (n_distinct = -0.5); analyze shell.fs_entries"
    ));
    let one_of_many = one(tree());
    db.run(&format!(
        "{column} reset (n_distinct); analyze shell.fs_entries"
    ));
    assert!(
        one_of_many < 2 * one_before,
        "{one_of_many} after {one_before}"
    );
    for i in 0..200 {
        hand.run(&Change::new().file(format!("folder{}/file7", i % 100), format!("new {i}")));
        if i % 20 == 0 {
            while db.one::<i64>("select shell.upkeep()", &[]) > 0 {}
        }
    }
    while db.one::<i64>("select shell.upkeep()", &[]) > 0 {}
    let deepest: i32 = db.one(
        "select max(depth) from shell.trees where user_id = $1",
        &[&hand.user],
    );
    assert!(deepest <= 32, "{deepest}");
    assert!(
        whole(tree()) < 2 * whole_before,
        "{} after {whole_before}",
        whole(tree())
    );
    assert!(
        one(tree()) < one_before + 400,
        "{} after {one_before}",
        one(tree())
    );
    let entries: i64 = db.one("select count(*) from shell.tree_entries($1)", &[&tree()]);
    assert_eq!(entries, 10_100);
    // The merged changes are little beside what they are of.
    let merged: i64 = db.one(
        "select count(*) from shell.checkpoints as c join shell.trees as t on t.id = c.tree_id where t.user_id = $1",
        &[&hand.user],
    );
    assert!(
        merged < 2_000,
        "{merged} rows were written again for 200 changes"
    );

    let fork = format!("select shell.fork_session('{}', {first}, true)", hand.user);
    // The first time it is planned, which reads the catalogue.
    db.run(&fork);
    let forking = buffers(db, &fork);
    assert!(forking < 100, "{forking}");
    let fork = db.one(
        "select id from shell.environments where forked_from_command_id = $1 limit 1",
        &[&first],
    );
    let changed = Change::new().file("folder1/file1", "in the fork");
    let count =
        "select (select count(*) from shell.fs_entries) + (select count(*) from shell.checkpoints)";
    let before: i64 = db.one(count, &[]);
    hand.run_in(fork, &changed);
    assert!(
        db.one::<i64>(count, &[]) - before < 20,
        "a change in a fork costs what it changes"
    );

    // Nearly all goes: what is left is small, and soon read so.
    let mut rest = Change::new();
    for folder in 1..100 {
        rest = rest.gone(format!("folder{folder}"));
    }
    hand.run(&rest);
    while db.one::<i64>("select shell.upkeep()", &[]) > 0 {}
    assert_eq!(hand.files(hand.session).len(), 101);
    assert!(
        whole(tree()) < whole_before / 4,
        "{} after {whole_before}",
        whole(tree())
    );
    assert_eq!(hand.broken(hand.session), None);
}
