use std::path::Path;
use std::process::Command;

use pg_shell_tests::{Cluster, is_root, shared, worker_user};
use tempfile::TempDir;

use super::{done, listing, session_of, text};

/// A disk of 8 MB that is the worker's, for its cache.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let folder = tempfile::tempdir().expect("a folder");
        let options = format!("size=8m,mode=700,uid={}", worker_user());
        let mounted = is_root()
            && Command::new("mount")
                .args(["-t", "tmpfs", "-o", &options, "none"])
                .arg(folder.path())
                .status()
                .is_ok_and(|status| status.success());
        if !mounted {
            println!("skipped: only root can mount a disk, where it may");
        }
        mounted.then_some(SmallDisk(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        assert!(std::thread::panicking() || unmounted.is_ok_and(|status| status.success()));
    }
}

#[test]
fn names_of_any_bytes_and_long_paths() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("odd names");
    let session = session_of(&db, user);
    done(
        &db,
        user,
        r#"printf x >$'a\n"b\\ \xff'; d=$(printf 'd%.0s' {1..200}); for i in {1..20}; do mkdir $d && cd $d; done; echo deep >f; cd"#,
    );
    let count: i64 = db.one("select count(*) from shell.files($1)", &[&session]);
    assert_eq!(count, 22);
    let command = r#"cat $'a\n"b\\ \xff'; find . -name f -exec cat {} +"#;
    assert_eq!(done(&db, user, command), "xdeep\n");
}

#[test]
fn what_is_no_file_is_named_and_the_rest_kept() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("no files");
    let session = session_of(&db, user);
    let id = db.submit(user, "mkfifo pipe; perl -MSocket -e 'socket S, AF_UNIX, SOCK_STREAM, 0; bind S, pack_sockaddr_un(\"sock\") or die'; echo x >a");
    assert_eq!(db.wait(id).failure, None);
    let named: Vec<String> = db.one("select not_kept from shell.commands where id = $1", &[&id]);
    assert_eq!(named.len(), 2, "{named:?}");
    assert!(named[0].starts_with("/home/sandbox/pipe: "), "{named:?}");
    assert_eq!(listing(&db, session), ["a"]);
}

#[test]
fn a_mark_of_the_overlay_s_own_is_no_file() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("a mark");
    let id = db.submit(user, "mknod x c 0 0 && echo made");
    let made = db.wait(id);
    assert_eq!(made.failure, None);
    // Where it may be made at all, it is named.
    let named: Option<Vec<String>> =
        db.one("select not_kept from shell.commands where id = $1", &[&id]);
    let expected = (made.text() == "made\n").then(|| vec!["/home/sandbox/x: a device".to_owned()]);
    assert_eq!(named, expected);
}

#[test]
fn a_link_to_elsewhere_is_a_link_and_no_more() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("links");
    let session = session_of(&db, user);
    done(
        &db,
        user,
        "ln -s / root; ln -s ../../../../etc/shadow shadow; ln -s /proc/self/fd fd",
    );
    assert_eq!(listing(&db, session), ["fd@", "root@", "shadow@"]);
    assert_eq!(
        done(
            &db,
            user,
            "readlink root shadow fd; cat shadow 2>/dev/null; true"
        ),
        "/\n../../../../etc/shadow\n/proc/self/fd\n"
    );
}

#[test]
fn a_quota_leaves_the_session_as_it_was() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("quota");
    let session = session_of(&db, user);
    let limit = "update shell.sandboxes set storage_bytes = 100000 where owner_id = $1";
    db.query(limit, &[&user]);
    done(&db, user, "echo kept >a");
    let over = db.finish(
        user,
        "echo lost >a; head -c 200000 /dev/zero >b; cd /tmp; echo said",
    );
    assert_eq!((over.why(), over.text()), ("limit", "said\n"));
    assert!(
        over.reason().ends_with("The session is as it was before."),
        "{}",
        over.reason()
    );
    assert_eq!(text(&db, session, "a"), "kept\n");
    assert_eq!(done(&db, user, "pwd; cat a"), "/home/sandbox\nkept\n");
}

#[test]
fn a_sparse_file_and_a_large_one() {
    let cluster = shared::with_worker(&[]);
    let db = cluster.db();
    let user = db.user("large files");
    let session = session_of(&db, user);
    done(
        &db,
        user,
        "truncate -s 900M sparse; head -c 20M /dev/urandom >large; md5sum large sparse >sums",
    );
    assert_eq!(
        done(&db, user, "md5sum -c sums; stat -c %b sparse")
            .lines()
            .count(),
        3
    );
    let size: i64 = db.one("select sum(size)::bigint from shell.files($1)", &[&session]);
    assert!(size > 900 << 20);
    let before: i64 = db.one(
        "select sum(octet_length(bytes))::bigint from shell.chunks",
        &[],
    );
    // What changes a little costs a little.
    done(
        &db,
        user,
        "printf x | dd of=large bs=1 seek=10000000 conv=notrunc status=none",
    );
    let after: i64 = db.one(
        "select sum(octet_length(bytes))::bigint from shell.chunks",
        &[],
    );
    assert!(after - before < 2 << 20, "{}", after - before);
}

#[test]
fn a_full_disk_below_the_cache_costs_a_change_and_no_more() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let cluster = Cluster::new();
    let db = cluster.db();
    let user = db.user("full disk");
    let session = session_of(&db, user);
    let worker = cluster.worker(&["--files-cache", disk.path().to_str().expect("a path")]);
    done(&db, user, "echo kept >a");
    let change = "echo lost >a; head -c 16M /dev/urandom >large; echo said";
    let lost = db.finish(user, change);
    assert_eq!((lost.why(), lost.text()), ("refused", "said\n"));
    let reason = lost.reason();
    assert!(reason.contains("No space left on device"), "{reason}");
    assert!(
        reason.ends_with("the session is as it was before."),
        "{reason}"
    );
    // What was written of it is gone; what fits is kept, and a worker with more room has no trouble.
    assert_eq!(
        done(&db, user, "cat a; head -c 2M /dev/urandom >b"),
        "kept\n"
    );
    worker.terminate();
    worker.wait();
    let _larger = cluster.worker(&[]);
    done(&db, user, "head -c 16M /dev/urandom >large");
    assert_eq!(text(&db, session, "a"), "kept\n");
    assert_eq!(listing(&db, session), ["a", "b", "large"]);
}
