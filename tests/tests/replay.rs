//! A session can be replayed, and what comes out differently shows.

use pg_shell_tests::Cluster;
use uuid::Uuid;

#[test]
fn a_replay_gives_the_same_and_shows_what_differs() {
    let cluster = Cluster::new();
    let _worker = cluster.worker(&[]);
    let db = cluster.db();
    let user = db.user("replay");
    let commands = [
        "cd /tmp; n=1; export GREETING=hello",
        "n=$((n+1)); echo $GREETING $n in $PWD",
        "echo $(date +%s%N)",
        "exit 3",
        "echo end",
    ];
    let originals: Vec<i64> = commands
        .iter()
        .map(|command| db.submit(user, command))
        .collect();
    db.wait(originals[4]);
    let original: Uuid = db.one(
        "select environment_id from shell.commands where id = $1",
        &[&originals[0]],
    );

    let replay: Uuid = db.one(
        "select shell.replay_session(environment_id => $1)",
        &[&original],
    );
    let last: i64 = db.one(
        "select max(id) from shell.commands where environment_id = $1",
        &[&replay],
    );
    db.wait(last);

    let pairs: Vec<i64> = db.column(
        "select original_command_id from shell.replay_differences where replay_id = $1 order by replay_command_id",
        &[&replay],
    );
    assert_eq!(pairs, originals, "every command, in order");
    let differing: Vec<i64> = db.column(
        "select original_command_id from shell.replay_differences where replay_id = $1 and differs",
        &[&replay],
    );
    assert_eq!(differing, [originals[2]], "only the clock has moved");
    let both = db.query(
        "select original_output, replay_output, original_exit_code, replay_exit_code, original_id
         from shell.replay_differences where replay_id = $1 and original_command_id = $2",
        &[&replay, &originals[2]],
    );
    assert_ne!(both[0].get::<_, String>(0), both[0].get::<_, String>(1));
    assert_eq!((both[0].get::<_, i32>(2), both[0].get::<_, i32>(3)), (0, 0));
    assert_eq!(both[0].get::<_, Uuid>(4), original);
    let of: Uuid = db.one(
        "select replay_of from shell.environments where id = $1",
        &[&replay],
    );
    assert_eq!(of, original);
    assert_eq!(
        db.finish(user, "echo $n").text(),
        "2\n",
        "the original goes on as it was"
    );
}

#[test]
fn a_replay_of_a_fork_begins_where_the_fork_began() {
    let cluster = Cluster::new();
    let _worker = cluster.worker(&[]);
    let db = cluster.db();
    let user = db.user("replay of a fork");
    db.finish(user, "n=40");
    let source = db.finish(user, "n=41");
    let fork: Uuid = db.one(
        "select shell.fork_session($1, $2, after => true)",
        &[&user, &source.id],
    );
    assert_eq!(
        db.wait(db.submit_to(user, fork, "n=$((n+1)); echo $n"))
            .text(),
        "42\n"
    );
    let replay: Uuid = db.one("select shell.replay_session($1)", &[&fork]);
    let id: i64 = db.one(
        "select max(id) from shell.commands where environment_id = $1",
        &[&replay],
    );
    assert_eq!(db.wait(id).text(), "42\n");
    let differs: bool = db.one(
        "select differs from shell.replay_differences where replay_id = $1",
        &[&replay],
    );
    assert!(!differs);
}
