//! Signing in: passwords, sessions, tokens, and what a failure tells.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use pg_shell_tests::{Caller, Cluster, Db};
use serde_json::{Value, json};
use uuid::Uuid;

const SECRET: &str = "thirty-two bytes are the least...";
const PASSWORD: &str = "correct horse";

fn set_secret(db: &Db, secret: &str) {
    db.run("load 'pg_shell'");
    db.run(&format!(
        "alter system set pg_shell.jwt_secret = '{secret}'"
    ));
    db.run("select pg_reload_conf()");
    db.until("current_setting('pg_shell.jwt_secret') <> ''", &[]);
}

fn db() -> Db {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    let cluster = SHARED.get_or_init(|| {
        let cluster = Cluster::new();
        set_secret(&cluster.db(), SECRET);
        cluster
    });
    cluster.db()
}

/// A user with a password.
fn user(db: &Db, name: &str) -> Uuid {
    let user = db.user(name);
    db.query("select shell.set_password($1, $2)", &[&user, &PASSWORD]);
    user
}

/// Asks for a sign-in from this address; the answer, the status and the further headers.
fn sign_in_from(db: &Db, address: &str, name: &str, password: &str) -> (Value, String, String) {
    let headers = json!({"x-forwarded-for": address, "user-agent": "a test"}).to_string();
    db.request(&Caller::anonymous(), |db| {
        db.query(
            "select set_config('request.headers', $1, true)",
            &[&headers],
        );
        let answer = db.one("select shell_api.sign_in($1, $2)", &[&name, &password]);
        let setting = |name: &str| -> String {
            db.one("select coalesce(current_setting($1, true), '')", &[&name])
        };
        (
            answer,
            setting("response.status"),
            setting("response.headers"),
        )
    })
}

fn sign_in(db: &Db, name: &str, password: &str) -> (Value, String) {
    let (answer, status, _) = sign_in_from(db, "", name, password);
    (answer, status)
}

/// Signs in, and checks the token with another implementation than the one that signed it.
fn caller(db: &Db, name: &str) -> (Caller, Value) {
    let (answer, status) = sign_in(db, name, PASSWORD);
    assert_eq!(status, "", "{answer}");
    (verified(&answer), answer)
}

fn verified(answer: &Value) -> Caller {
    let key = DecodingKey::from_secret(SECRET.as_bytes());
    let token = answer["token"].as_str().expect("a token");
    let claims = decode::<Value>(token, &key, &Validation::new(Algorithm::HS256))
        .expect("a token that another implementation takes")
        .claims;
    let role = match claims["role"].as_str() {
        Some("shell_auditor") => "shell_auditor",
        Some("shell_admin") => "shell_admin",
        _ => "shell_user",
    };
    Caller { role, claims }
}

fn exchange(db: &Db, token: &str) -> Value {
    db.asked(
        &Caller::anonymous(),
        "select shell_api.exchange_token($1)",
        &[&token],
    )
}

fn no_exchange(db: &Db, token: &str) {
    let refusal = db.forbidden(
        &Caller::anonymous(),
        "select shell_api.exchange_token($1)",
        &[&token],
    );
    assert_eq!(refusal.told(), "PS019");
}

fn create_token(db: &Db, caller: &Caller, arguments: &str) -> Value {
    db.asked(
        caller,
        &format!("select shell_api.create_token({arguments})"),
        &[],
    )
}

#[test]
fn the_right_password_gives_a_token_that_others_can_verify() {
    let db = db();
    let id = user(&db, "right");
    let (caller, answer) = caller(&db, "right");
    let claims = &caller.claims;
    assert_eq!(claims["sub"], id.to_string());
    assert_eq!(claims["role"], "shell_user");
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        3600
    );
    assert_eq!(answer["token_type"], "Bearer");
    assert_eq!(answer["user_id"], id.to_string());
    assert_eq!(answer["username"], "right");
    let who: Value = db.asked(&caller, "select shell_api.whoami()", &[]);
    assert_eq!(
        who,
        json!({"user_id": id.to_string(), "username": "right", "role": "shell_user"})
    );

    let other = DecodingKey::from_secret(b"another secret of thirty-two bytes");
    let token = answer["token"].as_str().unwrap();
    assert!(decode::<Value>(token, &other, &Validation::new(Algorithm::HS256)).is_err());

    // What the answer shows is kept nowhere.
    let session = answer["session_token"].as_str().unwrap();
    assert!(
        session.starts_with("pgsh_") && session.len() == 48,
        "{session}"
    );
    let kept: bool = db.one(
        "select s.id::text = $1 and s.kind = 'session' and s.user_agent = 'a test' and s.ip_address is null
           and s.token_hash = sha256(convert_to($2, 'UTF8')) and strpos(s::text, $2) = 0
         from shell.user_sessions as s where s.user_id = $3",
        &[&claims["sid"].as_str().unwrap(), &session, &id],
    );
    assert!(kept);
    let hash: String = db.one(
        "select password_hash from shell.credentials where user_id = $1",
        &[&id],
    );
    assert!(
        hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
        "{hash}"
    );
}

#[test]
fn what_was_wrong_is_not_told() {
    let db = db();
    user(&db, "known");
    db.user("without password");
    let expected = sign_in(&db, "known", "wrong horse");
    assert_eq!(expected.1, "401");
    assert_eq!(expected.0["code"], "PS018");
    assert!(expected.0["hint"].as_str().unwrap().ends_with('.'));
    for (name, password) in [
        ("known", "short"),
        ("known", ""),
        ("known", &"x".repeat(1025)),
        ("unknown", PASSWORD),
        ("Known", PASSWORD),
        ("", PASSWORD),
        (&"x".repeat(100_000), PASSWORD),
        ("without password", PASSWORD),
    ] {
        assert_eq!(sign_in(&db, name, password), expected, "{name}");
    }
    let sessions: i64 = db.one(
        "select count(*) from shell.user_sessions s join shell.users u on u.id = s.user_id
         where u.username in ('known', 'without password')",
        &[],
    );
    assert_eq!(sessions, 0);
}

/// Wrong attempts by these names in turn, until the quickest of each is about as quick as the first's: what else the
/// machine does only adds to a time, so those of a busy one come together later. One that computes no hash takes a
/// thirtieth of the others and stays apart for good.
#[test]
fn nobody_learns_by_the_clock_who_is_a_user() {
    let db = db();
    user(&db, "clocked");
    db.user("clocked without");
    let names = ["clocked", "not clocked", "clocked without"];
    let mut quickest = [Duration::MAX; 3];
    for _ in 0..100 {
        for (name, quickest) in names.iter().zip(&mut quickest) {
            let began = Instant::now();
            assert_eq!(sign_in(&db, name, "wrong horse").1, "401");
            *quickest = began.elapsed().min(*quickest);
            db.run("delete from shell.sign_in_attempts");
        }
        let [wrong, others @ ..] = quickest.map(|time| time.as_secs_f64());
        if others
            .iter()
            .all(|other| (0.6..1.7).contains(&(other / wrong)))
        {
            return;
        }
    }
    panic!("{names:?}: {quickest:?}");
}

#[test]
fn ten_failures_for_a_name_close_it_for_a_while() {
    let db = db();
    user(&db, "limited");
    user(&db, "not limited");
    for _ in 0..10 {
        assert_eq!(sign_in(&db, "limited", "short").1, "401");
    }
    let (answer, status, headers) = sign_in_from(&db, "", "limited", PASSWORD);
    assert_eq!(
        (answer["code"].as_str(), status.as_str()),
        (Some("PS017"), "429")
    );
    assert_eq!(
        serde_json::from_str::<Value>(&headers).unwrap(),
        json!([{"Retry-After": "900"}])
    );
    caller(&db, "not limited");
    // So is a name that is nobody's.
    for _ in 0..10 {
        assert_eq!(sign_in(&db, "limited nobody", "short").1, "401");
    }
    assert_eq!(sign_in(&db, "limited nobody", PASSWORD).1, "429");

    db.run(
        "update shell.sign_in_attempts set failed_at = failed_at - interval '15 minutes'
         where username like 'limited%'",
    );
    caller(&db, "limited");
    let left: i64 = db.one(
        "select count(*) from shell.sign_in_attempts where username = 'limited'",
        &[],
    );
    assert_eq!(left, 0, "who signs in begins anew");
    db.run(
        "update shell.sign_in_attempts set failed_at = failed_at - interval '1 hour'
         where username like 'limited%'",
    );
    sign_in(&db, "limited sweeper", "short");
    let left: i64 = db.one(
        "select count(*) from shell.sign_in_attempts where username = 'limited nobody'",
        &[],
    );
    assert_eq!(left, 0, "failures are kept for an hour");
}

#[test]
fn fifty_failures_from_an_address_close_it_for_a_while() {
    let db = db();
    user(&db, "elsewhere");
    for i in 0..50 {
        // What stands before the last address anybody may have written.
        let path = format!("10.0.0.{i}, 192.0.2.1");
        let (_, status, _) = sign_in_from(&db, &path, &format!("guess {i}"), "short");
        assert_eq!(status, "401");
    }
    let status = |path: &str| sign_in_from(&db, path, "elsewhere", PASSWORD).1;
    assert_eq!(status("192.0.2.1"), "429");
    assert_eq!(status("203.0.113.9,192.0.2.1"), "429");
    assert_eq!(status("192.0.2.1, 203.0.113.9"), "");
    assert_eq!(status("no address"), "");
}

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

#[test]
fn a_new_password() {
    let db = db();
    let id = user(&db, "changing");
    let (here, _) = caller(&db, "changing");
    let (_, elsewhere) = caller(&db, "changing");
    let token = create_token(&db, &here, "'stays'");
    let change = "select shell_api.change_password($1, $2)";
    for wrong in ["wrong horse", "", "short"] {
        let answer: Value = db.asked(&here, change, &[&wrong, &"battery staple"]);
        assert_eq!(answer["code"], "PS018");
    }
    for length in [0, 7, 1025] {
        let refusal = db.forbidden(&here, change, &[&PASSWORD, &"x".repeat(length)]);
        assert_eq!(refusal.code, "PS021");
    }
    db.request(&here, |db| {
        db.query(change, &[&PASSWORD, &"battery staple"]);
    });
    assert_eq!(sign_in(&db, "changing", PASSWORD).1, "401");
    assert_eq!(sign_in(&db, "changing", "battery staple").1, "");
    db.request(&here, |db| db.run("select shell.check_request()"));
    exchange(&db, token["token"].as_str().unwrap());
    no_exchange(&db, elsewhere["session_token"].as_str().unwrap());

    // An administrator needs no old one; whoever was signed in is no longer.
    let admin = Caller::nobody("shell_admin");
    for length in [8, 1024] {
        db.request(&admin, |db| {
            db.query(
                "select shell.set_password($1, $2)",
                &[&id, &"x".repeat(length)],
            );
        });
        assert_eq!(sign_in(&db, "changing", &"x".repeat(length)).1, "");
    }
    assert_eq!(
        db.forbidden(&here, "select shell.check_request()", &[])
            .told(),
        "PS019"
    );
    let set = "select shell.set_password($1, $2)";
    assert_eq!(db.forbidden(&here, set, &[&id, &PASSWORD]).code, "42501");
    assert_eq!(
        db.forbidden(&admin, set, &[&Uuid::nil(), &PASSWORD]).code,
        "PS001"
    );
    assert_eq!(db.forbidden(&admin, set, &[&id, &"seven.."]).code, "PS021");
}

#[test]
fn a_role_is_given_by_an_administrator_and_by_nobody_else() {
    let db = db();
    let id = user(&db, "promoted");
    let (caller, _) = caller(&db, "promoted");
    let promote = "update shell.users set role = 'shell_admin' where id = $1";
    assert_eq!(db.forbidden(&caller, promote, &[&id]).code, "42501");
    let admin = Caller::nobody("shell_admin");
    for role in [
        "postgres",
        "shell_worker",
        "shell_runner",
        "shell_authenticator",
    ] {
        let sql = format!("update shell.users set role = '{role}' where id = $1");
        assert_eq!(db.forbidden(&admin, &sql, &[&id]).code, "23514");
    }
    db.request(&admin, |db| {
        db.query(
            "update shell.users set role = 'shell_auditor' where id = $1",
            &[&id],
        );
    });
    // The old role's token is no good any more, where requests are checked.
    assert_eq!(
        db.forbidden(&caller, "select shell.check_request()", &[])
            .told(),
        "PS019"
    );
    let (caller, _) = self::caller(&db, "promoted");
    assert_eq!(caller.role, "shell_auditor");
    assert_eq!(db.forbidden(&caller, promote, &[&id]).code, "42501");
}

#[test]
fn without_a_good_secret_nobody_signs_in_and_the_hint_says_what_to_do() {
    let cluster = Cluster::new();
    let db = cluster.db();
    user(&db, "early");
    let sql = "select shell_api.sign_in('early', 'correct horse')";
    let refused = |what: &str| {
        let refusal = cluster.db().forbidden(&Caller::anonymous(), sql, &[]);
        assert_eq!(refusal.code, "PS020", "{what}: {refusal:?}");
        assert!(refusal.message.contains(what) && refusal.hint.contains("pg_shell.jwt_secret"));
    };
    refused("not set");
    set_secret(&db, "short");
    refused("5 bytes");
    set_secret(&db, "@/nowhere/secret");
    refused("No such file");

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{SECRET}\n")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(file.path(), mode).unwrap();
    set_secret(&db, &format!("@{}", file.path().display()));
    caller(&cluster.db(), "early");

    // Not even its owner is shown a secret.
    let shown: String = db.one("select current_setting('pg_shell.jwt_secret')", &[]);
    assert_eq!(shown, "********");
    db.run("set role shell_admin");
    assert_eq!(db.refused("show pg_shell.jwt_secret", &[]).code, "42501");
    assert_eq!(
        db.refused("set pg_shell.jwt_secret = ''", &[]).code,
        "42501"
    );
}

#[test]
fn who_signed_in_before_a_dump_signs_in_after_the_restore() {
    let dump = tempfile::NamedTempFile::new().unwrap();
    let path = dump.path().to_str().unwrap();
    let token;
    {
        let old = Cluster::new();
        let db = old.db();
        set_secret(&db, SECRET);
        user(&db, "restored");
        let (caller, _) = caller(&db, "restored");
        token = create_token(&db, &caller, "'kept'")["token"].clone();
        old.client("pg_dump", &["--file", path, "pg_shell"]);
    }
    let new = Cluster::empty();
    new.connect("postgres").run("create database pg_shell");
    let read = [
        "-X",
        "-q",
        "-v",
        "ON_ERROR_STOP=1",
        "-d",
        "pg_shell",
        "-f",
        path,
    ];
    new.client("psql", &read);
    let db = new.db();
    set_secret(&db, SECRET);
    caller(&db, "restored");
    exchange(&db, token.as_str().unwrap());
    assert_eq!(sign_in(&db, "restored", "wrong horse").1, "401");
}
