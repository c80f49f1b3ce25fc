//! Users who sign in.

use std::sync::Once;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use pg_shell_tests::{Caller, Db, shared};
use serde_json::{Value, json};
use uuid::Uuid;

pub const SECRET: &str = "thirty-two bytes are the least...";
pub const PASSWORD: &str = "correct horse";

pub fn set_secret(db: &Db, secret: &str) {
    db.run("load 'pg_shell'");
    db.run(&format!(
        "alter system set pg_shell.jwt_secret = '{secret}'"
    ));
    db.run("select pg_reload_conf()");
    db.until("current_setting('pg_shell.jwt_secret') <> ''", &[]);
}

/// A connection to where people can sign in.
pub fn db() -> Db {
    static SECRET_IS_SET: Once = Once::new();
    SECRET_IS_SET.call_once(|| set_secret(&shared::cluster().db(), SECRET));
    shared::cluster().db()
}

/// A user with a password.
pub fn user(db: &Db, name: &str) -> Uuid {
    let user = db.user(name);
    db.query("select shell.set_password($1, $2)", &[&user, &PASSWORD]);
    user
}

/// Asks for a sign-in from this address; the answer, the status and the further headers.
pub fn sign_in_from(db: &Db, address: &str, name: &str, password: &str) -> (Value, String, String) {
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

pub fn sign_in(db: &Db, name: &str, password: &str) -> (Value, String) {
    let (answer, status, _) = sign_in_from(db, "", name, password);
    (answer, status)
}

/// Signs in, and checks the token with another implementation than the one that signed it.
pub fn caller(db: &Db, name: &str) -> (Caller, Value) {
    let (answer, status) = sign_in(db, name, PASSWORD);
    assert_eq!(status, "", "{answer}");
    (verified(&answer), answer)
}

pub fn verified(answer: &Value) -> Caller {
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

pub fn exchange(db: &Db, token: &str) -> Value {
    db.asked(
        &Caller::anonymous(),
        "select shell_api.exchange_token($1)",
        &[&token],
    )
}

pub fn no_exchange(db: &Db, token: &str) {
    let refusal = db.forbidden(
        &Caller::anonymous(),
        "select shell_api.exchange_token($1)",
        &[&token],
    );
    assert_eq!(refusal.told(), "PS019");
}

pub fn create_token(db: &Db, caller: &Caller, arguments: &str) -> Value {
    db.asked(
        caller,
        &format!("select shell_api.create_token({arguments})"),
        &[],
    )
}
