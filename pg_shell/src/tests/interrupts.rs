//! Cancel, timeout and terminate end the command with every process it started.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use super::*;
    use crate::tests::{alive, children, connect, eventually, failure, run, value};

    /// A tree of processes, one of them in a session of its own, each with the marker in its command line.
    fn tree(marker: &str) -> String {
        format!(
            "trap '' INT TERM HUP; (exec -a {marker} sleep 1000) & \
             setsid bash -c 'exec -a {marker} sleep 1000' & exec -a {marker} sleep 1000"
        )
    }

    /// A word that no other process has.
    fn marker(name: &str) -> String {
        format!("pg_shell_{name}_{}", std::process::id())
    }

    fn send(session: &str, marker: &str) {
        Spi::run_with_args(
            "select dblink_send_query($1, format('select * from shell.run_command(''/tmp'', ''{}'', %L)', $2))",
            &[session.into(), tree(marker).into()],
        )
        .expect("sent");
        eventually("three processes run", || alive(marker) >= 3);
    }

    fn result(session: &str) -> (String, String, String) {
        failure(&format!(
            "select * from dblink_get_result('{session}') as (exit_code int, output text)"
        ))
    }

    #[pg_test]
    fn cancel_ends_the_tree() {
        let marker = marker("cancel");
        let backend = connect("cancelled");
        send("cancelled", &marker);
        assert!(value::<bool>(
            "select pg_cancel_backend($1)",
            &[backend.into()]
        ));
        assert_eq!(result("cancelled").0, "57014");
        eventually("no process is left", || alive(&marker) == 0);
        // The session itself lives; an empty result ends an asynchronous query.
        Spi::run("select * from dblink_get_result('cancelled') as (exit_code int, output text)")
            .unwrap();
        let query = "select o from dblink('cancelled',
           $$select output from shell.run_command('/', '{}', 'echo alive')$$) as (o text)";
        assert_eq!(value::<String>(query, &[]), "alive\n");
    }

    #[pg_test]
    fn terminate_ends_the_tree() {
        let marker = marker("terminate");
        let backend = connect("terminated");
        send("terminated", &marker);
        assert!(value::<bool>(
            "select pg_terminate_backend($1, 30000)",
            &[backend.into()]
        ));
        eventually("no process is left", || alive(&marker) == 0);
        assert_eq!(result("terminated").0, "57P01");
    }

    #[pg_test]
    fn statement_timeout_ends_the_tree() {
        let marker = marker("timeout");
        connect("timed");
        Spi::run("select dblink_exec('timed', 'set statement_timeout = ''1s''')").unwrap();
        send("timed", &marker);
        let (state, message, _) = result("timed");
        assert_eq!(state, "57014");
        assert!(message.contains("statement timeout"), "{message}");
        eventually("no process is left", || alive(&marker) == 0);
    }

    #[pg_test]
    fn a_closed_connection_is_no_orphan() {
        let marker = marker("closed");
        connect("closed");
        Spi::run("select dblink_exec('closed', 'set client_connection_check_interval = ''50ms''')")
            .unwrap();
        send("closed", &marker);
        Spi::run("select dblink_disconnect('closed')").unwrap();
        eventually("no process is left", || alive(&marker) == 0);
    }

    #[pg_test]
    fn our_own_limit_ends_the_tree() {
        let marker = marker("limit");
        Spi::run("set local pg_shell.timeout = '500ms'").unwrap();
        assert_eq!(run(&tree(&marker)).0, 124);
        assert_eq!(alive(&marker), 0);
        assert_eq!(children(), 0);
    }
}
