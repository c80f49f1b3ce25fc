//! Tests inside Postgres, a transaction each; what they share stands here.
//!
//! Other sessions are reached by dblink. Nothing waits for a time: [`eventually`] waits for a condition.

mod answers;
mod confinement;
mod errors;
mod history;
mod interrupts;
mod sessions;
mod workers;

use std::fs;
use std::time::{Duration, Instant};

use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;

/// Runs a command in /tmp without variables.
fn run(command: &str) -> (i32, String) {
    run_in("/tmp", "{}", command)
}

fn run_in(cwd: &str, env: &str, command: &str) -> (i32, String) {
    let query = "select exit_code, output from shell.run_command($1, $2::jsonb, $3)";
    let (exit_code, output) =
        Spi::get_two_with_args(query, &[cwd.into(), env.into(), command.into()])
            .expect("the command runs");
    (exit_code.expect("an exit code"), output.expect("an output"))
}

/// The one value of a query that must give one.
fn value<T: FromDatum + IntoDatum>(query: &str, arguments: &[DatumWithOid<'_>]) -> T {
    Spi::get_one_with_args(query, arguments)
        .unwrap_or_else(|e| panic!("{query}: {e}"))
        .expect("not null")
}

/// Runs a query that must fail; its SQLSTATE, message and hint.
fn failure(query: &str) -> (String, String, String) {
    let (state, message, hint) = Spi::get_three_with_args(
        "select state, message, hint from tests.failure($1)",
        &[query.into()],
    )
    .expect("the error is caught");
    let state: String = state.unwrap_or_else(|| panic!("no error: {query}"));
    (state, message.unwrap_or_default(), hint.unwrap_or_default())
}

/// The query fails with this SQLSTATE; if it is one of the project's own, with a hint.
#[track_caller]
fn fails(sqlstate: &str, query: &str) {
    let (state, message, hint) = failure(query);
    assert_eq!(state, sqlstate, "{query}: {message}");
    assert!(
        !state.starts_with("PS") || !hint.is_empty(),
        "{state} has no hint"
    );
}

/// Another session of this database, by this name; returns its backend's process id.
fn connect(name: &str) -> i32 {
    connect_to(name, "pgrx_tests");
    Spi::get_one_with_args(
        "select pid from dblink($1, 'select pg_backend_pid()') as (pid int)",
        &[name.into()],
    )
    .expect("the other session answers")
    .expect("a process id")
}

fn connect_to(name: &str, database: &str) {
    Spi::run("create extension if not exists dblink").expect("dblink is there");
    Spi::run_with_args(
        "select dblink_connect($1, format('host=127.0.0.1 port=%s user=%s dbname=%s',
           current_setting('port'), session_user, $2))",
        &[name.into(), database.into()],
    )
    .expect("another session");
}

/// Waits for a condition; a minute is never.
#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Every process on the host: its id, its parent's, and its command line.
fn processes() -> Vec<(u32, u32, String)> {
    let of = |pid: u32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let parent = stat
            .rsplit(')')
            .next()?
            .split_whitespace()
            .nth(1)?
            .parse()
            .ok()?;
        Some((pid, parent, line))
    };
    let entries = fs::read_dir("/proc").expect("a process list");
    entries
        .filter_map(|entry| of(entry.ok()?.file_name().to_str()?.parse().ok()?))
        .collect()
}

/// How many processes have this word in their command line.
fn alive(marker: &str) -> usize {
    processes()
        .iter()
        .filter(|(_, _, line)| line.contains(marker))
        .count()
}

/// Children of this backend, zombies among them, but for the launcher that serves it.
fn children() -> usize {
    let own = std::process::id();
    processes()
        .iter()
        .filter(|(_, parent, line)| *parent == own && !line.contains("pg-shell-launch\0serve\0"))
        .count()
}

#[pg_schema]
mod tests {
    use pgrx::extension_sql;

    extension_sql!(
        r"
create function tests.failure(query text, out state text, out message text, out hint text)
language plpgsql as $$
begin
  execute query;
exception when query_canceled or others then
  get stacked diagnostics
    state = returned_sqlstate, message = message_text, hint = pg_exception_hint;
end
$$;
",
        name = "catches_errors",
        requires = [tests]
    );
}
