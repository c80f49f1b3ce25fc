//! What the tests of this folder find: two users, of whom neither sees what is the other's.

use std::sync::OnceLock;

use pg_shell_tests::{Db, shared};
use uuid::Uuid;

/// Two users with a row of each table.
pub struct World {
    pub ann: Owned,
    pub bob: Owned,
}

/// What is one user's.
#[derive(Clone)]
pub struct Owned {
    pub user: Uuid,
    pub session: Uuid,
    pub replay: Uuid,
    pub done: i64,
    pub running: i64,
    pub token: Uuid,
}

fn owned(db: &Db, name: &str) -> Owned {
    let user = db.user(name);
    let done = db.finish(user, &format!("echo {name} own")).id;
    let session = db.one(
        "select environment_id from shell.commands where id = $1",
        &[&done],
    );
    let replay = db.one("select shell.replay_session($1)", &[&session]);
    for made in [
        "select shell.write_file($1, '/home/sandbox/own', 'own'::bytea)",
        "select shell.create_snapshot($1, 'own')",
    ] {
        db.one::<i64>(made, &[&session]);
    }
    db.query(
        "select shell.merge_tree(tree_id, true), shell.upkeep() from shell.environments where id = $1",
        &[&session],
    );
    let object = "select shell.expect_objects(array['s3://bucket/' || $1::uuid])";
    db.query(object, &[&session]);
    let kept = "select shell.set_retention(user_id => $1, keep_days => 1000)";
    db.query(kept, &[&user]);
    for removed in [
        "insert into shell.removed_commands (environment_id, command_id, user_id, ran, finished_at, reason)
         values ($1, 0, $2, false, now(), 'a test')",
        "insert into shell.removed_versions (tree_id, path, environment_id, user_id, command_id, content, size, reason)
         values (0, 'x', $1, $2, 0, sha256(''), 0, 'a test')",
    ] {
        db.query(removed, &[&session, &user]);
    }
    db.query("select shell.set_password($1, 'correct horse')", &[&user]);
    let token = "select session_id from shell.new_session($1, 'token', 'a program', now() + interval '1 day')";
    let token = db.one(token, &[&user]);
    db.query(
        "insert into shell.sign_in_attempts (username) values ($1)",
        &[&name],
    );
    let other = db.session(user);
    let running = db.submit_to(user, other, "echo shown; sleep 1000");
    db.until_prints(running);
    Owned {
        user,
        session,
        replay,
        done,
        running,
        token,
    }
}

/// A connection, and what is there.
pub fn world() -> (Db, &'static World) {
    static WORLD: OnceLock<World> = OnceLock::new();
    let db = shared::with_worker(&["--concurrency", "4"]).db();
    let world = WORLD.get_or_init(|| {
        let (ann, bob) = (owned(&db, "ann"), owned(&db, "bob"));
        for replayed in [&ann, &bob] {
            let done =
                "(select bool_and(status = 'done') from shell.commands where environment_id = $1)";
            db.until(done, &[&replayed.replay]);
        }
        World { ann, bob }
    });
    (db, world)
}
