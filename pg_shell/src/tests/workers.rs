//! The queue, driven as a worker drives it: claim, finish, release.

use pgrx::prelude::*;

use super::value;

/// A worker, alive as long as this session.
pub(super) fn register() -> i64 {
    value(
        "select shell.register_worker('test:1', 'nobody', '0.1.0', 2)",
        &[],
    )
}

/// Claims so many; their ids.
pub(super) fn claim(worker: i64, want: i32) -> Vec<i64> {
    value(
        "select coalesce(array_agg(command_id), '{}') from shell.claim_commands($1, $2, null)",
        &[worker.into(), want.into()],
    )
}

/// Finishes a command at its present attempt, with these further fields of the result; the ids written.
pub(super) fn finish(worker: i64, command: i64, fields: &str) -> Vec<i64> {
    let attempt: i32 = value(
        "select attempt from shell.commands where id = $1",
        &[command.into()],
    );
    finish_attempt(worker, command, attempt, fields)
}

fn finish_attempt(worker: i64, command: i64, attempt: i32, fields: &str) -> Vec<i64> {
    let result = format!(
        r#"[{{"command_id": {command}, "attempt": {attempt}, "truncated": false, "age_us": 2000, "duration_us": 1500, {fields}}}]"#
    );
    value(
        "select coalesce(array_agg(id), '{}') from shell.finish_commands($1, $2::json) as id",
        &[worker.into(), result.into()],
    )
}

#[pg_schema]
mod tests {
    use super::*;
    use crate::tests::sessions::{submit, user};
    use crate::tests::{fails, value};

    fn row(command: i64) -> String {
        value(
            "select concat_ws(' ', status, failure, exit_code, attempt) from shell.commands where id = $1",
            &[command.into()],
        )
    }

    #[pg_test]
    fn one_command_of_a_session_at_a_time_in_order() {
        let user = user("order");
        let worker = register();
        let commands: Vec<i64> = (0..3).map(|i| submit(user, &format!("echo {i}"))).collect();
        for command in commands {
            assert_eq!(claim(worker, 5), [command]);
            assert_eq!(claim(worker, 5), [0_i64; 0]);
            assert_eq!(finish(worker, command, r#""exit_code": 0"#), [command]);
            assert_eq!(row(command), "done 0 1");
        }
    }

    #[pg_test]
    fn users_take_turns() {
        let worker = register();
        let (many, few) = (user("many"), user("few"));
        for session in ["a", "b", "c"] {
            let session: pgrx::datum::Uuid = value(
                "select shell.create_session($1, $2)",
                &[many.into(), session.into()],
            );
            let _: i64 = value(
                "select shell.submit_command($1, 'true', $2)",
                &[many.into(), session.into()],
            );
        }
        let other = submit(few, "true");
        let claimed = claim(worker, 2);
        assert!(claimed.contains(&other), "{claimed:?}");
        assert_eq!(claim(worker, 9).len(), 2);
    }

    #[pg_test]
    fn a_command_begins_with_what_its_predecessor_left() {
        let user = user("state");
        let worker = register();
        let (one, two) = (submit(user, "cd /tmp"), submit(user, "pwd"));
        claim(worker, 1);
        finish(
            worker,
            one,
            r#""exit_code": 0, "cwd_after": "/tmp", "env_after": {"A": "1"}, "shell_state_after": "x=1""#,
        );
        let claimed: String = value(
            "select concat_ws(' ', command_id = $2, cwd, env, shell_state) from shell.claim_commands($1, 1, null)",
            &[worker.into(), two.into()],
        );
        assert_eq!(claimed, "t /tmp {\"A\": \"1\"} x=1");
        let snapshot: String = value(
            "select cwd_snapshot from shell.commands where id = $1",
            &[two.into()],
        );
        assert_eq!(snapshot, "/tmp");
    }

    #[pg_test]
    fn a_failure_says_why() {
        let user = user("fails");
        let worker = register();
        let command = submit(user, "kill -9 $$");
        claim(worker, 1);
        finish(
            worker,
            command,
            r#""exit_code": 137, "failure": "signal", "signal": 9, "output": "kept""#,
        );
        assert_eq!(row(command), "failed signal 137 1");
        let times: bool = value(
            "select started_at <= finished_at and duration = interval '1500 microseconds' and output = 'kept'
             from shell.commands where id = $1",
            &[command.into()],
        );
        assert!(times);
    }

    #[pg_test]
    fn an_old_lease_writes_nothing() {
        let user = user("lease");
        let (old, new) = (register(), register());
        let command = submit(user, "true");
        claim(old, 1);
        let released: i64 = value("select shell.release_commands($1, 3)", &[old.into()]);
        assert_eq!((released, row(command).as_str()), (1, "pending 1"));
        assert_eq!(claim(new, 1), [command]);
        // The other worker's, and the right worker's under another attempt.
        let state =
            r#""exit_code": 0, "cwd_after": "/old", "env_after": {}, "shell_state_after": """#;
        assert_eq!(finish_attempt(old, command, 1, state), [0_i64; 0]);
        assert_eq!(finish_attempt(old, command, 2, state), [0_i64; 0]);
        assert_eq!(finish_attempt(new, command, 1, state), [0_i64; 0]);
        assert_eq!(row(command), "running 2");
        assert_eq!(
            finish_attempt(new, command, 2, r#""exit_code": 0"#),
            [command]
        );
        assert_eq!(finish_attempt(new, command, 2, state), [0_i64; 0]);
        let cwd: String = value(
            "select cwd from shell.environments where user_id = $1",
            &[user.into()],
        );
        assert_eq!(cwd, "/home/sandbox");
    }

    #[pg_test]
    fn what_a_worker_claims_that_has_stopped_is_released() {
        let command = submit(user("stopped"), "true");
        let (stopped, other) = (register(), register());
        Spi::run(&format!("select shell.stop_worker({stopped})")).unwrap();
        let claimed: i64 = value(
            "select count(*) from shell.work($1, null, 1, null)",
            &[stopped.into()],
        );
        assert_eq!(claimed, 0);
        // What was under way as it stopped.
        assert_eq!(claim(stopped, 1), [command]);
        let rescued: i64 = value(
            "select rescued from shell.heartbeat($1, '1 hour', '1 hour', 3)",
            &[other.into()],
        );
        assert_eq!((rescued, row(command).as_str()), (1, "pending 1"));
    }

    #[pg_test]
    fn what_is_lost_too_often_fails() {
        let user = user("lost");
        let worker = register();
        let command = submit(user, "true");
        for attempt in 1..=2 {
            assert_eq!(claim(worker, 1), [command]);
            let _: i64 = value("select shell.release_commands($1, 2)", &[worker.into()]);
            assert_eq!(
                row(command),
                if attempt == 1 {
                    "pending 1"
                } else {
                    "failed worker_lost 2"
                }
            );
        }
    }

    #[pg_test]
    fn chunks_go_with_the_command() {
        let user = user("chunks");
        let worker = register();
        let command = submit(user, "make");
        claim(worker, 1);
        let append = |seq: i32, attempt: i32| {
            let chunk = format!(
                r#"[{{"command_id": {command}, "attempt": {attempt}, "seq": {seq}, "stream": "stdout", "data": "x"}}]"#
            );
            Spi::run_with_args(
                "select shell.append_output($1, $2::json)",
                &[worker.into(), chunk.into()],
            )
            .unwrap();
        };
        let stored = || {
            value::<i64>(
                "select count(*) from shell.output_chunks where command_id = $1",
                &[command.into()],
            )
        };
        append(0, 1);
        append(1, 1);
        append(1, 1);
        append(2, 7);
        assert_eq!(stored(), 2);
        finish(worker, command, r#""exit_code": 0"#);
        assert_eq!(stored(), 0);
        append(3, 1);
        assert_eq!(stored(), 0);
    }

    #[pg_test]
    fn a_heartbeat_tells_what_there_is_to_do() {
        let user = user("heart");
        let worker = register();
        let (running, _) = (submit(user, "sleep 1000"), submit(user, "true"));
        claim(worker, 1);
        let _: bool = value("select shell.cancel_command($1)", &[running.into()]);
        let told: String = value(
            "select concat_ws(' ', alive, waiting, cancelled) from shell.heartbeat($1, '10s', '1min', 3)",
            &[worker.into()],
        );
        assert_eq!(told, format!("t t {{{running}}}"));
        Spi::run_with_args("select shell.stop_worker($1)", &[worker.into()]).unwrap();
        let alive: bool = value(
            "select alive from shell.heartbeat($1, '10s', '1min', 3)",
            &[worker.into()],
        );
        assert!(!alive);
    }

    #[pg_test]
    fn the_workers_role_reads_no_table() {
        Spi::run("grant usage on schema tests to shell_worker; set local role shell_worker")
            .unwrap();
        for table in [
            "users",
            "sandboxes",
            "environments",
            "commands",
            "workers",
            "output_chunks",
        ] {
            fails("42501", &format!("select from shell.{table}"));
        }
        fails("42501", "select shell.submit_command(null, 'true')");
        let worker = register();
        let claimed: i64 = value(
            "select count(*) from shell.work($1, null, 1, null)",
            &[worker.into()],
        );
        assert_eq!(claimed, 0);
    }
}
