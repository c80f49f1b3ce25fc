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

/// Each runs `uname`, wherever it may.
const WAYS_ROUND: [&str; 4] = [
    "for ld in /lib64/ld-*.so.* /lib/ld-*.so.*; do [[ -e $ld ]] && break; done; $ld /usr/bin/uname",
    "cp /usr/bin/uname ~/x; ~/x",
    "cat /usr/bin/uname >&250; for ld in /lib64/ld-*.so.* /lib/ld-*.so.*; do [[ -e $ld ]] && break; done; $ld /dev/fd/250",
    "exec 5</usr/bin/uname; /dev/fd/5",
];

#[test]
fn there_is_no_way_round_it() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let _worker = cluster.worker(&[]);
    let (user, other) = (db.user("restricted"), db.user("free"));
    db.session(user);
    let tools = ["/usr/bin/cp", "/usr/bin/cat"];
    let sql = "update shell.sandboxes set programs = $2::text[] where owner_id = $1";
    db.query(sql, &[&user, &tools.to_vec()]);
    let in_backend = |command: &str| -> String {
        let sql = "select output from shell.run_command('/home/sandbox', '{}', $1)";
        db.one(sql, &[&command])
    };
    for way in WAYS_ROUND {
        let free = db.wait(db.submit(other, way));
        assert_eq!(free.text(), "Linux\n", "{way}");
        let ran = db.wait(db.submit(user, way));
        assert_eq!(ran.why(), "exit", "{way}: {ran:?}");
        assert!(!ran.text().contains("Linux"), "{way}: {ran:?}");

        assert_eq!(in_backend(way), "Linux\n", "{way}");
        db.run(&format!("set pg_shell.programs = '{}'", tools.join(",")));
        let output = in_backend(way);
        assert!(!output.contains("Linux"), "{way}: {output}");
        db.run("reset pg_shell.programs");
    }
    // What is no program refuses the command there, too; a comma alone is the shell and nothing else.
    for wrong in ["id", "/usr/bin/nonesuch", "/usr/bin", "/proc/self/exe"] {
        db.run(&format!("set pg_shell.programs = '{wrong}'"));
        db.refused_with_hint("select shell.run_command('/', '{}', 'true')", "PS010");
    }
    db.run("set pg_shell.programs = ','");
    assert!(in_backend("echo here; uname").starts_with("here\n"));
    assert!(!in_backend("uname").contains("Linux"));
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
