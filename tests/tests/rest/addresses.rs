//! Addresses: other verbs, other sites, new functions.

use pg_shell_tests::{Ask, Cluster};
use serde_json::json;

use crate::harness::{ONE, TWO, ask, form, get, post, signed};

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
