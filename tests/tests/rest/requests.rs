//! Transactions, errors, and from whom a request is.

use pg_shell_tests::token;
use serde_json::{Value, json};

use crate::harness::{Body, Code, Header, ONE, Status, all, ask, get, post, signed};

#[test]
fn transactions() {
    all(vec![
        (
            "post to volatile writes",
            post("rest_write", json!({"note": "w"})),
            vec![Status(200), Body(json!(1))],
        ),
        (
            "get never writes",
            get("rest_write?note=x"),
            vec![Status(405), Code("25006")],
        ),
        (
            "nor head",
            ask("HEAD", "rest_write?note=x"),
            vec![Status(405)],
        ),
        (
            "nor post to stable",
            ask("POST", "rest_false_stable"),
            vec![Status(405), Code("25006")],
        ),
        (
            "a conflict",
            post("rest_write", json!({"note": "w"})),
            vec![Status(409), Code("23505")],
        ),
        (
            "what is refused is not written",
            post("rest_write_rows", json!({"note": "no"}))
                .header("Accept", "application/vnd.pgrst.object+json"),
            vec![Status(406), Code("PGRST116")],
        ),
        (
            "only what was written",
            get("rest_written"),
            vec![Body(json!(["w"]))],
        ),
    ]);
}

#[test]
fn settings_of_the_transaction_only() {
    let setting = |name: &str| {
        let ask = get(&format!("rest_setting?name={name}")).bearer(&signed(ONE));
        ask.header("X-Thing", "Value")
            .header("Cookie", "theme=dark")
            .send()
            .json()
    };
    let inner =
        |name: &str| serde_json::from_str::<Value>(setting(name).as_str().unwrap()).unwrap();
    assert_eq!(
        inner("request.jwt.claims"),
        json!({"sub": ONE, "role": "shell_user"})
    );
    assert_eq!(setting("request.method"), "GET");
    assert_eq!(setting("request.path"), "/rpc/rest_setting");
    let headers = inner("request.headers");
    assert_eq!(headers["x-thing"], "Value");
    assert!(headers.get("cookie").is_none());
    assert_eq!(inner("request.cookies"), json!({"theme": "dark"}));
    assert!(
        setting("search_path")
            .as_str()
            .unwrap()
            .contains("shell_api")
    );
    // Many requests share few connections: none finds another's role.
    for turn in 0..40 {
        let (ask, role) = match turn % 2 {
            0 => (get("rest_role").bearer(&signed(ONE)), "shell_user"),
            _ => (get("rest_role"), "shell_anonymous"),
        };
        assert_eq!(ask.send().json(), role);
    }
}

#[test]
fn errors() {
    let raise = |code: &str| post("rest_raise", json!({"code": code}));
    let mut cases = vec![
        (
            "a status of its own",
            raise("PT418"),
            vec![Status(418), Code("PT418")],
        ),
        (
            "all of its own",
            get("rest_raise_whole"),
            vec![
                Status(418),
                Code("T1"),
                Header("x-tea", "yes"),
                Body(json!({"code": "T1", "message": "whole", "details": "d", "hint": "h"})),
            ],
        ),
        (
            "an undefined table",
            get("rest_deep"),
            vec![Status(404), Code("42P01")],
        ),
        (
            "cardinality",
            get("rest_two_rows"),
            vec![Status(500), Code("21000")],
        ),
        (
            "body",
            raise("P0001"),
            vec![Body(
                json!({"code": "P0001", "message": "raised", "details": "the detail", "hint": "the hint"}),
            )],
        ),
        (
            "no function",
            post("set_password", json!({})),
            vec![Status(404), Code("PGRST202")],
        ),
    ];
    let rows: [(&'static str, u16); 15] = [
        ("23503", 409),
        ("23505", 409),
        ("25006", 405),
        ("42501", 403),
        ("42883", 404),
        ("P0001", 400),
        ("P0002", 500),
        ("08006", 503),
        ("53300", 503),
        ("53400", 500),
        ("57014", 500),
        ("28000", 403),
        ("0P000", 403),
        ("40001", 500),
        ("22012", 400),
    ];
    for (code, status) in rows {
        cases.push((code, raise(code), vec![Status(status), Code(code)]));
    }
    all(cases);
}

#[test]
fn authorization() {
    let role = |claims: Value| get("rest_role").bearer(&token(&claims)).send();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs() as i64;
    assert_eq!(role(json!({"role": "shell_user"})).json(), "shell_user");
    assert_eq!(
        role(json!({"role": "shell_auditor"})).json(),
        "shell_auditor"
    );
    assert_eq!(role(json!({"sub": ONE})).json(), "shell_anonymous");
    assert_eq!(get("rest_role").send().json(), "shell_anonymous");
    assert_eq!(
        role(json!({"role": "shell_user", "exp": now - 20})).status,
        200,
        "30 s of leeway"
    );
    let refused = [
        (
            role(json!({"role": "shell_user", "exp": now - 60})),
            401,
            "PGRST303",
        ),
        (
            role(json!({"role": "shell_user", "nbf": now + 60})),
            401,
            "PGRST303",
        ),
        (
            role(json!({"role": "shell_user", "iat": now + 60})),
            401,
            "PGRST303",
        ),
        (get("rest_role").bearer("x.y").send(), 401, "PGRST301"),
        (
            get("rest_role").bearer(&format!("{}x", signed(ONE))).send(),
            401,
            "PGRST301",
        ),
    ];
    for (answer, status, code) in refused {
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{answer:?}"
        );
        assert!(
            answer
                .header("www-authenticate")
                .unwrap()
                .starts_with("Bearer error=\"invalid_token\""),
            "{answer:?}"
        );
    }
    // What a role may not: forbidden to who is known, unauthorized to who is not.
    assert_eq!(role(json!({"role": "postgres"})).status, 403);
    assert_eq!(role(json!({"role": "no such role"})).status, 401);
    let anonymous = get("list_sessions").send();
    assert_eq!(
        (anonymous.status, anonymous.header("www-authenticate")),
        (401, Some("Bearer"))
    );
    Code("42501").check(&anonymous, "anonymous");
}
