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

/// The roles that the tables of rights below name.
const ROLES: &[&str] = &[
    "stranger",
    "shell_anonymous",
    "shell_user",
    "shell_auditor",
    "shell_admin",
    "shell_worker",
    "shell_runner",
    "shell_authenticator",
];

/// Every function, and the roles that may call it, less their "shell_".
#[rustfmt::skip]
const FUNCTIONS: &[(&str, &str)] = &[
    ("shell_api.audit_log()", "user auditor admin"),
    ("shell_api.cancel_command(bigint)", "user admin"),
    ("shell_api.change_password(text,text)", "user auditor admin"),
    ("shell_api.command_html(bigint)", "user auditor admin"),
    ("shell_api.create_session(text,uuid)", "user admin"),
    ("shell_api.create_snapshot(uuid,text,text)", "user admin"),
    ("shell_api.create_token(text,interval)", "user auditor admin"),
    ("shell_api.delete_snapshot(uuid,text)", "user admin"),
    ("shell_api.diff(bigint,bigint,text)", "user auditor admin"),
    ("shell_api.exchange_token(text)", "anonymous user auditor admin"),
    ("shell_api.file_changes(bigint)", "user auditor admin"),
    ("shell_api.file_history(uuid,text)", "user auditor admin"),
    ("shell_api.files(uuid,bigint)", "user auditor admin"),
    ("shell_api.fork_session(bigint,uuid,boolean)", "user admin"),
    ("shell_api.latest_output(uuid,integer)", "user auditor admin"),
    ("shell_api.latest_output_html(uuid,integer)", "user auditor admin"),
    ("shell_api.list_sessions(uuid)", "user auditor admin"),
    ("shell_api.list_snapshots(uuid)", "user auditor admin"),
    ("shell_api.list_tokens()", "user auditor admin"),
    ("shell_api.metrics(uuid,integer)", "user auditor admin"),
    ("shell_api.output_since(bigint,integer)", "user auditor admin"),
    ("shell_api.read_file(uuid,text,bigint)", "user auditor admin"),
    ("shell_api.replay_differences(uuid)", "user auditor admin"),
    ("shell_api.replay_report(uuid)", "user auditor admin"),
    ("shell_api.rename_session(uuid,text)", "user admin"),
    ("shell_api.replay_session(uuid)", "user admin"),
    ("shell_api.restore_snapshot(uuid,text)", "user admin"),
    ("shell_api.revoke_token(uuid)", "user auditor admin"),
    ("shell_api.session_commands(uuid,bigint,integer)", "user auditor admin"),
    ("shell_api.sessions_html()", "user auditor admin"),
    ("shell_api.set_retention(integer,integer,uuid,uuid)", "user admin"),
    ("shell_api.sign_in(text,text)", "anonymous user auditor admin"),
    ("shell_api.sign_out()", "user auditor admin"),
    ("shell_api.storage(uuid)", "user auditor admin"),
    ("shell_api.sign_out_everywhere()", "user auditor admin"),
    ("shell_api.submit_command(text,uuid,uuid,jsonb)", "user admin"),
    ("shell_api.usage()", "user auditor admin"),
    ("shell_api.verify_history(uuid)", "user auditor admin"),
    ("shell_api.wait_command(bigint,interval)", "user admin"),
    ("shell_api.whoami()", "user auditor admin"),
    ("shell_api.write_file(uuid,text,bytea,integer)", "user admin"),
    ("shell.access_token(uuid)", ""),
    ("shell.acting_user(uuid)", ""),
    ("shell.add_chunks(bytea[],bytea[],text[],integer[])", "worker"),
    ("shell.add_contents(json)", ""),
    ("shell.add_tree(bigint,bigint,integer,json,json,bytea[],bytea[])", "worker"),
    ("shell.ancestors(bytea)", ""),
    ("shell.answer_error(integer,text,text,text)", ""),
    ("shell.answer_too_many()", ""),
    ("shell.append_output(bigint,json)", "worker"),
    ("shell.apply_retention(uuid,integer)", ""),
    ("shell.are_program_paths(text[])", ""),
    ("shell.cancel_command(bigint)", "admin"),
    ("shell.chain_command()", ""),
    ("shell.changes_hash(fs_entries[])", ""),
    ("shell.check_request()", "anonymous user auditor admin authenticator"),
    ("shell.claim_commands(bigint,integer,uuid)", ""),
    ("shell.claims()", "user auditor admin"),
    ("shell.collect_chunks(bytea[])", ""),
    ("shell.collect_contents(bytea[])", ""),
    ("shell.collect_trees(bigint[])", ""),
    ("shell.command_as_html(shell_api.command_log)", "user auditor admin"),
    ("shell.command_hash(commands,bytea,bytea)", ""),
    ("shell.compare_trees(bigint,bigint)", ""),
    ("shell.confinement()", "auditor admin"),
    ("shell.confinement_report()", "auditor admin"),
    ("shell.content_bytes(bytea)", ""),
    ("shell.content_chunks(bytea[])", "worker"),
    ("shell.count_failure(text)", ""),
    ("shell.create_session(uuid,text)", "admin"),
    ("shell.create_snapshot(uuid,text,text)", "admin"),
    ("shell.current_user_id()", "user auditor admin"),
    ("shell.default_limits()", "admin"),
    ("shell.default_session(uuid)", ""),
    ("shell.delete_snapshot(uuid,text)", "admin"),
    ("shell.diff(bigint,bigint,text)", "admin"),
    ("shell.end_action(commands,environments,timestamp with time zone,text)", ""),
    ("shell.entry_shape(bytea,text,integer,bytea,bytea)", ""),
    ("shell.expect_objects(text[])", "worker"),
    ("shell.file_changes(bigint)", "admin"),
    ("shell.file_history(uuid,text)", "admin"),
    ("shell.file_in_tree(bigint,text)", ""),
    ("shell.files(uuid,bigint)", "admin"),
    ("shell.find_entries(bigint,bytea[])", ""),
    ("shell.finish_commands(bigint,json)", ""),
    ("shell.forget_objects(text[])", "worker"),
    ("shell.fork_session(uuid,bigint,boolean)", "admin"),
    ("shell.give_up_objects(text,integer)", "worker"),
    ("shell.hash_before(uuid,bigint)", ""),
    ("shell.hash_password(text)", ""),
    ("shell.heartbeat(bigint,interval,interval,integer)", "worker"),
    ("shell.hidden_paths(bytea[],bigint[],bytea[],bigint[])", ""),
    ("shell.home_path(text)", ""),
    ("shell.html(text)", "user auditor admin"),
    ("shell.is_admin()", "user auditor admin"),
    ("shell.is_slow(trees)", ""),
    ("shell.latest_output(uuid,integer)", "admin"),
    ("shell.make_empty_tree(uuid,bigint,bigint)", ""),
    ("shell.make_tree(uuid,uuid,bigint,bigint,json)", ""),
    ("shell.maximum_limits()", "admin"),
    ("shell.maximum_storage()", "admin"),
    ("shell.merge_tree(bigint,boolean)", ""),
    ("shell.merged_changes(bigint[],boolean[],boolean)", ""),
    ("shell.missing_chunks(bytea[])", "worker"),
    ("shell.mode_text(integer)", ""),
    ("shell.may_try_password(text)", ""),
    ("shell.new_session(uuid,text,text,timestamp with time zone)", ""),
    ("shell.new_token()", ""),
    ("shell.output_lock(text)", "authenticator"),
    ("shell.password_matches(text,text)", ""),
    ("shell.path_key(bytea)", ""),
    ("shell.path_text(bytea)", ""),
    ("shell.perform_action(bigint)", ""),
    ("shell.plain_entries(bigint)", ""),
    ("shell.plain_text(text)", "user auditor admin"),
    ("shell.prune_above(bigint)", ""),
    ("shell.quicken_tree(bigint)", ""),
    ("shell.read_chunks(bytea[])", "worker"),
    ("shell.read_file(uuid,text,bigint)", "admin"),
    ("shell.reads_all()", "user auditor admin"),
    ("shell.refuse(integer,text,text,text)", ""),
    ("shell.refuse_to_change_history()", ""),
    ("shell.register_worker(text,text,text,integer)", "worker"),
    ("shell.release_commands(bigint,integer,bigint[])", "worker"),
    ("shell.release_contents(uuid,bytea[])", ""),
    ("shell.remove_commands(uuid,integer,integer)", ""),
    ("shell.remove_trees(bigint[])", ""),
    ("shell.remove_versions(uuid,integer,integer)", ""),
    ("shell.replay_report(uuid)", "admin"),
    ("shell.replay_session(uuid)", "admin"),
    ("shell.request_address()", ""),
    ("shell.request_header(text)", ""),
    ("shell.request_role()", "user auditor admin"),
    ("shell.require_command(bigint)", ""),
    ("shell.require_limits(jsonb,uuid)", ""),
    ("shell.require_password(text)", ""),
    ("shell.require_reader(uuid)", "user auditor admin"),
    ("shell.require_session(uuid,uuid)", ""),
    ("shell.require_snapshot(uuid,text)", ""),
    ("shell.require_user(uuid)", ""),
    ("shell.require_visible_command(bigint)", "user auditor admin"),
    ("shell.require_visible_session(uuid)", "user auditor admin"),
    ("shell.rescue_commands(interval,interval,integer)", ""),
    ("shell.restore_snapshot(uuid,text)", "admin"),
    ("shell.resume_worker(bigint,bigint[],integer)", "worker"),
    ("shell.run_command(text,jsonb,text,jsonb)", "runner"),
    ("shell.session_of(text,text,inet)", "authenticator"),
    ("shell.set_password(uuid,text)", "admin"),
    ("shell.set_retention(uuid,integer,integer,uuid)", "admin"),
    ("shell.sign_jwt(jsonb)", ""),
    ("shell.split_hashes(bytea)", ""),
    ("shell.stop_worker(bigint)", "worker"),
    ("shell.storage_quota(uuid)", ""),
    ("shell.store_content(bytea)", ""),
    ("shell.submit_action(uuid,text,jsonb)", ""),
    ("shell.submit_command(uuid,text,uuid,jsonb)", "admin"),
    ("shell.tell_output(bigint[])", ""),
    ("shell.text_hash(text)", ""),
    ("shell.time_of(bigint)", ""),
    ("shell.tree_at(uuid,bigint)", ""),
    ("shell.tree_changes(bigint)", "worker"),
    ("shell.tree_differences(bigint,bigint,boolean)", ""),
    ("shell.tree_entries(bigint)", "worker"),
    ("shell.tree_hash(bytea,trees,bytea)", ""),
    ("shell.tree_is_named(bigint)", ""),
    ("shell.tree_left(commands)", ""),
    ("shell.tree_segments(bigint)", ""),
    ("shell.unified_diff(bytea,bytea,text,text)", ""),
    ("shell.unwatch_output()", "authenticator"),
    ("shell.upkeep(integer)", "worker"),
    ("shell.uuid_of(text)", "user auditor admin"),
    ("shell.verify_files(uuid,bigint)", "admin"),
    ("shell.verify_history(uuid)", "admin"),
    ("shell.wait_command(bigint,interval)", "admin"),
    ("shell.watch_output()", "authenticator"),
    ("shell.work(bigint,json,integer,uuid)", "worker"),
    ("shell.worker_lock(bigint)", "worker"),
    ("shell.write_file(uuid,text,bytea,integer)", "admin"),
    ("shell.written_entries(bigint,bytea,bytea,bigint,integer)", ""),
    ("shell.wrong_in_tree(bigint)", ""),
];

/// Every table and view, and what each role may do with it.
#[rustfmt::skip]
const RELATIONS: &[(&str, &str)] = &[
    ("shell_api.command_log", "user:select auditor:select admin:select"),
    ("shell_api.command_metrics", "user:select auditor:select admin:select"),
    ("shell_api.replay_differences", "user:select auditor:select admin:select"),
    ("shell_api.sessions", "user:select auditor:select admin:select"),
    ("shell_api.usage", "user:select auditor:select admin:select"),
    ("shell.checkpoints", "auditor:select admin:select"),
    ("shell.chunks", "auditor:select admin:select"),
    ("shell.command_metrics", "user:select auditor:select admin:select"),
    ("shell.commands", "user:select auditor:select admin:select"),
    ("shell.contents", "auditor:select admin:select"),
    ("shell.credentials", ""),
    ("shell.environments", "user:select auditor:select admin:select,insert,update"),
    ("shell.fs_entries", "auditor:select admin:select"),
    ("shell.output_chunks", "user:select auditor:select admin:select"),
    ("shell.queue", "auditor:select admin:select"),
    ("shell.removed_commands", "user:select auditor:select admin:select"),
    ("shell.removed_versions", "user:select auditor:select admin:select"),
    ("shell.replay_differences", "user:select auditor:select admin:select"),
    ("shell.retention_policies", "user:select auditor:select admin:select"),
    ("shell.sandboxes", "user:select auditor:select admin:select,insert,update"),
    ("shell.sign_in_attempts", "auditor:select admin:select"),
    ("shell.snapshots", "user:select auditor:select admin:select"),
    ("shell.trees", "user:select auditor:select admin:select"),
    ("shell.unnamed_objects", "auditor:select admin:select"),
    ("shell.upkeep_state", "auditor:select admin:select"),
    ("shell.user_contents", "auditor:select admin:select"),
    ("shell.user_sessions", ""),
    ("shell.user_storage", "user:select auditor:select admin:select"),
    ("shell.user_usage", "user:select auditor:select admin:select"),
    ("shell.users", "user:select auditor:select admin:select,insert,update"),
    ("shell.worker_status", "auditor:select admin:select"),
    ("shell.workers", "auditor:select admin:select"),
];

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

fn named((name, rights): &(&str, &str)) -> String {
    format!("{name}: {rights}")
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[test]
fn who_may_call_which_function() {
    let sql = "select format('%s.%s: %s', n.nspname, replace(p.oid::regprocedure::text, n.nspname || '.', ''),
          (select string_agg(replace(r, 'shell_', ''), ' ' order by i)
           from unnest($1::text[]) with ordinality as u (r, i) where has_function_privilege(r, p.oid, 'execute')))
        from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
        where n.nspname in ('shell', 'shell_api')";
    let found: Vec<String> = db().column(sql, &[&ROLES]);
    assert_eq!(sorted(found), sorted(FUNCTIONS.iter().map(named).collect()));
}

#[test]
fn who_may_do_what_with_which_table() {
    let sql = "select format('%s.%s: %s', n.nspname, c.relname,
          (select string_agg(replace(r, 'shell_', '') || ':' || rights, ' ' order by i)
           from unnest($1::text[]) with ordinality as u (r, i), lateral (
             select string_agg(p, ',' order by array_position($2::text[], p))
             from unnest($2::text[]) as p where has_table_privilege(r, c.oid, p)
           ) as x (rights)))
        from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
        where n.nspname in ('shell', 'shell_api') and c.relkind in ('r', 'v', 'm', 'p', 'f')";
    let found: Vec<String> = db().column(sql, &[&ROLES, &ALL]);
    assert_eq!(sorted(found), sorted(RELATIONS.iter().map(named).collect()));
}

#[test]
fn the_hash_of_a_password_or_a_token_is_shown_to_nobody() {
    let db = db();
    let columns: Vec<String> = db.column(
        "select r || ' ' || a.attname from unnest($1::text[]) as r, pg_attribute as a
         where a.attrelid in ('shell.user_sessions'::regclass, 'shell.credentials'::regclass) and a.attnum > 0
           and a.attname like '%hash%' and has_column_privilege(r, a.attrelid, a.attnum, 'select, insert, update')",
        &[&ROLES],
    );
    assert!(columns.is_empty(), "{columns:?}");
    for role in ["shell_auditor", "shell_admin", "shell_user"] {
        db.run(&format!("set role {role}"));
        let refusal = db.refused("select token_hash from shell.user_sessions", &[]);
        assert_eq!(refusal.code, "42501");
        db.run("select id, name from shell.user_sessions; reset role");
    }
}

#[test]
fn every_table_has_policies_that_bind_its_owner_too() {
    let loose: Vec<String> = db().column(
        "select relname::text from pg_class where relnamespace = 'shell'::regnamespace and relkind in ('r', 'p')
         and not (relrowsecurity and relforcerowsecurity)",
        &[],
    );
    assert!(loose.is_empty(), "{loose:?}");
}

#[test]
fn views_that_requests_read_do_not_lend_their_owner_s_rights() {
    let lending: Vec<String> = db().column(
        "select oid::regclass::text from pg_class
         where relkind = 'v' and relnamespace in ('shell'::regnamespace, 'shell_api'::regnamespace)
           and has_table_privilege('shell_user', oid, 'select')
           and not coalesce('security_invoker=true' = any (reloptions), false)",
        &[],
    );
    assert!(lending.is_empty(), "{lending:?}");
}

#[test]
fn the_authenticator_has_nothing_until_it_becomes_somebody() {
    let db = db();
    assert!(with_right(&db, "shell_authenticator", ALL).is_empty());
    let roles: Vec<String> = db.column(
        "select m.roleid::regrole::text from pg_auth_members as m
         where m.member = 'shell_authenticator'::regrole order by 1",
        &[],
    );
    assert_eq!(
        roles,
        [
            "shell_admin",
            "shell_anonymous",
            "shell_auditor",
            "shell_user"
        ]
    );
    db.run("set session authorization shell_authenticator");
    for sql in [
        "select * from shell.users",
        "select * from shell_api.command_log",
        "select shell_api.whoami()",
        "set role shell_worker",
        "set role shell_runner",
    ] {
        assert_eq!(db.refused(sql, &[]).code, "42501", "{sql}");
    }
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
    assert_eq!(sequences.len(), 5);
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
        "add_chunks",
        "add_tree",
        "append_output",
        "content_chunks",
        "expect_objects",
        "forget_objects",
        "give_up_objects",
        "heartbeat",
        "missing_chunks",
        "read_chunks",
        "register_worker",
        "release_commands",
        "resume_worker",
        "stop_worker",
        "tree_changes",
        "tree_entries",
        "upkeep",
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
        "chunks",
        "unnamed_objects",
        "contents",
        "trees",
        "fs_entries",
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
        "read_file(gen_random_uuid(), '/home/sandbox/a')",
        "make_tree(gen_random_uuid(), gen_random_uuid(), null, 1, '[]')",
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
    assert!(with_right(&db, "shell_auditor", WRITES).is_empty());
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
        "update shell.trees set bytes = 0",
        "delete from shell.fs_entries",
        "update shell.chunks set bytes = 'forged'",
        "delete from shell.removed_commands",
        "select shell.add_tree(1, 1, 1, '[]')",
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
    assert_eq!(made, 7);
}

#[test]
fn functions_that_act_for_others_pin_their_search_path() {
    let db = db();
    let unpinned: Vec<String> = db.column(
        "select proname::text from pg_proc where pronamespace in ('shell'::regnamespace, 'shell_api'::regnamespace)
         and prosecdef and not coalesce('search_path=pg_catalog, pg_temp' = any (proconfig), false)",
        &[],
    );
    assert!(unpinned.is_empty(), "{unpinned:?}");
}
