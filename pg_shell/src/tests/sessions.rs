//! What a user does, at the level of SQL: submit, read, fork, replay, cancel, and every refusal.

use pgrx::datum::Uuid;
use pgrx::prelude::*;

use super::value;

/// A new user.
pub(super) fn user(name: &str) -> Uuid {
    value(
        "insert into shell.users (username) values ($1) returning id",
        &[name.into()],
    )
}

/// Submits to the user's default session; the command's id.
pub(super) fn submit(user: Uuid, command: &str) -> i64 {
    value(
        "select shell.submit_command(user_id => $1, command => $2)",
        &[user.into(), command.into()],
    )
}

#[pg_schema]
mod tests {
    use super::*;
    use crate::tests::workers::{claim, finish, register};
    use crate::tests::{fails, value};

    fn session_of(command: i64) -> Uuid {
        value(
            "select environment_id from shell.commands where id = $1",
            &[command.into()],
        )
    }

    #[pg_test]
    fn a_first_command_makes_sandbox_and_session() {
        let user = user("first");
        let (one, two) = (submit(user, "one"), submit(user, "two"));
        assert!(one < two);
        assert_eq!(session_of(one), session_of(two));
        let row: String = value(
            "select concat_ws(' ', c.status, c.cwd_snapshot, c.env_snapshot, e.is_default, s.name, c.attempt)
             from shell.commands as c join shell.environments as e on e.id = c.environment_id
             join shell.sandboxes as s on s.id = e.sandbox_id and s.owner_id = c.user_id where c.id = $1",
            &[one.into()],
        );
        assert_eq!(row, "pending /home/sandbox {} t default 0");
    }

    #[pg_test]
    fn latest_output_has_the_newest_first() {
        let user = user("latest");
        for i in 1..=5 {
            submit(user, &format!("echo {i}"));
        }
        let query = "select array_agg(command) from shell.latest_output($1, 3)";
        let commands: Vec<String> = value(query, &[user.into()]);
        assert_eq!(commands, ["echo 5", "echo 4", "echo 3"]);
        let columns: Vec<String> = value(
            "select array_agg(n) from unnest((select proargnames[3:] from pg_proc
               where oid = 'shell.latest_output'::regproc)) as n",
            &[],
        );
        assert_eq!(
            columns,
            [
                "id",
                "command",
                "output",
                "exit_code",
                "status",
                "submitted_at"
            ]
        );
    }

    #[pg_test]
    fn unknown_users() {
        let nobody = "'00000000-0000-0000-0000-00000000dead'";
        for user in [nobody, "null"] {
            fails(
                "PS001",
                &format!("select shell.submit_command({user}, 'true')"),
            );
            fails("PS001", &format!("select shell.create_session({user})"));
            fails("PS001", &format!("select shell.fork_session({user}, 1)"));
        }
    }

    #[pg_test]
    fn unknown_and_foreign_sessions() {
        let (mine, other) = (user("mine"), user("other"));
        let foreign = session_of(submit(other, "true"));
        let nowhere = "'00000000-0000-0000-0000-00000000dead'";
        fails(
            "PS002",
            &format!("select shell.submit_command('{mine}', 'true', {nowhere})"),
        );
        fails("PS002", &format!("select shell.replay_session({nowhere})"));
        fails("PS002", "select shell.replay_session(null)");
        fails(
            "PS003",
            &format!("select shell.submit_command('{mine}', 'true', '{foreign}')"),
        );
        let stored: i64 = value(
            "select count(*) from shell.commands where user_id = $1",
            &[mine.into()],
        );
        assert_eq!(stored, 0);
    }

    #[pg_test]
    fn commands_that_cannot_be() {
        let user = user("empty");
        for command in ["null", "''", "E' \\n\\t '"] {
            fails(
                "PS004",
                &format!("select shell.submit_command('{user}', {command})"),
            );
        }
        fails(
            "PS005",
            &format!("select shell.submit_command('{user}', repeat('x', 1048577))"),
        );
        let longest: i64 = value(
            "select shell.submit_command($1, repeat('x', 1048576))",
            &[user.into()],
        );
        assert!(longest > 0);
    }

    #[pg_test]
    fn unknown_commands() {
        let user = user("unknown");
        for id in ["-1", "null"] {
            fails(
                "PS006",
                &format!("select shell.fork_session('{user}', {id})"),
            );
            fails("PS006", &format!("select shell.wait_command({id})"));
            fails("PS006", &format!("select shell.cancel_command({id})"));
        }
    }

    #[pg_test]
    fn states_that_are_not_there_yet() {
        let user = user("early");
        let command = submit(user, "true");
        let session = session_of(command);
        fails(
            "PS007",
            &format!("select shell.fork_session('{user}', {command})"),
        );
        fails(
            "PS007",
            &format!("select shell.replay_session('{session}')"),
        );
        claim(register(), 1);
        fails(
            "PS007",
            &format!("select shell.fork_session('{user}', {command}, after => true)"),
        );
        let fork: Uuid = value(
            "select shell.fork_session($1, $2)",
            &[user.into(), command.into()],
        );
        assert_ne!(fork, session);
    }

    #[pg_test]
    fn a_transaction_that_can_never_see_the_end() {
        let command = submit(user("waits"), "true");
        fails("PS008", &format!("select shell.wait_command({command})"));
        // A poll is no wait.
        let status: String = value(
            "select status from shell.wait_command($1, timeout => '0 seconds')",
            &[command.into()],
        );
        assert_eq!(status, "pending");
    }

    #[pg_test]
    fn a_fork_begins_as_the_command_began_or_as_it_ended() {
        let user = user("forks");
        let worker = register();
        let command = submit(user, "cd /tmp; export A=1");
        claim(worker, 1);
        finish(
            worker,
            command,
            r#""exit_code": 0, "cwd_after": "/tmp", "env_after": {"A": "1"}, "shell_state_after": "s""#,
        );
        let state = |after: bool| -> String {
            value(
                "with fork as materialized (select shell.fork_session($1, $2, $3) as id)
                 select shell.describe(id) from fork",
                &[user.into(), command.into(), after.into()],
            )
        };
        Spi::run(
            "create function shell.describe(wanted uuid) returns text language sql volatile as
             'select concat_ws('' '', cwd, env, shell_state, name) from shell.environments where id = wanted'",
        )
        .unwrap();
        assert_eq!(
            state(false),
            format!("/home/sandbox {{}}  fork of {command}")
        );
        assert_eq!(
            state(true),
            format!("/tmp {{\"A\": \"1\"}} s fork of {command}")
        );
    }

    #[pg_test]
    fn a_fork_of_a_foreign_command() {
        let (mine, other) = (user("mine"), user("other"));
        let worker = register();
        let command = submit(other, "true");
        claim(worker, 1);
        fails(
            "PS003",
            &format!("select shell.fork_session('{mine}', {command})"),
        );
    }

    #[pg_test]
    fn a_replay_stands_beside_the_original() {
        let user = user("replays");
        let worker = register();
        let commands: Vec<i64> = ["date", "false"]
            .iter()
            .map(|text| submit(user, text))
            .collect();
        for (command, result) in commands.iter().zip([
            r#""exit_code": 0, "output": "monday""#,
            r#""exit_code": 1, "output": "", "failure": "exit""#,
        ]) {
            claim(worker, 1);
            finish(worker, *command, result);
        }
        let replay: Uuid = value(
            "select shell.replay_session($1)",
            &[session_of(commands[0]).into()],
        );
        for result in [
            r#""exit_code": 0, "output": "tuesday""#,
            r#""exit_code": 1, "output": "", "failure": "exit""#,
        ] {
            let claimed = claim(worker, 1);
            finish(worker, claimed[0], result);
        }
        let differs: Vec<String> = value(
            "select array_agg(concat_ws(' ', command, original_exit_code, replay_exit_code, differs)
               order by replay_command_id) from shell.replay_differences where replay_id = $1",
            &[replay.into()],
        );
        assert_eq!(differs, ["date 0 0 t", "false 1 1 f"]);
    }

    #[pg_test]
    fn cancel_ends_what_waits_and_asks_for_what_runs() {
        let user = user("cancels");
        let worker = register();
        let (running, waiting) = (submit(user, "sleep 1000"), submit(user, "true"));
        claim(worker, 1);
        let cancel = |id: i64| value::<bool>("select shell.cancel_command($1)", &[id.into()]);
        assert!(cancel(waiting));
        assert!(!cancel(waiting));
        assert!(cancel(running));
        let rows: Vec<String> = value(
            "select array_agg(concat_ws(' ', status, failure, cancel_requested_at is not null) order by id)
             from shell.commands where user_id = $1",
            &[user.into()],
        );
        assert_eq!(rows, ["running t", "failed cancelled t"]);
    }
}
