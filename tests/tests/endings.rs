//! Each way in which a command can end: its status, its failure, the reason, and the kept output.

use std::path::Path;

use pg_shell_tests::{Cluster, Db, Worker, Wrapper, shared};

fn db() -> Db {
    shared::with_worker(&["--concurrency", "4"]).db()
}

#[test]
fn done() {
    let db = db();
    let command = db.finish(db.user("done"), "echo fine");
    assert_eq!(
        (command.status.as_str(), command.exit_code),
        ("done", Some(0))
    );
    assert_eq!(
        (command.failure, command.failure_reason, command.signal),
        (None, None, None)
    );
}

#[test]
fn exit() {
    let db = db();
    let command = db.finish(db.user("exit"), "echo so far; exit 3");
    assert_eq!((command.why(), command.exit_code), ("exit", Some(3)));
    assert_eq!(command.reason(), "The command exited with code 3.");
    assert_eq!(command.text(), "so far\n");
    assert_eq!(command.status, "failed");
}

#[test]
fn unknown_program() {
    let db = db();
    let command = db.finish(db.user("unknown"), "no-such-program");
    assert_eq!((command.why(), command.exit_code), ("exit", Some(127)));
    assert!(
        command
            .stderr
            .as_deref()
            .unwrap()
            .contains("command not found"),
        "{command:?}"
    );
}

#[test]
fn signal() {
    let db = db();
    let command = db.finish(db.user("signal"), "echo so far; kill -9 $$");
    assert_eq!(
        (command.why(), command.exit_code, command.signal),
        ("signal", Some(137), Some(9))
    );
    assert_eq!(command.reason(), "Signal 9 ended the shell.");
    assert_eq!(command.text(), "so far\n");
}

#[test]
fn timeout() {
    let db = db();
    let user = db.user("timeout");
    db.limit(user, "wall_seconds", 1);
    let command = db.finish(user, "cd /tmp; echo so far; sleep 1000");
    assert_eq!((command.why(), command.exit_code), ("timeout", Some(137)));
    assert_eq!(
        command.reason(),
        "The command took longer than 1 second and was ended."
    );
    assert_eq!(command.text(), "so far\n");
    assert_eq!(
        db.finish(user, "pwd").text(),
        "/home/sandbox\n",
        "its state does not count"
    );
}

#[test]
fn timeout_of_what_ignores_signals_and_hides_in_the_background() {
    let db = db();
    let user = db.user("stubborn");
    db.limit(user, "wall_seconds", 1);
    let stubborn = "trap '' TERM INT HUP; (trap '' TERM; setsid sleep 1000 & sleep 1000) & echo $!; while :; do wait; done";
    assert_eq!(db.finish(user, stubborn).why(), "timeout");
}

#[test]
fn limit_of_output() {
    let db = db();
    let user = db.user("limit");
    db.limit(user, "output_bytes", 1000);
    let command = db.finish(user, "yes");
    assert_eq!((command.why(), command.exit_code), ("limit", Some(137)));
    assert_eq!(
        command.reason(),
        "The command printed more than 1000 bytes and was ended; the first 1000 are kept."
    );
    assert!(command.truncated);
    assert_eq!(command.text(), "y\n".repeat(500));
}

#[test]
fn limit_of_state() {
    let db = db();
    let user = db.user("state too large");
    let command = db.finish(
        user,
        "echo kept; cd /tmp; big=$(head -c 2000000 /dev/zero | tr '\\0' x)",
    );
    assert_eq!(command.why(), "limit", "{command:?}");
    assert!(
        command.reason().contains("state is as it was before"),
        "{command:?}"
    );
    assert_eq!(command.text(), "kept\n");
    assert_eq!(
        db.finish(user, "pwd; echo ${#big}").text(),
        "/home/sandbox\n0\n"
    );
}

#[test]
fn limit_of_processes_memory_and_files() {
    let db = db();
    let user = db.user("rlimits");
    db.limit(user, "open_files", 300);
    db.limit(user, "memory_bytes", 64 << 20);
    db.limit(user, "file_size_bytes", 65536);
    db.limit(user, "processes", 20);
    assert_eq!(db.finish(user, "ulimit -n").text(), "300\n");
    let memory = db.finish(
        user,
        "head -c 200000000 /dev/zero | tail -c 100000000 | wc -c",
    );
    assert!(memory.text().contains("memory"), "{memory:?}");
    let file = db.finish(
        user,
        "head -c 70000 /dev/zero > /tmp/file; wc -c < /tmp/file",
    );
    assert!(file.text().ends_with("65536\n"), "{file:?}");
    // bash tries again and again, for longer than anybody wants to wait.
    db.limit(user, "wall_seconds", 2);
    let bomb = db.finish(user, "for i in {1..100}; do sleep 1000 & done; true");
    assert_eq!(bomb.why(), "timeout");
    assert!(bomb.text().contains("fork"), "{bomb:?}");
}

#[test]
fn cancelled_while_it_runs() {
    let db = db();
    let user = db.user("cancelled");
    let id = db.submit(user, "cd /tmp; echo so far; sleep 1000");
    db.until_prints(id);
    let asked = std::time::Instant::now();
    assert!(db.cancel(id));
    let command = db.wait(id);
    assert!(asked.elapsed().as_secs() < 2, "{:?}", asked.elapsed());
    assert_eq!((command.why(), command.exit_code), ("cancelled", Some(137)));
    assert_eq!(command.reason(), "The command was cancelled.");
    assert_eq!(command.text(), "so far\n");
    assert_eq!(
        db.finish(user, "pwd").text(),
        "/home/sandbox\n",
        "its state does not count"
    );
}

#[test]
fn cancelled_before_it_began() {
    let db = db();
    let user = db.user("cancelled early");
    let first = db.submit(user, "echo begun; sleep 1000");
    let second = db.submit(user, "echo never");
    let third = db.submit(user, "echo third");
    db.until_prints(first);
    assert!(db.cancel(second));
    let command = db.wait(second);
    assert_eq!(
        (command.why(), command.exit_code, command.attempt),
        ("cancelled", None, 0)
    );
    assert_eq!(
        command.reason(),
        "The command was cancelled before it began."
    );
    assert!(db.cancel(first));
    db.wait(first);
    assert_eq!(db.wait(third).text(), "third\n");
}

#[test]
fn a_folder_that_is_gone_is_said_and_left() {
    let db = db();
    let user = db.user("gone");
    db.finish(user, "true");
    db.query(
        "update shell.environments set cwd = '/no/such/folder' where user_id = $1",
        &[&user],
    );
    let command = db.finish(user, "pwd");
    assert_eq!(
        command.stdout.as_deref(),
        Some("/home/sandbox\n"),
        "{command:?}"
    );
    assert!(
        command
            .stderr
            .as_deref()
            .unwrap()
            .contains("/no/such/folder"),
        "{command:?}"
    );
}

/// A worker of a cluster of its own, whose launcher can be made to fail.
fn with_wrapper() -> (Wrapper, Cluster, Worker) {
    let launcher = Wrapper::new();
    let cluster = Cluster::new();
    let worker = cluster.worker(&["--launcher", launcher.path().to_str().unwrap()]);
    (launcher, cluster, worker)
}

/// Why a command is refused once its worker's launcher, sound at first, is spoilt; and that launcher's path.
fn refused_once(spoil: impl FnOnce(&Path)) -> (String, String) {
    let (launcher, cluster, worker) = with_wrapper();
    spoil(&launcher.path());
    launcher.end_server(&worker);
    let db = cluster.db();
    let command = db.finish(db.user("spoilt launcher"), "echo never");
    assert_eq!((command.why(), command.exit_code), ("refused", None));
    assert!(worker.process().is_running(), "the worker goes on");
    let reason = command.reason().to_owned();
    (reason, launcher.path().display().to_string())
}

#[test]
fn refused_where_the_launcher_is_gone() {
    let (reason, launcher) = refused_once(|path| std::fs::remove_file(path).unwrap());
    let said =
        format!("The command was not run: cannot start the launcher {launcher}: No such file");
    assert!(reason.starts_with(&said), "{reason}");
}

#[test]
fn refused_where_the_launcher_is_another_program() {
    let another = "#!/bin/sh\nexit 3\n";
    let (reason, launcher) = refused_once(|path| std::fs::write(path, another).unwrap());
    let said = format!("the launcher {launcher} exited with code 3");
    assert!(reason.contains(&said), "{reason}");
}

#[test]
fn refused_where_a_step_fails() {
    let (launcher, cluster, worker) = with_wrapper();
    let db = cluster.db();
    let user = db.user("faults");
    // In the template, in PID 1, and in the shell's process.
    for (fault, step) in [
        ("Hostname", "setting the hostname"),
        ("Root", "entering the private root"),
        ("Capabilities", "dropping capabilities"),
        ("Rlimits", "setting resource limits"),
    ] {
        launcher.fail(&format!("fail={fault}"));
        launcher.end_server(&worker);
        let command = db.finish(user, "echo never");
        assert_eq!(
            (command.why(), command.exit_code, command.reason()),
            (
                "refused",
                None,
                &*format!("The command was not run: {step} failed: a test wants it.")
            ),
            "{command:?}"
        );
        assert_eq!(command.text(), "");
        launcher.fail("");
        if !pg_shell_tests::children_of(worker.process().pid()).is_empty() {
            launcher.end_server(&worker);
        }
        assert_eq!(db.finish(user, "echo again").text(), "again\n");
    }
}

#[test]
fn run_command_is_refused_where_a_step_fails() {
    let db = db();
    let set = |launcher: &Wrapper| {
        let path = launcher.path();
        db.run(&format!("set pg_shell.launcher = '{}'", path.display()));
    };
    let sound = Wrapper::new();
    let call = "select output from shell.run_command('/tmp', '{}', 'echo ran')";
    for (fault, step) in [
        ("Hostname", "setting the hostname"),
        ("Capabilities", "dropping capabilities"),
        ("Exec", "starting the shell"),
    ] {
        let launcher = Wrapper::new();
        launcher.fail(&format!("fail={fault}"));
        set(&launcher);
        let refusal = db.refused(call, &[]);
        assert_eq!(
            (refusal.code.as_str(), refusal.message),
            (
                "PS010",
                format!("the command was refused: {step} failed: a test wants it")
            )
        );
        assert!(refusal.hint.starts_with("Nothing was run"));
        set(&sound);
        assert_eq!(db.one::<String>(call, &[]), "ran\n");
    }
    for program in ["/bin/true", "/bin/false"] {
        db.run(&format!("set pg_shell.launcher = '{program}'"));
        let refusal = db.refused(call, &[]);
        assert_eq!(refusal.code, "PS013");
        let said = format!("the launcher {program} exited with code ");
        assert!(refusal.message.contains(&said), "{refusal:?}");
    }
}

#[test]
fn a_launcher_that_fails_is_said() {
    let cluster = Cluster::new();
    let says = |launcher: &str, what: &str| {
        let log = cluster.starting_worker(&["--launcher", launcher]).refusal();
        assert!(log.contains(what), "{log}");
        assert!(!log.contains("ready"), "{log}");
    };
    for (launcher, code) in [("/bin/true", 0), ("/bin/false", 1)] {
        says(
            launcher,
            &format!("a trial launch failed: the launcher {launcher} exited with code {code}"),
        );
    }
    says("/tmp", "cannot start the launcher /tmp: ");
    let empty = Wrapper::new();
    std::fs::write(empty.path(), "").unwrap();
    says(empty.path().to_str().unwrap(), "cannot start the launcher");
    let faulty = Wrapper::new();
    faulty.fail("fail=Namespaces");
    says(
        faulty.path().to_str().unwrap(),
        "a trial launch failed: making namespaces failed: a test wants it. Nothing was run. \
         The server's user must be allowed to make user namespaces",
    );
}

#[test]
fn processes_left_behind_end_with_their_command() {
    let db = db();
    let user = db.user("left behind");
    let mark = format!("left-behind-{}", std::process::id());
    let sql = format!(
        "(exec -a {mark} setsid sleep 1000) & (exec -a {mark} sleep 1000) >/dev/null 2>&1 & sleep 0.1; echo done"
    );
    let command = db.finish(user, &sql);
    assert_eq!(
        (command.status.as_str(), command.text()),
        ("done", "done\n")
    );
    pg_shell_tests::wait_until_gone(&pg_shell_tests::marked_processes(&mark));
    assert!(pg_shell_tests::marked_processes(&mark).is_empty());
}
