//! What retention removes and counts where trees come back, are shared, or never came to be.

use pg_shell_tests::Cluster;
use serde_json::json;
use uuid::Uuid;

use crate::hand::{Change, Hand};
use crate::retention::{age, count, upkeep};

/// What a user is counted to have, and what the user's trees have.
fn counted(hand: &Hand, user: Uuid) -> (i64, i64) {
    let sql = "select
        coalesce((select bytes from shell.user_storage where user_id = $1), 0),
        coalesce((select sum(size)::bigint from (
          select distinct e.content, e.size from shell.fs_entries as e join shell.trees as t on t.id = e.tree_id
          where t.user_id = $1 and e.content is not null) as c), 0)";
    let row = &hand.db.query(sql, &[&user])[0];
    (row.get(0), row.get(1))
}

fn named(hand: &Hand, function: &str, name: &str) {
    let sql = format!("select shell.{function}($1, $2)");
    hand.db.query(&sql, &[&hand.session, &name]);
}

#[test]
fn a_version_that_came_back_counts_once() {
    let cluster = Cluster::new();
    let hand = Hand::of(cluster.db(), "came back");
    let first = hand.run(&Change::new().file("a", "v1"));
    named(&hand, "create_snapshot", "one");
    hand.run(&Change::new().file("a", "v2"));
    named(&hand, "restore_snapshot", "one");
    hand.run(&Change::new().file("a", "v3"));
    named(&hand, "delete_snapshot", "one");
    let keep = "select shell.set_retention($1, keep_versions => 3)";
    hand.db.query(keep, &[&hand.user]);
    upkeep(&hand);
    assert_eq!(count(&hand, "removed_versions"), 0);
    let read = "select convert_from(shell.read_file($1, '/home/sandbox/a', at => $2), 'utf8')";
    assert_eq!(hand.db.one::<String>(read, &[&hand.session, &first]), "v1");
}

#[test]
fn a_snapshot_that_is_deleted_leaves_no_trees() {
    let cluster = Cluster::new();
    let hand = Hand::of(cluster.db(), "no snapshot");
    hand.run(&Change::new().file("f1", "1"));
    named(&hand, "create_snapshot", "one");
    hand.run(&Change::new().file("f2", "22"));
    hand.run(&Change::new().file("f3", "333"));
    named(&hand, "create_snapshot", "two");
    named(&hand, "restore_snapshot", "one");
    hand.run(&Change::new().file("f4", "4444"));
    let keep = "select shell.set_retention($1, keep_days => 1)";
    hand.db.query(keep, &[&hand.user]);
    let all: Vec<i64> = hand.db.column("select id from shell.commands", &[]);
    age(&hand, &all, 2);
    upkeep(&hand);
    named(&hand, "delete_snapshot", "one");
    named(&hand, "delete_snapshot", "two");
    upkeep(&hand);
    assert_eq!(hand.files(hand.session), ["f1:1", "f4:4"]);
    assert_eq!(counted(&hand, hand.user), (5, 5));
}

#[test]
fn what_was_removed_does_not_come_back_because_somebody_else_has_it() {
    let cluster = Cluster::new();
    let other = Hand::of(cluster.db(), "has it still");
    other.run(&Change::new().file("x", "precious"));
    let hand = Hand::of(cluster.db(), "had it");
    let old = [
        hand.run(&Change::new().file("b", "1")),
        hand.run(&Change::new().file("a", "precious")),
    ];
    hand.run(&Change::new().file("a", "two"));
    let keep = "select shell.set_retention($1, keep_versions => 1)";
    hand.db.query(keep, &[&hand.user]);
    upkeep(&hand);
    assert_eq!(count(&hand, "removed_versions"), 1);
    let keep = "select shell.set_retention($1, keep_versions => 1, keep_days => 1)";
    hand.db.query(keep, &[&hand.user]);
    age(&hand, &old, 2);
    // Into the tree that had what was removed.
    upkeep(&hand);
    assert_eq!(count(&hand, "removed_commands"), 2);
    let (is, has) = counted(&hand, hand.user);
    assert_eq!(is, has);
    assert_eq!(hand.broken(hand.session), None);
}

#[test]
fn a_write_that_was_to_wait_is_within_the_quota_and_collected_when_it_is_cancelled() {
    let cluster = Cluster::new();
    let hand = Hand::of(cluster.db(), "waits to write");
    let db = &hand.db;
    let running = db.submit_to(hand.user, hand.session, "runs");
    let (attempt, _) = hand.take(running);
    let write =
        "select shell.write_file($1, '/home/sandbox/' || $2, convert_to(repeat('x', $3), 'utf8'))";
    let waiting: i64 = db.one(write, &[&hand.session, &"a", &1000]);
    upkeep(&hand);
    assert_eq!(count(&hand, "contents"), 1);
    assert!(db.cancel(waiting));
    assert!(hand.finish(running, attempt, json!({})));
    upkeep(&hand);
    assert_eq!((count(&hand, "contents"), count(&hand, "chunks")), (0, 0));

    let limit = "update shell.sandboxes set storage_bytes = 100 where owner_id = $1";
    db.query(limit, &[&hand.user]);
    let running = db.submit_to(hand.user, hand.session, "runs");
    hand.take(running);
    let refused = db.refused(write, &[&hand.session, &"a", &1000]);
    assert_eq!(refused.code, "PS034");
}

#[test]
fn thousands_that_were_stored_in_one_moment_are_collected_a_few_at_a_time() {
    let cluster = Cluster::new();
    let hand = Hand::of(cluster.db(), "one moment");
    // Of a worker that died before its tree was stored.
    hand.db.run(
        "select shell.add_chunks(array_agg(sha256(b)), array_agg(b), null)
         from (select convert_to(i::text, 'utf8') as b from generate_series(1, 2000) as i) as made;
         update shell.chunks set added_at = now() - interval '2 hours'",
    );
    hand.db.query("select shell.upkeep()", &[]);
    let left = count(&hand, "chunks");
    assert!((1_000..2_000).contains(&left), "{left}");
    upkeep(&hand);
    assert_eq!(count(&hand, "chunks"), 0);
}
