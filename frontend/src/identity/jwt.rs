//! JSON Web Tokens, and what is wrong with them in PostgREST's words.

use jsonwebtoken::errors::ErrorKind;
use serde_json::{Map, Value};

use super::{Identity, Keys, invalid, now};
use crate::error::Refusal;

/// Clocks may differ by so much.
const LEEWAY: i64 = 30;

impl Keys {
    /// Whose token this is.
    ///
    /// # Errors
    /// PGRST301, PGRST303.
    pub(super) fn read_jwt(&self, token: &str) -> Result<Identity, Refusal> {
        let parts = token.split('.').count();
        if token.is_empty() {
            return Err(invalid(
                "PGRST301",
                "Empty JWT is sent in Authorization header",
            ));
        }
        if parts != 3 {
            return Err(invalid(
                "PGRST301",
                &format!("Expected 3 parts in JWT; got {parts}"),
            ));
        }
        if jsonwebtoken::decode_header(token).is_err() {
            return Err(invalid(
                "PGRST301",
                "Wrong or unsupported encoding algorithm",
            ));
        }
        let decoded =
            jsonwebtoken::decode::<Map<String, Value>>(token, &self.jwt, &self.validation);
        let mut claims = decoded
            .map_err(|e| match e.kind() {
                ErrorKind::InvalidSignature => {
                    invalid("PGRST301", "No suitable key or wrong key type")
                }
                ErrorKind::InvalidAlgorithm => {
                    invalid("PGRST301", "Wrong or unsupported encoding algorithm")
                }
                ErrorKind::Json(_) => invalid("PGRST303", "Parsing claims failed"),
                _ => invalid("PGRST301", "JWT cryptographic operation failed"),
            })?
            .claims;
        check_times(&claims, now())?;
        let named = claims
            .get("role")
            .and_then(Value::as_str)
            .map(str::to_owned);
        let Some(role) = named.or_else(|| self.anonymous.clone()) else {
            return self.nobody();
        };
        // SET ROLE takes it for the role that the server logs in as.
        if role.eq_ignore_ascii_case("none") {
            return Err(invalid("PGRST303", "The JWT 'role' claim names no role"));
        }
        claims.insert("role".into(), role.as_str().into());
        Ok(Identity {
            role,
            claims,
            anonymous: false,
            username: None,
            session: None,
        })
    }
}

fn check_times(claims: &Map<String, Value>, now: i64) -> Result<(), Refusal> {
    let claim = |name: &str| match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(number) => Ok(Some(number as i64)),
            None => Err(invalid(
                "PGRST303",
                &format!("The JWT '{name}' claim must be a number"),
            )),
        },
    };
    if claim("exp")?.is_some_and(|exp| now.saturating_sub(LEEWAY) > exp) {
        return Err(invalid("PGRST303", "JWT expired"));
    }
    if claim("nbf")?.is_some_and(|nbf| now.saturating_add(LEEWAY) < nbf) {
        return Err(invalid("PGRST303", "JWT not yet valid"));
    }
    if claim("iat")?.is_some_and(|iat| now.saturating_add(LEEWAY) < iat) {
        return Err(invalid("PGRST303", "JWT issued at future"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SECRET, keys};
    use super::*;
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    fn signed(claims: Value) -> String {
        jsonwebtoken::encode(
            &Header::default(),
            &claims,
            &EncodingKey::from_secret(SECRET),
        )
        .unwrap()
    }

    #[test]
    fn a_jwt_and_what_is_wrong_with_others() {
        let keys = keys(&[]);
        let now = now();
        let good = keys
            .read_jwt(&signed(
                json!({"sub": "u", "role": "shell_user", "exp": now - 20}),
            ))
            .unwrap();
        assert_eq!((good.role.as_str(), good.user()), ("shell_user", Some("u")));
        let roleless = keys.read_jwt(&signed(json!({"sub": "u"}))).unwrap();
        assert_eq!(roleless.claims["role"], "shell_anonymous");
        let forged = format!("{}x", signed(json!({"role": "shell_user"})));
        let unsigned = "eyJhbGciOiJub25lIn0.eyJyb2xlIjoic2hlbGxfYWRtaW4ifQ.";
        let rows = [
            (signed(json!({"exp": now - 60})), "PGRST303", "JWT expired"),
            (
                signed(json!({"nbf": now + 60})),
                "PGRST303",
                "JWT not yet valid",
            ),
            (
                signed(json!({"iat": now + 60})),
                "PGRST303",
                "JWT issued at future",
            ),
            (
                signed(json!({"exp": "soon"})),
                "PGRST303",
                "The JWT 'exp' claim must be a number",
            ),
            (
                signed(json!({"role": "none"})),
                "PGRST303",
                "The JWT 'role' claim names no role",
            ),
            ("a.b".into(), "PGRST301", "Expected 3 parts in JWT; got 2"),
            (
                String::new(),
                "PGRST301",
                "Empty JWT is sent in Authorization header",
            ),
            (forged, "PGRST301", "No suitable key or wrong key type"),
        ];
        for (token, code, message) in rows {
            let refusal = keys.read_jwt(&token).unwrap_err();
            assert_eq!(
                (refusal.code.as_str(), refusal.message.as_str()),
                (code, message)
            );
            assert!(
                refusal.headers[0]
                    .1
                    .to_str()
                    .unwrap()
                    .contains("invalid_token")
            );
        }
        assert_eq!(keys.read_jwt(unsigned).unwrap_err().code, "PGRST301");
    }
}
