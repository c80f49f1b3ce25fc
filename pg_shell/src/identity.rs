//! Passwords, tokens and signatures: what `sql/20_identity.sql` needs and SQL cannot do.

use std::fs::File;
use std::io::Read;

use argon2::password_hash::{Error as HashError, PasswordHasher, PasswordVerifier};
use argon2::{Argon2, PasswordHash};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;
use hmac::{Hmac, KeyInit, Mac};
use pgrx::pg_sys;
use sha2::Sha256;

use crate::error::Error;
use crate::settings;

/// What a secret must have at least: as much as the signature.
const SECRET_BYTES: usize = 32;
/// More than any secret has; a path to something endless is no harm.
const FILE_BYTES: u64 = 64 << 10;
/// What a token's randomness has.
const TOKEN_BYTES: usize = 32;
/// By which people, and scanners of leaked secrets, know a token.
const TOKEN_PREFIX: &str = "pgsh_";

/// Of a password that nobody knows: to compare with it takes as long as with any other.
const NOBODYS: &str = "$argon2id$v=19$m=19456,t=2,p=1$cGdfc2hlbGwgbm9ib2R5cw$3iDrLArcG2D9bUhRVLwn2OjMpKxrnTRPVMNxbZnoTGo";

/// The password's hash, in the PHC format, with a salt of its own and the crate's present parameters.
pub fn hash_password(password: &str) -> Result<String, Error> {
    let hash: PasswordHash = Argon2::default()
        .hash_password(password.as_bytes())
        .map_err(|e| Error::Hashing(e.to_string()))?;
    Ok(hash.to_string())
}

/// Whether the hash is of this password. No hash takes as long as a wrong one.
pub fn password_matches(hash: Option<&str>, password: &str) -> Result<bool, Error> {
    let answer = Argon2::default().verify_password(password.as_bytes(), hash.unwrap_or(NOBODYS));
    match answer {
        Ok(()) => Ok(hash.is_some()),
        Err(HashError::PasswordInvalid) => Ok(false),
        Err(e) => Err(Error::Hashing(e.to_string())),
    }
}

/// A new token, which nobody can guess.
pub fn new_token() -> Result<String, Error> {
    let mut random = [0_u8; TOKEN_BYTES];
    // SAFETY: Postgres fills the bytes it is given.
    if !unsafe { pg_sys::pg_strong_random(random.as_mut_ptr().cast(), random.len()) } {
        return Err(Error::Hashing("no random bytes".into()));
    }
    Ok(format!("{TOKEN_PREFIX}{}", BASE64URL.encode(random)))
}

/// A JSON Web Token with these claims, a JSON object, signed by HS256 with the administrator's secret.
pub fn sign_jwt(claims: &str) -> Result<String, Error> {
    sign(claims, &secret()?)
}

fn sign(claims: &str, secret: &[u8]) -> Result<String, Error> {
    let header = BASE64URL.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", BASE64URL.encode(claims));
    let mut mac = Hmac::<Sha256>::new_from_slice(secret)
        .map_err(|e| Error::JwtSecret(format!("pg_shell.jwt_secret: {e}")))?;
    mac.update(signed.as_bytes());
    let signature = BASE64URL.encode(mac.finalize().into_bytes());
    Ok(format!("{signed}.{signature}"))
}

/// The setting, or after an "@" the file that it names, less one line end.
fn secret() -> Result<Vec<u8>, Error> {
    let setting = settings::jwt_secret();
    let secret = match setting.strip_prefix('@') {
        Some(path) => {
            let secret =
                read(path).map_err(|e| Error::JwtSecret(format!("pg_shell.jwt_secret: {e}")))?;
            secret.strip_suffix(b"\n").unwrap_or(&secret).to_vec()
        }
        None => setting.into_bytes(),
    };
    match secret.len() {
        0 => Err(Error::JwtSecret("pg_shell.jwt_secret is not set".into())),
        length if length < SECRET_BYTES => Err(Error::JwtSecret(format!(
            "pg_shell.jwt_secret has {length} bytes; {SECRET_BYTES} are the least"
        ))),
        _ => Ok(secret),
    }
}

fn read(path: &str) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?
        .take(FILE_BYTES)
        .read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(any(test, feature = "pg_test"))]
#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use super::*;

    #[pg_test]
    fn a_hash_is_of_one_password_and_never_twice_the_same() {
        let hash = hash_password("correct horse").unwrap();
        assert_ne!(hash, hash_password("correct horse").unwrap());
        assert!(password_matches(Some(&hash), "correct horse").unwrap());
        for wrong in ["Correct horse", "correct horse ", ""] {
            assert!(!password_matches(Some(&hash), wrong).unwrap());
        }
        assert!(password_matches(Some("no hash"), "correct horse").is_err());
        assert!(!password_matches(None, "correct horse").unwrap());
    }

    /// Or an unknown user would be told from a known one by the clock.
    #[pg_test]
    fn nobody_s_hash_costs_what_a_new_one_does() {
        let parameters = |hash: &str| hash.rsplitn(3, '$').nth(2).map(str::to_owned);
        let new = hash_password("correct horse").unwrap();
        assert_eq!(parameters(NOBODYS), parameters(&new));
        assert_eq!(NOBODYS.len(), new.len());
    }

    #[pg_test]
    fn tokens_differ() {
        let (one, two) = (new_token().unwrap(), new_token().unwrap());
        assert_ne!(one, two);
        assert!(one.starts_with(TOKEN_PREFIX) && one.len() == TOKEN_PREFIX.len() + 43);
    }

    /// The example of jwt.io.
    #[pg_test]
    fn a_signature_is_the_standard_s() {
        let claims = r#"{"sub":"1234567890","name":"John Doe","iat":1516239022}"#;
        let token = sign(claims, b"your-256-bit-secret").unwrap();
        assert_eq!(
            token,
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"
        );
    }
}
