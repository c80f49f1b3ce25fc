//! Signing in and out with a browser: a cookie that scripts cannot read holds the session's token.

use std::net::IpAddr;

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::db::{Db, Scope};
use crate::error::{Error, Refusal};
use crate::identity::{Identity, Keys, check_origin, now};
use crate::rpc;
use crate::sql::Sql;

/// Name and password in, a cookie out; the answer has what the page may know.
///
/// # Errors
/// What `shell_api.sign_in` refuses, 403 for a page of another site.
pub async fn sign_in(
    db: &Db,
    keys: &Keys,
    headers: &HeaderMap,
    body: &[u8],
    address: IpAddr,
) -> Result<Response, Error> {
    check_origin(headers)?;
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let given = rpc::arguments(content_type, body)?;
    let text = |name: &str| {
        let value = given
            .iter()
            .find(|(key, _)| key == name)
            .and_then(|(_, value)| value.as_str());
        value.ok_or_else(|| {
            Refusal::new(
                StatusCode::BAD_REQUEST,
                "PSW400",
                format!("The field {name} is missing."),
            )
            .hint("Send username and password, as JSON or as a form.")
        })
    };
    let (username, password) = (text("username")?, text("password")?);
    let mut sql = Sql::default();
    sql.push("select shell_api.sign_in(username => ");
    sql.value(username);
    sql.push(", password => ");
    sql.value(password);
    sql.push(")::text, nullif(current_setting('response.status', true), '')");
    let scope = Scope {
        writes: true,
        ..keys
            .nobody()?
            .scope(&Method::POST, "/sign-in", headers, address)
    };
    let rows = db.call(&scope, &sql).await?;
    let row = rows.first().ok_or_else(unexpected)?;
    let answer = row.text(0).and_then(|text| serde_json::from_str(text).ok());
    let answer: Value = answer.ok_or_else(unexpected)?;
    if let Some(status) = row
        .number(1)
        .and_then(|n| StatusCode::from_u16(n).ok())
        .filter(|s| !s.is_success())
    {
        return Err(Refusal::of_answer(status, &answer).into());
    }
    let token = answer["session_token"].as_str().ok_or_else(unexpected)?;
    let body = json!({
        "user_id": answer["user_id"],
        "username": answer["username"],
        "csrf_token": keys.csrf_token(token),
        "expires_at": answer["session_expires_at"],
    });
    // The database knows when it ends; the browser may forget it a day later.
    with_cookie(
        Json(body).into_response(),
        keys.set_cookie(token, 15 * 86_400),
    )
}

/// Ends the session, and has the browser forget it.
///
/// # Errors
/// [`Error::Database`].
pub async fn sign_out(
    db: &Db,
    keys: &Keys,
    identity: &Identity,
    headers: &HeaderMap,
    address: IpAddr,
) -> Result<Response, Error> {
    if !identity.anonymous {
        let mut sql = Sql::default();
        sql.push("select 1 from shell_api.sign_out()");
        let scope = Scope {
            writes: true,
            ..identity.scope(&Method::POST, "/sign-out", headers, address)
        };
        db.call(&scope, &sql).await?;
    }
    with_cookie(
        StatusCode::NO_CONTENT.into_response(),
        keys.set_cookie("", 0),
    )
}

/// Who is signed in, for the page.
pub fn session(keys: &Keys, identity: &Identity) -> Response {
    let body = json!({
        "user_id": identity.user(),
        "username": identity.username,
        "role": identity.role,
        "csrf_token": identity.session.as_deref().map(|token| keys.csrf_token(token)),
        "seconds_left": identity.claims.get("exp").and_then(Value::as_i64).map(|exp| exp - now()),
    });
    (
        [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))],
        Json(body),
    )
        .into_response()
}

fn with_cookie(mut response: Response, cookie: Option<HeaderValue>) -> Result<Response, Error> {
    let headers = response.headers_mut();
    headers.insert(header::SET_COOKIE, cookie.ok_or_else(unexpected)?);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn unexpected() -> Error {
    Error::System {
        what: "reading the answer of shell_api.sign_in",
        source: std::io::ErrorKind::InvalidData.into(),
    }
}
