//! Who may do what: nothing is anybody's by default.

use std::sync::Once;

use pg_shell_tests::{Cluster, Db, shared};

fn db() -> Db {
    static PEOPLE: Once = Once::new();
    PEOPLE.call_once(|| {
        let people = "create role stranger; insert into shell.users (username) values ('owner')";
        shared::cluster().db().run(people);
    });
    shared::cluster().db()
}

/// The tables, views and sequences of the schema on which a role has a right.
fn with_right(db: &Db, role: &str, rights: &[&str]) -> Vec<String> {
    let sql = "select c.relname || ': ' || p.p from pg_class c, unnest($2::text[]) as p
        where c.relnamespace = 'shell'::regnamespace and c.relkind in ('r', 'v')
          and has_table_privilege($1, c.oid, p.p) order by 1";
    db.column(
        sql,
        &[
            &role,
            &rights.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>(),
        ],
    )
}

fn functions(db: &Db, role: &str) -> Vec<String> {
    let sql = "select p.proname::text from pg_proc p
        where p.pronamespace = 'shell'::regnamespace and has_function_privilege($1, p.oid, 'execute') order by 1";
    db.column(sql, &[&role])
}

const ALL: &[&str] = &[
    "select",
    "insert",
    "update",
    "delete",
    "truncate",
    "references",
    "trigger",
];
const WRITES: &[&str] = &[
    "insert",
    "update",
    "delete",
    "truncate",
    "references",
    "trigger",
];

fn relations(db: &Db) -> i64 {
    db.one("select count(*) from pg_class where relnamespace = 'shell'::regnamespace and relkind in ('r', 'v')", &[])
}

#[test]
fn a_stranger_has_nothing() {
    let db = db();
    let usage: bool = db.one(
        "select has_schema_privilege('stranger', 'shell', 'usage, create')",
        &[],
    );
    assert!(!usage);
    assert!(with_right(&db, "stranger", ALL).is_empty());
    assert!(functions(&db, "stranger").is_empty());
    let sequences: Vec<String> = db.column("select relname::text from pg_class where relnamespace = 'shell'::regnamespace and relkind = 'S'", &[]);
    assert_eq!(sequences.len(), 2);
    for sequence in sequences {
        let sql =
            "select has_sequence_privilege('stranger', 'shell.' || $1, 'usage, select, update')";
        assert!(!db.one::<bool>(sql, &[&sequence]), "{sequence}");
    }
    db.run("set role stranger");
    for sql in [
        "select * from shell.users",
        "select * from shell.latest_output(gen_random_uuid())",
    ] {
        assert_eq!(db.refused(sql, &[]).code, "42501");
    }
}

#[test]
fn a_worker_has_its_functions_and_no_table() {
    let db = db();
    assert!(with_right(&db, "shell_worker", ALL).is_empty());
    let own = [
        "append_output",
        "heartbeat",
        "register_worker",
        "release_commands",
        "resume_worker",
        "stop_worker",
        "work",
        "worker_lock",
    ];
    assert_eq!(functions(&db, "shell_worker"), own);
    db.run("set role shell_worker");
    let tables = [
        "users",
        "commands",
        "environments",
        "sandboxes",
        "workers",
        "output_chunks",
    ];
    for table in tables {
        assert_eq!(
            db.refused(&format!("select * from shell.{table}"), &[])
                .code,
            "42501"
        );
        assert_eq!(
            db.refused(&format!("delete from shell.{table}"), &[]).code,
            "42501"
        );
    }
    for call in [
        "submit_command(gen_random_uuid(), 'true')",
        "claim_commands(1, 1, null)",
        "cancel_command(1)",
    ] {
        assert_eq!(
            db.refused(&format!("select shell.{call}"), &[]).code,
            "42501"
        );
    }
}

#[test]
fn an_auditor_reads_everything_and_writes_nothing() {
    let db = db();
    assert_eq!(
        with_right(&db, "shell_auditor", &["select"]).len() as i64,
        relations(&db)
    );
    assert!(with_right(&db, "shell_auditor", WRITES).is_empty());
    let own = ["confinement", "confinement_report"];
    assert_eq!(functions(&db, "shell_auditor"), own);
    db.run("set role shell_auditor");
    let views = [
        "command_metrics",
        "user_usage",
        "queue",
        "worker_status",
        "replay_differences",
    ];
    for table in [
        "users",
        "commands",
        "environments",
        "sandboxes",
        "workers",
        "output_chunks",
    ] {
        db.run(&format!("select * from shell.{table}"));
        assert_eq!(
            db.refused(&format!("delete from shell.{table}"), &[]).code,
            "42501"
        );
    }
    views
        .iter()
        .for_each(|view| db.run(&format!("select * from shell.{view}")));
    assert_eq!(
        db.refused("insert into shell.users (username) values ('x')", &[])
            .code,
        "42501"
    );
}

#[test]
fn an_administrator_acts_for_users_and_leaves_history_alone() {
    let db = db();
    db.run("set role shell_admin");
    let user = db.user("managed");
    let id = db.submit(user, "true");
    assert!(db.cancel(id));
    assert_eq!(db.wait(id).why(), "cancelled");
    let rows = db.query("select * from shell.latest_output($1)", &[&user]);
    assert_eq!(rows.len(), 1);
    for sql in [
        "update shell.commands set output = 'forged'",
        "delete from shell.commands",
        "truncate shell.commands cascade",
        "insert into shell.commands (user_id, environment_id, command) select user_id, id, 'true' from shell.environments",
        "delete from shell.users",
        "select shell.work(1, null, 1, null)",
        "select shell.release_commands(1, 1)",
    ] {
        assert_eq!(db.refused(sql, &[]).code, "42501", "{sql}");
    }
}

#[test]
fn run_command_is_of_the_role_named_for_it() {
    let db = db();
    let roles: Vec<String> = db.column(
        "select r.rolname::text from pg_roles r, pg_proc p
         where p.pronamespace = 'shell'::regnamespace and p.proname = 'run_command'
           and not r.rolsuper and has_function_privilege(r.rolname, p.oid, 'execute')",
        &[],
    );
    assert_eq!(roles, ["shell_runner"]);
    let runners: Vec<String> = functions(&db, "shell_runner");
    assert_eq!(runners.len(), 1, "{runners:?}");
    assert!(with_right(&db, "shell_runner", &["select"]).is_empty());
    let there: i64 = db.one(
        "select count(*) from pg_proc where pronamespace = 'shell'::regnamespace and proname = 'run_command'",
        &[],
    );
    assert_eq!(there, 1);
}

#[test]
fn no_role_can_log_in_by_default() {
    let cluster = Cluster::empty();
    let db = cluster.connect("postgres");
    db.run("create extension pg_shell");
    let roles: Vec<String> = db.column(
        "select rolname::text from pg_roles where rolname like 'shell%' and rolcanlogin",
        &[],
    );
    assert!(roles.is_empty(), "{roles:?}");
    let made: i64 = db.one(
        "select count(*) from pg_roles where rolname like 'shell\\_%'",
        &[],
    );
    assert_eq!(made, 5);
}

#[test]
fn functions_that_act_for_others_pin_their_search_path() {
    let db = db();
    let unpinned: Vec<String> = db.column(
        "select proname::text from pg_proc where pronamespace = 'shell'::regnamespace and prosecdef
         and not coalesce('search_path=pg_catalog, pg_temp' = any (proconfig), false)",
        &[],
    );
    assert!(unpinned.is_empty(), "{unpinned:?}");
}
