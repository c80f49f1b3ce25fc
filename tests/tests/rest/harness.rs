//! A server with the fixtures, requests to it, and what an answer is to be.

use std::sync::OnceLock;

use pg_shell_tests::{Answer, Ask, Cluster, Web, token};
use serde_json::{Value, json};

pub const ONE: &str = "11111111-1111-4111-8111-111111111111";
pub const TWO: &str = "22222222-2222-4222-8222-222222222222";

pub fn url() -> String {
    static SHARED: OnceLock<(Cluster, Web)> = OnceLock::new();
    if let Ok(url) = std::env::var("PG_SHELL_REST_URL") {
        return url;
    }
    let (_, web) = SHARED.get_or_init(|| {
        let cluster = Cluster::new();
        cluster.db().run(include_str!("fixtures.sql"));
        let web = cluster.web(&["--request-rate", "0"]);
        (cluster, web)
    });
    web.url().into()
}

pub fn ask(method: &str, path: &str) -> Ask {
    Ask::new(method, &format!("{}/rpc/{path}", url()))
}

pub fn signed(user: &str) -> String {
    token(&json!({"sub": user, "role": "shell_user"}))
}

/// Checks a part of an answer; what it says where that is otherwise.
pub enum Is {
    Status(u16),
    Body(Value),
    Text(&'static str),
    Header(&'static str, &'static str),
    No(&'static str),
    Code(&'static str),
}

pub use Is::{Body, Code, Header, No, Status, Text};

impl Is {
    pub fn check(&self, answer: &Answer, case: &str) {
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

pub fn all(cases: Vec<(&str, Ask, Vec<Is>)>) {
    for (case, ask, expected) in cases {
        let answer = ask.bearer(&signed(ONE)).send();
        expected.iter().for_each(|is| is.check(&answer, case));
    }
}

pub fn get(path: &str) -> Ask {
    ask("GET", path)
}

pub fn post(path: &str, body: Value) -> Ask {
    ask("POST", path).json(&body)
}

pub fn form(path: &str, body: &str) -> Ask {
    ask("POST", path).body("application/x-www-form-urlencoded", body)
}
