//! Who asks: a JWT, an API token, or the cookie of a signed-in browser.

mod forged;
mod jwt;

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use hmac::{Hmac, KeyInit};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Map, Value};
use sha2::Sha256;

use crate::config::Config;
use crate::db::{Db, Scope};
use crate::error::{Error, Refusal};
use crate::sql::{Sql, Text};
pub use forged::check_origin;

/// What tokens are checked with.
pub struct Keys {
    jwt: DecodingKey,
    validation: Validation,
    csrf: Hmac<Sha256>,
    anonymous: Option<String>,
    cookie: &'static str,
    secure: bool,
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The role that the transaction runs as.
    pub role: String,
    /// `request.jwt.claims`.
    pub claims: Map<String, Value>,
    /// True without any token.
    pub anonymous: bool,
    /// The name, where the database was asked.
    pub username: Option<String>,
    /// The token of the cookie that said so.
    pub session: Option<String>,
}

impl Keys {
    /// Reads the secret.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub fn new(config: &Config) -> Result<Keys, Error> {
        let problem = |problem| Error::Setting {
            name: "jwt-secret-file",
            problem,
        };
        let path = &config.jwt_secret_file;
        let text = std::fs::read(path).map_err(|e| problem(format!("{}: {e}", path.display())))?;
        let secret = text.trim_ascii_end();
        if secret.len() < 32 {
            return Err(problem(format!(
                "{} holds {} bytes and 32 are needed: put in what pg_shell.jwt_secret has",
                path.display(),
                secret.len()
            )));
        }
        Ok(Keys::from_secret(secret, config))
    }

    fn from_secret(secret: &[u8], config: &Config) -> Keys {
        let mut validation = Validation::new(Algorithm::HS256);
        // Times are looked at below, in PostgREST's words.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        Keys {
            jwt: DecodingKey::from_secret(secret),
            validation,
            csrf: Hmac::new_from_slice(secret).expect("HMAC takes a key of any length"),
            anonymous: Some(config.anonymous_role.clone()).filter(|role| !role.is_empty()),
            cookie: if config.is_https() {
                "__Host-pg_shell"
            } else {
                "pg_shell"
            },
            secure: config.is_https(),
        }
    }

    /// Finds out who asks.
    ///
    /// # Errors
    /// 401 for a token that is none, 403 for a request that another page may have made, [`Error::Database`].
    pub async fn identify(
        &self,
        db: &Db,
        method: &Method,
        headers: &HeaderMap,
        address: IpAddr,
    ) -> Result<Identity, Error> {
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            return match bearer(value) {
                Some(token) if token.starts_with("pgsh_") => {
                    let found = session_of(db, token, headers, address).await?;
                    Ok(found.ok_or_else(|| {
                        invalid("PGRST301", "The API token is unknown, revoked or expired")
                    })?)
                }
                Some(token) => Ok(self.read_jwt(token)?),
                // PostgREST takes any other scheme for none at all.
                None => Ok(self.nobody()?),
            };
        }
        if let Some(token) = cookie(headers, self.cookie) {
            if !method.is_safe() {
                self.check_csrf(&token, headers)?;
            }
            // A cookie of a session that has ended is no reason to refuse a page.
            if let Some(found) = session_of(db, &token, headers, address).await? {
                return Ok(Identity {
                    session: Some(token),
                    ..found
                });
            }
        }
        Ok(self.nobody()?)
    }

    /// A request without a token.
    ///
    /// # Errors
    /// PGRST302 where there is no such.
    pub fn nobody(&self) -> Result<Identity, Refusal> {
        let Some(role) = &self.anonymous else {
            let challenge = HeaderValue::from_static("Bearer");
            let refusal = Refusal::new(
                StatusCode::UNAUTHORIZED,
                "PGRST302",
                "Anonymous access is disabled",
            );
            return Err(refusal.header(header::WWW_AUTHENTICATE, challenge));
        };
        Ok(Identity {
            role: role.clone(),
            claims: Map::from_iter([("role".to_owned(), Value::from(role.as_str()))]),
            anonymous: true,
            username: None,
            session: None,
        })
    }

    /// The header that gives a browser its session.
    pub fn set_cookie(&self, token: &str, seconds: i64) -> Option<HeaderValue> {
        let secure = if self.secure { "; Secure" } else { "" };
        let cookie = format!(
            "{}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}",
            self.cookie
        );
        HeaderValue::from_str(&cookie).ok()
    }
}

impl Identity {
    /// The user's id, where there is one.
    pub fn user(&self) -> Option<&str> {
        self.claims.get("sub").and_then(Value::as_str)
    }

    /// A transaction for this identity; what a request of HTTP said comes with it.
    pub fn scope(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        address: IpAddr,
    ) -> Scope {
        let mut cookies = Map::new();
        let mut all = Map::new();
        for (name, value) in headers {
            let Ok(value) = value.to_str() else { continue };
            match name {
                &header::COOKIE => {
                    let pairs = value
                        .split(';')
                        .filter_map(|pair| pair.trim().split_once('='));
                    // The session's token is nobody's business there.
                    let pairs = pairs.filter(|(name, _)| !name.ends_with("pg_shell"));
                    cookies.extend(pairs.map(|(name, value)| (name.to_owned(), value.into())));
                }
                _ => {
                    all.insert(name.as_str().into(), value.into());
                }
            }
        }
        // Functions find the client's address here, whether or not a proxy has said it.
        all.insert("x-forwarded-for".into(), address.to_string().into());
        Scope {
            role: self.role.clone(),
            claims: Value::from(self.claims.clone()).to_string(),
            method: method.to_string(),
            path: path.into(),
            headers: Value::from(all).to_string(),
            cookies: Value::from(cookies).to_string(),
            before: None,
            writes: false,
        }
    }
}

/// Whose token this is.
async fn session_of(
    db: &Db,
    token: &str,
    headers: &HeaderMap,
    address: IpAddr,
) -> Result<Option<Identity>, Error> {
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok());
    let mut sql = Sql::default();
    sql.push(
        "select session_id::text, user_id::text, username, role, extract(epoch from expires_at)::bigint
         from shell.session_of(",
    );
    sql.value(token);
    sql.push(", ");
    sql.value(Text(agent.map(str::to_owned)));
    sql.push(", ");
    sql.value(address.to_string());
    sql.push(")");
    let rows = db.own(&sql).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let (Some(user), Some(role)) = (row.text(1), row.text(3)) else {
        return Ok(None);
    };
    let claims = [
        ("sub", Value::from(user)),
        ("role", Value::from(role)),
        ("sid", row.text(0).into()),
        ("exp", row.number::<i64>(4).into()),
    ];
    Ok(Some(Identity {
        role: role.into(),
        claims: claims
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .collect(),
        anonymous: false,
        username: row.text(2).map(str::to_owned),
        session: None,
    }))
}

fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, token) = value
        .to_str()
        .ok()?
        .split_once(' ')
        .unwrap_or((value.to_str().ok()?, ""));
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn cookie(headers: &HeaderMap, wanted: &str) -> Option<String> {
    let all = headers
        .get_all(header::COOKIE)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    let mut pairs = all
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let (_, token) = pairs.find(|(name, _)| *name == wanted)?;
    Some(token.to_owned()).filter(|token| !token.is_empty())
}

fn invalid(code: &str, message: &str) -> Refusal {
    let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{message}\"");
    let refusal = Refusal::new(StatusCode::UNAUTHORIZED, code, message)
        .hint("Sign in again, or exchange the API token for a new one.");
    match HeaderValue::from_str(&challenge) {
        Ok(challenge) => refusal.header(header::WWW_AUTHENTICATE, challenge),
        Err(_) => refusal,
    }
}

/// Seconds since 1970.
pub fn now() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    pub const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    pub fn keys(flags: &[&str]) -> Keys {
        let required = [
            "pg-shell-web",
            "--database-url",
            "host=/",
            "--jwt-secret-file",
            "/",
        ];
        Keys::from_secret(SECRET, &Config::parse_from(required.iter().chain(flags)))
    }

    #[test]
    fn nobody_may_be_refused() {
        assert!(keys(&[]).nobody().unwrap().anonymous);
        assert_eq!(
            keys(&["--anonymous-role", ""]).nobody().unwrap_err().code,
            "PGRST302"
        );
    }

    #[test]
    fn cookies_are_strict_and_secure_where_they_can_be() {
        let plain = keys(&[]).set_cookie("t", 60).unwrap();
        assert_eq!(
            plain,
            "pg_shell=t; Path=/; HttpOnly; SameSite=Strict; Max-Age=60"
        );
        let https = keys(&["--public-url", "https://shell.example"])
            .set_cookie("t", 60)
            .unwrap();
        assert_eq!(
            https,
            "__Host-pg_shell=t; Path=/; HttpOnly; SameSite=Strict; Max-Age=60; Secure"
        );
        let mut headers = HeaderMap::new();
        headers.insert(
            header::COOKIE,
            HeaderValue::from_static("a=1; pg_shell=xyz"),
        );
        assert_eq!(cookie(&headers, "pg_shell").as_deref(), Some("xyz"));
    }

    #[test]
    fn settings_carry_headers_and_no_session() {
        let mut headers = HeaderMap::new();
        headers.insert("X-Thing", HeaderValue::from_static("v"));
        headers.insert(
            header::COOKIE,
            HeaderValue::from_static("theme=dark; pg_shell=secret"),
        );
        let nobody = keys(&[]).nobody().unwrap();
        let scope = nobody.scope(
            &Method::POST,
            "/rpc/f",
            &headers,
            IpAddr::from([127, 0, 0, 1]),
        );
        assert_eq!(
            scope.headers,
            r#"{"x-thing":"v","x-forwarded-for":"127.0.0.1"}"#
        );
        assert_eq!(scope.cookies, r#"{"theme":"dark"}"#);
    }
}
