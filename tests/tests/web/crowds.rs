//! More connections and streams than there is room for: who comes too late is told so, and the others go on.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use pg_shell_tests::{Ask, Cluster, Web};

use crate::harness::user;

#[test]
fn connections_beyond_the_number_are_told_so() {
    let cluster = Cluster::new();
    let web = cluster.web(&["--max-connections", "4"]);
    let address = web.url().strip_prefix("http://").unwrap();
    let health = Ask::new("GET", &format!("{}/healthz", web.url()));
    // Each has had an answer, so each has its place, and keeps it without a word.
    let held: Vec<_> = (0..4).map(|_| connected(address)).collect();
    for _ in 0..20 {
        let refused = health.send();
        assert_eq!((refused.status, refused.code().as_str()), (503, "PSW503"));
        assert_eq!(refused.header("retry-after"), Some("5"));
    }
    let told = web.process().log().matches("others are refused").count();
    assert_eq!(told, 1, "logged once, not for each");
    drop(held);
    // Places are free again once the server has seen that they are: not at once.
    while health.send().status == 503 {}
    assert_eq!(health.send().status, 200);
}

/// A connection that has asked for something, and is kept.
fn connected(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = BufReader::new(stream.try_clone().unwrap()).lines();
    assert_eq!(answer.next().unwrap().unwrap(), "HTTP/1.1 200 OK");
    stream
}

#[test]
fn requests_that_are_given_up_leave_nothing_running() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let web = cluster.web(&["--pool-size", "2", "--request-rate", "0"]);
    let address = web.url().strip_prefix("http://").unwrap();
    let (id, jwt) = user(&db, "hasty");
    // There is no worker: it waits for ever.
    let command = db.submit(id, "true");
    let body = format!(r#"{{"command_id": {command}, "timeout": "1 minute"}}"#);
    let waiting = "select count(*) from pg_stat_activity where query like '%wait_command%' and state = 'active' and pid <> pg_backend_pid()";
    for _ in 0..10 {
        let mut stream = TcpStream::connect(address).unwrap();
        let request = format!(
            "POST /rpc/wait_command HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {jwt}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).unwrap();
        db.until(&format!("({waiting}) > 0"), &[]);
        drop(stream);
        db.until(&format!("({waiting}) = 0"), &[]);
    }
    let others = Ask::new("POST", &format!("{}/rpc/latest_output", web.url())).bearer(&jwt);
    assert_eq!(others.json(&serde_json::json!({})).send().status, 200);
    let connections: i64 = db.one(
        "select count(*) from pg_stat_activity where application_name = 'pg-shell-web'",
        &[],
    );
    assert!(connections <= 2 + 4 + 1, "{connections} connections");
}

#[test]
fn streams_leave_room_for_others() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let stream = |web: &Web, name: &str| {
        let (id, jwt) = user(&db, name);
        let session = db.session(id);
        Ask::new("GET", &format!("{}/events/session/{session}", web.url())).bearer(&jwt)
    };
    let web = cluster.web(&["--max-streams-per-address", "2"]);
    let _two = ["one", "two"].map(|name| stream(&web, name).events());
    let third = stream(&web, "three").send();
    assert_eq!((third.status, third.code().as_str()), (429, "PSW429"));
    assert!(third.body.contains("from this address"), "{third:?}");

    let web = cluster.web(&["--max-connections", "4"]);
    let _three = ["four", "five", "six"].map(|name| stream(&web, name).events());
    let fourth = stream(&web, "seven").send();
    assert_eq!((fourth.status, fourth.code().as_str()), (503, "PSW503"));
    assert_eq!(fourth.header("retry-after"), Some("5"));
}
