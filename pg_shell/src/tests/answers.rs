//! What `run_command` returns.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use super::*;
    use crate::tests::{connect_to, run, run_in, value};

    #[pg_test]
    fn hello() {
        assert_eq!(run("echo hello"), (0, "hello\n".into()));
    }

    #[pg_test]
    fn one_row_of_two_columns() {
        let row: String = value(
            "select r::text from shell.run_command('/', '{}', 'echo $((6 * 7))') as r",
            &[],
        );
        assert_eq!(row, "(0,\"42\n\")");
        let columns: Vec<String> = value(
            "select proargnames::text[] from pg_proc where oid = 'shell.run_command'::regproc",
            &[],
        );
        assert_eq!(
            columns,
            ["cwd", "env", "command", "limits", "exit_code", "output"]
        );
        let named: i32 = value(
            "select exit_code from shell.run_command(command => 'exit 5', env => '{}', cwd => '/')",
            &[],
        );
        assert_eq!(named, 5);
    }

    #[pg_test]
    fn variables_reach_the_command() {
        let env =
            r#"{"A": "1", "WORDS": "two  words", "QUOTED": "it's \"so\" $HOME", "ACCENT": "é→"}"#;
        let (_, output) = run_in(
            "/tmp",
            env,
            r#"printf '%s|' "$A" "$WORDS" "$QUOTED" "$ACCENT""#,
        );
        assert_eq!(output, "1|two  words|it's \"so\" $HOME|é→|");
    }

    #[pg_test]
    fn the_working_directory_is_entered() {
        assert_eq!(run_in("/usr/bin", "{}", "pwd"), (0, "/usr/bin\n".into()));
    }

    #[pg_test]
    fn a_missing_working_directory_is_told() {
        let (exit_code, output) = run_in("/no/such/folder", "{}", "pwd");
        assert_eq!(exit_code, 0);
        assert!(
            output.starts_with("pg_shell: /no/such/folder: "),
            "{output}"
        );
        assert!(output.ends_with("/home/sandbox\n"), "{output}");
    }

    #[pg_test]
    fn the_exit_code_is_the_shells() {
        assert_eq!(run("exit 0").0, 0);
        assert_eq!(run("false").0, 1);
        assert_eq!(run("exit 42").0, 42);
        assert_eq!(run("no-such-program").0, 127);
    }

    #[pg_test]
    fn a_signal_is_128_and_its_number() {
        assert_eq!(run("kill -TERM $$").0, 128 + 15);
        assert_eq!(run("kill -9 $$").0, 128 + 9);
    }

    #[pg_test]
    fn both_streams_in_the_order_they_came() {
        let (_, output) = run("for i in {1..20}; do echo out $i; echo err $i >&2; done");
        let expected: String = (1..=20).map(|i| format!("out {i}\nerr {i}\n")).collect();
        assert_eq!(output, expected);
    }

    #[pg_test]
    fn what_is_no_text_is_replaced() {
        assert_eq!(
            run(r"printf 'a\0b\377c\303'").1,
            "a\u{FFFD}b\u{FFFD}c\u{FFFD}"
        );
    }

    #[pg_test]
    fn much_output_comes_whole() {
        let (exit_code, output) = run("head -c 9000000 /dev/zero | tr '\\0' x");
        assert_eq!((exit_code, output.len()), (0, 9_000_000));
        assert!(output.bytes().all(|byte| byte == b'x'));
    }

    #[pg_test]
    fn a_long_command_and_a_here_document() {
        let long = format!("x='{}'; echo ${{#x}}", "x".repeat(500_000));
        assert_eq!(run(&long).1, "500000\n");
        assert_eq!(
            run("cat <<'END'\none\ntwo\nEND\necho three").1,
            "one\ntwo\nthree\n"
        );
    }

    #[pg_test]
    fn too_much_output_ends_the_command() {
        Spi::run("set local pg_shell.max_output = 1000").unwrap();
        let (exit_code, output) = run("yes");
        assert_eq!((exit_code, output.len()), (137, 1000));
    }

    #[pg_test]
    fn a_command_that_takes_too_long_is_ended() {
        Spi::run("set local pg_shell.timeout = '300ms'").unwrap();
        assert_eq!(
            run("echo before; sleep 1000; echo after"),
            (124, "before\n".into())
        );
    }

    #[pg_test]
    fn the_least_of_what_is_asked_for_the_setting_and_the_maximum_holds() {
        let descriptors = |limits: &str| -> String {
            value(
                &format!(
                    "select output from shell.run_command('/', '{{}}', 'ulimit -n', '{limits}')"
                ),
                &[],
            )
        };
        assert_eq!(descriptors("{}"), "1024\n");
        assert_eq!(descriptors("{\"open_files\": 2000}"), "1024\n");
        assert_eq!(descriptors("{\"open_files\": 100}"), "100\n");
        Spi::run("set local pg_shell.open_files = 90").unwrap();
        assert_eq!(descriptors("{\"open_files\": 100}"), "90\n");
        Spi::run("set local pg_shell.max_limits = '{\"open_files\": 80}'").unwrap();
        assert_eq!(descriptors("{\"open_files\": 100}"), "80\n");
        assert_eq!(descriptors("{\"open_files\": 70}"), "70\n");
    }

    #[pg_test]
    fn what_is_left_behind_ends_with_the_command() {
        assert_eq!(run("sleep 1000 & echo left"), (0, "left\n".into()));
    }

    #[pg_test]
    fn an_aborted_transaction_can_be_answered_again() {
        let caught: i32 = value(
            "select count(*)::int from generate_series(1, 3),
               lateral tests.failure('select from shell.run_command(''relative'', ''{}'', ''true'')')",
            &[],
        );
        assert_eq!(caught, 3);
        assert_eq!(run("echo again").1, "again\n");
    }

    #[pg_test]
    fn a_database_of_another_encoding() {
        // CREATE DATABASE wants a transaction of its own.
        connect_to("template", "template1");
        let exec = |name: &str, sql: &str| {
            Spi::run_with_args("select dblink_exec($1, $2)", &[name.into(), sql.into()])
                .expect("executed");
        };
        exec(
            "template",
            "create database latin encoding latin1 template template0 lc_collate 'C' lc_ctype 'C'",
        );
        connect_to("latin", "latin");
        exec("latin", "create extension pg_shell");
        let output: String = value(
            r"select output from dblink('latin',
               $$select output from shell.run_command('/', jsonb_build_object('E', chr(233)), 'printf ''é %s \u2192\n'' $E')$$
             ) as (output text)",
            &[],
        );
        let message: String = value(
            "select message from dblink('latin', $$select message from tests.failure(
               'select from shell.run_command(''é'', ''{}'', ''true'')')$$) as (message text)",
            &[],
        );
        Spi::run("select dblink_disconnect('latin')").unwrap();
        exec("template", "drop database latin with (force)");
        assert_eq!(output, "é é ?\n");
        assert_eq!(message, "the working directory é is not an absolute path");
    }
}
