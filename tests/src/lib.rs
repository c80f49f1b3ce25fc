//! The harness of the black-box tests: a private Postgres cluster, real workers, and a connection
//! that fails with a clear message instead of waiting for ever.
//!
//! Each test file shares one [`Cluster`] where its tests allow it ([`shared`]) and gives each test a user of its
//! own. Nothing here sleeps to wait for something: waits end with an event, a log line, a process's
//! exit, a notification or a row, or with a panic after [`PATIENCE`].
//!
//! The tests need an installation to run: `docker/stack/stage.sh DIR` makes one, and
//! `PG_SHELL_STAGE=DIR` names it (`make test` does both).

use std::time::Duration;

mod cluster;
mod data;
mod db;
mod launcher;
mod machine;
mod process;
mod refusal;
mod request;
pub mod shared;
mod stage;
mod web;
mod worker;

pub use cluster::Cluster;
pub use db::{Command, Db};
pub use launcher::Wrapper;
pub use machine::{
    children_of, family_of, living_processes, marked_processes, stat_fields, wait_until_gone,
};
pub use process::{Process, run_if_installed};
pub use refusal::Refusal;
pub use request::Caller;
pub use stage::{Stage, is_root, postgres_user, worker_user};
pub use web::{Answer, Ask, Event, Events, JWT_SECRET, Web, token};
pub use worker::Worker;

/// How long a test waits for anything before it fails.
pub const PATIENCE: Duration = Duration::from_secs(60);
