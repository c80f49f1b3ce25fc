//! Requests that a page of another site has made a browser send.
//!
//! A browser sends its cookie by itself, whatever page makes it do so. SameSite=Strict keeps other sites' requests
//! bare in browsers that know it; what changes something needs, besides, the token that only a page of this
//! server can read. It is an HMAC of the session's token and no second cookie: there is nothing that a
//! neighbouring host could set, nothing to store, and it ends with its session.

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::Keys;
use crate::error::Refusal;

/// The header with the token against forged requests.
pub const CSRF_HEADER: &str = "x-csrf-token";

impl Keys {
    /// The token that a page sends back with what changes something.
    pub fn csrf_token(&self, session: &str) -> String {
        let code = self.csrf_of(session).finalize().into_bytes();
        URL_SAFE_NO_PAD.encode(code)
    }

    fn csrf_of(&self, session: &str) -> Hmac<Sha256> {
        // The key signs JWTs too; no JWT begins like this.
        let mut code = self.csrf.clone();
        code.update(b"pg_shell csrf ");
        code.update(session.as_bytes());
        code
    }

    /// Refuses what has not that token.
    ///
    /// # Errors
    /// 403.
    pub(super) fn check_csrf(&self, session: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        check_origin(headers)?;
        let sent = headers
            .get(CSRF_HEADER)
            .map(HeaderValue::as_bytes)
            .unwrap_or_default();
        let sent = URL_SAFE_NO_PAD.decode(sent).unwrap_or_default();
        self.csrf_of(session).verify_slice(&sent).map_err(|_| {
            Refusal::new(StatusCode::FORBIDDEN, "PSW403", "The token against forged requests is missing or wrong.")
                .hint("Send what GET /session gives as csrf_token in the header X-CSRF-Token, or use an Authorization header.")
        })
    }
}

/// Refuses what a page of another site sends.
///
/// # Errors
/// 403.
pub fn check_origin(headers: &HeaderMap) -> Result<(), Refusal> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let same = match (text("sec-fetch-site"), text("origin"), text("host")) {
        (Some(site), _, _) => matches!(site, "same-origin" | "none"),
        (None, Some(origin), Some(host)) => origin
            .split_once("://")
            .is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host)),
        (None, Some(_), None) => false,
        // No browser, or one that SameSite has to protect.
        (None, None, _) => true,
    };
    if same {
        return Ok(());
    }
    Err(
        Refusal::new(StatusCode::FORBIDDEN, "PSW403", "This request comes from a page of another site.")
            .hint("Send it from this server's own page, or with an Authorization header instead of the cookie."),
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::keys;
    use super::*;

    #[test]
    fn the_csrf_token_is_the_sessions() {
        let keys = keys(&[]);
        let mut headers = HeaderMap::new();
        assert!(keys.check_csrf("one", &headers).is_err());
        headers.insert(CSRF_HEADER, keys.csrf_token("one").parse().unwrap());
        assert!(keys.check_csrf("one", &headers).is_ok());
        assert!(keys.check_csrf("two", &headers).is_err());
        headers.insert("sec-fetch-site", HeaderValue::from_static("cross-site"));
        assert!(keys.check_csrf("one", &headers).is_err());
    }

    #[test]
    fn origins() {
        let check = |headers: &[(&'static str, &'static str)]| {
            let headers = headers
                .iter()
                .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
            check_origin(&headers.collect()).is_ok()
        };
        assert!(check(&[]));
        assert!(check(&[("sec-fetch-site", "same-origin")]));
        assert!(!check(&[("sec-fetch-site", "same-site")]));
        assert!(check(&[
            ("origin", "http://localhost:8080"),
            ("host", "localhost:8080")
        ]));
        assert!(!check(&[
            ("origin", "http://evil.example"),
            ("host", "localhost:8080")
        ]));
        assert!(!check(&[("origin", "null"), ("host", "localhost:8080")]));
    }
}
