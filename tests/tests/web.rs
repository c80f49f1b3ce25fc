//! The server beside REST: signing in, streams, exports, and what every answer has.

use std::sync::OnceLock;

use pg_shell_tests::{Answer, Ask, Cluster, Db, Event, Web, Worker, token};
use serde_json::{Value, json};
use uuid::Uuid;

const PASSWORD: &str = "correct horse battery";

struct All {
    cluster: Cluster,
    web: Web,
    _worker: Worker,
}

fn all() -> &'static All {
    static SHARED: OnceLock<All> = OnceLock::new();
    SHARED.get_or_init(|| {
        let cluster = Cluster::new();
        let web = cluster.web(&["--request-rate", "0"]);
        let worker = cluster.worker(&[]);
        All {
            cluster,
            web,
            _worker: worker,
        }
    })
}

fn ask(method: &str, path: &str) -> Ask {
    Ask::new(method, &format!("{}{path}", all().web.url()))
}

/// A user with a password, and a token.
fn user(db: &Db, name: &str) -> (Uuid, String) {
    let id = db.user(name);
    db.query("select shell.set_password($1, $2)", &[&id, &PASSWORD]);
    (
        id,
        token(&json!({"sub": id.to_string(), "role": "shell_user"})),
    )
}

fn sign_in(name: &str, password: &str) -> Answer {
    ask("POST", "/sign-in")
        .json(&json!({"username": name, "password": password}))
        .send()
}

fn submit(token: &str, command: &str) -> i64 {
    let answer = ask("POST", "/rpc/submit_command")
        .bearer(token)
        .json(&json!({"command": command}))
        .send();
    answer
        .json()
        .as_i64()
        .unwrap_or_else(|| panic!("{answer:?}"))
}

fn follow(token: &str, path: &str, last: Option<&str>) -> pg_shell_tests::Events {
    let ask = ask("GET", path).bearer(token);
    last.map_or(ask.clone(), |last| ask.header("Last-Event-ID", last))
        .events()
}

/// What a reader of text has in the end.
fn text(events: &[Event]) -> String {
    events
        .iter()
        .filter(|e| e.name == "output")
        .filter_map(|e| e.data["data"].as_str())
        .collect()
}

/// What a reader of lines has in the end.
fn lines(events: &[Event]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for event in events.iter().filter(|e| e.name == "lines") {
        lines.truncate(event.data["from"].as_u64().unwrap() as usize);
        lines.extend(
            event.data["lines"]
                .as_array()
                .unwrap()
                .iter()
                .map(|l| l.as_str().unwrap().to_owned()),
        );
    }
    lines
}

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
fn output_comes_as_it_is_printed() {
    let db = all().cluster.db();
    let (_, jwt) = user(&db, "streams");
    let id = submit(
        &jwt,
        "echo first; read -t 60 </dev/zero & sleep 0.4; echo second; sleep 0.4; printf third",
    );
    let events: Vec<Event> = follow(&jwt, &format!("/events/{id}?as=text"), None).collect();
    assert_eq!(text(&events), "first\nsecond\nthird", "{events:?}");
    let end = events.last().unwrap();
    assert_eq!(
        (
            end.name.as_str(),
            &end.data["status"],
            &end.data["exit_code"]
        ),
        ("end", &json!("done"), &json!(0))
    );
    let parts = events.iter().filter(|e| e.name == "output").count();
    assert!(parts >= 2, "live, in parts: {events:?}");

    // A reader that comes back at any point gets the rest, and nothing twice.
    for (at, event) in events
        .iter()
        .enumerate()
        .filter(|(_, e)| e.name == "output")
    {
        let rest: Vec<Event> =
            follow(&jwt, &format!("/events/{id}?as=text"), event.id.as_deref()).collect();
        assert_eq!(
            format!("{}{}", text(&events[..=at]), text(&rest)),
            "first\nsecond\nthird"
        );
    }
    let over = ask("GET", &format!("/events/{id}"))
        .bearer(&jwt)
        .header("Last-Event-ID", &format!("{id}-end"))
        .send();
    assert_eq!(over.status, 204, "a browser does not come back");
}

#[test]
fn a_terminal_is_shown_in_lines_and_goes_on_where_it_was() {
    let db = all().cluster.db();
    let (_, jwt) = user(&db, "sees lines");
    let id = submit(
        &jwt,
        "printf '\\e[31mred\\e[0m\\n'; for i in 1 2 3 4 5 6; do printf \"$i<0%%\\r\"; sleep 0.1; done; echo; echo '<script>'",
    );
    let path = format!("/events/{id}");
    let mut stream = follow(&jwt, &path, None);
    let mut seen: Vec<Event> = Vec::new();
    while seen.iter().filter(|e| e.name == "lines").count() < 2 {
        seen.push(stream.next().expect("more events"));
    }
    drop(stream);
    let last = seen.iter().rev().find_map(|e| e.id.clone());
    seen.extend(follow(&jwt, &path, last.as_deref()));
    let expected = [
        "<span class=\"fg1\">red</span>",
        "6&lt;0%",
        "&lt;script&gt;",
    ];
    assert_eq!(lines(&seen), expected, "{seen:?}");
    let rendered = ask("GET", &format!("/output/{id}")).bearer(&jwt).send();
    assert_eq!(
        rendered.body,
        expected.map(|line| format!("<div>{line}</div>\n")).concat()
    );
}

#[test]
fn a_session_is_followed_from_command_to_command() {
    let db = all().cluster.db();
    let (_, jwt) = user(&db, "follows a session");
    let first = submit(&jwt, "echo one");
    db.wait(first);
    let session: Uuid = db.one(
        "select environment_id from shell.commands where id = $1",
        &[&first],
    );
    let path = format!("/events/session/{session}?as=text");
    let mut stream = follow(&jwt, &path, None);
    let second = submit(&jwt, "echo two; sleep 0.3; echo three");
    let third = submit(&jwt, "echo four; exit 3");
    let mut until_end = |wanted: i64| {
        let mut events = Vec::new();
        loop {
            let event = stream.next().expect("a stream that goes on");
            let over = event.name == "end" && event.data["id"] == wanted;
            events.push(event);
            if over {
                return events;
            }
        }
    };
    let (two, four) = (until_end(second), until_end(third));
    assert_eq!(
        (text(&two).as_str(), text(&four).as_str()),
        ("two\nthree\n", "four\n")
    );
    assert_eq!(four.last().unwrap().data["exit_code"], 3);
    assert!(
        two.iter()
            .any(|e| e.name == "command" && e.data["command"] == "echo two; sleep 0.3; echo three")
    );
    drop(stream);

    // From the first command's end on, all comes again; from the second's, only the third.
    let mut again = follow(&jwt, &format!("{path}&after={first}"), None);
    let events: Vec<Event> = std::iter::from_fn(|| again.next())
        .take_while(|e| e.name != "end" || e.data["id"] != third)
        .collect();
    assert_eq!(text(&events), "two\nthree\nfour\n");
    let mut rest = follow(&jwt, &path, Some(&format!("{second}-end")));
    let events: Vec<Event> = std::iter::from_fn(|| rest.next())
        .take_while(|e| e.name != "end")
        .collect();
    assert_eq!(text(&events), "four\n");
}

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
