//! A dump is a backup: restored into an empty cluster, everything comes back and works on.

use pg_shell_tests::{Cluster, Db};
use uuid::Uuid;

fn everything(db: &Db) -> Vec<String> {
    let rows = "select 'user ' || u::text from shell.users u
        union all select 'sandbox ' || s::text from shell.sandboxes s
        union all select 'session ' || e::text from shell.environments e
        union all select 'command ' || c::text from shell.commands c
        order by 1";
    db.column(rows, &[])
}

#[test]
fn dump_and_restore_into_an_empty_cluster() {
    let dump = tempfile::NamedTempFile::new().unwrap();
    let path = dump.path().to_str().unwrap();
    let (user, before, next_id): (Uuid, Vec<String>, i64);
    {
        let old = Cluster::new();
        let worker = old.worker(&[]);
        let db = old.db();
        user = db.user("kept");
        db.finish(user, "cd /tmp; export A=1; f() { echo \"f $A\"; }");
        let source = db.finish(user, "printf 'a\\0b'; A=2");
        db.query("select shell.fork_session($1, $2)", &[&user, &source.id]);
        db.finish(user, "exit 3");
        db.limit(user, "output_bytes", 5000);
        let programs =
            "update shell.sandboxes set programs = '{/usr/bin/printf}' where owner_id = $1";
        db.query(programs, &[&user]);
        worker.kill();
        // It dies while a command runs, and before another begins.
        let limited: i64 = db.one(
            "select shell.submit_command($1, 'echo later; f', limits => '{\"open_files\": 99}')",
            &[&user],
        );
        next_id = limited + 1;
        before = everything(&db);
        old.client("pg_dump", &["--file", path, "pg_shell"]);
    }

    let new = Cluster::restored(path);
    let db = new.db();
    assert_eq!(everything(&db), before);

    db.run("alter role shell_worker login");
    let _worker = new.worker(&[]);
    assert_eq!(db.wait(next_id - 1).text(), "later\nf 2\n");
    assert_eq!(db.submit(user, "true"), next_id, "ids go on");
    let fork: Uuid = db.one(
        "select id from shell.environments where parent_id is not null",
        &[],
    );
    assert_eq!(db.wait(db.submit_to(user, fork, "f")).text(), "f 1\n");
    let limit: i64 = db.one(
        "select output_bytes from shell.sandboxes where owner_id = $1",
        &[&user],
    );
    assert_eq!(limit, 5000);
    let programs: Vec<String> = db.one(
        "select programs::text[] from shell.sandboxes where owner_id = $1",
        &[&user],
    );
    assert_eq!(programs, ["/usr/bin/printf"]);
    let newest = db.user("newcomer");
    assert_eq!(db.finish(newest, "echo hello").text(), "hello\n");
}

#[test]
fn a_command_that_ran_at_the_dump_runs_again_after_the_restore() {
    let dump = tempfile::NamedTempFile::new().unwrap();
    let path = dump.path().to_str().unwrap();
    let id;
    {
        let old = Cluster::new();
        let _worker = old.worker(&[]);
        let db = old.db();
        let user = db.user("running");
        id = db.submit(user, "echo begun; [ -n \"$RESTORED\" ] || sleep 1000");
        db.until_prints(id);
        old.client("pg_dump", &["--file", path, "pg_shell"]);
    }
    let new = Cluster::restored(path);
    let db = new.db();
    db.run("alter role shell_worker login; update shell.environments set env = '{\"RESTORED\": \"1\"}'");
    let _worker = new.worker(&["--grace", "0.1"]);
    assert_eq!(db.wait(id).text(), "begun\n");
}
