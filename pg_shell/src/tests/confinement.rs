//! What the child sees of the server, and what it leaves behind. The confinement itself is tested where it
//! is written.

use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use super::*;
    use crate::tests::{children, processes, run, run_in, value};

    #[pg_test]
    fn no_variable_of_the_server() {
        let (_, output) = run_in("/tmp", r#"{"MINE": "1"}"#, "env | cut -d= -f1 | sort");
        let names: Vec<&str> = output.lines().collect();
        let expected = [
            "HOME", "LC_CTYPE", "LOGNAME", "MINE", "OLDPWD", "PATH", "PWD", "SHELL", "SHLVL",
            "TERM", "USER", "_",
        ];
        assert!(
            names.iter().all(|name| expected.contains(name)),
            "{names:?}"
        );
        assert!(
            names.contains(&"MINE") && names.contains(&"HOME"),
            "{names:?}"
        );
    }

    #[pg_test]
    fn no_descriptor_of_the_server() {
        // Standard input, the pipes that are read here, the shell's own script, and the folder that is listed.
        let ours = ["/dev/null", "pipe:", "/memfd:", "/proc/"];
        for command in [
            "for fd in /proc/$$/fd/*; do readlink $fd; done",
            "cd /proc; ls -l self/fd | sed 's/.*-> //;1d'",
        ] {
            let (_, links) = run(command);
            assert!(links.contains("/dev/null"), "{links}");
            let foreign: Vec<&str> = links
                .lines()
                .filter(|l| !l.is_empty() && !ours.iter().any(|known| l.starts_with(known)))
                .collect();
            assert_eq!(foreign, [""; 0], "{command}");
        }
    }

    #[pg_test]
    fn no_process_and_no_file_of_the_server() {
        let (_, output) = run("cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'");
        assert!(!output.contains("postgres"), "{output}");
        let data: String = value("select current_setting('data_directory')", &[]);
        let (exit_code, _) = run(&format!("ls {data}"));
        assert_ne!(exit_code, 0);
        assert_ne!(run("ls /var/run/postgresql").0, 0);
    }

    #[pg_test]
    fn no_file_outlives_the_command() {
        assert_eq!(run("echo kept > /tmp/file; cat /tmp/file").1, "kept\n");
        assert_ne!(run("cat /tmp/file").0, 0);
    }

    #[pg_test]
    fn nothing_is_left_after_many_calls() {
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        run("true");
        let before = descriptors();
        let ran: i64 = value(
            "select count(*) from generate_series(1, 200) as i,
               lateral shell.run_command('/tmp', '{}', 'exit ' || i) as r where r.exit_code = i",
            &[],
        );
        assert_eq!(ran, 200);
        assert_eq!(descriptors(), before);
        assert_eq!(children(), 0, "{:?}", processes());
    }

    #[pg_test]
    fn the_settings_limit_the_command() {
        Spi::run("set local pg_shell.open_files = 512; set local pg_shell.cpu_time = '7s'")
            .unwrap();
        Spi::run("set local pg_shell.file_size = '80kB'").unwrap();
        assert_eq!(run("ulimit -n; ulimit -t; ulimit -f").1, "512\n7\n80\n");
    }
}
