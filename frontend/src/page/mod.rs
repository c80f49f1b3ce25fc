//! The page: whole views, and the fragments that htmx puts into them. All of it is made by templates that escape.

mod account;
mod act;
mod audit;
mod model;
mod plot;
mod recording;
mod replay;
mod sessions;
mod terminal;
mod usage;
mod view;
mod visit;

use std::sync::{Arc, LazyLock};

use askama::Template;
use axum::Router;
use axum::routing::get;

use crate::assets::Assets;
use crate::server::Server;

/// Loaded with the first answer, not one after the other.
const MODULES: &[&str] = &[
    "app/colours.js",
    "app/menu.js",
    "app/notice.js",
    "app/output.js",
    "app/prompt.js",
    "app/rename.js",
    "app/scrolling.js",
    "app/search.js",
    "app/sentence.js",
    "app/stream.js",
    "app/swaps.js",
    "app/terminal.js",
    "app/theme-switch.js",
    "app/times.js",
];

/// The views: name, address, label.
const VIEWS: &[(&str, &str, &str)] = &[
    ("terminal", "/", "Terminal"),
    ("sessions", "/sessions", "Sessions"),
    ("audit", "/audit", "Audit"),
    ("usage", "/usage", "Usage"),
];

/// The files, as the server serves them.
pub static ASSETS: LazyLock<Assets> = LazyLock::new(Assets::new);

/// The address of a file.
fn asset(name: &str) -> String {
    ASSETS.address(name)
}

/// The routes of the page.
pub fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/", get(terminal::home))
        .route("/session/{environment_id}", get(terminal::session))
        .route("/sessions", get(sessions::view))
        .route("/audit", get(audit::view))
        .route("/audit/{file}", get(audit::export))
        .route("/usage", get(usage::view))
        .route("/play/{environment_id}", get(recording::view))
        .route("/page/history", get(terminal::history))
        .route("/page/earlier/{environment_id}", get(terminal::earlier))
        .route("/page/command/{command_id}", get(terminal::command))
        .merge(account::routes())
        .merge(act::routes())
        .merge(replay::routes())
}

/// What every view shows around itself.
struct Frame {
    view: &'static str,
    username: String,
    csrf: String,
}

/// Who has not signed in.
#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn;

/// What cannot be shown, and why.
#[derive(Template)]
#[template(path = "failure.html")]
struct Failure<'a> {
    status: u16,
    message: &'a str,
    hint: &'a str,
}
