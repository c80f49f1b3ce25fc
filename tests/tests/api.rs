//! The schema that REST exposes: who sees which rows, what each function does for others, and how fast it reads.

use std::sync::OnceLock;

use pg_shell_tests::{Caller, Cluster, Db, Worker};
use serde_json::Value;
use uuid::Uuid;

/// Two users with a row of each table, and a worker.
struct World {
    cluster: Cluster,
    _worker: Worker,
    ann: Owned,
    bob: Owned,
}

/// What is one user's.
#[derive(Clone)]
struct Owned {
    user: Uuid,
    session: Uuid,
    replay: Uuid,
    done: i64,
    running: i64,
    token: Uuid,
}

fn owned(db: &Db, name: &str) -> Owned {
    let user = db.user(name);
    let done = db.finish(user, &format!("echo {name} own")).id;
    let session = db.one(
        "select environment_id from shell.commands where id = $1",
        &[&done],
    );
    let replay = db.one("select shell.replay_session($1)", &[&session]);
    for made in [
        "select shell.write_file($1, '/home/sandbox/own', 'own'::bytea)",
        "select shell.create_snapshot($1, 'own')",
    ] {
        db.one::<i64>(made, &[&session]);
    }
    db.query(
        "select shell.merge_tree(tree_id, true), shell.upkeep() from shell.environments where id = $1",
        &[&session],
    );
    let kept = "select shell.set_retention(user_id => $1, keep_days => 1000)";
    db.query(kept, &[&user]);
    for removed in [
        "insert into shell.removed_commands (environment_id, command_id, user_id, ran, finished_at, reason)
         values ($1, 0, $2, false, now(), 'a test')",
        "insert into shell.removed_versions (tree_id, path, environment_id, user_id, command_id, content, size, reason)
         values (0, 'x', $1, $2, 0, sha256(''), 0, 'a test')",
    ] {
        db.query(removed, &[&session, &user]);
    }
    db.query("select shell.set_password($1, 'correct horse')", &[&user]);
    let token = "select session_id from shell.new_session($1, 'token', 'a program', now() + interval '1 day')";
    let token = db.one(token, &[&user]);
    db.query(
        "insert into shell.sign_in_attempts (username) values ($1)",
        &[&name],
    );
    let other = db.session(user);
    let running = db.submit_to(user, other, "echo shown; sleep 1000");
    db.until_prints(running);
    Owned {
        user,
        session,
        replay,
        done,
        running,
        token,
    }
}

fn world() -> &'static World {
    static SHARED: OnceLock<World> = OnceLock::new();
    SHARED.get_or_init(|| {
        let cluster = Cluster::new();
        let worker = cluster.worker(&["--concurrency", "4"]);
        let db = cluster.db();
        let (ann, bob) = (owned(&db, "ann"), owned(&db, "bob"));
        for replayed in [&ann, &bob] {
            let done =
                "(select bool_and(status = 'done') from shell.commands where environment_id = $1)";
            db.until(done, &[&replayed.replay]);
        }
        World {
            cluster,
            _worker: worker,
            ann,
            bob,
        }
    })
}

/// What a reader sees of a table or a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sees {
    /// All rows.
    All,
    /// The user's own, of which there are some.
    Own,
    /// It may ask, and gets no row.
    None,
    /// It may not ask.
    Refused,
}
use Sees::{All, None as Nothing, Own, Refused};

/// Each table and view; whose a row is, as SQL; and what sees of it: its user, the same role without a user, the
/// auditor, the administrator.
#[rustfmt::skip]
const RELATIONS: &[(&str, &str, [Sees; 4])] = &[
    ("shell.users", "id", [Own, Nothing, All, All]),
    ("shell.sandboxes", "owner_id", [Own, Nothing, All, All]),
    ("shell.environments", "user_id", [Own, Nothing, All, All]),
    ("shell.commands", "user_id", [Own, Nothing, All, All]),
    ("shell.chunks", "null::uuid", [Refused, Refused, All, All]),
    ("shell.contents", "null::uuid", [Refused, Refused, All, All]),
    ("shell.trees", "user_id", [Own, Nothing, All, All]),
    ("shell.fs_entries", "null::uuid", [Refused, Refused, All, All]),
    ("shell.checkpoints", "null::uuid", [Refused, Refused, All, All]),
    ("shell.user_contents", "user_id", [Refused, Refused, All, All]),
    ("shell.user_storage", "user_id", [Own, Nothing, All, All]),
    ("shell.snapshots", "user_id", [Own, Nothing, All, All]),
    ("shell.retention_policies", "user_id", [Own, Nothing, All, All]),
    ("shell.removed_versions", "user_id", [Own, Nothing, All, All]),
    ("shell.removed_commands", "user_id", [Own, Nothing, All, All]),
    ("shell.upkeep_state", "null::uuid", [Refused, Refused, All, All]),
    ("shell.output_chunks", "(select c.user_id from shell.commands as c where c.id = command_id)", [Own, Nothing, All, All]),
    ("shell.workers", "null::uuid", [Refused, Refused, All, All]),
    ("shell.credentials", "user_id", [Refused, Refused, Refused, Refused]),
    ("shell.user_sessions", "user_id", [Own, Nothing, All, All]),
    ("shell.sign_in_attempts", "null::uuid", [Refused, Refused, All, All]),
    ("shell.command_metrics", "user_id", [Own, Nothing, All, All]),
    ("shell.user_usage", "user_id", [Own, Nothing, All, All]),
    ("shell.replay_differences", "(select c.user_id from shell.commands as c where c.id = replay_command_id)", [Own, Nothing, All, All]),
    ("shell.queue", "null::uuid", [Refused, Refused, All, All]),
    ("shell.worker_status", "null::uuid", [Refused, Refused, All, All]),
    ("shell_api.command_log", "user_id", [Own, Nothing, All, All]),
    ("shell_api.sessions", "user_id", [Own, Nothing, All, All]),
    ("shell_api.replay_differences", "(select c.user_id from shell.commands as c where c.id = replay_command_id)", [Own, Nothing, All, All]),
    ("shell_api.usage", "user_id", [Own, Nothing, All, All]),
    ("shell_api.command_metrics", "user_id", [Own, Nothing, All, All]),
];

fn sees(db: &Db, caller: &Caller, relation: &str, owner: &str, user: Uuid) -> Sees {
    let count = format!("select count(*) from {relation}");
    let all: i64 = db.one(&count, &[]);
    let allowed: bool = db.one(
        "select has_any_column_privilege($1, $2, 'select')",
        &[&caller.role, &relation],
    );
    if !allowed {
        assert_eq!(
            db.forbidden(caller, &count, &[]).code,
            "42501",
            "{relation}"
        );
        return Refused;
    }
    let (seen, others): (i64, i64) = db.request(caller, |db| {
        // Of the user's tokens a role may read some columns only.
        let others = format!("select count(*) from {relation} where {owner} is distinct from $1");
        (db.one(&format!("select count({owner}) + count(*) filter (where {owner} is null) from {relation}"), &[]), db.one(&others, &[&user]))
    });
    match (seen, others) {
        (0, _) => Nothing,
        (_, 0) => Own,
        (seen, _) => {
            assert_eq!(seen, all, "{relation}: some of the others'");
            All
        }
    }
}

#[test]
fn every_table_as_its_user_as_another_and_as_each_role() {
    let world = world();
    let db = world.cluster.db();
    let found: Vec<String> = db.column(
        "select n.nspname || '.' || c.relname from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
         where n.nspname in ('shell', 'shell_api') and c.relkind in ('r', 'v', 'm', 'p', 'f') order by 1",
        &[],
    );
    let mut listed: Vec<&str> = RELATIONS.iter().map(|(name, ..)| *name).collect();
    listed.sort_unstable();
    assert_eq!(found, listed, "a table without an entry");

    for (relation, owner, expected) in RELATIONS {
        for user in [world.ann.user, world.bob.user] {
            let roles = [
                Caller::user(user),
                Caller::nobody("shell_user"),
                Caller::new("shell_auditor", user),
                Caller::new("shell_admin", user),
            ];
            let sees = roles.map(|caller| sees(&db, &caller, relation, owner, user));
            assert_eq!(sees, *expected, "{relation}");
        }
        let anonymous = sees(&db, &Caller::anonymous(), relation, owner, world.ann.user);
        assert_eq!(anonymous, Refused, "{relation}");
        for role in ["shell_worker", "shell_runner", "shell_authenticator"] {
            db.run(&format!("set role {role}"));
            let refusal = db.refused(&format!("select count(*) from {relation}"), &[]);
            assert_eq!(refusal.code, "42501", "{relation} as {role}");
            db.run("reset role");
        }
    }
}

#[test]
fn claims_that_name_nobody_see_nothing() {
    let world = world();
    let db = world.cluster.db();
    let count = "select count(*) from shell.commands";
    for sub in [
        "null",
        "\"\"",
        "\"ann\"",
        "7",
        "{}",
        "\"00000000-0000-0000-0000-000000000000\"",
    ] {
        let mut caller = Caller::nobody("shell_user");
        caller.claims = serde_json::from_str(&format!("{{\"sub\": {sub}}}")).unwrap();
        assert_eq!(db.asked::<i64>(&caller, count, &[]), 0, "{sub}");
    }
    db.run("set role shell_user");
    assert_eq!(db.one::<i64>(count, &[]), 0);
    db.run("set request.jwt.claims = ''");
    assert_eq!(db.one::<i64>(count, &[]), 0);
}

/// What a function answers to somebody whose the thing is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    /// No row, null, or an empty text.
    Empty,
    /// What is the caller's own, and nothing of the other's.
    Own,
    /// False: there is nothing to do.
    False,
    /// An error with this code.
    Error(&'static str),
    /// An answer that depends on what is given, not on who gives it.
    Anybody,
}
use To::{Anybody, Empty, Error, False};

/// Each function; a call of it about Ann, as a text; and what Bob gets, and nobody under the role of a user.
#[rustfmt::skip]
const FUNCTIONS: &[(&str, &str, [To; 2])] = &[
    ("submit_command", "select submit_command('true', environment_id => :session)::text", [Error("PS002"), Error("42501")]),
    ("submit_command", "select submit_command('true', :user)::text", [Error("42501"), Error("42501")]),
    ("latest_output", "select string_agg(user_id::text, ' ') from latest_output(:user)", [Error("42501"), Error("42501")]),
    ("latest_output", "select string_agg(user_id::text, ' ') from latest_output() where user_id = :user", [Empty, Empty]),
    ("latest_output", "select string_agg(user_id::text, ' ') from latest_output()", [To::Own, Empty]),
    ("wait_command", "select wait_command(:done)::text", [Error("PS006"), Error("PS006")]),
    ("cancel_command", "select cancel_command(:running)::text", [Error("PS006"), Error("PS006")]),
    ("fork_session", "select fork_session(:done)::text", [Error("PS006"), Error("42501")]),
    ("fork_session", "select fork_session(:done, :user)::text", [Error("42501"), Error("42501")]),
    ("replay_session", "select replay_session(:session)::text", [Error("PS002"), Error("PS002")]),
    ("create_session", "select create_session('x', :user)::text", [Error("42501"), Error("42501")]),
    ("list_sessions", "select string_agg(user_id::text, ' ') from list_sessions(:user)", [Error("42501"), Error("42501")]),
    ("list_sessions", "select string_agg(user_id::text, ' ') from list_sessions()", [To::Own, Empty]),
    ("session_commands", "select string_agg(user_id::text, ' ') from session_commands(:session)", [Error("PS002"), Error("PS002")]),
    ("audit_log", "select string_agg(user_id::text, ' ') from audit_log()", [To::Own, Empty]),
    ("replay_differences", "select string_agg(command, ' ') from replay_differences(:replay)", [Error("PS002"), Error("PS002")]),
    ("usage", "select string_agg(user_id::text, ' ') from usage()", [To::Own, Empty]),
    ("metrics", "select string_agg(user_id::text, ' ') from metrics()", [To::Own, Empty]),
    ("metrics", "select string_agg(user_id::text, ' ') from metrics(:session)", [Error("PS002"), Error("PS002")]),
    ("output_since", "select string_agg(data, ' ') from output_since(:running)", [Error("PS006"), Error("PS006")]),
    ("files", "select string_agg(path, ' ') from files(:session)", [Error("PS002"), Error("PS002")]),
    ("file_changes", "select string_agg(path, ' ') from file_changes(:done)", [Error("PS006"), Error("PS006")]),
    ("file_history", "select string_agg(change, ' ') from file_history(:session, '/home/sandbox/own')", [Error("PS002"), Error("PS002")]),
    ("read_file", "select read_file(:session, '/home/sandbox/own')::text", [Error("PS002"), Error("PS002")]),
    ("write_file", "select write_file(:session, '/home/sandbox/own', 'x')::text", [Error("PS002"), Error("PS002")]),
    ("diff", "select diff(:done, :done)", [Error("PS006"), Error("PS006")]),
    ("create_snapshot", "select create_snapshot(:session, 'x')::text", [Error("PS002"), Error("PS002")]),
    ("restore_snapshot", "select restore_snapshot(:session, 'own')::text", [Error("PS002"), Error("PS002")]),
    ("delete_snapshot", "select delete_snapshot(:session, 'own')::text", [Error("PS002"), Error("PS002")]),
    ("list_snapshots", "select string_agg(name, ' ') from list_snapshots(:session)", [Error("PS002"), Error("PS002")]),
    ("storage", "select string_agg(user_bytes::text, ' ') from storage(:session)", [Error("PS002"), Error("PS002")]),
    ("set_retention", "select set_retention(1, 1, :session)::text", [Error("PS002"), Error("42501")]),
    ("set_retention", "select set_retention(1, 1, user_id => :user)::text", [Error("42501"), Error("42501")]),
    ("verify_history", "select string_agg(problem, ' ') from verify_history(:session)", [Error("PS002"), Error("PS002")]),
    ("replay_report", "select string_agg(command, ' ') from replay_report(:replay)", [Error("PS002"), Error("PS002")]),
    ("latest_output_html", "select latest_output_html(:user)", [Error("42501"), Error("42501")]),
    ("latest_output_html", "select latest_output_html()", [To::Own, Empty]),
    ("command_html", "select command_html(:done)", [Error("PS006"), Error("PS006")]),
    ("sessions_html", "select replace(sessions_html(), '<ul class=\"sessions\"></ul>', '')", [To::Own, Empty]),
    ("whoami", "select whoami() ->> 'user_id'", [To::Own, Empty]),
    ("revoke_token", "select revoke_token(:token)::text", [False, False]),
    ("list_tokens", "select string_agg(id::text, ' ') from list_tokens()", [To::Own, Empty]),
    ("create_token", "select create_token('x') ->> 'name'", [Anybody, Error("42501")]),
    ("change_password", "select change_password('wrong horse', 'correct horse') ->> 'code'", [Anybody, Error("42501")]),
    ("sign_out", "select sign_out()::text", [Empty, Empty]),
    ("sign_in", "select sign_in('ann', 'wrong horse') ->> 'code'", [Error("PS020"), Error("PS020")]),
    ("exchange_token", "select exchange_token('pgsh_')::text", [Error("PS019"), Error("PS019")]),
];

fn call(sql: &str, of: &Owned) -> String {
    [
        ("user", of.user.to_string()),
        ("session", of.session.to_string()),
        ("replay", of.replay.to_string()),
        ("token", of.token.to_string()),
        ("done", of.done.to_string()),
        ("running", of.running.to_string()),
    ]
    .iter()
    .fold(sql.to_owned(), |sql, (name, value)| {
        sql.replace(&format!(":{name}"), &format!("'{value}'"))
    })
}

fn answered(db: &Db, caller: &Caller, sql: &str, ann: &Owned, bob: &Owned) -> To {
    let sql = &call(sql, ann);
    let answer: Result<Option<String>, String> = db.request(caller, |db| {
        db.run("set local search_path = shell_api; savepoint before");
        let answer = db.attempt(sql);
        // What a request did is undone: the next one finds the same.
        db.run("rollback to before");
        answer.map_err(|refusal| refusal.told())
    });
    match answer {
        Err(code) => FUNCTIONS
            .iter()
            .flat_map(|(.., to)| to)
            .copied()
            .find(|to| matches!(to, Error(known) if *known == code))
            .unwrap_or_else(|| panic!("{sql}: {code}")),
        Ok(None) => Empty,
        Ok(Some(text)) if text.is_empty() => Empty,
        Ok(Some(text)) if text == "false" => False,
        Ok(Some(text)) => {
            let anns = [
                ann.user.to_string(),
                ann.session.to_string(),
                ann.token.to_string(),
                "ann own".into(),
            ];
            assert!(
                !anns.iter().any(|a| text.contains(a.as_str())),
                "{sql} told Bob: {text}"
            );
            let bobs = [
                bob.user.to_string(),
                bob.session.to_string(),
                bob.token.to_string(),
                "bob own".into(),
            ];
            match bobs.iter().any(|b| text.contains(b.as_str())) {
                true => To::Own,
                false => Anybody,
            }
        }
    }
}

#[test]
fn every_function_about_somebody_else_and_as_nobody() {
    let World {
        cluster, ann, bob, ..
    } = world();
    let db = cluster.db();
    let found: Vec<String> = db.column(
        "select distinct proname::text from pg_proc where pronamespace = 'shell_api'::regnamespace order by 1",
        &[],
    );
    let mut listed: Vec<&str> = FUNCTIONS.iter().map(|(name, ..)| *name).collect();
    listed.sort_unstable();
    listed.dedup();
    assert_eq!(found, listed, "a function without an entry");

    for (_, sql, [to_bob, to_nobody]) in FUNCTIONS {
        let of = |caller: &Caller| answered(&db, caller, sql, ann, bob);
        assert_eq!(of(&Caller::user(bob.user)), *to_bob, "{sql} as Bob");
        let nobody = Caller::nobody("shell_user");
        assert_eq!(of(&nobody), *to_nobody, "{sql} as nobody");
        let signs_in = ["sign_in(", "exchange_token("]
            .iter()
            .any(|f| sql.contains(f));
        if !signs_in {
            let refusal = db.request(&Caller::anonymous(), |db| {
                db.run("set local search_path = shell_api");
                db.refused(&call(sql, ann), &[])
            });
            assert_eq!(refusal.code, "42501", "{sql} as an anonymous request");
        }
    }
}

/// What is not there and what is somebody else's look the same.
#[test]
fn there_is_no_telling_what_others_have() {
    let World {
        cluster, ann, bob, ..
    } = world();
    let db = cluster.db();
    let absent = Owned {
        user: Uuid::new_v4(),
        session: Uuid::new_v4(),
        replay: Uuid::new_v4(),
        done: 1 << 40,
        running: 1 << 41,
        token: Uuid::new_v4(),
    };
    let caller = Caller::user(bob.user);
    for (_, sql, [to_bob, _]) in FUNCTIONS {
        if let Error(_) = to_bob {
            let [foreign, none] = [ann, &absent].map(|of| {
                let refusal = db.request(&caller, |db| {
                    db.run("set local search_path = shell_api");
                    db.refused(&call(sql, of), &[])
                });
                format!("{refusal:?}")
                    .replace(&format!("command {}", of.done), "command …")
                    .replace(&format!("command {}", of.running), "command …")
                    .replace(&format!("session {}", of.session), "session …")
                    .replace(&format!("session {}", of.replay), "session …")
            });
            assert_eq!(foreign, none, "{sql}");
        }
    }
}

#[test]
fn a_user_does_everything_with_what_is_its_own() {
    let World { cluster, .. } = world();
    let db = cluster.db();
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
    let World {
        cluster, ann, bob, ..
    } = world();
    let db = cluster.db();
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
        "fork_session(1)",
        "replay_session(gen_random_uuid())",
    ] {
        let refusal = db.forbidden(&auditor, &format!("select shell_api.{sql}"), &[]);
        assert_eq!(refusal.code, "42501", "{sql}");
    }
}

/// GET runs them in a transaction that is read only; POST need not.
#[test]
fn what_is_stable_writes_nothing() {
    let World { cluster, ann, .. } = world();
    let db = cluster.db();
    let stable: Vec<String> = db.column(
        "select proname::text from pg_proc where pronamespace = 'shell_api'::regnamespace and provolatile <> 'v' order by 1",
        &[],
    );
    assert_eq!(
        stable,
        [
            "audit_log",
            "command_html",
            "diff",
            "file_changes",
            "file_history",
            "files",
            "latest_output",
            "latest_output_html",
            "list_sessions",
            "list_snapshots",
            "list_tokens",
            "metrics",
            "output_since",
            "read_file",
            "replay_differences",
            "replay_report",
            "session_commands",
            "sessions_html",
            "storage",
            "usage",
            "verify_history",
            "whoami"
        ]
    );
    let caller = Caller::user(ann.user);
    for (name, sql, _) in FUNCTIONS {
        if stable.contains(&(*name).to_owned()) {
            let written: bool = db.request(&caller, |db| {
                db.run("set local search_path = shell_api; set transaction read only");
                db.query(&call(sql, ann), &[]);
                db.one("select pg_current_xact_id_if_assigned() is not null", &[])
            });
            assert!(!written, "{sql}");
        }
    }
}

#[test]
fn both_forms_of_latest_output_find_the_same_rows_by_index() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let (user, other) = (db.user("long"), db.user("longer"));
    for user in [user, other] {
        let session = db.session(user);
        db.query(
            "insert into shell.commands (user_id, environment_id, command, status, output, exit_code, finished_at)
             select $1, $2, 'true', 'done', '', 0, now() from generate_series(1, 50000)",
            &[&user, &session],
        );
    }
    db.run("vacuum analyze shell.commands");
    let forms = [
        format!("select * from shell_api.latest_output('{user}')"),
        format!("select * from shell_api.latest_output() where user_id = '{user}'"),
        format!(
            "select * from shell_api.latest_output(n => 20) where user_id = '{user}' order by id desc limit 20"
        ),
    ];
    let whole = format!(
        "select * from shell_api.session_commands((select id from shell.environments where user_id = '{user}' and not is_default), n => 20)"
    );
    // The first user's commands are the older half: nothing near the end of the log is theirs.
    for caller in [Caller::user(user), Caller::nobody("shell_admin")] {
        let mut found = Vec::new();
        for sql in forms.iter().chain([&whole]) {
            let ids: Vec<i64> = db.request(&caller, |db| db.column(sql, &[]));
            assert!(ids.is_sorted_by(|a, b| a > b) && ids.len() == 20, "{sql}");
            let pages = db.request(&caller, |db| {
                let plan: Value = db.one(
                    &format!("explain (analyze, buffers, format json) {sql}"),
                    &[],
                );
                let of = |kind: &str| plan[0]["Plan"][kind].as_i64().unwrap();
                of("Shared Hit Blocks") + of("Shared Read Blocks")
            });
            assert!(pages < 60, "{sql} cost {pages} pages");
            found.push(ids);
        }
        assert!(found.windows(2).all(|pair| pair[0] == pair[1]));
        for sql in &forms {
            let plan: Vec<String> = db.request(&caller, |db| {
                db.column(&format!("explain (costs off) {sql}"), &[])
            });
            let plan = plan.join("\n");
            let inlined = !plan.contains("Function Scan")
                && plan.contains("Index Scan Backward using commands_of_user");
            assert!(inlined, "{sql}: {plan}");
        }
    }
    let none: i64 = db.asked(
        &Caller::user(user),
        "select count(*) from shell_api.latest_output() where user_id = $1",
        &[&other],
    );
    assert_eq!(none, 0);
}

#[test]
fn html_is_escaped_wherever_it_comes_from() {
    let World { cluster, .. } = world();
    let db = cluster.db();
    let bad = "<script>alert(\"1\" + '&')</script>";
    let user = db.user(&bad[..31]);
    let caller = Caller::user(user);
    let session: Uuid = db.asked(&caller, "select shell_api.create_session($1)", &[&bad]);
    db.query(
        "update shell.environments set cwd = '/' || $1 where id = $2",
        &[&bad, &session],
    );
    let quoted = bad.replace('\'', "'\\''");
    let command = format!(
        "mkdir -p \"$PWD\"; printf '%s\\n' '{quoted}'; printf '\\033[31mred\\033[0m \\033]0;title\\007 10%%\\r20%%\\r\\nend\\a'; exit 3"
    );
    let id: i64 = db.asked(&caller, "select shell_api.submit_command($1)", &[&command]);
    db.wait(id);
    let waiting: i64 = db.asked(
        &caller,
        "select shell_api.submit_command('true', environment_id => $1)",
        &[&session],
    );
    db.wait(waiting);
    let escaped = "&lt;script&gt;alert(&quot;1&quot; + &#39;&amp;&#39;)&lt;/script&gt;";
    for sql in [
        "select shell_api.latest_output_html()::text",
        &format!("select shell_api.command_html({id})::text"),
        &format!("select shell_api.command_html({waiting})::text"),
        "select shell_api.sessions_html()::text",
    ] {
        let html: String = db.asked(&caller, sql, &[]);
        assert!(
            html.contains(escaped) && !html.contains("<script"),
            "{html}"
        );
        let control = ['\u{1b}', '\u{7}', '\r'];
        assert!(!html.contains(control), "{html}");
    }
    let sql = format!("select shell_api.command_html({id})::text");
    let html: String = db.asked(&caller, &sql, &[]);
    let output = format!("<pre class=\"output\">{escaped}\n20%\nend</pre>");
    for part in [
        output.as_str(),
        "data-status=\"failed\"",
        "<span class=\"exit-code\">3</span>",
    ] {
        assert!(html.contains(part), "{part}: {html}");
    }
    let domain: String = db.one("select pg_typeof(shell_api.sessions_html())::text", &[]);
    assert_eq!(domain, "shell_api.\"text/html\"");
}

#[test]
fn output_is_told_to_those_who_watch_and_to_nobody_else() {
    let cluster = Cluster::new();
    let _worker = cluster.worker(&[]);
    let db = cluster.db();
    let user = db.user("watched");
    let watcher = cluster.db();
    watcher.run("listen shell_output");
    // Nobody watches: a notification that is sent after them is the first to come.
    db.finish(user, "echo unwatched");
    db.run("notify shell_output, 'first'");
    assert_eq!(watcher.notice(), "first");

    watcher.run("set session authorization shell_authenticator; select shell.watch_output()");
    let id = db.submit(user, "echo one; sleep 1000");
    assert_eq!(watcher.notice(), id.to_string());
    let shown: i64 = db.one(
        "select count(*) from shell.output_chunks where command_id = $1",
        &[&id],
    );
    assert!(shown > 0, "told before it could be seen");
    let waiting = db.submit(user, "true");
    assert!(db.cancel(waiting));
    assert_eq!(watcher.notice(), waiting.to_string());
    assert!(db.cancel(id));
    assert_eq!(watcher.notice(), id.to_string());
    assert_eq!(db.command(id).why(), "cancelled");

    let left: bool = watcher.one("select shell.unwatch_output()", &[]);
    assert!(left);
    db.finish(user, "echo unwatched again");
    db.run("notify shell_output, 'last'");
    assert_eq!(watcher.notice(), "last");

    // Two may watch, and one that is gone watches no more.
    let (one, two) = (cluster.db(), cluster.db());
    one.run("select shell.watch_output()");
    two.run("listen shell_output; select shell.watch_output()");
    drop(one);
    let id = db.finish(user, "true").id;
    assert_eq!(two.notice(), id.to_string());
}
