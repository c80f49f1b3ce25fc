//! Signing in with a password, and the tokens of programs.

use pg_shell_tests::Ask;
use serde_json::{Value, json};

use crate::harness::{PASSWORD, all, ask, sign_in, user};

#[test]
fn signing_in_and_out() {
    let db = all().cluster.db();
    let (id, _) = user(&db, "signs in");
    let wrong = sign_in("signs in", "wrong password");
    assert_eq!((wrong.status, wrong.code().as_str()), (401, "PS018"));
    let unknown = sign_in("nobody at all", PASSWORD);
    assert_eq!(
        (unknown.status, unknown.code()),
        (wrong.status, wrong.code())
    );

    let answer = sign_in("signs in", PASSWORD);
    assert_eq!(answer.status, 200, "{answer:?}");
    let cookie = answer.header("set-cookie").expect("a cookie").to_owned();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let session = cookie.split_once('=').unwrap().1;
    assert!(
        !answer.body.contains(session),
        "the token is for the cookie only"
    );
    let csrf = answer.json()["csrf_token"].as_str().unwrap().to_owned();

    let with = |ask: Ask| ask.header("Cookie", &cookie);
    let me = with(ask("GET", "/session")).send().json();
    assert_eq!(
        (me["user_id"].clone(), me["username"].clone()),
        (json!(id.to_string()), json!("signs in"))
    );
    assert_eq!(me["csrf_token"], csrf.as_str());
    assert_eq!(
        with(ask("GET", "/rpc/whoami")).send().json()["role"],
        "shell_user"
    );

    let post = || with(ask("POST", "/rpc/submit_command")).json(&json!({"command": "true"}));
    let forged = post().send();
    assert_eq!((forged.status, forged.code().as_str()), (403, "PSW403"));
    assert_eq!(post().header("X-CSRF-Token", "AAAA").send().status, 403);
    assert_eq!(post().header("X-CSRF-Token", &csrf).send().status, 200);
    assert_eq!(
        post()
            .header("X-CSRF-Token", &csrf)
            .header("Sec-Fetch-Site", "cross-site")
            .send()
            .status,
        403
    );

    let out = with(ask("POST", "/sign-out"))
        .header("X-CSRF-Token", &csrf)
        .send();
    assert_eq!(out.status, 204, "{out:?}");
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
    assert_eq!(
        with(ask("GET", "/session")).send().json()["user_id"],
        Value::Null
    );
    assert!(
        !all().web.process().log().contains(session),
        "a token in the log"
    );
}

#[test]
fn tokens_of_programs() {
    let db = all().cluster.db();
    let (_, jwt) = user(&db, "has a program");
    let made = ask("POST", "/rpc/create_token")
        .bearer(&jwt)
        .json(&json!({"name": "ci"}))
        .send()
        .json();
    let (id, secret) = (
        made["id"].clone(),
        made["token"].as_str().unwrap().to_owned(),
    );
    let whoami = || ask("GET", "/rpc/whoami").bearer(&secret).send();
    assert_eq!(whoami().json()["username"], "has a program");
    let answer = ask("POST", "/rpc/submit_command")
        .bearer(&secret)
        .json(&json!({"command": "true"}))
        .send();
    assert_eq!(
        answer.status, 200,
        "no token against forgery is needed: {answer:?}"
    );
    ask("POST", "/rpc/revoke_token")
        .bearer(&jwt)
        .json(&json!({"token_id": id}))
        .send();
    assert_eq!(whoami().status, 401);
}

#[test]
fn what_is_over_is_removed_when_somebody_signs_in() {
    let db = all().cluster.db();
    let (id, _) = user(&db, "comes back");
    let add = "insert into shell.user_sessions (user_id, kind, name, token_hash, expires_at)
        select $1, 'session', 'old', sha256(convert_to(n || $2, 'UTF8')), clock_timestamp() - $2::text::interval
        from generate_series(1, $3) as n";
    db.query(add, &[&id, &"2 days", &150_i32]);
    db.query(add, &[&id, &"1 hour", &1_i32]);
    let left = |age: &str| -> i64 {
        let sql = "select count(*) from shell.user_sessions
            where user_id = $1 and expires_at < clock_timestamp() - $2::text::interval";
        db.one(sql, &[&id, &age])
    };
    // Some of it each time, so that nobody waits for all of it.
    assert_eq!(sign_in("comes back", PASSWORD).status, 200);
    assert_eq!(left("1 day"), 50);
    assert_eq!(sign_in("comes back", PASSWORD).status, 200);
    assert_eq!((left("1 day"), left("0")), (0, 1));
}

#[test]
fn an_old_password_cannot_be_guessed() {
    let db = all().cluster.db();
    let (_, jwt) = user(&db, "has a thief");
    let change = |old: &str| {
        ask("POST", "/rpc/change_password")
            .bearer(&jwt)
            .json(&json!({"old_password": old, "new_password": "the thief's own"}))
            .send()
    };
    for _ in 0..10 {
        let wrong = change("wrong horse battery");
        assert_eq!((wrong.status, wrong.code().as_str()), (403, "PS018"));
    }
    let refused = change(PASSWORD);
    assert_eq!((refused.status, refused.code().as_str()), (429, "PS017"));
    assert_eq!(refused.header("retry-after"), Some("900"));
    // They count together.
    assert_eq!(sign_in("has a thief", PASSWORD).status, 429);
}
