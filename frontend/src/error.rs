//! What can go wrong: for the administrator a sentence and an exit code, for a client a status and a JSON object.

use std::io;

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use deadpool::managed::{PoolError, TimeoutType};
use serde_json::{Value, json};

/// A failure of the server, or of one request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that cannot be used.
    #[error("--{name}: {problem}")]
    Setting {
        /// The flag, without its dashes.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The listening connection was refused something, or is gone.
    #[error("database: {}", daemon::describe(.0))]
    Database(#[from] tokio_postgres::Error),
    /// Postgres raised something.
    #[error("database: {} (SQLSTATE {})", .0.message, .0.code)]
    Raised(Box<Raised>),
    /// A connection has ended within a transaction.
    #[error("database: {0}")]
    Lost(#[from] io::Error),
    /// No connection was to be had.
    #[error("database: {0}")]
    Pool(#[from] PoolError<io::Error>),
    /// The system refused something.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The request cannot be answered as it is.
    #[error("{}: {}", .0.code, .0.message)]
    Refused(Box<Refusal>),
}

/// What Postgres raised, as far as a client is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Raised {
    /// The SQLSTATE.
    pub code: String,
    /// The sentence.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// What a client is told: PostgREST's object of four keys, and a status.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: StatusCode,
    /// PostgREST's code, an SQLSTATE, or one of the server's own: PSW and a status.
    pub code: String,
    /// A sentence.
    pub message: String,
    /// More about it.
    pub details: Option<Box<str>>,
    /// What to do about it.
    pub hint: Option<Box<str>>,
    /// Headers that go with it.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    /// One without details and hint.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Refusal {
        Refusal {
            status,
            code: code.into(),
            message: message.into(),
            details: None,
            hint: None,
            headers: Vec::new(),
        }
    }

    /// What a function answered that must not raise, because what it counted is to be committed.
    pub fn of_answer(status: StatusCode, answer: &serde_json::Value) -> Refusal {
        let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
        Refusal::new(status, &text("code"), text("message")).hint(text("hint"))
    }

    /// With details.
    pub fn details(mut self, details: impl Into<Box<str>>) -> Refusal {
        self.details = Some(details.into());
        self
    }

    /// With a hint.
    pub fn hint(mut self, hint: impl Into<Box<str>>) -> Refusal {
        self.hint = Some(hint.into());
        self
    }

    /// With a header.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Refusal {
        self.headers.push((name, value));
        self
    }

    /// What Postgres raised; `anonymous` where the request has no identity.
    fn raised(raised: &Raised, anonymous: bool) -> Refusal {
        let Raised {
            code,
            message,
            detail,
            hint,
        } = raised;
        if code == "PGRST" {
            return whole_response(message, detail.as_deref());
        }
        let mut refusal = Refusal::new(status_of(code, message, anonymous), code, message);
        refusal.details = detail.as_deref().map(Box::from);
        refusal.hint = hint.as_deref().map(Box::from);
        if refusal.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer");
            refusal.headers.push((header::WWW_AUTHENTICATE, challenge));
        }
        refusal
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::Refused(Box::new(refusal))
    }
}

impl Error {
    /// The process's exit code: 2 for what the administrator must change, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Setting { .. } => 2,
            _ => 1,
        }
    }

    /// What the client is told.
    pub fn refusal(&self, anonymous: bool) -> Refusal {
        let unavailable = |code, message: &str| {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
                .hint("The database is starting, stopping or out of reach: try again.")
        };
        match self {
            Error::Refused(refusal) => (**refusal).clone(),
            Error::Raised(raised) => Refusal::raised(raised, anonymous),
            Error::Database(_) | Error::Lost(_) => unavailable(
                "PGRST001",
                "Database client error. Retrying the connection.",
            ),
            Error::Pool(PoolError::Timeout(TimeoutType::Wait)) => Refusal::new(
                StatusCode::GATEWAY_TIMEOUT,
                "PGRST003",
                "Timed out acquiring connection from connection pool.",
            )
            .hint("All connections are busy: try again, or have the server run with a larger --pool-size."),
            Error::Pool(_) => unavailable(
                "PGRST000",
                "Database connection error. Retrying the connection.",
            ),
            Error::Setting { .. } | Error::System { .. } => {
                Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "PSW500", "The server has failed.")
                    .hint("Its log says why.")
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({
            "code": self.code,
            "message": self.message,
            "details": self.details,
            "hint": self.hint,
        });
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json; charset=utf-8"),
        );
        if let Ok(status) = HeaderValue::from_str(&format!("PostgREST; error={}", self.code)) {
            headers.insert("proxy-status", status);
        }
        headers.extend(self.headers);
        response
    }
}

/// The status for an SQLSTATE.
fn status_of(code: &str, message: &str, anonymous: bool) -> StatusCode {
    if let Some(digits) = code.strip_prefix("PT") {
        return custom_status(digits);
    }
    let number = match code {
        "23503" | "23505" => 409,
        "25006" => 405,
        "42501" if anonymous => 401,
        "42501" => 403,
        "42883" | "42P01" => 404,
        "42P17" | "21000" | "53400" => 500,
        "57P01" => 503,
        "P0001" => 400,
        "22023" if message.starts_with("role ") && message.ends_with(" does not exist") => 401,
        _ => match code.get(..2).unwrap_or_default() {
            "08" | "53" => 503,
            "0L" | "0P" | "28" => 403,
            "09" | "25" | "2D" | "38" | "39" | "3B" | "40" | "54" | "55" | "57" | "58" | "F0"
            | "HV" | "P0" | "XX" => 500,
            _ => 400,
        },
    };
    StatusCode::from_u16(number).unwrap_or(StatusCode::BAD_REQUEST)
}

fn custom_status(digits: &str) -> StatusCode {
    let number = digits.parse().ok();
    number
        .filter(|n| (200..600).contains(n))
        .and_then(|n| StatusCode::from_u16(n).ok())
        .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// SQLSTATE PGRST: MESSAGE is the body, DETAIL status and headers.
fn whole_response(message: &str, detail: Option<&str>) -> Refusal {
    let object = |text: &str| {
        serde_json::from_str::<Value>(text)
            .ok()
            .filter(Value::is_object)
    };
    let unusable = |details: String, hint: &str| {
        let sentence = "Could not parse JSON in the \"RAISE SQLSTATE 'PGRST'\" error";
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "PGRST121", sentence)
            .details(details)
            .hint(hint)
    };
    let Some((body, code, sentence)) = object(message).and_then(|body| {
        let text = |key| Some(body.get(key)?.as_str()?.to_owned());
        let (code, sentence) = (text("code")?, text("message")?);
        Some((body, code, sentence))
    }) else {
        return unusable(
            format!("Invalid JSON value for MESSAGE: '{message}'"),
            "MESSAGE must be a JSON object with obligatory keys: 'code', 'message' and optional keys: 'details', 'hint'.",
        );
    };
    let detail_hint = "DETAIL must be a JSON object with obligatory keys: 'status', 'headers' and optional key: 'status_text'.";
    let Some(detail) = detail else {
        return unusable(
            "DETAIL is missing in the RAISE statement".into(),
            detail_hint,
        );
    };
    let Some((status, headers)) = object(detail).and_then(|detail| {
        let status = u16::try_from(detail.get("status")?.as_u64()?).ok()?;
        let status = StatusCode::from_u16(status).ok()?;
        let headers = detail.get("headers")?.as_object()?.iter();
        let headers =
            headers.map(|(name, value)| Some((name.parse().ok()?, value.as_str()?.parse().ok()?)));
        Some((status, headers.collect::<Option<Vec<_>>>()?))
    }) else {
        return unusable(
            format!("Invalid JSON value for DETAIL: '{detail}'"),
            detail_hint,
        );
    };
    let text = |key| body.get(key).and_then(Value::as_str).map(Box::from);
    Refusal {
        status,
        code,
        message: sentence,
        details: text("details"),
        hint: text("hint"),
        headers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_statuses() {
        let rows = [
            ("23503", 409),
            ("23505", 409),
            ("25006", 405),
            ("42501", 403),
            ("42883", 404),
            ("42P01", 404),
            ("P0001", 400),
            ("P0002", 500),
            ("08006", 503),
            ("53300", 503),
            ("53400", 500),
            ("57014", 500),
            ("57P01", 503),
            ("0L000", 403),
            ("0P000", 403),
            ("28000", 403),
            ("40001", 500),
            ("21000", 500),
            ("22P02", 400),
            ("PS006", 400),
            ("PT404", 404),
            ("PT999", 500),
            ("PTabc", 500),
            ("", 400),
        ];
        for (code, status) in rows {
            assert_eq!(status_of(code, "", false).as_u16(), status, "{code}");
        }
        assert_eq!(status_of("42501", "", true).as_u16(), 401);
    }

    #[test]
    fn a_whole_response_is_raised() {
        let message = r#"{"code": "X1", "message": "no", "hint": "so"}"#;
        let detail = r#"{"status": 402, "headers": {"X-Why": "money"}}"#;
        let refusal = whole_response(message, Some(detail));
        assert_eq!(
            (refusal.status.as_u16(), refusal.code.as_str()),
            (402, "X1")
        );
        assert_eq!(refusal.headers[0].1, "money");
        assert_eq!(refusal.hint.as_deref(), Some("so"));
        for (message, detail) in [("{}", Some(detail)), (message, None), (message, Some("[]"))] {
            assert_eq!(whole_response(message, detail).code, "PGRST121");
        }
    }
}
