//! What the tables themselves refuse, whoever writes: rows that cannot be.

use pg_shell_tests::shared;

#[test]
fn variables_that_are_no_object_of_strings() {
    let (db, _alone) = shared::alone();
    let user = db.user("env");
    let session = db.session(user);
    let set = |column: &str, value: &str| {
        format!("update shell.environments set {column} = {value} where id = '{session}'")
    };
    let wrong = [
        r#"'{"a": 1}'"#,
        r#"'{"a": null}'"#,
        r#"'{"a": ["x"]}'"#,
        r#"'{"a": {}}'"#,
        r#"'{"": "x"}'"#,
    ];
    for value in wrong.into_iter().chain([
        r#"'{"a=b": "x"}'"#,
        "'[]'",
        r#"'["a"]'"#,
        "'\"a\"'",
        "'null'",
        "'1'",
    ]) {
        db.refused_whole(&set("env", value), "23514");
        let variables =
            format!("update shell.sandboxes set variables = {value} where owner_id = '{user}'");
        db.refused_whole(&variables, "23514");
    }
    db.refused_whole(
        &set("env", "jsonb_build_object('a', repeat('x', 1048576))"),
        "23514",
    );
    db.refused_whole(&set("env", "null"), "23502");
    db.refused_whole(&set("env", r#"'{"a": "\u0000"}'"#), "22P05");
    db.run(&set("env", r#"'{"a": "x", "B_2": ""}'"#));
}

#[test]
fn folders_that_are_not_absolute() {
    let (db, _alone) = shared::alone();
    let user = db.user("cwd");
    let session = db.session(user);
    for value in ["'tmp'", "''", "'./x'", "'~'", "'/' || repeat('x', 4095)"] {
        let sql = format!("update shell.environments set cwd = {value} where id = '{session}'");
        db.refused_whole(&sql, "23514");
    }
}

#[test]
fn rows_that_cannot_be() {
    let (db, _alone) = shared::alone();
    let user = db.user("rows");
    let id = db.submit(user, "true");
    let wrong = [
        "status = 'unknown'",
        "status = 'done', finished_at = now(), exit_code = 1",
        "status = 'done', finished_at = now()",
        "status = 'done', exit_code = 0",
        "status = 'failed', finished_at = now()",
        "status = 'failed', finished_at = now(), failure = 'because'",
        "status = 'running'",
        "failure = 'exit'",
        "command = ''",
        "cwd_snapshot = 'tmp'",
        "env_snapshot = '{\"a\": 1}'",
    ];
    for change in wrong {
        db.refused_whole(
            &format!("update shell.commands set {change} where id = {id}"),
            "23514",
        );
    }
    db.refused_whole("insert into shell.users (username) values ('')", "23514");
    db.refused_whole(
        "insert into shell.users (username) values (E'a\\nb')",
        "23514",
    );
    db.refused_whole(
        "insert into shell.users (username) values ('rows')",
        "23505",
    );
    for limit in [
        "wall_seconds = 0",
        "memory_bytes = 1",
        "output_bytes = -1",
        "image = 'other'",
    ] {
        let sql = format!("update shell.sandboxes set {limit} where owner_id = '{user}'");
        db.refused_whole(&sql, "23514");
    }
    let second_default = format!(
        "insert into shell.environments (sandbox_id, user_id, is_default)
         select id, owner_id, true from shell.sandboxes where owner_id = '{user}'"
    );
    db.refused_whole(&second_default, "23505");
}

#[test]
fn history_never_changes() {
    let (db, _alone) = shared::alone();
    let user = db.user("history");
    let id = db.submit(user, "true");
    assert!(db.cancel(id));
    for change in [
        "output = 'forged'",
        "status = 'pending', failure = null, finished_at = null",
        "id = default",
    ] {
        db.refused_with_hint(
            &format!("update shell.commands set {change} where id = {id}"),
            "PS009",
        );
    }
    assert_eq!(db.command(id).why(), "cancelled");
}
