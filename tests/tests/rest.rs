//! What `/rpc/*` promises, case by case: ours, or another server's that `PG_SHELL_REST_URL` names.

use std::sync::OnceLock;

use pg_shell_tests::{Answer, Ask, Cluster, Web, token};
use serde_json::{Value, json};

const ONE: &str = "11111111-1111-4111-8111-111111111111";
const TWO: &str = "22222222-2222-4222-8222-222222222222";

fn url() -> String {
    static SHARED: OnceLock<(Cluster, Web)> = OnceLock::new();
    if let Ok(url) = std::env::var("PG_SHELL_REST_URL") {
        return url;
    }
    let (_, web) = SHARED.get_or_init(|| {
        let cluster = Cluster::new();
        cluster.db().run(include_str!("rest/fixtures.sql"));
        let web = cluster.web(&["--request-rate", "0"]);
        (cluster, web)
    });
    web.url().into()
}

fn ask(method: &str, path: &str) -> Ask {
    Ask::new(method, &format!("{}/rpc/{path}", url()))
}

fn signed(user: &str) -> String {
    token(&json!({"sub": user, "role": "shell_user"}))
}

/// Checks a part of an answer; what it says where that is otherwise.
enum Is {
    Status(u16),
    Body(Value),
    Text(&'static str),
    Header(&'static str, &'static str),
    No(&'static str),
    Code(&'static str),
}

use Is::{Body, Code, Header, No, Status, Text};

impl Is {
    fn check(&self, answer: &Answer, case: &str) {
        let json = || serde_json::from_str::<Value>(&answer.body).unwrap_or_default();
        match self {
            Status(wanted) => assert_eq!(answer.status, *wanted, "{case}: {answer:?}"),
            Body(wanted) => assert_eq!(json(), *wanted, "{case}: {answer:?}"),
            Text(wanted) => assert_eq!(answer.body, *wanted, "{case}: {answer:?}"),
            Header(name, wanted) => {
                assert_eq!(answer.header(name), Some(*wanted), "{case}: {answer:?}")
            }
            No(name) => assert_eq!(answer.header(name), None, "{case}: {answer:?}"),
            Code(wanted) => {
                assert_eq!(json()["code"], *wanted, "{case}: {answer:?}");
                let keys: Vec<_> = json()
                    .as_object()
                    .expect("an object")
                    .keys()
                    .cloned()
                    .collect();
                for key in ["code", "message", "details", "hint"] {
                    assert!(
                        keys.iter().any(|k| k == key),
                        "{case}: no {key} in {answer:?}"
                    );
                }
                let status = format!("PostgREST; error={wanted}");
                assert_eq!(
                    answer.header("proxy-status"),
                    Some(status.as_str()),
                    "{case}"
                );
                let media = Some("application/json; charset=utf-8");
                assert_eq!(answer.header("content-type"), media, "{case}");
            }
        }
    }
}

fn all(cases: Vec<(&str, Ask, Vec<Is>)>) {
    for (case, ask, expected) in cases {
        let answer = ask.bearer(&signed(ONE)).send();
        expected.iter().for_each(|is| is.check(&answer, case));
    }
}

fn get(path: &str) -> Ask {
    ask("GET", path)
}

fn post(path: &str, body: Value) -> Ask {
    ask("POST", path).json(&body)
}

fn form(path: &str, body: &str) -> Ask {
    ask("POST", path).body("application/x-www-form-urlencoded", body)
}

#[test]
fn arguments_of_post() {
    all(vec![
        (
            "json",
            post("rest_add", json!({"a": 1, "b": 5})),
            vec![Status(200), Body(json!(6))],
        ),
        (
            "an array's first",
            post("rest_add", json!([{"a": 1}, {"a": 9}])),
            vec![Body(json!(3))],
        ),
        ("empty", ask("POST", "rest_nothing"), vec![Status(204)]),
        ("form", form("rest_add", "a=1&b=3"), vec![Body(json!(4))]),
        (
            "text from json",
            post("rest_text", json!({"v": "eq.x"})),
            vec![Body(json!("eq.x"))],
        ),
        (
            "text from a number",
            post("rest_text", json!({"v": 1.5})),
            vec![Body(json!("1.5"))],
        ),
        (
            "null",
            post("rest_text", json!({"v": null})),
            vec![Body(Value::Null)],
        ),
        (
            "jsonb",
            post("rest_json", json!({"v": {"k": [1, "x"]}})),
            vec![Body(json!({"k": [1, "x"]}))],
        ),
        (
            "array",
            post("rest_array", json!({"v": [3, 4]})),
            vec![Body(json!(4))],
        ),
        (
            "array's literal",
            post("rest_array", json!({"v": "{3,4}"})),
            vec![Body(json!(4))],
        ),
        (
            "no json",
            ask("POST", "rest_add").body("application/json", "{"),
            vec![Status(400), Code("PGRST102")],
        ),
        (
            "no value",
            post("rest_add", json!({"a": "x"})),
            vec![Status(400), Code("22P02")],
        ),
        (
            "parameters are filters",
            post("rest_rows?id=eq.2&select=id", json!({})),
            vec![Body(json!([{"id": 2}]))],
        ),
    ]);
}

#[test]
fn arguments_of_get() {
    all(vec![
        (
            "plain",
            get("rest_add?a=1"),
            vec![Status(200), Body(json!(3))],
        ),
        (
            "the last wins",
            get("rest_add?a=1&a=4"),
            vec![Body(json!(6))],
        ),
        (
            "an operator filters",
            get("rest_rows?n=3&id=eq.2&select=name"),
            vec![Body(json!([{"name": "row 2"}]))],
        ),
        (
            "in",
            get("rest_rows?id=in.(1,3)&select=id"),
            vec![Body(json!([{"id": 1}, {"id": 3}]))],
        ),
        (
            "not",
            get("rest_rows?id=not.gt.1&select=id"),
            vec![Body(json!([{"id": 1}]))],
        ),
        (
            "cs",
            get("rest_rows?tags=cs.{t4}&select=id"),
            vec![Body(json!([{"id": 4}]))],
        ),
        (
            "like",
            get("rest_rows?name=like.*5&select=id"),
            vec![Body(json!([{"id": 5}]))],
        ),
        (
            "is",
            get("rest_rows?odd=is.true&id=lt.3&select=id"),
            vec![Body(json!([{"id": 1}]))],
        ),
        (
            "quoting",
            get("rest_text?v=a%22'%3B--"),
            vec![Body(json!("a\"';--"))],
        ),
        (
            "no such column",
            get("rest_rows?nope=eq.1"),
            vec![Status(400), Code("42703")],
        ),
        (
            "a column is no SQL",
            get("rest_rows?id%22%3D1--=eq.1"),
            vec![Status(400), Code("42703")],
        ),
    ]);
}

#[test]
fn which_function() {
    all(vec![
        (
            "none",
            get("rest_nope"),
            vec![Status(404), Code("PGRST202")],
        ),
        (
            "an unknown key",
            get("rest_add?a=1&z=1"),
            vec![Status(404), Code("PGRST202")],
        ),
        (
            "a missing key",
            get("rest_add?b=1"),
            vec![Status(404), Code("PGRST202")],
        ),
        (
            "a filter is no argument",
            get("rest_add?a=eq.1"),
            vec![Status(404), Code("PGRST202")],
        ),
        (
            "two",
            get("rest_over?a=1"),
            vec![Status(300), Code("PGRST203")],
        ),
        (
            "a verb",
            ask("PATCH", "rest_add").json(&json!({})),
            vec![Status(405), Code("PGRST101")],
        ),
    ]);
}

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
fn results() {
    let json_type = Header("content-type", "application/json; charset=utf-8");
    let object = "application/vnd.pgrst.object+json";
    all(vec![
        ("scalar", get("rest_add?a=1"), vec![Text("3"), json_type]),
        (
            "composite",
            get("rest_pair"),
            vec![Body(json!({"id": 7, "name": "seven"}))],
        ),
        (
            "set of scalars",
            get("rest_numbers"),
            vec![Body(json!([1, 2, 3]))],
        ),
        (
            "no rows",
            get("rest_rows?n=0"),
            vec![Status(200), Text("[]")],
        ),
        (
            "void",
            ask("POST", "rest_nothing"),
            vec![Status(204), Text(""), No("content-type")],
        ),
        (
            "select, alias, cast",
            get("rest_rows?n=1&select=no:id::text,name"),
            vec![Text(r#"[{"no":"1","name":"row 1"}]"#)],
        ),
        (
            "order",
            get("rest_rows?n=3&order=odd.desc,id.desc&select=id"),
            vec![Body(json!([{"id": 3}, {"id": 1}, {"id": 2}]))],
        ),
        (
            "limit and offset",
            get("rest_rows?select=id&limit=1&offset=2"),
            vec![Body(json!([{"id": 3}]))],
        ),
        (
            "one object",
            get("rest_rows?id=eq.1&select=id").header("Accept", object),
            vec![
                Status(200),
                Body(json!({"id": 1})),
                Header(
                    "content-type",
                    "application/vnd.pgrst.object+json; charset=utf-8",
                ),
            ],
        ),
        (
            "no object",
            get("rest_rows?n=0").header("Accept", object),
            vec![Status(406), Code("PGRST116")],
        ),
        (
            "two objects",
            get("rest_rows?n=2").header("Accept", object),
            vec![Status(406), Code("PGRST116")],
        ),
        (
            "a bad select",
            get("rest_rows?select=id::int;x"),
            vec![Status(400), Code("PGRST100")],
        ),
    ]);
}

#[test]
fn ranges_and_counts() {
    let exact = |ask: Ask| ask.header("Prefer", "count=exact");
    all(vec![
        (
            "all",
            get("rest_rows"),
            vec![Status(200), Header("content-range", "0-4/*")],
        ),
        (
            "none",
            get("rest_rows?n=0"),
            vec![Header("content-range", "*/*")],
        ),
        (
            "counted",
            exact(get("rest_rows")),
            vec![Status(200), Header("content-range", "0-4/5")],
        ),
        (
            "a part",
            exact(get("rest_rows?limit=2&offset=1")),
            vec![Status(206), Header("content-range", "1-2/5")],
        ),
        (
            "filtered",
            exact(get("rest_rows?id=gt.3")),
            vec![Status(200), Header("content-range", "0-1/2")],
        ),
        (
            "beyond",
            exact(get("rest_rows?offset=6")),
            vec![Status(416), Code("PGRST103")],
        ),
        (
            "range",
            exact(get("rest_rows?select=id").header("Range", "1-2")),
            vec![
                Status(206),
                Header("content-range", "1-2/5"),
                Body(json!([{"id": 2}, {"id": 3}])),
            ],
        ),
        (
            "an open range",
            get("rest_rows").header("Range", "3-"),
            vec![Header("content-range", "3-4/*")],
        ),
        (
            "a range backwards",
            get("rest_rows").header("Range", "3-1"),
            vec![Status(416), Code("PGRST103")],
        ),
        (
            "on get only",
            post("rest_rows", json!({})).header("Range", "1-2"),
            vec![Header("content-range", "0-4/*")],
        ),
        (
            "head",
            ask("HEAD", "rest_rows"),
            vec![Status(200), Text(""), Header("content-range", "0-4/*")],
        ),
    ]);
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
fn headers_and_status_of_the_functions_own() {
    all(vec![
        (
            "both",
            ask("POST", "rest_headers"),
            vec![
                Status(202),
                Header("x-one", "1"),
                Header("cache-control", "max-age=7"),
                Text("1"),
            ],
        ),
        (
            "bad headers",
            ask("POST", "rest_bad_headers"),
            vec![Status(500), Code("PGRST111")],
        ),
        (
            "bad status",
            ask("POST", "rest_bad_status"),
            vec![Status(500), Code("PGRST112")],
        ),
    ]);
}

#[test]
fn media_types() {
    let html = |ask: Ask| ask.header("Accept", "text/html");
    all(vec![
        (
            "html",
            html(get("rest_html?name=x")),
            vec![
                Status(200),
                Text("<b>x</b>"),
                Header("content-type", "text/html; charset=utf-8"),
            ],
        ),
        (
            "json of html",
            get("rest_html?name=x").header("Accept", "*/*"),
            vec![Body(json!("<b>x</b>"))],
        ),
        (
            "html of json",
            html(get("rest_add?a=1")),
            vec![Status(406), Code("PGRST107")],
        ),
        (
            "posted",
            html(form("rest_html", "name=y")),
            vec![Text("<b>y</b>")],
        ),
    ]);
}

#[test]
fn options_and_other_sites() {
    let allowed = |name: &str| {
        ask("OPTIONS", name)
            .send()
            .header("allow")
            .map(str::to_owned)
    };
    assert_eq!(allowed("rest_write").as_deref(), Some("OPTIONS,POST"));
    assert_eq!(
        allowed("rest_add").as_deref(),
        Some("OPTIONS,GET,HEAD,POST")
    );
    let other = |ask: Ask| ask.header("Origin", "http://elsewhere.example").send();
    let simple = other(get("rest_role"));
    assert_eq!(simple.header("access-control-allow-origin"), Some("*"));
    assert_eq!(simple.header("access-control-allow-credentials"), None);
    let preflight = ask("OPTIONS", "rest_role")
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "content-type");
    let preflight = other(preflight);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    let headers = preflight
        .header("access-control-allow-headers")
        .unwrap()
        .to_lowercase();
    assert!(
        headers.contains("authorization") && headers.contains("content-type"),
        "{preflight:?}"
    );
}

#[test]
fn the_seeds_own_addresses() {
    let submit = |user: &str, text: &str| {
        let answer = post("submit_command", json!({"command": text}))
            .bearer(&signed(user))
            .send();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json().as_i64().expect("an id")
    };
    let (mine, other) = (submit(ONE, "echo mine"), submit(TWO, "echo other"));
    for path in [
        format!("latest_output?user_id={ONE}"),
        format!("latest_output?user_id=eq.{ONE}"),
    ] {
        let rows = get(&path).bearer(&signed(ONE)).send().json();
        let ids: Vec<_> = rows
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|row| row["id"].as_i64())
            .collect();
        assert!(
            ids.contains(&mine) && !ids.contains(&other),
            "{path}: {rows}"
        );
    }
    let foreign = get(&format!("latest_output?user_id={TWO}"))
        .bearer(&signed(ONE))
        .send();
    assert_eq!((foreign.status, foreign.code().as_str()), (403, "42501"));
    let filtered = get(&format!("latest_output?user_id=eq.{TWO}"))
        .bearer(&signed(ONE))
        .send();
    assert_eq!((filtered.status, filtered.json()), (200, json!([])));
    let as_form = form("submit_command", "command=echo+form")
        .bearer(&signed(ONE))
        .send();
    assert_eq!(as_form.status, 200, "{as_form:?}");
    let in_get = get("submit_command?command=ls").bearer(&signed(ONE)).send();
    assert_eq!((in_get.status, in_get.code().as_str()), (405, "25006"));
}

#[test]
fn a_new_function_is_found_after_a_notification() {
    if std::env::var_os("PG_SHELL_REST_URL").is_some() {
        return;
    }
    let cluster = Cluster::new();
    let web = cluster.web(&[]);
    let ask = Ask::new("GET", &format!("{}/rpc/rest_late", web.url()));
    assert_eq!(ask.send().code(), "PGRST202");
    let before = web.process().log_lines();
    cluster.db().run("create function shell_api.rest_late() returns int language sql stable as 'select 5'; notify pgrst, 'reload schema'");
    web.process().wait_for_log("read the functions", before);
    assert_eq!(ask.send().json(), 5);
}
