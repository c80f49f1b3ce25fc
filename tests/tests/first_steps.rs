//! What a user does first, as the README says it, and how a command can end.

use pg_shell_tests::{Db, shared};

fn db() -> Db {
    shared::with_worker(&[]).db()
}

#[test]
fn the_readme_as_written() {
    let db = db();
    let user: uuid::Uuid = db.one(
        "insert into shell.users (username) values ('demo') returning id",
        &[],
    );
    let ask = |sql: &str| db.query(&sql.replace('…', &user.to_string()), &[]);
    let submit = "select shell.submit_command(user_id => '…', command => ";
    let first: i64 = ask(&format!("{submit}'cd /tmp && export GREETING=hello')"))[0].get(0);
    let second: i64 = ask(&format!(
        "{submit}'echo \"$GREETING from $(pwd)\" | tr a-z A-Z')"
    ))[0]
        .get(0);
    assert_eq!(db.wait(first).status, "done");
    db.wait(second);

    let rows = ask("select * from shell.latest_output(user_id => '…')");
    let names: Vec<_> = rows[0]
        .columns()
        .iter()
        .map(|c| c.name().to_owned())
        .collect();
    assert_eq!(
        names,
        [
            "id",
            "command",
            "output",
            "exit_code",
            "status",
            "submitted_at"
        ]
    );
    assert_eq!(
        rows.iter().map(|row| row.get(0)).collect::<Vec<i64>>(),
        [second, first]
    );
    assert_eq!(rows[0].get::<_, &str>("output"), "HELLO FROM /TMP\n");
    assert_eq!(rows[0].get::<_, i32>("exit_code"), 0);
    assert_eq!(rows[0].get::<_, &str>("status"), "done");

    let fork = ask(&format!(
        "select shell.fork_session(user_id => '…', source_command_id => {second})"
    ));
    let forked = db.wait(db.submit_to(user, fork[0].get(0), "echo $GREETING in $PWD"));
    assert_eq!(forked.text(), "hello in /tmp\n");
}

#[test]
fn latest_output_returns_the_last_n_newest_first() {
    let db = db();
    let user = db.user("latest");
    let ids: Vec<i64> = (0..25)
        .map(|i| db.submit(user, &format!("echo {i}")))
        .collect();
    db.wait(ids[24]);
    let last = |n: i32| -> Vec<i64> {
        db.column(
            "select id from shell.latest_output(user_id => $1, n => $2)",
            &[&user, &n],
        )
    };
    assert_eq!(last(3), [ids[24], ids[23], ids[22]]);
    assert_eq!(last(1000).len(), 25);
    let default: Vec<String> = db.column("select output from shell.latest_output($1)", &[&user]);
    assert_eq!(default.len(), 20);
    assert_eq!(default[0], "24\n");
}

#[test]
fn a_fork_begins_before_or_after_its_command_and_leaves_the_original_alone() {
    let db = db();
    let user = db.user("fork");
    db.finish(
        user,
        "cd /tmp; export A=1; b=unexported; f() { echo \"f $A $b\"; }",
    );
    let source = db.finish(user, "cd /usr; A=2; b=changed");
    let fork = |after: bool| -> uuid::Uuid {
        db.one(
            "select shell.fork_session($1, $2, after => $3)",
            &[&user, &source.id, &after],
        )
    };
    let (before, after) = (fork(false), fork(true));
    let show = "pwd; f";
    let in_before = db.wait(db.submit_to(user, before, show));
    assert_eq!(in_before.text(), "/tmp\nf 1 unexported\n");
    assert_eq!(
        db.wait(db.submit_to(user, after, show)).text(),
        "/usr\nf 2 changed\n"
    );

    db.wait(db.submit_to(user, before, "cd /; A=3"));
    assert_eq!(db.finish(user, show).text(), "/usr\nf 2 changed\n");
    let parent: uuid::Uuid = db.one(
        "select parent_id from shell.environments where id = $1",
        &[&before],
    );
    let default: uuid::Uuid = db.one(
        "select id from shell.environments where user_id = $1 and is_default",
        &[&user],
    );
    assert_eq!(parent, default);
    let from: i64 = db.one(
        "select forked_from_command_id from shell.environments where id = $1",
        &[&before],
    );
    assert_eq!(from, source.id);
}

#[test]
fn sessions_of_one_user_are_apart() {
    let db = db();
    let user = db.user("two sessions");
    db.finish(user, "cd /tmp; export ONLY=here");
    let other = db.session(user);
    let seen = db.wait(db.submit_to(user, other, "echo \"${ONLY-unset}\"; pwd"));
    assert_eq!(seen.text(), "unset\n/home/sandbox\n");
}

#[test]
fn wait_command_returns_the_row_as_it_stands_after_its_timeout() {
    let db = db();
    let user = db.user("wait");
    let id = db.submit(user, "echo begun; sleep 1000");
    db.until_prints(id);
    let status: String = db.one(
        "select status from shell.wait_command($1, timeout => '0.05 s')",
        &[&id],
    );
    assert_eq!(status, "running");
    assert!(db.cancel(id));
    assert_eq!(db.wait(id).why(), "cancelled");
    assert!(!db.cancel(id), "a finished command cannot be cancelled");
}

#[test]
fn wait_command_refuses_what_it_can_never_see() {
    let db = db();
    let user = db.user("wait in one transaction");
    db.run("begin");
    let id = db.submit(user, "true");
    let refusal = db.refused("select shell.wait_command($1)", &[&id]);
    assert_eq!(refusal.code, "PS008");
    assert!(refusal.hint.contains("Commit"), "{refusal:?}");
    db.run("rollback");
    let gone = db.refused("select shell.wait_command($1)", &[&id]);
    assert_eq!(gone.code, "PS006");
}

#[test]
fn a_command_of_an_open_transaction_begins_at_its_commit() {
    let db = db();
    let user = db.user("rolled back");
    db.run("begin");
    db.submit(user, "export A=lost");
    db.run("rollback");
    db.run("begin");
    let kept = db.submit(user, "echo ${A-unset}; A=kept");
    let next = db.submit(user, "echo $A");
    db.run("commit");
    assert_eq!(db.wait(kept).text(), "unset\n");
    assert_eq!(db.wait(next).text(), "kept\n");
}

#[test]
fn stdout_and_stderr_are_kept_apart_too() {
    let db = db();
    let user = db.user("streams");
    let command = db.finish(user, "echo out; sleep 0.1; echo err >&2");
    assert_eq!(command.text(), "out\nerr\n");
    assert_eq!(command.stdout.as_deref(), Some("out\n"));
    assert_eq!(command.stderr.as_deref(), Some("err\n"));
    assert_eq!(command.output_bytes, Some(8));
    assert!(!command.truncated && command.raw_output.is_none());
}

#[test]
fn a_row_says_what_its_command_found_and_left() {
    let db = db();
    let user = db.user("state columns");
    let changing = db.finish(user, "cd /tmp; export A=1; umask 027");
    assert_eq!(changing.cwd_after.as_deref(), Some("/tmp"));
    assert_eq!(changing.env_after.as_ref().unwrap()["A"], "1");
    let looking = db.finish(user, "true");
    assert_eq!(looking.cwd_after, None, "it left the state as it was");
    assert_eq!(looking.env_after, None);
    assert_eq!(looking.shell_state_after, None);
    let sql = "select cwd_snapshot::text from shell.commands where id = $1";
    assert_eq!(db.one::<String>(sql, &[&changing.id]), "/home/sandbox");
    assert_eq!(db.one::<String>(sql, &[&looking.id]), "/tmp");
    let times: bool = db.one(
        "select submitted_at <= claimed_at and claimed_at <= started_at and started_at <= finished_at
           and duration > '0' and cpu_time > '0' and peak_memory_bytes > 100000 and worker_id is not null
         from shell.commands where id = $1",
        &[&looking.id],
    );
    assert!(times);
}

#[test]
fn a_session_begins_with_its_sandboxes_variables() {
    let db = db();
    let user = db.user("variables");
    db.query(
        "insert into shell.sandboxes (owner_id, variables) values ($1, '{\"TEAM\": \"red\"}')",
        &[&user],
    );
    assert_eq!(db.finish(user, "echo $TEAM").text(), "red\n");
}
