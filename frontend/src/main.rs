//! pg-shell-web: the page, `/rpc/*`, and streams. See `--help`, and `server.rs` for the routes.

mod catalogue;
mod config;
mod db;
mod error;
mod identity;
mod rpc;
mod shutdown;
mod sql;
mod terminal;

fn main() {}
