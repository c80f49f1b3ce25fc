//! What is removed, what is collected, and that both are told of and keep history whole.

use pg_shell_tests::Cluster;
use serde_json::json;
use uuid::Uuid;

use crate::hand::{Change, Hand};

/// All upkeep that there is, as if so much time had gone by since everything that was stored.
pub fn upkeep(hand: &Hand) {
    hand.db.run(
        "update shell.chunks set added_at = added_at - interval '2 hours';
         update shell.contents set added_at = added_at - interval '2 hours';
         update shell.trees set created_at = created_at - interval '2 hours';
         update shell.upkeep_state set round_began = '-infinity', chunks_seen = '-infinity', contents_seen = '-infinity'",
    );
    let mut rounds = 0;
    while hand.db.one::<i64>("select shell.upkeep()", &[]) > 0 {
        rounds += 1;
        assert!(rounds < 1000, "upkeep never ends");
    }
}

/// Makes commands look as old as they are to be.
pub fn age(hand: &Hand, commands: &[i64], days: i32) {
    hand.db.run("set session_replication_role = replica");
    for command in commands {
        let sql = "update shell.commands set finished_at = finished_at - make_interval(days => $2) where id = $1";
        hand.db.query(sql, &[command, &days]);
    }
    // Their hashes are of other times now: written again, in order.
    for command in hand.db.column::<i64>(
        "select id from shell.commands where hash is not null order by id",
        &[],
    ) {
        hand.db.query(
            "update shell.commands as c
             set hash = shell.command_hash(c,
               case when attempt > 0 then shell.hash_before(environment_id, id) else '' end,
               (select t.hash from shell.trees as t where t.id = coalesce(c.tree_after, c.tree_id)))
             where id = $1",
            &[&command],
        );
    }
    hand.db.run("reset session_replication_role");
}

pub fn count(hand: &Hand, table: &str) -> i64 {
    hand.db
        .one(&format!("select count(*) from shell.{table}"), &[])
}

#[test]
fn without_a_policy_all_is_kept_and_garbage_is_not() {
    let cluster = Cluster::new();
    let hand = Hand::of(cluster.db(), "kept");
    hand.run(&Change::new().file("a", "1"));
    hand.run(&Change::new().file("a", "2"));
    // A worker that stored files and died, one that stored chunks only, and a write that was cancelled.
    let command = hand.db.submit_to(hand.user, hand.session, "x");
    let (attempt, _) = hand.take(command);
    hand.store(
        command,
        attempt,
        &Change::new().file("b", "lost").file("c", "2"),
    )
    .unwrap();
    hand.db.run(
        "select shell.add_chunks(array[sha256('nobody''s')], array['nobody''s'::bytea], null)",
    );
    let cancelled: i64 = hand.db.one(
        "select shell.write_file($1, '/home/sandbox/d', 'never')",
        &[&hand.session],
    );
    assert!(hand.db.cancel(cancelled));
    let before = ["trees", "contents", "chunks", "user_contents"].map(|table| count(&hand, table));
    assert_eq!(before, [3, 4, 5, 3]);
    while hand.db.one::<i64>("select shell.upkeep()", &[]) > 0 {}
    let young = ["trees", "contents", "chunks", "user_contents"].map(|table| count(&hand, table));
    assert_eq!(young, before, "what is young may still be wanted");
    upkeep(&hand);
    let after = ["trees", "contents", "chunks", "user_contents"].map(|table| count(&hand, table));
    assert_eq!(after, [2, 2, 2, 2]);
    let stored: i64 = hand.db.one("select bytes from shell.user_storage", &[]);
    assert_eq!(stored, 2);
    assert_eq!(
        count(&hand, "removed_commands") + count(&hand, "removed_versions"),
        0
    );
    assert_eq!(hand.broken(hand.session), None);
    // With nothing to do, nothing is written.
    let idle: bool = hand.db.one(
        "select shell.upkeep() = 0 and pg_current_xact_id_if_assigned() is null",
        &[],
    );
    assert!(idle);
}

#[test]
fn days_that_are_kept() {
    let cluster = Cluster::new();
    let hand = Hand::of(cluster.db(), "days");
    let db = &hand.db;
    let session = hand.session;
    let mut commands: Vec<i64> = Vec::new();
    let linked = Change::new()
        .file("l1", "l")
        .set("link", json!(1))
        .file("l2", "l")
        .set("link", json!(1));
    commands.push(
        hand.run(
            &linked
                .folder("d")
                .file("d/old", "goes")
                .file("stays", "from the beginning"),
        ),
    );
    for i in 0..10 {
        commands.push(hand.run(&Change::new().file("a", format!("version {i}"))));
    }
    db.query("select shell.create_snapshot($1, 'kept')", &[&session]);
    commands.push(hand.run(&Change::new().gone("d").file("a", "another")));
    let cancelled = db.submit_to(hand.user, session, "never ran");
    db.cancel(cancelled);
    commands.push(cancelled);
    commands.push(hand.run(&Change::new()));
    let fork: Uuid = db.one(
        "select shell.fork_session($1, $2, true)",
        &[&hand.user, &commands[3]],
    );
    hand.run_in(fork, &Change::new().file("in the fork", "x"));
    for i in 0..3 {
        hand.run(&Change::new().file("a", format!("young {i}")));
    }
    age(&hand, &commands, 40);
    db.query(
        "select shell.set_retention(user_id => $1, keep_days => 30)",
        &[&hand.user],
    );
    let files = [hand.files(session), hand.files(fork)];
    let last = hand.db.one::<i64>(
        "select max(id) from shell.commands where environment_id = $1",
        &[&session],
    );
    let history: String = db.one(
        "select encode(hash, 'hex') from shell.commands where id = $1",
        &[&last],
    );
    let trees = count(&hand, "trees");
    upkeep(&hand);

    let removed: Vec<i64> = db.column(
        "select command_id from shell.removed_commands order by 1",
        &[],
    );
    assert_eq!(removed, commands, "and that is recorded");
    let reasons: Vec<String> = db.column("select distinct reason from shell.removed_commands", &[]);
    assert_eq!(reasons, ["keep_days = 30"]);
    assert_eq!([hand.files(session), hand.files(fork)], files);
    assert!(
        count(&hand, "trees") <= trees - 6,
        "{} of {trees}",
        count(&hand, "trees")
    );
    let gone: bool = db.one(
        "select not exists (select from shell.contents where hash = sha256('version 1'))",
        &[],
    );
    assert!(gone);
    assert_eq!(hand.broken(session), None);
    assert_eq!(hand.broken(fork), None);
    let links: i64 = db.one(
        "select count(distinct link) from shell.files($1) where link is not null",
        &[&session],
    );
    assert_eq!(links, 1);
    let unknown: i64 = db.one(
        "select count(*) from shell.files($1) where changed_by is null and path <> '/home/sandbox/a'",
        &[&session],
    );
    assert_eq!(unknown, 3, "who made what retention removed is not known");
    let stays = "select convert_from(shell.read_file($1, '/home/sandbox/stays'), 'UTF8')";
    assert_eq!(db.one::<String>(stays, &[&session]), "from the beginning");
    // The snapshot is kept, and history goes on.
    db.one::<i64>("select shell.restore_snapshot($1, 'kept')", &[&session]);
    assert_eq!(
        hand.files(session),
        ["a:9", "d/", "d/old:4", "l1:1", "l2:1", "stays:18"]
    );
    hand.run(&Change::new().file("a", "after"));
    assert_eq!(hand.broken(session), None);
    let same: String = db.one(
        "select encode(hash, 'hex') from shell.commands where id = $1",
        &[&last],
    );
    assert_eq!(same, history);
    let counted: i64 = db.one("select sum(size)::bigint from shell.user_contents", &[]);
    assert_eq!(
        counted,
        db.one::<i64>("select bytes from shell.user_storage", &[])
    );
    // What is altered is found behind it, too.
    db.run("begin; set local session_replication_role = replica; update shell.removed_commands set hash = sha256('x')");
    assert!(hand.broken(session).is_some());
    db.run(
        "rollback; begin; set local session_replication_role = replica;
            update shell.fs_entries set mode = 0 where inherited and mode is not null",
    );
    assert!(hand.broken(session).is_some());
    db.run("rollback");
    upkeep(&hand);
    assert_eq!(hand.broken(session), None);
}

#[test]
fn versions_that_are_kept() {
    let cluster = Cluster::new();
    let hand = Hand::of(cluster.db(), "versions");
    let db = &hand.db;
    let session = hand.session;
    let mut commands = Vec::new();
    for i in 0..6 {
        commands.push(
            hand.run(
                &Change::new()
                    .file("a", format!("version {i}"))
                    .file("b", "always"),
            ),
        );
    }
    let fork: Uuid = db.one(
        "select shell.fork_session($1, $2, true)",
        &[&hand.user, &commands[1]],
    );
    hand.run(&Change::new().file("c", "version 2"));
    db.query(
        "select shell.set_retention($1, keep_versions => 2, environment_id => $2)",
        &[&hand.user, &session],
    );
    upkeep(&hand);
    let read = |at: i64| {
        let sql = format!(
            "select convert_from(shell.read_file('{session}', '/home/sandbox/a', {at}), 'UTF8')"
        );
        db.attempt(&sql).map_err(|refusal| refusal.code)
    };
    let found: Vec<_> = commands
        .iter()
        .map(|at| read(*at).map(Option::unwrap))
        .collect();
    let gone = || Err("PS039".to_owned());
    let there = |i: usize| Ok(format!("version {i}"));
    // The second is the fork's; the third's content is another file's still.
    assert_eq!(
        found,
        [gone(), there(1), there(2), gone(), there(4), there(5)]
    );
    assert_eq!(hand.files(fork), ["a:9", "b:6"]);
    let told: Vec<i64> = db.column(
        "select command_id from shell.removed_versions order by command_id",
        &[],
    );
    assert_eq!(told, [commands[0], commands[2], commands[3]]);
    assert_eq!(
        hand.files_at(session, Some(commands[0])),
        ["a:9", "b:6"],
        "that there was one is not forgotten"
    );
    assert_eq!(hand.broken(session), None);
    assert_eq!(hand.broken(fork), None);
}

#[test]
fn whose_policy_counts() {
    let cluster = Cluster::new();
    let hand = Hand::of(cluster.db(), "policies");
    let db = &hand.db;
    let other = db.session(hand.user);
    let commands: Vec<i64> = [hand.session, other]
        .map(|s| hand.run_in(s, &Change::new().file("a", "x")))
        .into();
    age(&hand, &commands, 10);
    let set = |arguments: &str| {
        db.run(&format!("select shell.set_retention({arguments})"));
        upkeep(&hand);
        count(&hand, "commands")
    };
    let user = format!("user_id => '{}'", hand.user);
    assert_eq!(set(&format!("{user}, keep_days => 100")), 2);
    assert_eq!(
        set("keep_days => 1"),
        2,
        "the user's own comes before everybody's"
    );
    assert_eq!(
        set(&format!(
            "{user}, keep_days => 1, environment_id => '{other}'"
        )),
        1
    );
    assert_eq!(set(&user), 0, "without the user's own, everybody's");
    assert_eq!(hand.files(hand.session), ["a:1"]);
    assert_eq!(hand.broken(hand.session), None);
    for (arguments, code) in [
        ("keep_days => 0".to_owned(), "23514"),
        ("keep_versions => -1".to_owned(), "23514"),
        ("gen_random_uuid(), 1".to_owned(), "PS001"),
        (
            format!("{user}, keep_days => 1, environment_id => gen_random_uuid()"),
            "PS002",
        ),
    ] {
        assert_eq!(
            db.refused(&format!("select shell.set_retention({arguments})"), &[])
                .code,
            code
        );
    }
}

/// Old and nobody's, a chunk is collected; but not while somebody makes a file of it.
#[test]
fn what_comes_to_be_used_is_not_collected() {
    let cluster = Cluster::new();
    let hand = Hand::of(cluster.db(), "race");
    let collector = cluster.db();
    let age = "update shell.chunks set added_at = added_at - interval '2 hours'";
    let chunks = || -> i64 { collector.one("select count(*) from shell.chunks", &[]) };
    let hash = "encode(sha256('raced'), 'hex')";
    let store = format!(
        "select shell.add_contents(json_build_array(json_build_object('hash', {hash}, 'size', 5, 'chunks', array[{hash}])))"
    );
    hand.db
        .run("select shell.add_chunks(array[sha256('raced')], array['raced'::bytea], null)");
    hand.db.run(age);
    hand.db.run(&format!("begin; {store}"));
    collector.run("select shell.upkeep()");
    hand.db.run("commit");
    assert_eq!(chunks(), 1);

    // The other way round: who comes too late is told.
    hand.db.run(
        "delete from shell.contents; delete from shell.upkeep_state; set lock_timeout = '50ms'",
    );
    collector.run("begin; select shell.upkeep()");
    assert_eq!(hand.db.refused(&store, &[]).code, "55P03", "it waits");
    collector.run("commit");
    assert_eq!(chunks(), 0);
    assert_eq!(hand.db.refused(&store, &[]).code, "PS030");
}

/// The same of a chunk outside: its object is some worker's to remove, and no chunk's any more.
#[test]
fn an_object_is_given_up_for_good() {
    let cluster = Cluster::new();
    let hand = Hand::of(cluster.db(), "objects");
    let (db, worker) = (&hand.db, cluster.db());
    let url = |number: i32| {
        let key = format!("{number:02x}{}-{}", "0".repeat(62), "0".repeat(32));
        format!("s3://bucket/{}/{key}", &key[..2])
    };
    let add = |number: i32| {
        let url = url(number);
        format!(
            "select shell.add_chunks(array[sha256('{number}')], null, array['{url}'], array[1])"
        )
    };
    let expect = |number: i32| {
        let url = url(number);
        db.run(&format!("select shell.expect_objects(array['{url}'])"));
    };
    let give_up = |store: &str| -> Vec<String> {
        worker.column("select shell.give_up_objects($1)", &[&store])
    };
    let age = || db.run("update shell.unnamed_objects set since = since - interval '2 hours'");
    let store = "s3://bucket/";

    // One that is on its way is left alone, for an hour.
    expect(1);
    assert!(give_up(store).is_empty());
    db.run(&add(1));
    age();
    assert!(give_up(store).is_empty());
    assert_eq!(count(&hand, "unnamed_objects"), 0);

    // Who names it first has it, though it is late.
    expect(2);
    age();
    db.run(&format!("begin; {}", add(2)));
    assert!(give_up(store).is_empty());
    db.run("commit");
    assert!(give_up(store).is_empty());

    // Once given up, it is named by nobody, whether it is gone already or not.
    expect(3);
    age();
    worker.run(&format!("begin; select shell.give_up_objects('{store}')"));
    db.run("set lock_timeout = '50ms'");
    assert_eq!(db.refused(&add(3), &[]).code, "55P03", "it waits");
    worker.run("commit");
    db.refused_with_hint(&add(3), "PS043");
    db.query("select shell.forget_objects(array[$1])", &[&url(3)]);
    db.refused_with_hint(&add(3), "PS043");
    assert_eq!(count(&hand, "unnamed_objects"), 0);

    // Two for one chunk: the second is nobody's.
    expect(4);
    db.run(&add(4));
    let again = format!("{}?", url(4));
    db.query("select shell.expect_objects(array[$1])", &[&again]);
    let sql = "select shell.add_chunks(array[sha256('4')], null, array[$1], array[1])";
    db.query(sql, &[&again]);
    assert_eq!(count(&hand, "unnamed_objects"), 1);
    // It is no address that a worker makes, so none is asked to remove it.
    age();
    assert!(give_up(store).is_empty());
    db.run("delete from shell.unnamed_objects");

    // What is collected is given up, by who has that store; and offered again only if it is not forgotten.
    upkeep(&hand);
    assert_eq!(count(&hand, "chunks"), 0);
    assert!(give_up(store).is_empty());
    age();
    assert!(give_up("s3://another/").is_empty());
    let mut given_up = give_up(store);
    given_up.sort();
    assert_eq!(given_up, [url(1), url(2), url(4)]);
    assert!(give_up(store).is_empty());
    let late = "update shell.unnamed_objects set given_up_at = given_up_at - interval '1 hour'";
    db.run(late);
    assert_eq!(give_up(store).len(), 3);

    // A row that was brought back keeps its object.
    db.run(late);
    db.query(
        "insert into shell.chunks (hash, size, content_url) values (sha256('1'), 1, $1)",
        &[&url(1)],
    );
    assert_eq!(give_up(store).len(), 2);
}
