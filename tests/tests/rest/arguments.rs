//! Which function is called, and with what.

use serde_json::{Value, json};

use crate::harness::{Body, Code, Status, all, ask, form, get, post};

#[test]
fn arguments_of_post() {
    all(vec![
        (
            "json",
            post("rest_add", json!({"a": 1, "b": 5})),
            vec![Status(200), Body(json!(6))],
        ),
        (
            "an array's first",
            post("rest_add", json!([{"a": 1}, {"a": 9}])),
            vec![Body(json!(3))],
        ),
        ("empty", ask("POST", "rest_nothing"), vec![Status(204)]),
        ("form", form("rest_add", "a=1&b=3"), vec![Body(json!(4))]),
        (
            "text from json",
            post("rest_text", json!({"v": "eq.x"})),
            vec![Body(json!("eq.x"))],
        ),
        (
            "text from a number",
            post("rest_text", json!({"v": 1.5})),
            vec![Body(json!("1.5"))],
        ),
        (
            "null",
            post("rest_text", json!({"v": null})),
            vec![Body(Value::Null)],
        ),
        (
            "jsonb",
            post("rest_json", json!({"v": {"k": [1, "x"]}})),
            vec![Body(json!({"k": [1, "x"]}))],
        ),
        (
            "array",
            post("rest_array", json!({"v": [3, 4]})),
            vec![Body(json!(4))],
        ),
        (
            "array's literal",
            post("rest_array", json!({"v": "{3,4}"})),
            vec![Body(json!(4))],
        ),
        (
            "no json",
            ask("POST", "rest_add").body("application/json", "{"),
            vec![Status(400), Code("PGRST102")],
        ),
        (
            "no value",
            post("rest_add", json!({"a": "x"})),
            vec![Status(400), Code("22P02")],
        ),
        (
            "parameters are filters",
            post("rest_rows?id=eq.2&select=id", json!({})),
            vec![Body(json!([{"id": 2}]))],
        ),
    ]);
}

#[test]
fn arguments_of_get() {
    all(vec![
        (
            "plain",
            get("rest_add?a=1"),
            vec![Status(200), Body(json!(3))],
        ),
        (
            "the last wins",
            get("rest_add?a=1&a=4"),
            vec![Body(json!(6))],
        ),
        (
            "an operator filters",
            get("rest_rows?n=3&id=eq.2&select=name"),
            vec![Body(json!([{"name": "row 2"}]))],
        ),
        (
            "in",
            get("rest_rows?id=in.(1,3)&select=id"),
            vec![Body(json!([{"id": 1}, {"id": 3}]))],
        ),
        (
            "not",
            get("rest_rows?id=not.gt.1&select=id"),
            vec![Body(json!([{"id": 1}]))],
        ),
        (
            "cs",
            get("rest_rows?tags=cs.{t4}&select=id"),
            vec![Body(json!([{"id": 4}]))],
        ),
        (
            "like",
            get("rest_rows?name=like.*5&select=id"),
            vec![Body(json!([{"id": 5}]))],
        ),
        (
            "is",
            get("rest_rows?odd=is.true&id=lt.3&select=id"),
            vec![Body(json!([{"id": 1}]))],
        ),
        (
            "quoting",
            get("rest_text?v=a%22'%3B--"),
            vec![Body(json!("a\"';--"))],
        ),
        (
            "no such column",
            get("rest_rows?nope=eq.1"),
            vec![Status(400), Code("42703")],
        ),
        (
            "a column is no SQL",
            get("rest_rows?id%22%3D1--=eq.1"),
            vec![Status(400), Code("42703")],
        ),
    ]);
}

#[test]
fn which_function() {
    all(vec![
        (
            "none",
            get("rest_nope"),
            vec![Status(404), Code("PGRST202")],
        ),
        (
            "an unknown key",
            get("rest_add?a=1&z=1"),
            vec![Status(404), Code("PGRST202")],
        ),
        (
            "a missing key",
            get("rest_add?b=1"),
            vec![Status(404), Code("PGRST202")],
        ),
        (
            "a filter is no argument",
            get("rest_add?a=eq.1"),
            vec![Status(404), Code("PGRST202")],
        ),
        (
            "two",
            get("rest_over?a=1"),
            vec![Status(300), Code("PGRST203")],
        ),
        (
            "a verb",
            ask("PATCH", "rest_add").json(&json!({})),
            vec![Status(405), Code("PGRST101")],
        ),
    ]);
}
