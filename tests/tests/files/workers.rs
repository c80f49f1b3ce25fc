use nix::sys::signal::Signal;
use pg_shell_tests::{Cluster, shared};
use uuid::Uuid;

use super::{done, listing, session_of, text};

#[test]
fn any_worker_runs_the_next_command() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let user = db.user("moves");
    let session = session_of(&db, user);
    let make = "mkdir many; for i in $(seq 300); do echo $i >many/$i; done; head -c 3M /dev/urandom >large; md5sum large >sum";
    let first = cluster.worker(&[]);
    done(&db, user, make);
    first.terminate();
    first.wait();
    let second = cluster.worker(&[]);
    assert_eq!(
        done(&db, user, "ls many | wc -l; md5sum -c sum; echo x >>large"),
        "300\nlarge: OK\n"
    );
    // Its cache is no more than that: without it, or with what is wrong in it, the files are the same.
    second.terminate();
    second.wait();
    let _third = cluster.worker(&["--files-cache-bytes", "1"]);
    assert_eq!(done(&db, user, "cat many/300; tail -c 2 large"), "300\nx\n");
    assert_eq!(listing(&db, session).len(), 303);
}

#[test]
fn a_worker_that_is_killed_leaves_no_half_of_a_change() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let user = db.user("killed");
    let session = session_of(&db, user);
    for round in 0..5 {
        let worker = cluster.worker(&["--grace", "0.1"]);
        let ids: Vec<i64> = (0..10)
            .map(|_| db.submit(user, "echo x >>a; wc -l <a >b"))
            .collect();
        db.wait(ids[round]);
        worker.kill();
        let next = cluster.worker(&["--grace", "0.1"]);
        for &id in &ids {
            let ran = db.wait(id);
            assert_eq!(ran.failure, None, "round {round}: {ran:?}");
        }
        next.terminate();
        next.wait();
        let lines = text(&db, session, "a").lines().count();
        assert_eq!(lines, 10 * (round + 1));
        assert_eq!(text(&db, session, "b").trim(), lines.to_string());
    }
    let broken: i64 = db.one("select count(*) from shell.verify_history($1)", &[&session]);
    assert_eq!(broken, 0);
}

#[test]
fn what_the_database_lost_or_altered_is_never_served() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let user = db.user("altered");
    let session = session_of(&db, user);
    let first = cluster.worker(&[]);
    done(&db, user, "echo precious >a; echo other >b");
    first.terminate();
    first.wait();
    db.run("alter table shell.chunks drop constraint chunk_is_what_its_hash_says");
    db.run("update shell.chunks set bytes = 'presious\n' where bytes = 'precious\n'");
    let _second = cluster.worker(&[]);
    let refused = db.finish(user, "cat a");
    assert_eq!(refused.why(), "refused");
    assert!(
        refused.reason().contains("was altered"),
        "{}",
        refused.reason()
    );
    db.run("update shell.chunks set bytes = 'precious\n' where bytes = 'presious\n'");
    assert_eq!(done(&db, user, "cat a"), "precious\n");
    assert_eq!(listing(&db, session), ["a", "b"]);
}

#[test]
fn at_the_level_basic_files_are_the_command_s_own() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let user = db.user("basic files");
    let session = session_of(&db, user);
    let worker = cluster.worker(&["--level", "basic"]);
    assert_eq!(done(&db, user, "echo x >a; cat a"), "x\n");
    assert!(listing(&db, session).is_empty());
    worker.terminate();
    worker.wait();
}

#[test]
fn the_files_of_one_are_nobody_else_s() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let (one, other) = (db.user("one of two"), db.user("other of two"));
    done(&db, one, "echo secret >a");
    session_of(&db, other);
    let seen = db.finish(
        other,
        "ls -A; grep -rs secret /home /tmp /run /var; find / -name layers 2>/dev/null",
    );
    assert_eq!(seen.text(), "");
}

/// Commands of each session that workers race for.
const COUNT: usize = 7;

#[test]
fn workers_that_race_for_sessions_change_their_files_in_order() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let user = db.user("raced for");
    let sessions = ["a", "b", "c"].map(|name| {
        let made = "select shell.create_session($1, $2)";
        db.one::<Uuid>(made, &[&user, &name])
    });
    // They take so long that none is claimed ahead: whichever worker is free takes what is next.
    let _two = [(); 2].map(|()| cluster.worker(&["--concurrency", "1"]));
    let mut submitted = vec![Vec::new(); sessions.len()];
    for number in 0..COUNT {
        for (session, ids) in sessions.iter().zip(&mut submitted) {
            ids.push(db.submit_to(
                user,
                *session,
                &format!("echo {number} >>log; wc -l <log >count; sleep 0.3"),
            ));
        }
    }
    for (session, ids) in sessions.iter().zip(&submitted) {
        for &id in ids {
            assert_eq!(db.wait(id).failure_reason, None);
        }
        let log: String = (0..COUNT).map(|number| format!("{number}\n")).collect();
        assert_eq!(text(&db, *session, "log"), log);
        assert_eq!(text(&db, *session, "count"), format!("{COUNT}\n"));
        let broken: i64 = db.one("select count(*) from shell.verify_history($1)", &[session]);
        assert_eq!(broken, 0);
    }
    let both = "select count(distinct worker_id) from shell.commands where user_id = $1";
    assert_eq!(db.one::<i64>(both, &[&user]), 2);
}

#[test]
fn a_worker_that_was_given_up_changes_no_files() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let user = db.user("taken twice");
    let session = session_of(&db, user);
    let flags = &["--grace", "0.05", "--lease", "2", "--max-attempts", "1000"];
    let paused = cluster.worker(flags);
    done(&db, user, "echo first >a");
    let id = db.submit(user, "echo once >>a; echo $SRANDOM >b; echo begun; sleep 3");
    db.until_prints(id);
    paused.process().signal(Signal::SIGSTOP);
    let other = cluster.worker(flags);
    db.until(
        "(select attempt from shell.commands where id = $1) = 2",
        &[&id],
    );
    paused.process().signal(Signal::SIGCONT);
    paused.wait_for_log("given up for lost");
    assert_eq!((db.wait(id).failure, db.wait(id).attempt), (None, 2));
    let b = text(&db, session, "b");
    other.terminate();
    other.wait();
    // By the one that was paused: what it had before is not what the session has.
    assert_eq!(done(&db, user, "cat a b"), format!("first\nonce\n{b}"));
    let broken: i64 = db.one("select count(*) from shell.verify_history($1)", &[&session]);
    assert_eq!(broken, 0);
}

#[test]
fn a_connection_that_is_lost_while_files_are_stored_loses_none_of_them() {
    let cluster = Cluster::new();
    let (db, holder) = (cluster.db(), cluster.db());
    let user = db.user("connection lost");
    let session = session_of(&db, user);
    let _worker = cluster.worker(&[]);
    done(&db, user, "echo first >a");
    let stands =
        "pg_stat_activity where query like '%shell.add_tree%' and wait_event_type = 'Lock'";
    // One that is read at once, and one that takes longer.
    let many = "mkdir many; for i in {1..100}; do echo $i >many/$i; done; head -c 300000 /dev/urandom >large";
    for command in ["echo second >a", many] {
        holder.run("begin; select from shell.user_storage for update");
        let id = db.submit(user, command);
        db.until(&format!("exists (select from {stands})"), &[]);
        db.run(&format!("select pg_terminate_backend(pid) from {stands}"));
        holder.run("rollback");
        let ran = db.wait(id);
        assert_eq!((ran.failure, ran.attempt), (None, 1), "{command}");
    }
    assert_eq!(text(&db, session, "a"), "second\n");
    assert_eq!(listing(&db, session).len(), 103);
    assert_eq!(done(&db, user, "cat a many/100"), "second\n100\n");
}

/// As after a crash whose last moments were not on the disk yet, or where a backup was put in the server's place.
#[test]
fn a_tree_s_number_that_is_given_out_again_shows_nobody_another_s_files() {
    let cluster = Cluster::new();
    let db = cluster.db();
    let (ann, ben) = (
        db.user("first of the number"),
        db.user("second of the number"),
    );
    let _worker = cluster.worker(&[]);
    done(&db, ann, "echo secret >hers");
    let session = session_of(&db, ann);
    let tree: i64 = db.one(
        "select tree_id from shell.environments where id = $1",
        &[&session],
    );
    db.run(&format!(
        "set session_replication_role = replica;
         update shell.environments set tree_id = null where tree_id = {tree};
         delete from shell.fs_entries where tree_id = {tree};
         delete from shell.trees where id = {tree};
         reset session_replication_role;
         alter table shell.trees alter column id restart with {tree};
         select pg_terminate_backend(pid) from pg_stat_activity where usename = 'shell_worker'"
    ));
    done(&db, ben, "echo mine >his");
    let again: i64 = db.one(
        "select tree_id from shell.environments where id = $1",
        &[&session_of(&db, ben)],
    );
    assert_eq!(again, tree);
    assert_eq!(done(&db, ben, "ls; cat *"), "his\nmine\n");
}
