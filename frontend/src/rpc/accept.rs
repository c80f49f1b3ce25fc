//! Which of the media types that a client accepts it gets.

use axum::http::StatusCode;

use crate::catalogue::Function;
use crate::error::Refusal;

/// What an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// JSON.
    Json,
    /// One JSON object, or 406; with `nulls=stripped` this server keeps them.
    Object,
    /// What a function of the media type's domain returns, as it is.
    Own,
}

impl Media {
    /// Chooses by the header Accept.
    ///
    /// # Errors
    /// PGRST107.
    pub fn choose(accept: Option<&str>, function: &Function) -> Result<Media, Refusal> {
        let accept = accept.unwrap_or("*/*");
        let mut wanted: Vec<(f32, String)> = accept
            .split(',')
            .map(|item| {
                let mut parts = item.split(';').map(str::trim);
                let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
                let quality = parts.find_map(|p| p.strip_prefix("q=")?.parse().ok());
                (quality.unwrap_or(1.0), kind)
            })
            .collect();
        // Stable: of equal ones the first.
        wanted.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let media = wanted.iter().find_map(|(_, kind)| match kind.as_str() {
            "*/*"
            | "application/*"
            | "application/json"
            | "application/vnd.pgrst.array+json"
            | "application/vnd.pgrst.array" => Some(Media::Json),
            "application/vnd.pgrst.object+json" | "application/vnd.pgrst.object" => {
                Some(Media::Object)
            }
            other if function.media.as_deref() == Some(other) => Some(Media::Own),
            _ => None,
        });
        media.ok_or_else(|| {
            Refusal::new(
                StatusCode::NOT_ACCEPTABLE,
                "PGRST107",
                format!("None of these media types are available: {accept}"),
            )
        })
    }

    /// The header Content-Type.
    pub fn content_type(self, function: &Function) -> String {
        match self {
            Media::Json => "application/json; charset=utf-8".into(),
            Media::Object => "application/vnd.pgrst.object+json; charset=utf-8".into(),
            Media::Own => match function.media.as_deref() {
                Some(media) if media.starts_with("text/") => format!("{media}; charset=utf-8"),
                Some(media) => media.into(),
                None => "application/octet-stream".into(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Kind;

    #[test]
    fn the_first_of_the_best() {
        let function = |media: Option<&str>| Function {
            name: "f".into(),
            arguments: Vec::new(),
            kind: Kind::Scalar,
            is_set: false,
            volatile: false,
            media: media.map(str::to_owned),
        };
        let (json, html) = (function(None), function(Some("text/html")));
        let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        let rows = [
            (None, &json, Some(Media::Json)),
            (None, &html, Some(Media::Json)),
            (Some("text/html"), &html, Some(Media::Own)),
            (Some("text/html"), &json, None),
            (Some(browser), &html, Some(Media::Own)),
            (Some(browser), &json, Some(Media::Json)),
            (
                Some("application/vnd.pgrst.object+json"),
                &json,
                Some(Media::Object),
            ),
            (
                Some("application/json;q=0.1, application/vnd.pgrst.object+json"),
                &json,
                Some(Media::Object),
            ),
            (Some("image/png"), &html, None),
            (Some(""), &json, None),
        ];
        for (accept, function, expected) in rows {
            assert_eq!(Media::choose(accept, function).ok(), expected, "{accept:?}");
        }
    }
}
