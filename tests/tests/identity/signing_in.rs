//! Signing in, and what a failure tells.

use std::time::{Duration, Instant};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::{Value, json};

use crate::people::*;

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
            db.query(
                "delete from shell.sign_in_attempts where username = $1",
                &[name],
            );
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
