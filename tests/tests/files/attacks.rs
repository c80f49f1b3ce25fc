//! What a stranger's commands may try with a session's files: on the worker that reads them, on its cache, and on the
//! database.

use super::{done, listing, session_of, text};
use pg_shell_tests::shared;

/// Goes down into folders with names of 200 bytes, so many.
const DIVE: &str = "d=$(printf 'd%.0s' {1..200}); dive() { for ((i = 0; i < $1; i++)); do mkdir -p $d && cd $d; done; }; ";

#[test]
fn what_is_too_deep_is_named_and_the_rest_kept() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("too deep");
    let session = session_of(&db, user);
    let id = db.submit(
        user,
        &format!("echo x >a; {DIVE} (dive 30; echo deep >f); cd; echo y >b"),
    );
    let ran = db.wait(id);
    assert_eq!(ran.failure_reason, None);
    let named: Vec<String> = db.one("select not_kept from shell.commands where id = $1", &[&id]);
    assert_eq!(named.len(), 1, "{named:?}");
    assert!(named[0].ends_with("too long"), "{named:?}");
    assert_eq!(
        (text(&db, session, "a"), text(&db, session, "b")),
        ("x\n".into(), "y\n".into())
    );
    assert_eq!(done(&db, user, "cat a b"), "x\ny\n");
}

#[test]
fn of_many_that_are_not_kept_some_are_named() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("many pipes");
    session_of(&db, user);
    let make = r#"perl -MPOSIX -e 'POSIX::mkfifo("$_" . "p" x 200, 0600) or die $! for 1 .. 8000'"#;
    let id = db.submit(user, &format!("{DIVE} (dive 15; {make}); echo x >a"));
    let ran = db.wait(id);
    assert_eq!(ran.failure_reason, None);
    let bytes: i32 = db.one(
        "select pg_column_size(not_kept) from shell.commands where id = $1",
        &[&id],
    );
    assert!(bytes < 2 << 20, "{bytes}");
    let last: String = db.one(
        "select not_kept[cardinality(not_kept)] from shell.commands where id = $1",
        &[&id],
    );
    assert!(last.contains(" more"), "{last}");
    assert_eq!(done(&db, user, "cat a"), "x\n");
}

#[test]
fn names_are_limited_as_bytes_are() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("names as data");
    let session = session_of(&db, user);
    done(&db, user, "echo x >a");
    let make = r#"perl -e 'for (1 .. 50000) { open F, ">", "$_" . "p" x 200 or die $! }'"#;
    let over = db.finish(user, &format!("{DIVE} dive 15; {make}; cd; echo lost >a"));
    assert_eq!(over.why(), "limit", "{}", over.reason());
    assert_eq!(listing(&db, session), ["a"]);
    assert_eq!(done(&db, user, "cat a"), "x\n");
}

#[test]
fn names_are_limited_over_commands_too() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("names over time");
    let session = session_of(&db, user);
    done(&db, user, "echo x >a");
    // As if it had made as many, some ten thousand a command.
    let many = "update shell.trees set entries = 999999 where user_id = $1";
    db.query(many, &[&user]);
    done(&db, user, "echo x >b");
    let over = db.finish(user, "echo lost >c");
    assert_eq!(over.why(), "limit", "{}", over.reason());
    assert_eq!(listing(&db, session), ["a", "b"]);
    let sql = "select shell.write_file($1, '/home/sandbox/c', '')";
    assert_eq!(db.refused(sql, &[&session]).code, "PS034");
    done(&db, user, "rm a b");
    done(&db, user, "echo x >c");
}

#[test]
fn many_links_far_down_do_not_hold_the_worker_up() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("deep links");
    session_of(&db, user);
    let began = std::time::Instant::now();
    let make = r#"perl -e 'for (1 .. 1500) { mkdir "d" or die; chdir "d" or die } open F, ">", "f" or die; close F; for (1 .. 4000) { link "f", $_ or die $! }'"#;
    let id = db.submit(user, make);
    let ran = db.wait(id);
    assert_eq!(ran.failure_reason, None);
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

/// Sets what overlayfs would take for its own marks; a mark that is refused is none.
const MARK: &str = r#"mark() { python3 -c '
import os, sys
for path, name, value in (("d", "opaque", b"y"), ("d", "redirect", b"/../../../../etc"), ("d", "whiteouts", b"x"),
                          ("f", "metacopy", b""), ("f", "whiteout", b"y"), (".", "opaque", b"y")):
    try: os.setxattr(path, "user.overlay." + name, value)
    except OSError: pass
try: os.mknod("gone", 0o020600, 0)
except OSError: pass
'; }; "#;

#[test]
fn marks_of_overlays_are_nobody_s_to_set() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("marks");
    let session = session_of(&db, user);
    // In a home that is no overlay yet nothing forbids them.
    let make = "mkdir -p d/e; echo x >f; echo y >d/e/g; mark";
    done(&db, user, &format!("{MARK} {make}"));
    for _ in 0..2 {
        assert_eq!(
            done(&db, user, "ls -A . d/e; cat f d/e/g"),
            ".:\nd\nf\n\nd/e:\ng\nx\ny\n"
        );
        assert_eq!(listing(&db, session), ["d/", "d/e/", "d/e/g", "f"]);
        done(&db, user, &format!("{MARK} mark; touch d f"));
    }
}

#[test]
fn holes_are_limited_as_bytes_are() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("holes");
    let session = session_of(&db, user);
    let over = db.finish(user, "for i in {1..15}; do truncate -s 1G h$i; done");
    assert_eq!(over.why(), "limit", "{}", over.reason());
    assert!(listing(&db, session).is_empty());
}

#[test]
fn a_write_that_waits_is_within_the_quota() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("writes that wait");
    let session = session_of(&db, user);
    db.query(
        "update shell.users set storage_bytes = 3000000 where id = $1",
        &[&user],
    );
    let waiting = db.submit(user, "read -t 30 </dev/zero; sleep 30");
    db.until(
        "(select status = 'running' from shell.commands where id = $1)",
        &[&waiting],
    );
    let write = "select shell.write_file($1, '/home/sandbox/' || $2, convert_to(repeat($2, 1000000), 'utf8'))";
    db.query(write, &[&session, &"a"]);
    db.query(write, &[&session, &"b"]);
    let refused = db.refused(write, &[&session, &"cdefg"]);
    assert_eq!(refused.code, "PS034", "{refused:?}");
    db.query(write, &[&session, &"h"]);
    let refused = db.refused(write, &[&session, &"i"]);
    assert_eq!(refused.code, "PS034", "{refused:?}");
    db.cancel(waiting);
    assert_eq!(done(&db, user, "wc -c <h"), "1000000\n");
}

#[test]
fn what_a_file_is_called_by_sql_stays_in_the_home() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("paths by SQL");
    let session = session_of(&db, user);
    done(&db, user, "ln -s / root; ln -s .. up; mkdir d; echo x >d/f");
    for path in [
        "/home/sandbox/../x",
        "/home/sandbox/d/../../../etc/passwd",
        "/home/sandbox/d/./f",
        "/home/sandbox//f",
        "/home/sandbox/",
        "/home/sandbox",
        "/home/sandbox2/f",
        "/etc/passwd",
        "etc/passwd",
        "",
        r"/home/sandbox/\000",
        r"/home/sandbox/d/\056\056/f",
        r"/home/sandbox/d\057..\057f",
        r"/home/sandbox/\",
        r"/home/sandbox/\8",
    ] {
        for sql in [
            "select shell.write_file($1, $2, 'x')",
            "select shell.read_file($1, $2)",
            "select count(*) from shell.file_history($1, $2)",
        ] {
            let refused = db.refused(sql, &[&session, &path]);
            assert!(
                ["PS037", "PS032"].contains(&refused.code.as_str()),
                "{path}: {refused:?}"
            );
        }
    }
    let through = [
        "/home/sandbox/root/etc/passwd",
        "/home/sandbox/up/x",
        "/home/sandbox/d/f/x",
    ];
    for path in through {
        let refused = db.refused("select shell.write_file($1, $2, 'x')", &[&session, &path]);
        assert_eq!(refused.code, "PS034", "{path}: {refused:?}");
        let refused = db.refused("select shell.read_file($1, $2)", &[&session, &path]);
        assert_eq!(refused.code, "PS032", "{path}: {refused:?}");
    }
    assert_eq!(done(&db, user, "cat d/f; ls -A"), "x\nd\nroot\nup\n");
}

#[test]
fn one_session_s_files_are_not_read_by_way_of_another() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let (one, other) = (db.user("has files"), db.user("wants files"));
    let (mine, its) = (session_of(&db, one), session_of(&db, other));
    done(&db, one, "echo secret >a");
    let secret: i64 = db.one(
        "select max(id) from shell.commands where user_id = $1",
        &[&one],
    );
    done(&db, other, "echo own >a");
    let own: i64 = db.one(
        "select max(id) from shell.commands where user_id = $1",
        &[&other],
    );
    let caller = pg_shell_tests::Caller::user(other);
    for (sql, code) in [
        (
            format!("select shell_api.read_file('{mine}', '/home/sandbox/a')"),
            "PS002",
        ),
        (
            format!("select shell_api.read_file('{its}', '/home/sandbox/a', {secret})"),
            "PS006",
        ),
        (
            format!("select count(*) from shell_api.files('{its}', {secret})"),
            "PS006",
        ),
        (
            format!("select count(*) from shell_api.files('{mine}')"),
            "PS002",
        ),
        (format!("select shell_api.diff({own}, {secret})"), "PS006"),
        (format!("select shell_api.diff({secret}, {own})"), "PS006"),
        (
            format!("select count(*) from shell_api.file_changes({secret})"),
            "PS006",
        ),
        (
            format!("select count(*) from shell_api.file_history('{mine}', '/home/sandbox/a')"),
            "PS002",
        ),
        (
            format!("select shell_api.write_file('{mine}', '/home/sandbox/a', 'x')"),
            "PS002",
        ),
        (
            format!("select shell_api.create_snapshot('{mine}', 'x')"),
            "PS002",
        ),
        (
            format!("select shell_api.restore_snapshot('{mine}', 'x')"),
            "PS002",
        ),
        (
            format!("select count(*) from shell_api.verify_history('{mine}')"),
            "PS002",
        ),
        (format!("select shell_api.fork_session({secret})"), "PS006"),
    ] {
        let refused = db.request(&caller, |db| db.refused(&sql, &[]));
        // What the function itself refuses has its code as it is, what the request may not see within the message.
        let told = refused.code == code || refused.message.contains(code);
        assert!(told, "{sql}: {refused:?}");
    }
    for table in [
        "chunks",
        "unnamed_objects",
        "contents",
        "fs_entries",
        "trees",
        "checkpoints",
        "snapshots",
        "user_contents",
    ] {
        let sql = format!(
            "select count(*)::text from shell.{table} as t where to_jsonb(t)::text like '%{one}%'"
        );
        match db.request(&caller, |db| db.attempt(&sql)) {
            Err(refused) => assert_eq!(refused.code, "42501", "{table}: {refused:?}"),
            Ok(seen) => assert_eq!(seen.as_deref(), Some("0"), "{table}"),
        }
    }
}

#[test]
fn a_request_reads_no_file_that_takes_all_memory() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("large by request");
    let session = session_of(&db, user);
    done(&db, user, "truncate -s 33554433 f; truncate -s 5M g");
    let caller = pg_shell_tests::Caller::user(user);
    let sql = "select octet_length(shell_api.read_file($1, '/home/sandbox/' || $2))";
    let refused = db.request(&caller, |db| db.refused(sql, &[&session, &"f"]));
    assert_eq!(refused.code, "PS041", "{refused:?}");
    let size: i32 = db.asked(&caller, sql, &[&session, &"g"]);
    assert_eq!(size, 5 << 20);
}

#[test]
fn a_fork_shares_files_and_writes_none_of_its_origin_s() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("shares");
    let session = session_of(&db, user);
    done(
        &db,
        user,
        "mkdir d; for i in $(seq 40); do echo original >d/$i; done; ln d/1 d/one",
    );
    // So that layers are merged, by hard links.
    for i in 0..10 {
        done(&db, user, &format!("echo {i} >last"));
    }
    let fork: uuid::Uuid = db.one(
        "select shell.fork_session($1, (select max(id) from shell.commands where user_id = $1), after => true)",
        &[&user],
    );
    let write = r#"perl -e '
        use Fcntl; my $i = 0;
        my @ways = (
            sub { open F, "<", $_[0]; open G, "+<", "/proc/self/fd/" . fileno F; syswrite G, "ALTERED" },
            sub { open F, "+<", $_[0]; syswrite F, "ALTERED" },
            sub { open F, ">>", $_[0]; syswrite F, "ALTERED" },
            sub { truncate $_[0], 1 },
            sub { chmod 0777, $_[0]; utime 1, 1, $_[0] },
            sub { link $_[0], "$_[0]l"; open F, "+<", "$_[0]l"; syswrite F, "ALTERED" },
            sub { rename "d/40", $_[0] },
            sub { open F, "<", $_[0]; syscall 285, fileno F, 0, 0, 4096; syswrite F, "ALTERED" },
        );
        $_->("d/" . ++$i) for @ways'; echo ALTERED >d/one; find d -type f -exec touch {} +"#;
    let id = db.submit_to(user, fork, write);
    assert_eq!(db.wait(id).failure_reason, None);
    assert_eq!(
        done(
            &db,
            user,
            "cat d/* | sort | uniq -c; stat -c %a d/5 d/1; ls d | wc -l"
        )
        .split_whitespace()
        .collect::<Vec<_>>(),
        ["41", "original", "644", "644", "41"],
    );
    assert_eq!(text(&db, session, "d/1"), "original\n");
    let altered: i64 = db.one("select count(*) from shell.verify_files($1)", &[&session]);
    assert_eq!(altered, 0);
}

#[test]
fn what_differs_is_told_within_bounds() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("differs much");
    session_of(&db, user);
    let run = |command: &str| -> i64 {
        let id = db.submit(user, command);
        assert_eq!(db.wait(id).failure_reason, None);
        id
    };
    let fill = |line: &str| {
        run(&format!(
            "yes '{line}' | head -c 4M >large; echo >>large; for i in {{1..8}}; do yes {line}$i | head -c 4M >$i; done"
        ))
    };
    let (one, two) = (fill(""), fill("a"));
    let diff: String = db.one("select shell.diff($1, $2)", &[&one, &two]);
    assert!(diff.len() < 40 << 20, "{}", diff.len());
    assert!(diff.ends_with("The rest is left out: name a path\n"));
    let sql = "select shell.diff($1, $2, '/home/sandbox/large')";
    let diff: String = db.one(sql, &[&one, &two]);
    assert_eq!(
        diff,
        "Files /home/sandbox/large differ, and are too large to compare\n"
    );
}
