//! A dump has all of it.

use pg_shell_tests::{Cluster, Db};

use crate::hand::{Change, Hand};

fn everything(db: &Db) -> Vec<String> {
    let tables: Vec<String> = db.column(
        "select oid::regclass::text from pg_class where relnamespace = 'shell'::regnamespace and relkind = 'r'
         and relpersistence = 'p' order by 1",
        &[],
    );
    let of = |table: &String| {
        db.column::<String>(
            &format!("select '{table} ' || t::text from {table} as t order by 1"),
            &[],
        )
    };
    tables.iter().flat_map(of).collect()
}

#[test]
fn dump_and_restore() {
    let dump = tempfile::NamedTempFile::new().unwrap();
    let path = dump.path().to_str().unwrap();
    let (before, session, user, files);
    {
        let old = Cluster::new();
        let hand = Hand::of(old.db(), "dumped");
        let mut first = Change::new().folder("d").symlink("s", b"\xff");
        for i in 0..50 {
            first = first.file(format!("d/{i}"), format!("{i}"));
        }
        let first = hand.run(&first);
        for i in 0..50 {
            hand.run(&Change::new().file("a", format!("version {i}")));
        }
        while hand.db.one::<i64>("select shell.upkeep()", &[]) > 0 {}
        assert!(
            hand.db
                .one::<i64>("select count(*) from shell.checkpoints", &[])
                > 0
        );
        hand.db.query(
            "select shell.create_snapshot($1, 'kept', 'with a word')",
            &[&hand.session],
        );
        hand.db.query(
            "select shell.set_retention(user_id => $1, keep_days => 30)",
            &[&hand.user],
        );
        hand.db
            .query("select shell.fork_session($1, $2)", &[&hand.user, &first]);
        hand.db.one::<i64>(
            "select shell.write_file($1, '/home/sandbox/b', $2)",
            &[&hand.session, &vec![7_u8; 600_000]],
        );
        before = everything(&hand.db);
        files = hand.files(hand.session);
        (session, user) = (hand.session, hand.user);
        old.client("pg_dump", &["--file", path, "pg_shell"]);
    }
    let new = Cluster::restored(path);
    let db = new.db();
    assert_eq!(everything(&db), before);
    let worker = db.one("select shell.register_worker('new', 'nobody', '0', 1)", &[]);
    let hand = Hand {
        db,
        user,
        session,
        worker,
    };
    assert_eq!(hand.files(session), files);
    assert_eq!(hand.broken(session), None);
    let wrong = hand
        .db
        .query("select * from shell.verify_files($1)", &[&session]);
    assert!(wrong.is_empty());
    hand.run(&Change::new().file("after", "x").gone("d"));
    assert_eq!(hand.files(session), ["a:10", "after:1", "b:600000", "s@"]);
    hand.db
        .one::<i64>("select shell.restore_snapshot($1, 'kept')", &[&session]);
    while hand.db.one::<i64>("select shell.upkeep()", &[]) > 0 {}
    assert_eq!(hand.broken(session), None);
}
