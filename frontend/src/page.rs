//! The page and what belongs to it, within the program.
//!
//! Files are served below the first half of their hash, so that browsers keep them for ever and never have an old one.
//! In a text asset `{{asset:NAME}}` becomes the address of another.

use std::collections::HashMap;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rust_embed::RustEmbed;
use sha2::{Digest, Sha256};

use crate::error::Refusal;
use crate::terminal::escaped;

#[derive(RustEmbed)]
#[folder = "assets/"]
struct Embedded;

/// The page's own file.
const PAGE: &str = "index.html";

/// A file as it is sent.
struct File {
    media: HeaderValue,
    content: Vec<u8>,
}

/// All files, by the addresses below /assets/.
pub struct Assets {
    files: HashMap<String, File>,
    page: String,
}

impl Assets {
    /// Reads them from the program.
    pub fn new() -> Assets {
        let mut names: Vec<String> = Embedded::iter()
            .map(Into::into)
            .filter(|name| name != PAGE)
            .collect();
        // A style sheet names images, a page names both: what names nothing comes first.
        let rank = |name: &str| match name.rsplit_once('.') {
            Some((_, "css")) => 1,
            Some((_, "js")) => 2,
            _ => 0,
        };
        names.sort_by_key(|name| (rank(name), name.clone()));
        let mut addresses: Vec<(String, String)> = Vec::new();
        let mut files = HashMap::new();
        for name in names {
            let Some(file) = Embedded::get(&name) else {
                continue;
            };
            let content = match std::str::from_utf8(&file.data) {
                Ok(text) if rank(&name) > 0 => filled(text, &addresses).into_bytes(),
                _ => file.data.to_vec(),
            };
            let hash = URL_SAFE_NO_PAD.encode(&Sha256::digest(&content)[..12]);
            let address = format!("{hash}/{name}");
            addresses.push((name.clone(), format!("/assets/{address}")));
            files.insert(
                address,
                File {
                    media: media(&name),
                    content,
                },
            );
        }
        let page = Embedded::get(PAGE).map_or_else(String::new, |file| {
            filled(&String::from_utf8_lossy(&file.data), &addresses)
        });
        Assets { files, page }
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

    /// The page, with `{{csrf}}` and `{{username}}` filled in; both are empty for who has not signed in.
    pub fn page(&self, csrf: &str, username: &str) -> Response {
        let page = self
            .page
            .replace("{{csrf}}", &escaped(csrf))
            .replace("{{username}}", &escaped(username));
        let html = HeaderValue::from_static("text/html; charset=utf-8");
        let never = HeaderValue::from_static("no-store");
        (
            [(header::CONTENT_TYPE, html), (header::CACHE_CONTROL, never)],
            page,
        )
            .into_response()
    }
}

fn filled(text: &str, addresses: &[(String, String)]) -> String {
    addresses
        .iter()
        .fold(text.to_owned(), |text, (name, address)| {
            text.replace(&format!("{{{{asset:{name}}}}}"), address)
        })
}

fn media(name: &str) -> HeaderValue {
    HeaderValue::from_static(
        match name.rsplit_once('.').map(|(_, extension)| extension) {
            Some("css") => "text/css; charset=utf-8",
            Some("js" | "mjs") => "text/javascript; charset=utf-8",
            Some("html") => "text/html; charset=utf-8",
            Some("json" | "webmanifest") => "application/json",
            Some("svg") => "image/svg+xml",
            Some("png") => "image/png",
            Some("ico") => "image/x-icon",
            Some("woff2") => "font/woff2",
            Some("wasm") => "application/wasm",
            Some("txt" | "md") => "text/plain; charset=utf-8",
            _ => "application/octet-stream",
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_asset_that_is_named_is_there() {
        let assets = Assets::new();
        assert!(!assets.page.contains("{{asset:"), "{}", assets.page);
        let named: Vec<_> = assets
            .page
            .split("\"/assets/")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        assert!(!named.is_empty());
        for address in named {
            assert!(assets.file(address).is_ok(), "{address}");
        }
        assert!(assets.file("../Cargo.toml").is_err());
    }

    #[test]
    fn a_name_never_becomes_markup() {
        let assets = Assets {
            files: HashMap::new(),
            page: "<p>{{username}}</p>".into(),
        };
        let page = assets.page("", "<script>");
        let body =
            futures_util::FutureExt::now_or_never(axum::body::to_bytes(page.into_body(), 1000));
        assert_eq!(body.unwrap().unwrap(), "<p>&lt;script&gt;</p>");
    }
}
