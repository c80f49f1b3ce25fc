//! What is somebody's own: streams, files, and plans of statements.

use pg_shell_tests::{Ask, token};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{all, ask, submit, user};

#[test]
fn streams_and_files_are_their_owners() {
    let db = all().cluster.db();
    let ((_, mine), (_, other)) = (user(&db, "owns"), user(&db, "does not own"));
    let id = submit(&mine, "echo private");
    db.wait(id);
    let session: Uuid = db.one(
        "select environment_id from shell.commands where id = $1",
        &[&id],
    );
    let auditor = token(&json!({"role": "shell_auditor"}));
    let paths = [
        format!("/events/{id}"),
        format!("/output/{id}"),
        format!("/export/{session}.csv"),
        format!("/export/{session}.json"),
        format!("/export/{session}.cast"),
    ];
    for path in &paths {
        let foreign = ask("GET", path).bearer(&other).send();
        assert_eq!(foreign.status, 404, "{path}: {foreign:?}");
        assert!(!foreign.json()["hint"].as_str().unwrap().is_empty());
        assert_eq!(ask("GET", path).send().status, 401, "{path}");
        assert_eq!(ask("GET", path).bearer(&mine).send().status, 200, "{path}");
        assert_eq!(
            ask("GET", path).bearer(&auditor).send().status,
            200,
            "{path}"
        );
    }
    let foreign = ask("GET", &format!("/events/session/{session}"))
        .bearer(&other)
        .send();
    assert_eq!((foreign.status, foreign.code().as_str()), (404, "PS002"));
    for bad in [
        "/events/x",
        "/events/session/x",
        "/output/x",
        "/export/x.csv",
        &format!("/export/{session}.exe"),
    ] {
        let refused = ask("GET", bad).bearer(&mine).send();
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (404, "PSW404"),
            "{bad}"
        );
    }
}

#[test]
fn a_session_as_a_file() {
    let db = all().cluster.db();
    let (_, jwt) = user(&db, "exports");
    let id = submit(&jwt, "echo 'a,\"b\"'; sleep 0.2");
    db.wait(id);
    db.wait(submit(&jwt, "printf '\\e[1mbold'"));
    let session: Uuid = db.one(
        "select environment_id from shell.commands where id = $1",
        &[&id],
    );
    let file = |kind: &str| {
        ask("GET", &format!("/export/{session}.{kind}"))
            .bearer(&jwt)
            .send()
    };

    let csv = file("csv");
    assert!(
        csv.header("content-disposition")
            .unwrap()
            .contains("attachment")
    );
    assert!(csv.body.starts_with("id,environment_id,"), "{}", csv.body);
    assert!(csv.body.contains("\"a,\"\"b\"\"\n\""), "{}", csv.body);
    let rows = file("json").json();
    assert_eq!(rows.as_array().unwrap().len(), 2);
    assert_eq!(rows[0]["output"], "a,\"b\"\n");
    let cast = file("cast").body;
    let cast: Vec<Value> = cast
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (&cast[0]["version"], &cast[0]["width"]),
        (&json!(2), &json!(80))
    );
    assert!(cast[1..].iter().all(|e| e[1] == "o"));
    let times: Vec<f64> = cast[1..].iter().map(|e| e[0].as_f64().unwrap()).collect();
    assert!(times.is_sorted() && times[1] >= 0.2, "{times:?}");
    assert!(cast[2][2].as_str().unwrap().ends_with("\r\n"));
}

/// Postgres does not ask again who may call a function that is inlined in a plan.
#[test]
fn a_plan_of_one_role_is_no_other_role_s() {
    let db = all().cluster.db();
    let (_, token) = user(&db, "planner");
    db.run(
        "create function shell_api.inlined() returns int language sql stable as 'select 1';
         revoke execute on function shell_api.inlined() from public;
         grant execute on function shell_api.inlined() to shell_user",
    );
    let web = all()
        .cluster
        .web(&["--request-rate", "0", "--pool-size", "1"]);
    let call = Ask::new("POST", &format!("{}/rpc/inlined", web.url()));
    // More often than Postgres plans anew each time.
    for _ in 0..10 {
        assert_eq!(call.clone().bearer(&token).send().body, "1");
    }
    assert_eq!(call.send().code(), "42501");
    db.run("drop function shell_api.inlined()");
}
