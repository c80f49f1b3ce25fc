//! A server with a worker that all share, and what a reader of its streams has.

use std::sync::OnceLock;

use pg_shell_tests::{Answer, Ask, Cluster, Db, Event, Web, Worker, token};
use serde_json::json;
use uuid::Uuid;

pub const PASSWORD: &str = "correct horse battery";

pub struct All {
    pub cluster: Cluster,
    pub web: Web,
    _worker: Worker,
}

pub fn all() -> &'static All {
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

pub fn ask(method: &str, path: &str) -> Ask {
    Ask::new(method, &format!("{}{path}", all().web.url()))
}

/// A user with a password, and a token.
pub fn user(db: &Db, name: &str) -> (Uuid, String) {
    let id = db.user(name);
    db.query("select shell.set_password($1, $2)", &[&id, &PASSWORD]);
    (
        id,
        token(&json!({"sub": id.to_string(), "role": "shell_user"})),
    )
}

pub fn sign_in(name: &str, password: &str) -> Answer {
    ask("POST", "/sign-in")
        .json(&json!({"username": name, "password": password}))
        .send()
}

pub fn submit(token: &str, command: &str) -> i64 {
    let answer = ask("POST", "/rpc/submit_command")
        .bearer(token)
        .json(&json!({"command": command}))
        .send();
    answer
        .json()
        .as_i64()
        .unwrap_or_else(|| panic!("{answer:?}"))
}

pub fn follow(token: &str, path: &str, last: Option<&str>) -> pg_shell_tests::Events {
    let ask = ask("GET", path).bearer(token);
    last.map_or(ask.clone(), |last| ask.header("Last-Event-ID", last))
        .events()
}

/// What a reader of text has in the end.
pub fn text(events: &[Event]) -> String {
    events
        .iter()
        .filter(|e| e.name == "output")
        .filter_map(|e| e.data["data"].as_str())
        .collect()
}

/// What a reader of lines has in the end.
pub fn lines(events: &[Event]) -> Vec<String> {
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
