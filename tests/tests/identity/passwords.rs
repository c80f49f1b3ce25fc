//! New passwords, and roles.

use pg_shell_tests::Caller;
use serde_json::Value;
use uuid::Uuid;

use crate::people::*;

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
