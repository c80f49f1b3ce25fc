//! Bytes never break a row: what a command printed comes back as it was, or says what is missing.

use pg_shell_tests::{Db, shared};

fn db() -> Db {
    shared::with_worker(&["--concurrency", "4"]).db()
}

#[test]
fn nul_and_invalid_utf8() {
    let db = db();
    let user = db.user("binary");
    let command = db.finish(user, r"printf 'a\0b\377c\303'; printf '\0' >&2");
    assert_eq!(command.status, "done");
    assert_eq!(
        command.stdout.as_deref(),
        Some("a\u{fffd}b\u{fffd}c\u{fffd}")
    );
    assert_eq!(command.stderr.as_deref(), Some("\u{fffd}"));
    let raw = command.raw_output.expect("bytes that the text cannot hold");
    assert_eq!(raw.len(), 7);
    assert!(
        raw == b"a\0b\xffc\xc3\0" || raw == b"\0a\0b\xffc\xc3",
        "{raw:?}"
    );
    assert_eq!(command.output_bytes, Some(7));
    assert!(!command.truncated);
}

#[test]
fn every_byte() {
    let db = db();
    let user = db.user("every byte");
    let script = "for i in {0..255}; do printf \"\\\\x$(printf %x $i)\"; done";
    let command = db.finish(user, script);
    assert_eq!(command.raw_output.unwrap(), (0..=255).collect::<Vec<u8>>());
}

#[test]
fn text_is_not_kept_twice() {
    let db = db();
    let user = db.user("text");
    let command = db.finish(user, "printf 'ünï 😀 \\e[1m\\r\\n'");
    assert_eq!(command.text(), "ünï 😀 \u{1b}[1m\r\n");
    assert_eq!(command.raw_output, None);
}

#[test]
fn a_hundred_megabytes() {
    let db = db();
    let user = db.user("100 MB");
    let command = db.finish(
        user,
        "cd /tmp; head -c 100000000 /dev/zero | tr '\\0' x; echo END",
    );
    let kept = 10 << 20;
    assert_eq!(
        (command.status.as_str(), command.why()),
        ("failed", "limit")
    );
    assert!(command.truncated);
    assert_eq!(command.text().len(), kept);
    assert!(
        command.text().bytes().all(|b| b == b'x'),
        "the first bytes are kept"
    );
    assert!(command.output_bytes.unwrap() >= kept as i64);
    assert_eq!(
        db.finish(user, "pwd").text(),
        "/home/sandbox\n",
        "its session goes on as before"
    );
}

#[test]
fn a_hundred_megabytes_of_nul() {
    let db = db();
    let user = db.user("100 MB of NUL");
    let command = db.finish(user, "head -c 100000000 /dev/zero");
    assert_eq!(command.why(), "limit");
    assert_eq!(command.text().chars().count(), 10 << 20);
    assert!(command.raw_output.unwrap().iter().all(|&b| b == 0));
    assert_eq!(db.finish(user, "echo alive").text(), "alive\n");
}

#[test]
fn a_line_of_a_million_characters() {
    let db = db();
    let user = db.user("long line");
    let command = db.finish(user, "head -c 1000000 /dev/zero | tr '\\0' y");
    assert_eq!(command.status, "done");
    assert!(command.text() == "y".repeat(1_000_000));
    let wide = db.finish(user, "printf 'ü%.0s' {1..100000}");
    assert!(wide.text() == "ü".repeat(100_000));
    assert_eq!(wide.raw_output, None, "no character was cut in two");
}

#[test]
fn both_streams_in_the_order_they_came() {
    let db = db();
    let user = db.user("order");
    let script = "for i in 1 2 3; do echo out $i; sleep 0.05; echo err $i >&2; sleep 0.05; done";
    let command = db.finish(user, script);
    assert_eq!(command.text(), "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n");
    assert_eq!(command.stdout.as_deref(), Some("out 1\nout 2\nout 3\n"));
    assert_eq!(command.stderr.as_deref(), Some("err 1\nerr 2\nerr 3\n"));
}

#[test]
fn output_shows_while_the_command_runs() {
    let db = db();
    let user = db.user("live");
    let script = "for i in 1 2 3; do echo $i; sleep 0.1; done; echo problem >&2; sleep 0.1; printf 'ü%.0s' {1..3000}; sleep 1000";
    let id = db.submit(user, script);
    let expected = format!("1\n2\n3\nproblem\n{}", "ü".repeat(3000));
    let shown = "(select string_agg(data, '' order by seq) from shell.output_chunks where command_id = $1) = $2";
    db.until(shown, &[&id, &expected]);

    let count: i64 = db.one(
        "select count(*) from shell.output_chunks where command_id = $1",
        &[&id],
    );
    assert!(count > 2, "it came in pieces");
    let numbers: Vec<i32> = db.column(
        "select seq from shell.output_chunks where command_id = $1 order by 1",
        &[&id],
    );
    assert_eq!(
        numbers,
        (0..i32::try_from(count).unwrap()).collect::<Vec<_>>(),
        "no number is left out"
    );
    let errors: String = db.one(
        "select string_agg(data, '' order by seq) from shell.output_chunks where command_id = $1 and stream = 'stderr'",
        &[&id],
    );
    assert_eq!(errors, "problem\n");
    assert_eq!(
        db.command(id).output,
        None,
        "the row itself changes in one step"
    );

    db.cancel(id);
    assert_eq!(db.wait(id).text(), expected);
    let left: i64 = db.one(
        "select count(*) from shell.output_chunks where command_id = $1",
        &[&id],
    );
    assert_eq!(left, 0);
}
