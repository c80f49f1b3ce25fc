//! What a user does with what is its own, an administrator for others, and an auditor not at all.

use pg_shell_tests::Caller;
use uuid::Uuid;

use crate::world::{World, world};

#[test]
fn a_user_does_everything_with_what_is_its_own() {
    let (db, _) = world();
    let user = db.user("own <b>everything</b>");
    let caller = Caller::user(user);
    let id: i64 = db.asked(
        &caller,
        "select shell_api.submit_command('cd /tmp; A=1; echo one')",
        &[],
    );
    let status: String = db.asked(
        &caller,
        "select status from shell_api.wait_command($1, '50 s')",
        &[&id],
    );
    assert_eq!(status, "done");
    let rows = |sql: &str| db.request(&caller, |db| db.query(sql, &[]));
    let latest = rows("select * from shell_api.latest_output()");
    assert_eq!(latest[0].get::<_, String>("output"), "one\n");
    assert_eq!(latest[0].get::<_, String>("cwd_after"), "/tmp");
    let session: Uuid = latest[0].get("environment_id");
    let fork: Uuid = db.asked(
        &caller,
        "select shell_api.fork_session(source_command_id => $1, after => true)",
        &[&id],
    );
    let next: i64 = db.asked(
        &caller,
        "select shell_api.submit_command(command => 'pwd; echo $A', environment_id => $1, limits => '{\"wall_seconds\": 50}')",
        &[&fork],
    );
    let output: String = db.asked(
        &caller,
        "select output from shell_api.wait_command($1)",
        &[&next],
    );
    assert_eq!(output, "/tmp\n1\n");
    let replay: Uuid = db.asked(&caller, "select shell_api.replay_session($1)", &[&session]);
    let made: Uuid = db.asked(&caller, "select shell_api.create_session('second')", &[]);
    let rename = "select shell_api.rename_session($1, $2)";
    db.request(&caller, |db| {
        db.query(rename, &[&made, &"the third"]);
    });
    let name: String = db.asked(
        &caller,
        "select name from shell_api.sessions where id = $1",
        &[&made],
    );
    assert_eq!(name, "the third");
    for bad in [None, Some(""), Some("a\nb"), Some(&*"x".repeat(65))] {
        assert_eq!(db.forbidden(&caller, rename, &[&made, &bad]).code, "PS023");
    }
    let sessions: Vec<Uuid> = db.request(&caller, |db| {
        db.column("select id from shell_api.list_sessions()", &[])
    });
    assert_eq!(sessions, [session, fork, replay, made]);
    let slow: i64 = db.asked(
        &caller,
        "select shell_api.submit_command('echo slow; sleep 1000')",
        &[],
    );
    db.until_prints(slow);
    let shown: Vec<String> = db.request(&caller, |db| {
        db.column("select data from shell_api.output_since($1)", &[&slow])
    });
    assert_eq!(shown.concat(), "slow\n");
    assert!(db.asked::<bool>(&caller, "select shell_api.cancel_command($1)", &[&slow]));
    let why: String = db.asked(
        &caller,
        "select failure from shell_api.wait_command($1)",
        &[&slow],
    );
    assert_eq!(why, "cancelled");
    assert!(!db.asked::<bool>(&caller, "select shell_api.cancel_command($1)", &[&slow]));
    let order: Vec<i64> = db.request(&caller, |db| {
        db.column("select id from shell_api.session_commands($1)", &[&session])
    });
    assert_eq!(order, [slow, id]);
    let before: Vec<i64> = db.request(&caller, |db| {
        db.column(
            "select id from shell_api.session_commands($1, before => $2, n => 1)",
            &[&session, &slow],
        )
    });
    assert_eq!(before, [id]);
}

#[test]
fn an_administrator_acts_for_whom_it_names_and_an_auditor_for_nobody() {
    let (db, World { ann, bob }) = world();
    let user = db.user("managed");
    let admin = Caller::new("shell_admin", bob.user);
    let id: i64 = db.asked(
        &admin,
        "select shell_api.submit_command('true', $1)",
        &[&user],
    );
    let whose: Uuid = db.asked(
        &admin,
        "select user_id from shell_api.wait_command($1)",
        &[&id],
    );
    assert_eq!(whose, user);
    let own: i64 = db.asked(&admin, "select shell_api.submit_command('true')", &[]);
    assert_eq!(
        db.one::<Uuid>("select user_id from shell.commands where id = $1", &[&own]),
        bob.user
    );
    let auditor = Caller::new("shell_auditor", bob.user);
    let seen: i64 = db.asked(
        &auditor,
        "select count(*) from shell_api.latest_output($1)",
        &[&ann.user],
    );
    assert!(seen > 0);
    for sql in [
        "submit_command('true')",
        "wait_command(1)",
        "cancel_command(1)",
        "create_session()",
        "rename_session(gen_random_uuid(), 'x')",
        "fork_session(1)",
        "replay_session(gen_random_uuid())",
    ] {
        let refusal = db.forbidden(&auditor, &format!("select shell_api.{sql}"), &[]);
        assert_eq!(refusal.code, "42501", "{sql}");
    }
}
