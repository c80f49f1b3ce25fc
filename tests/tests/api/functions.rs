//! What each function does for somebody whose the thing is not, and for nobody; and which of them only read.

use pg_shell_tests::{Caller, Db, shared};
use uuid::Uuid;

use crate::world::{Owned, World, world};

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
    ("rename_session", "select rename_session(:session, 'x')::text", [Error("PS002"), Error("PS002")]),
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
    ("sign_out_everywhere", "select nullif(sign_out_everywhere(), 0)::text", [Empty, Empty]),
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
    // A user's password is changed by one request at a time.
    let _alone = shared::alone();
    let (db, World { ann, bob }) = world();
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
    // A user's password is changed by one request at a time.
    let _alone = shared::alone();
    let (db, World { ann, bob }) = world();
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

/// GET runs them in a transaction that is read only; POST need not.
#[test]
fn what_is_stable_writes_nothing() {
    let (db, World { ann, .. }) = world();
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
