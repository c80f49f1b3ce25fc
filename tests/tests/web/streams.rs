//! Streams of events: what they tell, and where they go on.

use pg_shell_tests::{Db, Event};
use serde_json::json;
use uuid::Uuid;

use crate::harness::{all, ask, follow, lines, submit, text, user};

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

/// A user with a session, and a token of it. Nobody signs in, for that removes old sessions, which another test counts.
fn signed_in(db: &Db, name: &str) -> (Uuid, String) {
    let id = db.user(name);
    let session: Uuid = db.one(
        "insert into shell.user_sessions (user_id, kind, name, token_hash, expires_at)
         values ($1, 'session', 'a stream', sha256(convert_to($2, 'UTF8')), now() + interval '1 hour')
         returning id",
        &[&id, &name],
    );
    let token = db.one("select shell.access_token($1) ->> 'token'", &[&session]);
    (id, token)
}

/// How a session ends whose token this is.
fn ends_a_session(how: &str, token: &str, id: Uuid) {
    let db = all().cluster.db();
    match how {
        "sign out" => {
            let out = ask("POST", "/rpc/sign_out").bearer(token).json(&json!({})).send();
            assert!(out.status < 300, "{out:?}");
        }
        "revoked" => drop(db.query(
            "update shell.user_sessions set revoked_at = now() where user_id = $1",
            &[&id],
        )),
        "another role" => drop(db.query(
            "update shell.users set role = 'shell_auditor' where id = $1",
            &[&id],
        )),
        _ => drop(db.query(
            "update shell.user_sessions set created_at = now() - interval '1 day', expires_at = now() - interval '1 s'
             where user_id = $1",
            &[&id],
        )),
    }
}

#[test]
fn a_stream_ends_with_its_session() {
    let db = all().cluster.db();
    for how in ["sign out", "revoked", "expired", "another role"] {
        let (id, token) = signed_in(&db, how);
        let first = submit(&token, "echo before; sleep 50");
        let second = submit(&token, "echo secret");
        let session: Uuid = db.one(
            "select environment_id from shell.commands where id = $1",
            &[&first],
        );
        let path = format!("/events/session/{session}?as=text");
        let mut stream = follow(&token, &path, None);
        let mut seen = vec![stream.next().expect("an event")];
        while seen.last().is_some_and(|e| e.name != "output") {
            seen.push(stream.next().expect("output"));
        }
        ends_a_session(how, &token, id);
        db.cancel(first);
        db.wait(second);
        // Until the stream ends.
        let after: Vec<Event> = stream.collect();
        assert_eq!(text(&after), "", "{how}");
    }
}

#[test]
fn a_quiet_stream_ends_with_its_session_too() {
    let db = all().cluster.db();
    let (_, token) = signed_in(&db, "quiet");
    let id = submit(&token, "true");
    db.wait(id);
    let session: Uuid = db.one(
        "select environment_id from shell.commands where id = $1",
        &[&id],
    );
    let stream = follow(&token, &format!("/events/session/{session}"), None);
    ask("POST", "/rpc/sign_out")
        .bearer(&token)
        .json(&json!({}))
        .send();
    let began = std::time::Instant::now();
    assert_eq!(stream.count(), 0);
    assert!(began.elapsed().as_secs() < 25, "{:?}", began.elapsed());
}
