//! What every answer has, and what the server does not do.

use pg_shell_tests::{Ask, Cluster, token};
use serde_json::json;

use crate::harness::{all, ask, user};

#[test]
fn every_answer_is_hardened() {
    let page = ask("GET", "/").send();
    assert_eq!(page.status, 200);
    for (path, status) in [
        ("/", 200),
        ("/nothing", 404),
        ("/rpc/whoami", 401),
        ("/healthz", 200),
        ("/metrics", 200),
    ] {
        let answer = ask("GET", path).send();
        assert_eq!(answer.status, status, "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(
            policy.starts_with("default-src 'none'") && !policy.contains("unsafe-inline"),
            "{policy}"
        );
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
        assert_eq!(
            answer.header("referrer-policy"),
            Some("no-referrer"),
            "{path}"
        );
    }
    assert!(!page.body.contains("style=") && !page.body.contains("<script>"));
    let asset = page
        .body
        .split("\"/assets/")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .expect("an asset");
    let asset = ask("GET", &format!("/assets/{asset}")).send();
    assert!(asset.header("cache-control").unwrap().contains("immutable"));
    let metrics = ask("GET", "/metrics").send().body;
    for wanted in [
        "pg_shell_web_requests_total{",
        "what=\"queue_pending\"",
        "what=\"workers_alive\"} 1",
        "what=\"streams\"",
    ] {
        assert!(metrics.contains(wanted), "no {wanted} in {metrics}");
    }
}

#[test]
fn too_much_is_refused() {
    let cluster = Cluster::new();
    let web = cluster.web(&[
        "--request-rate",
        "1",
        "--max-body",
        "1000",
        "--max-streams",
        "1",
    ]);
    let db = cluster.db();
    let (_, jwt) = user(&db, "asks for much");
    let ask = |method: &str, path: &str| Ask::new(method, &format!("{}{path}", web.url()));
    let large = json!({"command": "x".repeat(2000)});
    let refused = ask("POST", "/rpc/submit_command")
        .bearer(&jwt)
        .json(&large)
        .send();
    assert_eq!((refused.status, refused.code().as_str()), (413, "PSW413"));
    let id: i64 = ask("POST", "/rpc/submit_command")
        .bearer(&jwt)
        .json(&json!({"command": "true"}))
        .send()
        .json()
        .as_i64()
        .unwrap();
    let _open = ask("GET", &format!("/events/{id}")).bearer(&jwt).events();
    assert_eq!(
        ask("GET", &format!("/events/{id}"))
            .bearer(&jwt)
            .send()
            .status,
        429
    );
    let last = (0..30)
        .map(|_| ask("GET", "/rpc/whoami").bearer(&jwt).send())
        .find(|answer| answer.status == 429);
    let last = last.expect("a limit");
    assert_eq!(
        (last.code().as_str(), last.header("retry-after")),
        ("PSW429", Some("1"))
    );
    assert_eq!(ask("GET", "/").send().status, 200, "others are not limited");
}

#[test]
fn it_stops_when_told_and_comes_back_when_the_database_does() {
    let cluster = Cluster::new();
    let web = cluster.web(&[]);
    let db = cluster.db();
    let (_, jwt) = user(&db, "stays");
    drop(db);
    let ask = |path: &str| Ask::new("GET", &format!("{}{path}", web.url())).bearer(&jwt);
    cluster.crash();
    assert_eq!(ask("/rpc/whoami").send().status, 503);
    assert_eq!(ask("/healthz").send().status, 503);
    let before = web.process().log_lines();
    cluster.start();
    web.process()
        .wait_for_log("listening again", before.saturating_sub(2));
    assert_eq!(ask("/rpc/whoami").send().json()["username"], "stays");

    let id: i64 = Ask::new("POST", &format!("{}/rpc/submit_command", web.url()))
        .bearer(&jwt)
        .json(&json!({"command": "true"}))
        .send()
        .json()
        .as_i64()
        .unwrap();
    let stream = ask(&format!("/events/{id}")).events();
    web.process().signal(nix::sys::signal::Signal::SIGTERM);
    assert!(stream.last().is_some(), "the stream ends");
    assert!(web.process().wait().success());
}

#[test]
fn figures_are_for_this_machine_and_for_who_sees_everything() {
    let db = all().cluster.db();
    let (_, jwt) = user(&db, "curious");
    // As a proxy on this machine hands on what comes from elsewhere.
    let from_elsewhere = || ask("GET", "/metrics").header("X-Forwarded-For", "192.0.2.7");
    assert_eq!(ask("GET", "/metrics").send().status, 200);
    assert_eq!(from_elsewhere().send().status, 401);
    let refused = from_elsewhere().bearer(&jwt).send();
    assert_eq!((refused.status, refused.code().as_str()), (403, "PSW403"));
    for role in ["shell_auditor", "shell_admin"] {
        let reader = token(&json!({"role": role}));
        let answer = from_elsewhere().bearer(&reader).send();
        assert!(
            answer.body.contains("pg_shell_web_requests_total{"),
            "{role}: {answer:?}"
        );
    }
}
