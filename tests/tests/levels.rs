//! The levels of confinement, from outside: the doctor, shell.confinement(), and the level basic by a row and
//! by a backend.

use std::process::{Command as Program, Output};

use pg_shell_tests::{Cluster, Stage, is_root, worker_user};
use serde_json::Value;

/// Runs `exec-worker doctor` as this user.
fn doctor(user: &str, flags: &[&str]) -> Output {
    let mut command = Program::new("setpriv");
    if is_root() && user != "root" {
        command.args(["--reuid", user, "--regid", "nogroup", "--clear-groups"]);
    }
    command
        .arg(Stage::find().worker())
        .arg("doctor")
        .args(flags);
    command
        .env_remove("TMPDIR")
        .output()
        .expect("the doctor answers")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_doctor_answers_everybody_and_says_whether_the_level_is_there() {
    for user in ["root", &worker_user()] {
        let answer = doctor(user, &[]);
        let said = text(&answer);
        assert_eq!(answer.status.code(), Some(0), "{user}: {said}");
        assert!(
            said.contains("The chosen level is strict, and it is available."),
            "{said}"
        );
        assert_eq!(
            doctor(user, &["--level", "basic"]).status.code(),
            Some(0),
            "{user}"
        );
    }
    assert_eq!(doctor("root", &["--level", "none"]).status.code(), Some(2));
    assert_eq!(
        doctor("root", &["--launcher", "/bin/true"]).status.code(),
        Some(2)
    );
}

#[test]
fn rows_are_what_the_doctor_says() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let said: Vec<Value> =
        serde_json::from_slice(&doctor(&worker_user(), &["--json"]).stdout).expect("JSON");
    let rows: Value = db.one("select json_agg(c) from shell.confinement() as c", &[]);
    let rows = rows.as_array().expect("rows");
    assert_eq!(rows.len(), said.len());
    for (row, said) in rows.iter().zip(&said) {
        // Whose folder and group it is differs with who is asked.
        if !["private folder", "control group"].contains(&row["step"].as_str().unwrap_or_default())
        {
            assert_eq!(row, said);
        }
    }
    for role in ["shell_admin", "shell_auditor"] {
        db.run(&format!("set role {role}"));
        let levels: i64 = db.one(
            "select count(*) from shell.confinement() where step like 'level %'",
            &[],
        );
        assert_eq!(levels, 2, "{role}");
        assert_eq!(
            db.refused("set pg_shell.level = 'basic'", &[]).code,
            "42501"
        );
        db.run("reset role");
    }
    db.run("set role shell_worker");
    assert_eq!(db.refused("select shell.confinement()", &[]).code, "42501");
}

/// What must be told apart: nothing but "end" is printed.
const ATTACK: &str = "
cat /etc/shadow /proc/1/cmdline /proc/$PPID/environ 2>/dev/null && echo ALLOWED read
for d in / /tmp /usr /dev/shm {socket} {data}; do (echo x >$d/new) 2>/dev/null && echo ALLOWED $d; done
(: </dev/tcp/127.0.0.1/5432) 2>/dev/null && echo ALLOWED tcp
perl -MSocket -e 'socket(my $s, AF_UNIX, SOCK_STREAM, 0) and print \"ALLOWED socket\\n\"'
for p in {worker} {postmaster} $PPID; do kill -9 $p 2>/dev/null && echo ALLOWED kill $p; kill -0 $p 2>/dev/null && echo ALLOWED ask $p; done
unshare -U true 2>/dev/null && echo ALLOWED unshare
sleep {mark} & setsid sleep {mark} & echo end";

#[test]
fn basic_holds_by_a_row_and_by_a_backend() {
    let cluster = Cluster::new();
    let worker = cluster.worker(&["--level", "basic"]);
    let db = cluster.db();
    let data: String = db.one("select current_setting('data_directory')", &[]);
    let backend: i32 = db.one("select pg_backend_pid()", &[]);
    let mark = format!("9{}", std::process::id());
    let attack = ATTACK
        .replace("{socket}", &cluster.socket().display().to_string())
        .replace("{data}", &data)
        .replace("{worker}", &worker.process().pid().to_string())
        .replace("{postmaster}", &backend.to_string())
        .replace("{mark}", &mark);
    let user = db.user("basic");
    let id = db.submit(user, &attack);
    let row = db.wait(id);
    assert_eq!(
        (row.output.as_deref(), row.exit_code),
        (Some("end\n"), Some(0))
    );
    db.run("set pg_shell.level = 'basic'");
    let output: String = db.one(
        "select output from shell.run_command('/tmp', '{}', $1)",
        &[&attack],
    );
    assert_eq!(output, "end\n");
    let kind: String = db.one(
        "select output from shell.run_command('/tmp', '{}', 'pwd')",
        &[],
    );
    assert!(
        kind.contains("/pg_shell-"),
        "it ran at the level basic: {kind}"
    );
    let left = pg_shell_tests::marked_processes(&mark);
    assert!(left.is_empty(), "{left:?}");
    assert!(worker.process().is_running());
}
