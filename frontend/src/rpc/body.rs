//! The arguments of a POST, and how any argument becomes a value in SQL.

use axum::http::StatusCode;
use serde_json::{Map, Value};

use crate::catalogue::Argument;
use crate::error::Refusal;
use crate::sql::{Sql, Text};

/// Reads a body.
///
/// # Errors
/// PGRST102 for what is neither an object nor an array of them, in JSON or as a form.
pub fn arguments(content_type: Option<&str>, body: &[u8]) -> Result<Vec<(String, Value)>, Refusal> {
    let kind = content_type.unwrap_or("application/json").split(';').next();
    match kind
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
        .as_str()
    {
        "application/x-www-form-urlencoded" => {
            let mut all: Map<String, Value> = Map::new();
            for (name, value) in form_urlencoded::parse(body) {
                all.insert(name.into_owned(), Value::String(value.into_owned()));
            }
            Ok(all.into_iter().collect())
        }
        "application/json" => json(body),
        other => Err(unusable(format!("Content-Type not acceptable: {other}"))
            .hint("Send application/json or application/x-www-form-urlencoded.")),
    }
}

fn json(body: &[u8]) -> Result<Vec<(String, Value)>, Refusal> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Vec::new());
    }
    let first = match serde_json::from_slice(body) {
        Ok(Value::Array(all)) => all
            .into_iter()
            .next()
            .unwrap_or_else(|| Value::Object(Map::new())),
        Ok(value) => value,
        Err(_) => Value::Null,
    };
    match first {
        Value::Object(all) => Ok(all.into_iter().collect()),
        _ => Err(unusable("Empty or invalid json".into())
            .hint("Send an object whose keys are the function's arguments.")),
    }
}

fn unusable(message: String) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "PGRST102", message)
}

/// Adds `"name" => value`, the value converted as `json_to_record` would.
pub fn write(sql: &mut Sql, argument: &Argument, value: &Value) {
    sql.name(&argument.name);
    sql.push(" => ");
    let text = match value {
        Value::Null => None,
        Value::String(text) if !argument.is_json() => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let structured = matches!(value, Value::Array(_) | Value::Object(_));
    if structured && !argument.is_json() {
        // An array or a composite: Postgres knows how to read one from JSON.
        sql.push("(select r.v from json_to_record(json_build_object('v', ");
        sql.value(Text(text));
        sql.push(&format!("::json)) as r (v {}))", argument.kind));
    } else {
        sql.value(Text(text));
        sql.push(&format!("::{}", argument.kind));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn bodies() {
        let names = |kind, body: &str| {
            arguments(kind, body.as_bytes()).map(|all| {
                all.iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect::<Vec<_>>()
                    .join(" ")
            })
        };
        assert_eq!(names(None, "").unwrap(), "");
        assert_eq!(names(None, "[]").unwrap(), "");
        assert_eq!(
            names(None, r#"{"a": 1, "b": "x"}"#).unwrap(),
            r#"a=1 b="x""#
        );
        assert_eq!(
            names(
                Some("application/json; charset=utf-8"),
                r#"[{"a": 1}, {"a": 2}]"#
            )
            .unwrap(),
            "a=1"
        );
        let form = Some("application/x-www-form-urlencoded");
        assert_eq!(names(form, "a=1&b=x+y&a=2").unwrap(), r#"a="2" b="x y""#);
        for (kind, body) in [
            (None, "{"),
            (None, "1"),
            (None, "[1]"),
            (Some("text/csv"), "a"),
        ] {
            assert_eq!(names(kind, body).unwrap_err().code, "PGRST102", "{body}");
        }
    }

    #[test]
    fn values() {
        let written = |kind: &str, value: Value| {
            let argument = Argument {
                name: "a".into(),
                kind: kind.into(),
                required: true,
            };
            let mut sql = Sql::default();
            write(&mut sql, &argument, &value);
            (sql.text, sql.parameters[0].0.clone())
        };
        assert_eq!(
            written("bigint", json!(12)),
            ("\"a\" => $1::bigint".into(), Some("12".into()))
        );
        assert_eq!(written("text", json!("x")).1, Some("x".into()));
        assert_eq!(written("jsonb", json!("x")).1, Some("\"x\"".into()));
        assert_eq!(written("text", json!(null)).1, None);
        assert!(written("int[]", json!([1, 2])).0.contains("json_to_record"));
        assert_eq!(
            written("jsonb", json!({"k": [1]})),
            ("\"a\" => $1::jsonb".into(), Some("{\"k\":[1]}".into()))
        );
    }
}
