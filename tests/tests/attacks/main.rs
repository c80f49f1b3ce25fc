//! Attacks: commands that a stranger might submit to leave the confinement, to read what is not theirs, to
//! harm a neighbour or to lie about what they did. Each is run both ways, as a row that a worker claims and
//! by `shell.run_command` in a backend.
//!
//! `harness` has the rules. An attack succeeds by printing anything but `end`; what it could do elsewhere,
//! to the host or to another session, is looked at from there. Each test has its control: the same call on
//! what a command may have, so that a test whose tool is missing fails.
//!
//! Where a test is ignored, the attack works today; its reason says what is missing.

mod bombs;
mod files;
mod forging;
mod harness;
mod lingering;
mod neighbours;
mod network;
mod outside;
mod secrets;
mod syscalls;
