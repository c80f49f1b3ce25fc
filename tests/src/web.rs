//! A pg-shell-web process, and requests to it or to another server of the same interface.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use serde_json::Value;

use crate::PATIENCE;
use crate::process::Process;
use crate::stage::{self, Stage};

/// What the cluster and the server sign tokens with.
pub const JWT_SECRET: &str = "a secret of the tests, which is long enough";

/// See the module. Dropping it kills it.
#[derive(Debug)]
pub struct Web {
    process: Process,
    url: String,
    _secret: tempfile::NamedTempFile,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, by names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

/// A request that is being put together.
#[derive(Debug, Clone)]
pub struct Ask {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: String,
}

/// An event of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// Its id, where it has one.
    pub id: Option<String>,
    /// Its data.
    pub data: Value,
}

/// An open stream.
pub struct Events {
    lines: std::io::Lines<BufReader<Box<dyn Read + Send>>>,
}

impl Web {
    /// Starts one with these flags beside where its database is, and waits until it is ready.
    pub fn start(stage: &Stage, connection: &str, flags: &[&str]) -> Web {
        let secret = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(&secret, JWT_SECRET).expect("a temporary file");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(&secret, mode).expect("a file of our own");
        let mut command = stage::command_as(&stage::web_user(), "KILL", &stage.web());
        command.args([
            "--database-url",
            connection,
            "--listen",
            "127.0.0.1:0",
            "--jwt-secret-file",
        ]);
        command.arg(secret.path()).args(flags);
        let process = Process::start("pg-shell-web", command);
        process.wait_for_log("ready on ", 0);
        let log = process.log();
        let url = log
            .split("ready on ")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next());
        Web {
            url: url.expect("an address").into(),
            process,
            _secret: secret,
        }
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

impl Ask {
    /// A request.
    pub fn new(method: &str, url: &str) -> Ask {
        Ask {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            body: String::new(),
        }
    }

    /// With a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Ask {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With a token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Ask {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// With a body of JSON.
    #[must_use]
    pub fn json(mut self, body: &Value) -> Ask {
        self.body = body.to_string();
        self.header("Content-Type", "application/json")
    }

    /// With a body.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: &str) -> Ask {
        self.body = body.into();
        self.header("Content-Type", content_type)
    }

    fn start(&self) -> ureq::http::Response<ureq::Body> {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .allow_non_standard_methods(true)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_body(Some(PATIENCE))
            .build()
            .new_agent();
        let mut request = ureq::http::Request::builder()
            .method(self.method.as_str())
            .uri(&self.url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let sent = match self.body.as_str() {
            "" => agent.run(request.body(()).expect("a request")),
            body => agent.run(request.body(body.to_owned()).expect("a request")),
        };
        sent.unwrap_or_else(|e| panic!("{} {}: {e}", self.method, self.url))
    }

    /// Sends it, and reads the answer.
    pub fn send(&self) -> Answer {
        let mut response = self.start();
        let headers = response.headers().iter();
        let headers = headers.map(|(name, value)| {
            (
                name.as_str().to_owned(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            )
        });
        Answer {
            status: response.status().as_u16(),
            headers: headers.collect(),
            body: response.body_mut().read_to_string().unwrap_or_default(),
        }
    }

    /// Sends it, and reads the answer as events, as they come.
    pub fn events(&self) -> Events {
        let response = self.start();
        assert_eq!(
            response.status().as_u16(),
            200,
            "{} {}",
            self.method,
            self.url
        );
        let body: Box<dyn Read + Send> = Box::new(response.into_body().into_reader());
        Events {
            lines: BufReader::new(body).lines(),
        }
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let mut event = Event {
            name: String::new(),
            id: None,
            data: Value::Null,
        };
        loop {
            let line = self.lines.next()?.ok()?;
            match line.split_once(": ") {
                None if line.is_empty() && !event.name.is_empty() => return Some(event),
                Some(("event", name)) => event.name = name.into(),
                Some(("id", id)) => event.id = Some(id.into()),
                Some(("data", data)) => {
                    event.data = serde_json::from_str(data).expect("data of JSON")
                }
                _ => {}
            }
        }
    }
}

impl Answer {
    /// A header.
    pub fn header(&self, wanted: &str) -> Option<&str> {
        let mut all = self.headers.iter();
        all.find(|(name, _)| name == wanted)
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The error's code.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().into()
    }
}

/// A token with these claims, signed as the tests' cluster would.
pub fn token(claims: &Value) -> String {
    let key = jsonwebtoken::EncodingKey::from_secret(JWT_SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), claims, &key)
        .expect("claims that can be signed")
}
