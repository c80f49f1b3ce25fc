//! Confinement of one command, for the worker and for a Postgres backend alike.
//!
//! The caller's side prepares a [`Spec`], starts the helper `pg-shell-launch` with it ([`Running::start`])
//! and pumps its pipes until there is an [`Outcome`]. The helper's side ([`inside`]) makes the
//! namespaces, the private root and the filters, and becomes the command's PID 1.
//!
//! Nothing here waits or allocates between fork and exec in the caller: the helper is spawned with
//! `posix_spawn`, and all risky code runs in its own, single-threaded process. There is no tokio and no
//! pgrx in this crate.

mod capture;
pub mod cgroup;
pub mod doctor;
mod error;
mod exceeded;
mod helper;
pub mod inside;
mod kept;
mod launcher;
mod level;
mod limits;
mod messages;
mod order;
mod report;
mod running;
pub mod seccomp;
pub mod shell;
mod spec;

pub use capture::{Output, Stream};
pub use error::{Error, Step};
pub use exceeded::Exceeded;
pub use launcher::Launcher;
pub use level::Level;
pub use limits::{LIMITS, Limits, RANGES, SomeLimits};
pub use report::{Ended, Outcome, Report, Used};
pub use running::{Pin, Running, Stop};
pub use spec::{HOME, Spec};
