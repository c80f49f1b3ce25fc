//! Contents of files outside the database, in a folder and in a bucket: the same tests for both.

use pg_shell_tests::{Cluster, Db, Worker};
use uuid::Uuid;

use super::stores::{Bucket, Folder, SECRET, Store, give_to_worker};
use super::{done, session_of, text};

/// Tests for each kind of store; what is not to be had says why and passes.
macro_rules! in_every_store {
    ($($test:ident),* $(,)?) => {
        mod folder {
            $(#[test] fn $test() { super::$test(super::World::<super::Folder>::new()); })*
        }
        mod s3 {
            $(#[test] fn $test() { super::$test(super::World::<super::Bucket>::new()); })*
        }
    };
}

in_every_store!(
    any_worker_reads_what_one_has_put_outside,
    a_dump_names_what_the_store_has,
    what_the_store_lost_or_altered_is_never_served,
    a_row_leads_nowhere_but_to_its_own_object,
    an_object_that_no_row_came_to_name_is_removed,
    what_is_collected_is_removed_and_what_is_written_anew_is_not,
);

/// A cluster, and a store for its workers.
struct World<S> {
    cluster: Cluster,
    store: S,
}

/// A file with pieces of all sizes: the same for the same number, and no two of its pieces alike.
fn large(number: i64) -> String {
    format!("seq {number} {}", number + 200_000)
}

impl<S: Store> World<S> {
    fn new() -> Option<World<S>> {
        let store = S::new()?;
        let cluster = Cluster::new();
        Some(World { cluster, store })
    }

    /// With this much as the least to go outside.
    fn worker_of(&self, cluster: &Cluster, flags: &[&str]) -> Worker {
        let store = self.store.url();
        let mut all = vec!["--content-store", &store];
        all.extend(flags);
        cluster.worker_with(&self.store.variables(), &all).ready()
    }

    fn worker(&self, flags: &[&str]) -> Worker {
        self.worker_of(&self.cluster, flags)
    }

    /// The keys of these addresses.
    fn keys(&self, urls: &[String]) -> Vec<String> {
        let base = self.store.url() + "/";
        urls.iter()
            .map(|url| url.strip_prefix(&base).expect("an address of the store"))
            .map(str::to_owned)
            .collect()
    }

    /// The keys of all chunks that are outside.
    fn named(&self, db: &Db) -> Vec<String> {
        let sql = "select content_url from shell.chunks where content_url is not null order by 1";
        self.keys(&db.column(sql, &[]))
    }

    /// The keys of what no chunk names.
    fn unnamed(&self, db: &Db) -> Vec<String> {
        self.keys(&db.column("select url from shell.unnamed_objects order by 1", &[]))
    }
}

fn end(worker: &Worker) {
    worker.terminate();
    worker.wait();
}

fn any_worker_reads_what_one_has_put_outside(world: Option<World<impl Store>>) {
    let Some(world) = world else { return };
    let db = world.cluster.db();
    let user = db.user("outside");
    let session = session_of(&db, user);
    let first = world.worker(&[]);
    let make = format!(
        "{} >large; echo small >small; md5sum large small >sums",
        large(1)
    );
    let source = db.submit(user, &make);
    assert_eq!(db.wait(source).failure, None);
    let wrong: i64 = db.one(
        "select count(*) from shell.chunks where (content_url is null) <> (size < 65536)",
        &[],
    );
    assert_eq!(wrong, 0, "the large pieces are outside, and no others");
    assert!(!world.named(&db).is_empty());
    assert!(world.unnamed(&db).is_empty());
    end(&first);

    // Without the store nothing is guessed, and all that is in the database goes on.
    let without = world.cluster.worker(&[]);
    let refused = db.finish(user, "cat small");
    assert_eq!(refused.why(), "refused");
    let reason = refused.reason();
    assert!(reason.contains("has no --content-store"), "{reason}");
    let other = db.user("inside");
    assert_eq!(done(&db, other, "echo x >a; cat a"), "x\n");
    end(&without);

    let _second = world.worker(&[]);
    assert_eq!(done(&db, user, "md5sum -c sums"), "large: OK\nsmall: OK\n");
    done(&db, user, "echo more >>large; md5sum large >sums");
    let fork: Uuid = db.one(
        "select shell.fork_session($1, $2, after => true)",
        &[&user, &source],
    );
    let sums = db.wait(db.submit_to(user, fork, "md5sum -c sums"));
    assert_eq!(sums.text(), "large: OK\nsmall: OK\n");
    // The same once more is no more.
    let before = world.named(&db);
    assert_eq!(done(&db, user, &format!("{} >again", large(1))), "");
    assert_eq!(world.named(&db), before);

    // SQL reads what is here, and says of the rest where it can be read.
    assert_eq!(text(&db, session, "small"), "small\n");
    let read = "select shell.read_file($1, '/home/sandbox/large')";
    let refused = db.refused(read, &[&session]);
    assert_eq!(refused.code, "PS042");
    assert!(refused.hint.contains("a command"), "{refused:?}");
    let problems: i64 = db.one("select count(*) from shell.verify_files($1)", &[&session]);
    assert_eq!(problems, 0);
    let broken: i64 = db.one("select count(*) from shell.verify_history($1)", &[&session]);
    assert_eq!(broken, 0);
}

fn a_dump_names_what_the_store_has(world: Option<World<impl Store>>) {
    let Some(world) = world else { return };
    let dump = tempfile::NamedTempFile::new().unwrap();
    let path = dump.path().to_str().unwrap();
    let db = world.cluster.db();
    let user = db.user("dumped");
    let worker = world.worker(&["--content-store-min-bytes", "1"]);
    done(
        &db,
        user,
        &format!("{} >large; md5sum large >sum", large(1)),
    );
    end(&worker);
    db.run("select shell.expect_objects(array['s3://bucket/never-written'])");
    world
        .cluster
        .client("pg_dump", &["--file", path, "pg_shell"]);

    let new = Cluster::restored(path);
    let db = new.db();
    db.run("alter role shell_worker login");
    let unnamed: i64 = db.one("select count(*) from shell.unnamed_objects", &[]);
    assert_eq!(unnamed, 1);
    let _worker = world.worker_of(&new, &[]);
    assert_eq!(done(&db, user, "md5sum -c sum"), "large: OK\n");
}

fn what_the_store_lost_or_altered_is_never_served(world: Option<World<impl Store>>) {
    let Some(world) = world else { return };
    let db = world.cluster.db();
    let user = db.user("altered");
    let worker = world.worker(&["--content-store-min-bytes", "1"]);
    done(&db, user, "echo precious >a");
    end(&worker);
    let key = world.named(&db).remove(0);
    let _worker = world.worker(&[]);
    let refused = |what: &str| {
        let refused = db.finish(user, "cat a");
        assert_eq!(refused.why(), "refused");
        let reason = refused.reason();
        assert!(
            reason.contains(&key[3..67]) && reason.contains(what),
            "{reason}"
        );
    };
    for altered in [&b"presious\n"[..], b"precious", b"", &[b'x'; 600 << 10]] {
        world.store.put(&key, altered);
        refused("was altered");
    }
    world.store.remove(&key);
    refused("is missing");
    world.store.put(&key, b"precious\n");
    assert_eq!(done(&db, user, "cat a"), "precious\n");
}

fn a_row_leads_nowhere_but_to_its_own_object(world: Option<World<impl Store>>) {
    let Some(world) = world else { return };
    let db = world.cluster.db();
    let user = db.user("misled");
    let worker = world.worker(&["--content-store-min-bytes", "1"]);
    done(&db, user, "echo one >a");
    let first = world.named(&db).remove(0);
    done(&db, user, "echo two >b");
    end(&worker);
    let keys = world.named(&db);
    let second = keys.iter().find(|key| **key != first).expect("two objects");
    let _worker = world.worker(&[]);
    let base = world.store.url();
    let move_it = "update shell.chunks set content_url = $1 where content_url is not null and hash = sha256('two\n')";
    for hostile in [
        "file:///etc/passwd".into(),
        "http://169.254.169.254/latest/meta-data/".into(),
        format!("s3://another-bucket/{second}"),
        format!("{base}/../content/{second}"),
        format!("{base}/{second}/../{first}"),
        format!("{base}/{second}#1"),
        format!("{base}/%2e%2e/{second}"),
        // An object of the store, and another chunk's.
        format!("{base}/{first}"),
    ] {
        db.query(move_it, &[&hostile]);
        let refused = db.finish(user, "cat a b");
        assert_eq!(refused.why(), "refused", "{hostile}");
        let reason = refused.reason();
        let named = reason.contains("not in this worker's --content-store");
        assert!(named && reason.contains(&second[3..67]), "{reason}");
    }
    db.query(move_it, &[&format!("{base}/{second}")]);
    assert_eq!(done(&db, user, "cat a b"), "one\ntwo\n");
}

/// As if so much time had gone by.
fn age(db: &Db) {
    db.run(
        "update shell.chunks set added_at = added_at - interval '2 hours';
         update shell.contents set added_at = added_at - interval '2 hours';
         update shell.unnamed_objects set since = since - interval '2 hours';
         update shell.upkeep_state set round_began = '-infinity', chunks_seen = '-infinity', contents_seen = '-infinity'",
    );
}

const NOTHING_UNNAMED: &str = "not exists (select from shell.unnamed_objects)";

fn an_object_that_no_row_came_to_name_is_removed(world: Option<World<impl Store>>) {
    let Some(world) = world else { return };
    let db = world.cluster.db();
    let user = db.user("orphans");
    // It is killed when its objects are written and their rows are not.
    let other = world.cluster.db();
    other.run(
        "create function public.pause() returns trigger language plpgsql as
           $$ begin perform pg_advisory_xact_lock(4711); return new; end $$;
         create trigger pause before insert on shell.chunks for each row
           when (new.content_url is not null) execute function public.pause();
         select pg_advisory_lock(4711)",
    );
    let flags = ["--lease", "1", "--grace", "0.1"];
    let worker = world.worker(&flags);
    let id = db.submit(user, &format!("{} >a; md5sum a", large(1)));
    let waits = "from pg_locks where locktype = 'advisory' and not granted and objid = 4711";
    db.until(&format!("exists (select {waits})"), &[]);
    worker.kill();
    db.run(&format!("select pg_terminate_backend(pid) {waits}"));
    db.until(&format!("not exists (select {waits})"), &[]);
    other.run("drop trigger pause on shell.chunks; select pg_advisory_unlock(4711)");
    let orphans = world.unnamed(&db);
    assert!(!orphans.is_empty() && world.named(&db).is_empty());
    assert!(orphans.iter().all(|key| world.store.get(key).is_some()));

    let _next = world.worker(&flags);
    let sum = db.wait(id).text().to_owned();
    assert!(!world.named(&db).is_empty());
    assert_eq!(
        world.unnamed(&db),
        orphans,
        "they may still be on their way"
    );
    age(&db);
    db.until(NOTHING_UNNAMED, &[]);
    assert!(orphans.iter().all(|key| world.store.get(key).is_none()));
    assert_eq!(done(&db, user, "md5sum a"), sum);
}

fn what_is_collected_is_removed_and_what_is_written_anew_is_not(world: Option<World<impl Store>>) {
    let Some(world) = world else { return };
    let db = world.cluster.db();
    let user = db.user("collected");
    let worker = world.worker(&["--lease", "1"]);
    let write = format!("{} >a", large(1));
    done(&db, user, &write);
    let first = world.named(&db);
    done(&db, user, &format!("{} >a", large(1_000_000)));
    db.query(
        "select shell.set_retention($1, keep_versions => 1)",
        &[&user],
    );
    age(&db);
    let collected = "select count(*) = $1 from shell.unnamed_objects";
    db.until(&format!("({collected})"), &[&(first.len() as i64)]);
    assert_eq!(world.unnamed(&db), first);
    assert!(first.iter().all(|key| world.store.get(key).is_some()));

    // The same is written again before the objects are removed, and has others.
    db.query("select shell.set_retention($1)", &[&user]);
    done(&db, user, &write);
    let sum = done(&db, user, "md5sum a");
    db.run("update shell.unnamed_objects set since = since - interval '2 hours'");
    db.until(NOTHING_UNNAMED, &[]);
    assert!(first.iter().all(|key| world.store.get(key).is_none()));
    end(&worker);
    let _cold = world.worker(&[]);
    assert_eq!(done(&db, user, "md5sum a"), sum);
}

#[test]
fn what_is_set_wrong_is_refused_at_the_start() {
    let cluster = Cluster::new();
    let folder = Folder::new().expect("a folder");
    let open = tempfile::tempdir().expect("a temporary folder");
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    std::fs::set_permissions(open.path(), mode(0o777)).expect("a folder of our own");
    let refusal = |flags: &[&str]| cluster.starting_worker(flags).refusal();
    let store = |url: &str| {
        let said = refusal(&["--content-store", url]);
        assert!(said.contains("--content-store"), "{url}: {said}");
        said
    };
    store("https://bucket.example/prefix");
    store("s3://key:secret@bucket");
    store("file:///var/lib/../content");
    store(&format!("{}/not-there", folder.url()));
    let said = store(&format!("file://{}", open.path().display()));
    assert!(said.contains("open to every user"), "{said}");
    let said = store("file:///usr/lib");
    assert!(said.contains("open to every user"), "{said}");
    let little = refusal(&["--content-store-min-bytes", "0"]);
    assert!(little.contains("--content-store-min-bytes"), "{little}");
    // It answers, and takes nothing.
    std::fs::set_permissions(folder.path(), mode(0o500)).expect("a folder of our own");
    store(&folder.url());
    // Nobody answers.
    let nobody = [
        ("AWS_ENDPOINT", "http://127.0.0.1:9".to_owned()),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_ACCESS_KEY_ID", "somebody".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
    ];
    let worker = cluster.worker_with(&nobody, &["--content-store", "s3://bucket"]);
    let said = worker.refusal();
    assert!(said.contains("--content-store"), "{said}");
    assert!(!said.contains(SECRET), "{said}");
}

#[test]
fn a_store_that_takes_nothing_leaves_the_session_as_it_was() {
    let world = World::<Folder>::new().expect("a folder");
    let db = world.cluster.db();
    let user = db.user("full");
    let session = session_of(&db, user);
    let worker = world.worker(&[]);
    done(&db, user, "echo x >a");
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    std::fs::set_permissions(world.store.path(), mode(0o500)).expect("a folder");
    let failed = db.finish(user, &format!("echo lost >a; {} >b", large(1)));
    assert_eq!(failed.why(), "refused");
    let reason = failed.reason();
    assert!(
        reason.contains("cannot be written to the content store"),
        "{reason}"
    );
    assert!(!reason.contains(&world.store.url()), "{reason}");
    assert!(worker.log().contains("an object cannot be written"));
    assert_eq!(text(&db, session, "a"), "x\n");
    std::fs::set_permissions(world.store.path(), mode(0o700)).expect("a folder");
    done(&db, user, &format!("{} >b", large(1)));
}

#[test]
fn what_a_row_wants_removed_is_an_object_or_stays() {
    let world = World::<Folder>::new().expect("a folder");
    let db = world.cluster.db();
    let (base, folder) = (world.store.url(), world.store.path());
    let key = |digit: &str| format!("00/00{}-{}", digit.repeat(62), "0".repeat(32));
    // What a worker leaves that is killed while it writes.
    let unfinished = format!("{}#1", key("1"));
    std::fs::create_dir(folder.join("00")).expect("a folder in the store");
    give_to_worker(&folder.join("00"));
    world.store.put(&unfinished, b"half of");
    // What would be there if somebody else put it there.
    world.store.put("victim", b"kept");
    world.store.put("00/victim", b"kept");
    let hostile = [
        format!("file://{}", folder.join("victim").display()),
        format!("{base}/00/victim"),
        format!("{base}/00/../victim"),
        format!("{base}/{}/../victim", key("2")),
    ];
    for url in hostile.iter().chain([&format!("{base}/{}", key("1"))]) {
        db.query("select shell.expect_objects(array[$1])", &[url]);
    }
    db.run("update shell.unnamed_objects set since = since - interval '2 hours'");
    let worker = world.worker(&["--lease", "1"]);
    db.until("(select count(*) from shell.unnamed_objects) = 4", &[]);
    assert_eq!(world.store.get(&unfinished), None);
    for victim in ["victim", "00/victim"] {
        assert!(world.store.get(victim).is_some());
    }
    end(&worker);
}

#[test]
fn nobody_learns_how_the_bucket_is_opened() {
    let Some(world) = World::<Bucket>::new() else {
        return;
    };
    let db = world.cluster.db();
    let user = db.user("curious");
    let worker = world.worker(&["--log", "debug"]);
    let look = "env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'";
    let ran = db.finish(user, &format!("{} >a; {look}", large(1)));
    assert_eq!(ran.failure, None);
    assert!(!world.named(&db).is_empty());
    assert!(!ran.text().contains("AWS_") && !ran.text().contains(SECRET));
    assert!(!worker.log().contains(SECRET));
}
