//! Sessions and the tokens of programs: made, used, ended.

use pg_shell_tests::Caller;
use uuid::Uuid;

use crate::people::*;

#[test]
fn a_token_for_a_program() {
    let db = db();
    let id = user(&db, "programs");
    let (caller, _) = caller(&db, "programs");
    let made = create_token(&db, &caller, "'ci'");
    let token = made["token"].as_str().unwrap();
    assert!(token.starts_with("pgsh_") && token.len() == 48, "{token}");
    assert_eq!(made["name"], "ci");
    let answer = exchange(&db, token);
    assert!(answer.get("session_token").is_none());
    assert_eq!(verified(&answer).claims["sid"], made["id"]);
    let listed: Vec<String> = db.request(&caller, |db| {
        db.column(
            "select kind || ' ' || name from shell_api.list_tokens()",
            &[],
        )
    });
    assert_eq!(listed, ["token ci", "session sign-in"]);
    let found = db.query(
        "select * from shell.session_of($1, 'curl', '192.0.2.7')",
        &[&token],
    );
    assert_eq!(found[0].get::<_, Uuid>("user_id"), id);
    assert_eq!(found[0].get::<_, String>("role"), "shell_user");

    // Used again within the minute, nothing is written.
    let row = "select xmin::text || ctid::text from shell.user_sessions where id = $1::text::uuid";
    let key = made["id"].as_str().unwrap();
    let before: String = db.one(row, &[&key]);
    db.query(
        "select * from shell.session_of($1, 'wget', '192.0.2.8')",
        &[&token],
    );
    assert_eq!(db.one::<String>(row, &[&key]), before);
    db.query(
        "update shell.user_sessions set last_used_at = now() - interval '61 seconds' where id = $1::text::uuid",
        &[&key],
    );
    db.query(
        "select * from shell.session_of($1, 'wget', '192.0.2.8')",
        &[&token],
    );
    let used: bool = db.one(
        "select last_used_at > now() - interval '1 minute' and user_agent = 'wget' and ip_address = '192.0.2.8'
         from shell.user_sessions where id = $1::text::uuid",
        &[&key],
    );
    assert!(used);

    for arguments in ["'t', '0 s'", "'t', '-1 day'", "'t', '11 years'"] {
        let sql = format!("select shell_api.create_token({arguments})");
        assert_eq!(db.forbidden(&caller, &sql, &[]).code, "PS022");
    }
    for name in ["''", r"E'a\nb'"] {
        let sql = format!("select shell_api.create_token({name})");
        assert_eq!(db.forbidden(&caller, &sql, &[]).code, "23514");
    }
}

#[test]
fn revoked_and_expired_tokens_are_nobody_s() {
    let db = db();
    let _ = user(&db, "revoking");
    let (caller, answer) = caller(&db, "revoking");
    let revoked = create_token(&db, &caller, "'revoked'");
    let expired = create_token(&db, &caller, "'expired', '1 hour'");
    let (one, two) = (
        revoked["token"].as_str().unwrap(),
        expired["token"].as_str().unwrap(),
    );
    let session = answer["session_token"].as_str().unwrap();
    for token in [one, two, session] {
        exchange(&db, token);
    }
    let revoke = "select shell_api.revoke_token($1::text::uuid)";
    let id = revoked["id"].as_str().unwrap();
    assert!(db.asked::<bool>(&caller, revoke, &[&id]));
    assert!(!db.asked::<bool>(&caller, revoke, &[&id]));
    db.query(
        "update shell.user_sessions set expires_at = now() where id = $1::text::uuid",
        &[&expired["id"].as_str().unwrap()],
    );
    db.request(&caller, |db| db.run("select shell.check_request()"));
    db.request(&caller, |db| db.run("select shell_api.sign_out()"));
    for token in [one, two, session, "", "pgsh_"] {
        no_exchange(&db, token);
        assert!(
            db.query("select from shell.session_of($1)", &[&token])
                .is_empty()
        );
    }
    // Its signature is good for the hour, but the request can be checked.
    let refusal = db.forbidden(&caller, "select shell.check_request()", &[]);
    assert_eq!(refusal.told(), "PS019");
    // A token that was made of one which ends sooner ends with it.
    let (caller, _) = self::caller(&db, "revoking");
    let short = create_token(&db, &caller, "'short', '1 minute'");
    let claims = verified(&exchange(&db, short["token"].as_str().unwrap())).claims;
    assert!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap() <= 60);
}

#[test]
fn signing_out_everywhere_ends_all_sessions_and_no_token() {
    let db = db();
    let _ = user(&db, "everywhere");
    let _ = user(&db, "bystander");
    let (_, other) = caller(&db, "bystander");
    let (_, elsewhere) = caller(&db, "everywhere");
    let (here, answer) = caller(&db, "everywhere");
    let program = create_token(&db, &here, "'a program'");
    let ended: i32 = db.asked(&here, "select shell_api.sign_out_everywhere()", &[]);
    assert_eq!(ended, 2);
    for gone in [&elsewhere, &answer] {
        no_exchange(&db, gone["session_token"].as_str().unwrap());
    }
    let refusal = db.forbidden(&here, "select shell.check_request()", &[]);
    assert_eq!(refusal.told(), "PS019");
    exchange(&db, program["token"].as_str().unwrap());
    exchange(&db, other["session_token"].as_str().unwrap());
}

#[test]
fn an_administrator_revokes_anybody_s() {
    let db = db();
    let _ = user(&db, "victim");
    let (victim, _) = caller(&db, "victim");
    let token = create_token(&db, &victim, "'mine'");
    let id = token["id"].as_str().unwrap();
    let revoke = "select shell_api.revoke_token($1::text::uuid)";
    let stranger = Caller::user(db.user("not the victim"));
    assert!(!db.asked::<bool>(&stranger, revoke, &[&id]));
    exchange(&db, token["token"].as_str().unwrap());
    let admin = Caller::nobody("shell_admin");
    assert!(db.asked::<bool>(&admin, revoke, &[&id]));
    no_exchange(&db, token["token"].as_str().unwrap());
}
