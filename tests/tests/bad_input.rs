//! What is refused, with its SQLSTATE and hint; nothing of it is stored.

use pg_shell_tests::shared;

const NOBODY: &str = "00000000-0000-0000-0000-00000000dead";

#[test]
fn unknown_users() {
    let (db, _alone) = shared::alone();
    for user in [format!("'{NOBODY}'"), "null".into()] {
        db.refused_with_hint(
            &format!("select shell.submit_command({user}, 'true')"),
            "PS001",
        );
        db.refused_with_hint(&format!("select shell.create_session({user})"), "PS001");
        db.refused_with_hint(&format!("select shell.fork_session({user}, 1)"), "PS001");
    }
    db.refused_whole("select shell.submit_command('not a uuid', 'true')", "22P02");
    let latest = format!("select * from shell.latest_output('{NOBODY}')");
    db.refused_with_hint(&latest, "PS001");
}

#[test]
fn unknown_and_foreign_sessions() {
    let (db, _alone) = shared::alone();
    let (mine, other) = (db.user("mine"), db.user("other"));
    let foreign = db.session(other);
    db.session(mine);
    let submit =
        |session: &str| format!("select shell.submit_command('{mine}', 'true', '{session}')");
    db.refused_with_hint(&submit(NOBODY), "PS002");
    db.refused_with_hint(&submit(&foreign.to_string()), "PS003");
    db.refused_with_hint(
        &format!("select shell.submit_command('{NOBODY}', 'true', '{foreign}')"),
        "PS001",
    );
    db.refused_with_hint(&format!("select shell.replay_session('{NOBODY}')"), "PS002");
    db.refused_with_hint("select shell.replay_session(null)", "PS002");
    db.refused_with_hint(
        &format!("select shell.replay_session('{foreign}')"),
        "PS007",
    );
}

#[test]
fn unknown_foreign_and_unfinished_commands() {
    let (db, _alone) = shared::alone();
    let (mine, other) = (db.user("has commands"), db.user("has others"));
    let foreign = db.submit(other, "true");
    let pending = db.submit(mine, "true");
    for call in [
        "wait_command(0)",
        "wait_command(null)",
        "cancel_command(0)",
        "cancel_command(null)",
    ] {
        db.refused_with_hint(&format!("select shell.{call}"), "PS006");
    }
    db.refused_with_hint(&format!("select shell.fork_session('{mine}', 0)"), "PS006");
    db.refused_with_hint(
        &format!("select shell.fork_session('{mine}', null)"),
        "PS006",
    );
    db.refused_with_hint(
        &format!("select shell.fork_session('{mine}', {foreign})"),
        "PS003",
    );
    db.refused_with_hint(
        &format!("select shell.fork_session('{mine}', {pending})"),
        "PS007",
    );
    db.refused_with_hint(
        &format!("select shell.fork_session('{mine}', {pending}, after => true)"),
        "PS007",
    );
}

#[test]
fn empty_and_over_long_commands() {
    let (db, _alone) = shared::alone();
    let user = db.user("empty");
    for command in ["null", "''", "' '", r"E' \t\r\n '"] {
        db.refused_with_hint(
            &format!("select shell.submit_command('{user}', {command})"),
            "PS004",
        );
    }
    let long = |bytes: &str| format!("select shell.submit_command('{user}', repeat('x', {bytes}))");
    db.refused_with_hint(&long("1048577"), "PS005");
    db.refused_with_hint(
        &format!("select shell.submit_command('{user}', repeat('ü', 524289))"),
        "PS005",
    );
    let longest: i64 = db.one(&long("1048576"), &[]);
    assert!(longest > 0);
}

#[test]
fn nul() {
    let (db, _alone) = shared::alone();
    let user = db.user("nul");
    let submit = |command: &str| format!("select shell.submit_command('{user}', {command})");
    // Text cannot hold NUL: Postgres itself refuses it, in each way to write it.
    db.refused_whole(&submit("'echo ' || chr(0)"), "54000");
    db.refused_whole(&submit(r"E'echo \000'"), "22021");
    db.refused_whole(&submit(r"E'echo \u0000'"), "42601");
    db.refused_whole(
        &submit(r#"'{"command": "echo \u0000"}'::json ->> 'command'"#),
        "22P05",
    );
    db.refused_whole(
        &submit(r#"'{"command": "echo \u0000"}'::jsonb ->> 'command'"#),
        "22P05",
    );
    let refusal = db.refused("select shell.submit_command($1, $2)", &[&user, &"echo \0"]);
    assert_eq!(refusal.code, "22021");
    let stored: i64 = db.one(
        "select count(*) from shell.commands where user_id = $1",
        &[&user],
    );
    assert_eq!(stored, 0);
}
