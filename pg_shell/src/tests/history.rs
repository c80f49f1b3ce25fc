//! What the schema itself holds up: history, constraints, grants, and that a dump has it all.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use super::*;
    use crate::tests::sessions::{submit, user};
    use crate::tests::workers::{claim, finish, register};
    use crate::tests::{fails, value};

    #[pg_test]
    fn what_is_finished_never_changes() {
        let worker = register();
        for (name, result) in [
            ("done", r#""exit_code": 0"#),
            ("failed", r#""exit_code": 1, "failure": "exit""#),
        ] {
            let command = submit(user(name), "true");
            claim(worker, 1);
            finish(worker, command, result);
            for change in [
                "output = 'other'",
                "status = 'pending'",
                "command = 'other'",
                "user_id = user_id",
            ] {
                fails(
                    "PS009",
                    &format!("update shell.commands set {change} where id = {command}"),
                );
            }
        }
    }

    #[pg_test]
    fn states_that_cannot_be_stored() {
        let command = submit(user("checks"), "true");
        let session =
            format!("where id = (select environment_id from shell.commands where id = {command})");
        for change in [
            "env = '[]'",
            "env = '1'",
            "env = '{\"A\": 1}'",
            "env = '{\"A\": null}'",
            "env = '{\"A\": {}}'",
            "env = '{\"A\": [\"x\"]}'",
            "env = '{\"\": \"x\"}'",
            "env = '{\"A=B\": \"x\"}'",
            "cwd = 'tmp'",
            "cwd = ''",
            "cwd = '/' || repeat('x', 4096)",
            "shell_state = repeat('x', 1048577)",
            "name = ''",
            "name = E'a\\nb'",
        ] {
            fails(
                "23514",
                &format!("update shell.environments set {change} {session}"),
            );
        }
        for change in [
            "status = 'unknown'",
            "status = 'done', finished_at = now(), exit_code = 1",
            "status = 'done', exit_code = 0",
            "status = 'failed', finished_at = now()",
            "failure = 'exit'",
            "status = 'running'",
            "command = ''",
            "status = 'failed', failure = 'because', finished_at = now()",
        ] {
            fails(
                "23514",
                &format!("update shell.commands set {change} where id = {command}"),
            );
        }
        for change in [
            "wall_seconds = 0",
            "memory_bytes = 1",
            "processes = 0",
            "image = 'other'",
            "open_files = 1",
        ] {
            fails("23514", &format!("update shell.sandboxes set {change}"));
        }
        fails("23514", "insert into shell.users (username) values ('')");
        fails(
            "23514",
            "insert into shell.users (username) values (E'a\\tb')",
        );
    }

    #[pg_test]
    fn states_that_can_be_stored() {
        let command = submit(user("checks"), "true");
        Spi::run_with_args(
            r#"update shell.environments set env = '{"A": "", "B": "=", "é": "1"}', cwd = '/' || repeat('x', 4094)
               where id = (select environment_id from shell.commands where id = $1)"#,
            &[command.into()],
        )
        .unwrap();
    }

    #[pg_test]
    fn public_has_nothing() {
        Spi::run("create role nobody_at_all").unwrap();
        let functions: i64 = value(
            "select count(*) from pg_proc as p where p.pronamespace in ('shell'::regnamespace, 'shell_api'::regnamespace)
               and has_function_privilege('nobody_at_all', p.oid, 'execute')",
            &[],
        );
        let tables: i64 = value(
            "select count(*) from pg_class as c where c.relnamespace in ('shell'::regnamespace, 'shell_api'::regnamespace)
               and c.relkind in ('r', 'v', 'S')
               and (case c.relkind when 'S' then has_sequence_privilege('nobody_at_all', c.oid, 'usage, select, update')
                 else has_table_privilege('nobody_at_all', c.oid, 'select, insert, update, delete, truncate, trigger') end)",
            &[],
        );
        let schema: bool = value(
            "select has_schema_privilege('nobody_at_all', 'shell', 'usage, create')
               or has_schema_privilege('nobody_at_all', 'shell_api', 'usage, create')",
            &[],
        );
        assert_eq!((functions, tables, schema), (0, 0, false));
    }

    #[pg_test]
    fn the_auditor_reads_everything_but_secrets_and_writes_nothing() {
        let (readable, writable): (Option<bool>, Option<bool>) = Spi::get_two(
            "select bool_and(has_table_privilege('shell_auditor', oid, 'select')),
               bool_or(has_table_privilege('shell_auditor', oid, 'insert, update, delete, truncate, references, trigger'))
             from pg_class where relnamespace in ('shell'::regnamespace, 'shell_api'::regnamespace) and relkind in ('r', 'v')
               and oid not in ('shell.credentials'::regclass, 'shell.user_sessions'::regclass)",
        )
        .unwrap();
        assert_eq!((readable, writable), (Some(true), Some(false)));
    }

    #[pg_test]
    fn a_dump_has_every_table_and_counter() {
        let missing: i64 = value(
            "select count(*) from pg_class as c
             where c.relnamespace = 'shell'::regnamespace and c.relkind in ('r', 'S') and c.relpersistence = 'p'
               and c.oid <> all ((select e.extconfig from pg_extension as e where e.extname = 'pg_shell')::oid[])",
            &[],
        );
        assert_eq!(missing, 0);
    }

    #[pg_test]
    fn definers_pin_their_search_path() {
        let loose: i64 = value(
            "select count(*) from pg_proc where pronamespace in ('shell'::regnamespace, 'shell_api'::regnamespace) and prosecdef
               and not 'search_path=pg_catalog, pg_temp' = any (coalesce(proconfig, '{}'))",
            &[],
        );
        assert_eq!(loose, 0);
    }

    #[pg_test]
    fn everything_is_explained() {
        let silent: Vec<String> = value(
            "select coalesce(array_agg(what), '{}') from (
               select p.oid::regprocedure::text from pg_proc as p
               where p.pronamespace in ('shell'::regnamespace, 'shell_api'::regnamespace) and obj_description(p.oid, 'pg_proc') is null
                 and p.prorettype <> 'trigger'::regtype
               union all
               select c.oid::regclass::text from pg_class as c
               where c.relnamespace in ('shell'::regnamespace, 'shell_api'::regnamespace) and c.relkind in ('r', 'v', 'c')
                 and coalesce(obj_description(c.oid, 'pg_class'), obj_description(c.reltype, 'pg_type')) is null
               union all
               select format('%s.%s', c.relname, a.attname) from pg_class as c join pg_attribute as a on a.attrelid = c.oid
               where c.relnamespace = 'shell'::regnamespace and c.relkind = 'r' and a.attnum > 0
                 and col_description(c.oid, a.attnum) is null
             ) as t (what)",
            &[],
        );
        assert_eq!(silent, [""; 0]);
    }
}
