//! The page's files, within the program.
//!
//! All are served below one hash of all, so that browsers keep them for ever and never have an old one, and modules
//! name each other as they lie beside each other.

use std::collections::HashMap;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rust_embed::RustEmbed;
use sha2::{Digest, Sha256};

use crate::error::Refusal;

#[derive(RustEmbed)]
#[folder = "assets/"]
struct Embedded;

/// A file as it is sent.
struct File {
    media: HeaderValue,
    content: Bytes,
}

/// All files, by their addresses below /assets/.
pub struct Assets {
    hash: String,
    files: HashMap<String, File>,
}

impl Assets {
    /// Reads them from the program.
    pub fn new() -> Assets {
        let mut names: Vec<_> = Embedded::iter().collect();
        names.sort();
        let read = |name: &str| Some((name.to_owned(), Embedded::get(name)?.data));
        let all: Vec<_> = names.iter().filter_map(|name| read(name)).collect();
        let mut digest = Sha256::new();
        for (name, content) in &all {
            digest.update(name);
            digest.update(Sha256::digest(content));
        }
        let hash = URL_SAFE_NO_PAD.encode(&digest.finalize()[..12]);
        let file = |(name, content): (String, std::borrow::Cow<'static, [u8]>)| {
            let file = File {
                media: media(&name),
                content: Bytes::from(content.into_owned()),
            };
            (format!("{hash}/{name}"), file)
        };
        let files = all.into_iter().map(file).collect();
        Assets { hash, files }
    }

    /// Where a file is.
    pub fn address(&self, name: &str) -> String {
        format!("/assets/{}/{name}", self.hash)
    }

    /// A file.
    ///
    /// # Errors
    /// 404.
    pub fn file(&self, address: &str) -> Result<Response, Refusal> {
        let Some(file) = self.files.get(address) else {
            return Err(
                Refusal::new(StatusCode::NOT_FOUND, "PSW404", "There is no such file.")
                    .hint("Load the page again: it names the files as they are now."),
            );
        };
        let mut response = Response::new(Body::from(file.content.clone()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, file.media.clone());
        let for_ever = HeaderValue::from_static("public, max-age=31536000, immutable");
        headers.insert(header::CACHE_CONTROL, for_ever);
        Ok(response)
    }
}

fn media(name: &str) -> HeaderValue {
    HeaderValue::from_static(
        match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("css") => "text/css; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some("LICENSE") => "text/plain; charset=utf-8",
            _ => "application/octet-stream",
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_there_and_nothing_else_is() {
        let assets = Assets::new();
        let at = |name: &str| {
            assets
                .address(name)
                .trim_start_matches("/assets/")
                .to_owned()
        };
        assert!(assets.file(&at("app/main.js")).is_ok());
        for none in ["app/main.js", "../Cargo.toml", ""] {
            assert!(assets.file(none).is_err(), "{none}");
            assert!(assets.file(&at(none)).is_err() || none == "app/main.js");
        }
    }

    #[test]
    fn nothing_of_unknown_kind_is_served() {
        for name in Embedded::iter() {
            assert_ne!(media(&name), "application/octet-stream", "{name}");
        }
    }
}
