//! Telling of output.

use pg_shell_tests::Cluster;

#[test]
fn output_is_told_to_those_who_watch_and_to_nobody_else() {
    let cluster = Cluster::new();
    let _worker = cluster.worker(&[]);
    let db = cluster.db();
    let user = db.user("watched");
    let watcher = cluster.db();
    watcher.run("listen shell_output");
    // Nobody watches: a notification that is sent after them is the first to come.
    db.finish(user, "echo unwatched");
    db.run("notify shell_output, 'first'");
    assert_eq!(watcher.notice(), "first");

    watcher.run("set session authorization shell_authenticator; select shell.watch_output()");
    let id = db.submit(user, "echo one; sleep 1000");
    assert_eq!(watcher.notice(), id.to_string());
    let shown: i64 = db.one(
        "select count(*) from shell.output_chunks where command_id = $1",
        &[&id],
    );
    assert!(shown > 0, "told before it could be seen");
    let waiting = db.submit(user, "true");
    assert!(db.cancel(waiting));
    assert_eq!(watcher.notice(), waiting.to_string());
    assert!(db.cancel(id));
    assert_eq!(watcher.notice(), id.to_string());
    assert_eq!(db.command(id).why(), "cancelled");

    let left: bool = watcher.one("select shell.unwatch_output()", &[]);
    assert!(left);
    db.finish(user, "echo unwatched again");
    db.run("notify shell_output, 'last'");
    assert_eq!(watcher.notice(), "last");

    // Two may watch, and one that is gone watches no more.
    let (one, two) = (cluster.db(), cluster.db());
    one.run("select shell.watch_output()");
    two.run("listen shell_output; select shell.watch_output()");
    drop(one);
    let id = db.finish(user, "true").id;
    assert_eq!(two.notice(), id.to_string());
}
