//! `/rpc/{function}` as PostgREST 16.1 answers it.

mod accept;
mod body;
mod parameters;
mod statement;

use std::net::IpAddr;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use serde_json::Value;

use crate::catalogue::{Catalogue, Function, Kind};
use crate::db::{Db, Row, Scope};
use crate::error::{Error, Refusal};
use crate::identity::Identity;
use accept::Media;
pub use body::arguments;
use parameters::Parameters;
use statement::Shape;

/// A call, as far as it has come in.
pub struct Call<'a> {
    /// The function's name.
    pub name: &'a str,
    /// The verb.
    pub method: &'a Method,
    /// The address, with the query.
    pub uri: &'a Uri,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The body.
    pub body: &'a [u8],
    /// Where it comes from.
    pub address: IpAddr,
    /// Who asks.
    pub identity: &'a Identity,
    /// A function to call first.
    pub before: &'a str,
}

/// Which answers to OPTIONS, without a call.
///
/// # Errors
/// PGRST202 for an unknown function.
pub fn options(catalogue: &Catalogue, name: &str) -> Result<Response, Refusal> {
    let Some(volatile) = catalogue.volatile(name) else {
        return Err(catalogue.resolve(name, &[]).err().unwrap_or_else(not_rpc));
    };
    let allow = if volatile {
        "OPTIONS,POST"
    } else {
        "OPTIONS,GET,HEAD,POST"
    };
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    Ok(response)
}

/// Adds what lets scripts of other sites read an answer: with a list of origins those, with credentials; without,
/// any, and no browser sends the cookie then. `preflight` has the headers that the script wants to send.
pub fn allow_origin(
    response: &mut Response,
    listed: &[HeaderValue],
    origin: Option<&HeaderValue>,
    preflight: Option<Option<HeaderValue>>,
) {
    let Some(origin) = origin else { return };
    let headers = response.headers_mut();
    if listed.is_empty() {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            HeaderValue::from_static("*"),
        );
    } else {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        if !listed.contains(origin) {
            return;
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
            HeaderValue::from_static("true"),
        );
    }
    match preflight {
        Some(wanted) => {
            let methods = HeaderValue::from_static("GET, POST, PATCH, PUT, DELETE, OPTIONS, HEAD");
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
            let wanted = wanted
                .as_ref()
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            let allowed = format!("Authorization, {wanted}");
            if let Ok(allowed) = HeaderValue::from_str(allowed.trim_end_matches(", ")) {
                headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
            }
            headers.insert(
                header::ACCESS_CONTROL_MAX_AGE,
                HeaderValue::from_static("86400"),
            );
        }
        None => {
            let exposed = "Content-Encoding, Content-Location, Content-Range, Content-Type, Date, Location, Server, \
                Transfer-Encoding, Range-Unit";
            headers.insert(
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static(exposed),
            );
        }
    }
}

/// A path that is no function's.
fn not_rpc() -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "PGRST125",
        "Invalid path specified in request URL",
    )
}

/// Answers.
///
/// # Errors
/// What the contract lists.
pub async fn answer(db: &Db, catalogue: &Catalogue, call: &Call<'_>) -> Result<Response, Error> {
    let posted = match *call.method {
        Method::POST => true,
        Method::GET | Method::HEAD => false,
        _ => return Err(wrong_verb(call.method).into()),
    };
    let mut parameters = Parameters::parse(call.uri.query().unwrap_or_default(), !posted)?;
    let arguments: Vec<(String, Value)> = if posted {
        body::arguments(text(call.headers, header::CONTENT_TYPE), call.body)?
    } else {
        let all = std::mem::take(&mut parameters.arguments).into_iter();
        all.map(|(name, value)| (name, Value::String(value)))
            .collect()
    };
    if *call.method == Method::GET
        && let Some(range) = text(call.headers, header::RANGE)
    {
        parameters.range(range)?;
    }
    let keys: Vec<&str> = arguments.iter().map(|(name, _)| name.as_str()).collect();
    let function = catalogue.resolve(call.name, &keys)?;
    let media = Media::choose(text(call.headers, header::ACCEPT), function)?;
    let counted = prefers(call.headers, "count=exact");
    let single = media == Media::Object;
    let raw = media == Media::Own;
    let shape = Shape {
        counted,
        single,
        raw,
    };
    let sql = statement::build(function, &arguments, &parameters, shape);
    let scope = Scope {
        before: Some(call.before.to_owned()),
        writes: posted && function.volatile,
        ..call
            .identity
            .scope(call.method, call.uri.path(), call.headers, call.address)
    };
    let rows = match single {
        true => db.call_if(&scope, &sql, exactly_one).await?,
        false => db.call(&scope, &sql).await?,
    };
    let result = Outcome::read(rows)?;
    respond(call, function, media, parameters.offset, counted, result)
}

/// What the statement gave.
struct Outcome {
    total: Option<i64>,
    rows: i64,
    body: String,
    headers: Option<String>,
    status: Option<String>,
}

impl Outcome {
    fn read(rows: Vec<Row>) -> Result<Outcome, Error> {
        let Some(mut row) = rows.into_iter().next() else {
            return Err(internal("the statement of a call gave no row"));
        };
        Ok(Outcome {
            total: row.number(0),
            rows: row.number(1).unwrap_or(0),
            body: row.take(2).unwrap_or_default(),
            headers: row.take(3),
            status: row.take(4),
        })
    }
}

fn exactly_one(rows: &[Row]) -> Result<(), Error> {
    let rows: i64 = rows.first().and_then(|row| row.number(1)).unwrap_or(0);
    if rows == 1 {
        return Ok(());
    }
    let sentence = "Cannot coerce the result to a single JSON object";
    Err(
        Refusal::new(StatusCode::NOT_ACCEPTABLE, "PGRST116", sentence)
            .details(format!("The result contains {rows} rows"))
            .into(),
    )
}

fn respond(
    call: &Call<'_>,
    function: &Function,
    media: Media,
    offset: u64,
    counted: bool,
    result: Outcome,
) -> Result<Response, Error> {
    let offset_number = i64::try_from(offset).unwrap_or(i64::MAX);
    let mut status = match result.total {
        Some(total) if offset_number > total => {
            return Err(parameters::beyond(offset, total).into());
        }
        Some(total) if result.rows < total => StatusCode::PARTIAL_CONTENT,
        _ => StatusCode::OK,
    };
    let mut headers = HeaderMap::new();
    let range = content_range(offset_number, result.rows, result.total);
    headers.insert(header::CONTENT_RANGE, value(&range)?);
    if counted {
        headers.insert(
            "preference-applied",
            HeaderValue::from_static("count=exact"),
        );
    }
    let mut body = result.body;
    if function.kind == Kind::Void {
        status = StatusCode::NO_CONTENT;
        body.clear();
    } else {
        headers.insert(header::CONTENT_TYPE, value(&media.content_type(function))?);
    }
    if let Some(own) = result.headers {
        set_headers(&mut headers, &own)?;
    }
    if let Some(own) = result.status {
        status = own
            .parse()
            .ok()
            .and_then(|n| StatusCode::from_u16(n).ok())
            .ok_or_else(|| {
                Refusal::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "PGRST112",
                    "response.status guc must be a valid status code",
                )
            })?;
    }
    let body = if *call.method == Method::HEAD {
        Body::empty()
    } else {
        Body::from(body)
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}

/// `0-4/*`: what is given, of how many.
fn content_range(offset: i64, rows: i64, total: Option<i64>) -> String {
    let given = match rows {
        0 => "*".into(),
        _ => format!("{offset}-{}", offset.saturating_add(rows - 1)),
    };
    match total {
        Some(total) => format!("{given}/{total}"),
        None => format!("{given}/*"),
    }
}

/// `response.headers`: an array of objects of one key each. What a function sets stands in place of the server's.
fn set_headers(headers: &mut HeaderMap, own: &str) -> Result<(), Refusal> {
    let parsed = || -> Option<Vec<(HeaderName, HeaderValue)>> {
        let all: Vec<serde_json::Map<String, Value>> = serde_json::from_str(own).ok()?;
        let mut pairs = Vec::new();
        for object in &all {
            let (name, value) = object.iter().next().filter(|_| object.len() == 1)?;
            pairs.push((name.parse().ok()?, value.as_str()?.parse().ok()?));
        }
        Some(pairs)
    };
    let Some(pairs) = parsed() else {
        return Err(Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "PGRST111",
            "response.headers guc must be a JSON array composed of objects with a single key and a string value",
        ));
    };
    for (name, _) in &pairs {
        headers.remove(name);
    }
    for (name, value) in pairs {
        headers.append(name, value);
    }
    Ok(())
}

fn wrong_verb(method: &Method) -> Refusal {
    Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "PGRST101",
        format!("Cannot use the {method} method on RPC"),
    )
}

fn prefers(headers: &HeaderMap, wanted: &str) -> bool {
    let all = headers
        .get_all("prefer")
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split([',', ';']))
        .any(|preference| preference.trim() == wanted)
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn value(text: &str) -> Result<HeaderValue, Error> {
    HeaderValue::from_str(text)
        .map_err(|_| internal("a header of an answer holds what no header may"))
}

fn internal(what: &'static str) -> Error {
    Error::System {
        what,
        source: std::io::ErrorKind::InvalidData.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(content_range(0, 5, None), "0-4/*");
        assert_eq!(content_range(0, 0, None), "*/*");
        assert_eq!(content_range(2, 1, Some(9)), "2-2/9");
        assert_eq!(content_range(9, 0, Some(9)), "*/9");
    }

    #[test]
    fn a_functions_headers_replace_the_servers() {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        let own = r#"[{"Content-Type": "text/plain"}, {"Set-Cookie": "a"}, {"Set-Cookie": "b"}]"#;
        set_headers(&mut headers, own).unwrap();
        assert_eq!(headers[header::CONTENT_TYPE], "text/plain");
        assert_eq!(headers.get_all(header::SET_COOKIE).iter().count(), 2);
        for bad in [
            "{}",
            "[{\"a\": 1}]",
            "[{\"a\": \"b\", \"c\": \"d\"}]",
            "[{\"a\": \"\\n\"}]",
            "x",
        ] {
            assert_eq!(
                set_headers(&mut headers, bad).unwrap_err().code,
                "PGRST111",
                "{bad}"
            );
        }
    }
}
