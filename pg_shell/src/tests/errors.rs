//! What `run_command` refuses, and for whom.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::tests::{children, fails, failure, run, value};

    #[pg_test]
    fn commands_that_cannot_run() {
        for command in ["null", "''", "E' \\n\\t'"] {
            fails(
                "PS004",
                &format!("select from shell.run_command('/', '{{}}', {command})"),
            );
        }
        fails(
            "PS005",
            "select from shell.run_command('/', '{}', repeat('x', 1048577))",
        );
    }

    #[pg_test]
    fn environments_that_cannot_be() {
        for env in [
            "null",
            "'[]'",
            "'1'",
            "'null'",
            "'{\"A\": 1}'",
            "'{\"A\": null}'",
            "'{\"A\": {}}'",
        ] {
            fails(
                "PS011",
                &format!("select from shell.run_command('/', {env}, 'true')"),
            );
        }
        for name in ["", "=", "A=B"] {
            fails(
                "PS011",
                &format!("select from shell.run_command('/', '{{\"{name}\": \"\"}}', 'true')"),
            );
        }
        let (_, message, _) = failure(r#"select from shell.run_command('/', '{"A": 1}', 'true')"#);
        assert_eq!(message, "the environment variable A is not a string");
    }

    #[pg_test]
    fn working_directories_that_cannot_be() {
        for cwd in ["null", "''", "'tmp'", "'./'", "' /'"] {
            fails(
                "PS012",
                &format!("select from shell.run_command({cwd}, '{{}}', 'true')"),
            );
        }
    }

    #[pg_test]
    fn launchers_that_do_not_start() {
        for path in ["relative", "/no/such/launcher", "/etc/passwd"] {
            Spi::run(&format!("set local pg_shell.launcher = '{path}'")).unwrap();
            fails("PS013", "select from shell.run_command('/', '{}', 'true')");
        }
        // A program that ends without a report has not confined anything.
        for path in ["/bin/true", "/bin/false"] {
            Spi::run(&format!("set local pg_shell.launcher = '{path}'")).unwrap();
            let (state, message, _) = failure("select from shell.run_command('/', '{}', 'true')");
            assert_eq!(state, "PS013");
            assert!(
                message.contains(&format!("the launcher {path} exited")),
                "{message}"
            );
        }
        Spi::run("reset pg_shell.launcher").unwrap();
        assert_eq!(children(), 0);
        assert_eq!(run("echo again").1, "again\n");
    }

    #[pg_test]
    fn a_step_that_fails_is_named() {
        // In the helper, in PID 1, and in the shell's process; and under such a limit the helper has no room
        // for the numbers that the shell knows.
        let faults = [
            ("true", "fail=Hostname", "setting the hostname failed"),
            ("true", "fail=Capabilities", "dropping capabilities failed"),
            ("true", "fail=Exec", "starting the shell failed"),
            ("ulimit -n 100", "", "handing over descriptors failed"),
        ];
        let library: String = value(
            "select setting from pg_config() where name = 'PKGLIBDIR'",
            &[],
        );
        for (number, (before, argument, said)) in faults.into_iter().enumerate() {
            // Another name each, for a backend keeps the launcher that it has started.
            let name = format!("pg_shell_refused_{}_{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let script =
                format!("#!/bin/sh\n{before}\nexec {library}/pg-shell-launch \"$@\" {argument}\n");
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            let name = path.display();
            Spi::run(&format!("set local pg_shell.launcher = '{name}'")).unwrap();
            let (state, message, hint) =
                failure("select from shell.run_command('/', '{}', 'echo ran')");
            assert_eq!(state, "PS010", "{message}");
            assert!(message.contains(said), "{message}");
            assert!(hint.starts_with("Nothing was run"), "{hint}");
            assert_eq!(children(), 0);
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[pg_test]
    fn the_programs_that_may_run_can_be_listed() {
        let commands = "uname; echo $?; id -u; perl -e 'print 1'; echo $?";
        assert!(run(commands).1.starts_with("Linux\n0\n1000\n1"));
        Spi::run("set local pg_shell.programs = '/usr/bin/id, /usr/bin/head'").unwrap();
        let (_, output) = run(commands);
        assert!(output.contains("\n126\n1000\n"), "{output}");
        assert!(!output.contains("Linux"), "{output}");
        Spi::run("set local pg_shell.programs = '/nonesuch'").unwrap();
        let (state, message, _) = failure("select from shell.run_command('/', '{}', 'echo ran')");
        assert_eq!(state, "PS010", "{message}");
        assert!(message.contains("/nonesuch"), "{message}");
    }

    #[pg_test]
    fn only_superusers_may_call_it() {
        Spi::run("create role somebody; grant shell_user, shell_worker, shell_auditor, shell_admin to somebody").unwrap();
        let granted: bool = value(
            "select has_function_privilege('somebody', 'shell.run_command(text, jsonb, text, jsonb)', 'execute')",
            &[],
        );
        assert!(!granted);
        Spi::run("grant usage on schema tests to somebody").unwrap();
        Spi::run("set local role somebody").unwrap();
        fails("42501", "select from shell.run_command('/', '{}', 'true')");
        fails("42501", "set local pg_shell.launcher = '/bin/sh'");
        fails("42501", "set local pg_shell.timeout = '1d'");
        fails("42501", "set local pg_shell.max_limits = '{}'");
    }

    #[pg_test]
    fn whom_it_is_granted_to_may_call_it() {
        Spi::run("create role somebody; grant shell_runner to somebody").unwrap();
        Spi::run("set local role somebody").unwrap();
        assert_eq!(run("echo granted").1, "granted\n");
        for setting in [
            "launcher = '/bin/sh'",
            "timeout = '1d'",
            "programs = ''",
            "max_limits = ''",
        ] {
            fails("42501", &format!("set local pg_shell.{setting}"));
        }
        fails("42501", "select from shell.users");
        fails(
            "42501",
            "select shell.submit_command(gen_random_uuid(), 'true')",
        );
    }

    #[pg_test]
    fn the_settings_have_the_launchers_defaults() {
        let limits = confine::Limits::default();
        assert_eq!(crate::settings::limits(), limits);
        let shown: String = value("select current_setting('pg_shell.timeout')", &[]);
        assert_eq!(shown, "1min");
    }

    #[pg_test]
    fn limits_that_cannot_be() {
        for limits in [
            "[]",
            "null",
            "{\"wall\": 1}",
            "{\"wall_seconds\": 0}",
            "{\"wall_seconds\": \"1\"}",
            "{\"wall_seconds\": 1e400}",
        ] {
            fails(
                "PS016",
                &format!("select from shell.run_command('/', '{{}}', 'true', '{limits}')"),
            );
            fails(
                "22023",
                &format!("set local pg_shell.max_limits = '{limits}'"),
            );
        }
    }

    #[pg_test]
    fn sql_has_the_launchers_limits() {
        let names: Vec<String> = value(
            "select array_agg(attname::text order by attnum) from pg_attribute where attrelid = 'shell.limits'::regclass",
            &[],
        );
        assert_eq!(names, confine::RANGES.map(|(name, _)| name));
        for ((name, range), default) in confine::RANGES
            .into_iter()
            .zip(confine::Limits::default().values())
        {
            let (least, most) = (range.start(), range.end());
            let told: String = value(
                "select obj_description(to_regtype('shell.' || $1), 'pg_type')",
                &[name.into()],
            );
            assert_eq!(told, format!("{least} to {most}"), "{name}");
            Spi::run(&format!(
                "select {least}::shell.{name}, {most}::shell.{name}"
            ))
            .unwrap();
            for out in [least - 1, most + 1] {
                fails("23514", &format!("select {out}::shell.{name}"));
            }
            let shown: i64 = value(&format!("select {name} from shell.default_limits()"), &[]);
            assert_eq!(shown, default as i64, "{name}");
        }
    }

    #[pg_test]
    fn the_maximum_is_what_is_set() {
        let none: bool = value("select shell.maximum_limits() is null", &[]);
        assert!(none);
        Spi::run(r#"set local pg_shell.max_limits = '{"processes": 5}'"#).unwrap();
        let shown: String = value("select shell.maximum_limits()::text", &[]);
        assert_eq!(shown, "(,,,5,,,,)");
    }

    #[pg_test]
    fn no_unknown_setting_with_our_prefix() {
        fails("42602", "set local pg_shell.no_such_setting = 1");
    }

    #[pg_test]
    fn no_parallel_worker_calls_it() {
        let safety: String = value(
            "select proparallel::text from pg_proc where oid = 'shell.run_command'::regproc",
            &[],
        );
        assert_eq!(safety, "u");
    }
}
