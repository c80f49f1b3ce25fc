//! What a result looks like.

use pg_shell_tests::Ask;
use serde_json::json;

use crate::harness::{Body, Code, Header, No, Status, Text, all, ask, form, get, post};

#[test]
fn results() {
    let json_type = Header("content-type", "application/json; charset=utf-8");
    let object = "application/vnd.pgrst.object+json";
    all(vec![
        ("scalar", get("rest_add?a=1"), vec![Text("3"), json_type]),
        (
            "composite",
            get("rest_pair"),
            vec![Body(json!({"id": 7, "name": "seven"}))],
        ),
        (
            "set of scalars",
            get("rest_numbers"),
            vec![Body(json!([1, 2, 3]))],
        ),
        (
            "no rows",
            get("rest_rows?n=0"),
            vec![Status(200), Text("[]")],
        ),
        (
            "void",
            ask("POST", "rest_nothing"),
            vec![Status(204), Text(""), No("content-type")],
        ),
        (
            "select, alias, cast",
            get("rest_rows?n=1&select=no:id::text,name"),
            vec![Text(r#"[{"no":"1","name":"row 1"}]"#)],
        ),
        (
            "order",
            get("rest_rows?n=3&order=odd.desc,id.desc&select=id"),
            vec![Body(json!([{"id": 3}, {"id": 1}, {"id": 2}]))],
        ),
        (
            "limit and offset",
            get("rest_rows?select=id&limit=1&offset=2"),
            vec![Body(json!([{"id": 3}]))],
        ),
        (
            "one object",
            get("rest_rows?id=eq.1&select=id").header("Accept", object),
            vec![
                Status(200),
                Body(json!({"id": 1})),
                Header(
                    "content-type",
                    "application/vnd.pgrst.object+json; charset=utf-8",
                ),
            ],
        ),
        (
            "no object",
            get("rest_rows?n=0").header("Accept", object),
            vec![Status(406), Code("PGRST116")],
        ),
        (
            "two objects",
            get("rest_rows?n=2").header("Accept", object),
            vec![Status(406), Code("PGRST116")],
        ),
        (
            "a bad select",
            get("rest_rows?select=id::int;x"),
            vec![Status(400), Code("PGRST100")],
        ),
    ]);
}

#[test]
fn ranges_and_counts() {
    let exact = |ask: Ask| ask.header("Prefer", "count=exact");
    all(vec![
        (
            "all",
            get("rest_rows"),
            vec![Status(200), Header("content-range", "0-4/*")],
        ),
        (
            "none",
            get("rest_rows?n=0"),
            vec![Header("content-range", "*/*")],
        ),
        (
            "counted",
            exact(get("rest_rows")),
            vec![Status(200), Header("content-range", "0-4/5")],
        ),
        (
            "a part",
            exact(get("rest_rows?limit=2&offset=1")),
            vec![Status(206), Header("content-range", "1-2/5")],
        ),
        (
            "filtered",
            exact(get("rest_rows?id=gt.3")),
            vec![Status(200), Header("content-range", "0-1/2")],
        ),
        (
            "beyond",
            exact(get("rest_rows?offset=6")),
            vec![Status(416), Code("PGRST103")],
        ),
        (
            "range",
            exact(get("rest_rows?select=id").header("Range", "1-2")),
            vec![
                Status(206),
                Header("content-range", "1-2/5"),
                Body(json!([{"id": 2}, {"id": 3}])),
            ],
        ),
        (
            "an open range",
            get("rest_rows").header("Range", "3-"),
            vec![Header("content-range", "3-4/*")],
        ),
        (
            "a range backwards",
            get("rest_rows").header("Range", "3-1"),
            vec![Status(416), Code("PGRST103")],
        ),
        (
            "on get only",
            post("rest_rows", json!({})).header("Range", "1-2"),
            vec![Header("content-range", "0-4/*")],
        ),
        (
            "head",
            ask("HEAD", "rest_rows"),
            vec![Status(200), Text(""), Header("content-range", "0-4/*")],
        ),
    ]);
}

#[test]
fn media_types() {
    let html = |ask: Ask| ask.header("Accept", "text/html");
    all(vec![
        (
            "html",
            html(get("rest_html?name=x")),
            vec![
                Status(200),
                Text("<b>x</b>"),
                Header("content-type", "text/html; charset=utf-8"),
            ],
        ),
        (
            "json of html",
            get("rest_html?name=x").header("Accept", "*/*"),
            vec![Body(json!("<b>x</b>"))],
        ),
        (
            "html of json",
            html(get("rest_add?a=1")),
            vec![Status(406), Code("PGRST107")],
        ),
        (
            "posted",
            html(form("rest_html", "name=y")),
            vec![Text("<b>y</b>")],
        ),
    ]);
}

#[test]
fn headers_and_status_of_the_functions_own() {
    all(vec![
        (
            "both",
            ask("POST", "rest_headers"),
            vec![
                Status(202),
                Header("x-one", "1"),
                Header("cache-control", "max-age=7"),
                Text("1"),
            ],
        ),
        (
            "bad headers",
            ask("POST", "rest_bad_headers"),
            vec![Status(500), Code("PGRST111")],
        ),
        (
            "bad status",
            ask("POST", "rest_bad_status"),
            vec![Status(500), Code("PGRST112")],
        ),
    ]);
}
