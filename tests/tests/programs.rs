//! A sandbox that is restricted to a list of programs.

use pg_shell_tests::Cluster;

#[test]
fn a_sandbox_runs_what_is_listed() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let _worker = cluster.worker(&[]);
    let (user, other) = (db.user("restricted"), db.user("free"));
    let run = |user, command| db.wait(db.submit(user, command));
    assert_eq!(run(user, "uname").text(), "Linux\n");

    let sql = "update shell.sandboxes set programs = $2::text[] where owner_id = $1";
    db.query(sql, &[&user, &vec!["/usr/bin/id"]]);
    let denied = run(user, "uname");
    assert_eq!(denied.exit_code, Some(126), "{denied:?}");
    assert_eq!(run(user, "id -u").text(), "1000\n");
    assert_eq!(run(other, "uname").text(), "Linux\n");

    db.query(sql, &[&user, &vec!["/nonesuch"]]);
    let refused = run(user, "echo never");
    assert_eq!(refused.why(), "refused", "{refused:?}");
    assert!(refused.reason().contains("/nonesuch"), "{refused:?}");
    assert_eq!(refused.text(), "");
}

#[test]
fn a_list_that_cannot_be_is_not_stored() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let user = db.user("owner");
    db.session(user);
    let sql = "update shell.sandboxes set programs = $2::text[] where owner_id = $1";
    let long = format!("/{}", "x".repeat(5000));
    for wrong in [
        "relative",
        "",
        "/",
        "/usr/bin/",
        "/usr/../bin/id",
        "/usr/./id",
        "//x",
        "/..",
        &long,
    ] {
        let refused = db.refused(sql, &[&user, &vec!["/usr/bin/id", wrong]]);
        assert_eq!(refused.code, "23514", "{wrong}: {refused:?}");
    }
    let many = vec!["/usr/bin/id"; 1001];
    assert_eq!(db.refused(sql, &[&user, &many]).code, "23514");
    assert_eq!(db.refused(sql, &[&user, &vec![None::<&str>]]).code, "23514");
    let none: Vec<&str> = Vec::new();
    db.query(sql, &[&user, &none]);
    db.query(
        sql,
        &[
            &user,
            &vec!["/usr/bin/..id", "/usr/bin/.x", "/usr/bin/[", "/o'p/t \"x\""],
        ],
    );
}
