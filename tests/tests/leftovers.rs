//! Thousands of confined commands in a row leave nothing behind: no process, mount, namespace, cgroup,
//! descriptor or folder, neither with the worker nor with a backend.
//!
//! Only what belongs to this test's own cluster and worker is counted, for others may use the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pg_shell_tests::{Cluster, Db, PATIENCE, family_of, living_processes};

/// All that there is of somebody who runs commands.
#[derive(Debug)]
struct Things {
    /// Itself, the launcher's server with its next PID 1, and whatever else descends from it.
    processes: Vec<String>,
    /// How many of each kind.
    namespaces: BTreeMap<String, usize>,
    descriptors: usize,
    mounts: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    files: BTreeSet<String>,
}

impl Things {
    /// What is here and was not there.
    fn beyond(&self, before: &Things) -> Vec<String> {
        let mut news = Vec::new();
        if self.processes.len() > before.processes.len() {
            news.push(format!("processes {:?}", self.processes));
        }
        if self.descriptors > before.descriptors {
            news.push(format!(
                "{} descriptors",
                self.descriptors - before.descriptors
            ));
        }
        for (kind, count) in &self.namespaces {
            if *count > before.namespaces.get(kind).copied().unwrap_or(0) {
                news.push(format!("{count} {kind} namespaces"));
            }
        }
        let sets = [
            (&self.mounts, &before.mounts),
            (&self.cgroups, &before.cgroups),
            (&self.files, &before.files),
        ];
        news.extend(
            sets.iter()
                .flat_map(|(now, before)| now.difference(before).cloned()),
        );
        news
    }
}

fn things(of: i32) -> Things {
    let family = family_of(of);
    let names = |folder: &str| -> BTreeSet<String> {
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    let mut namespaces = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut descriptors = 0;
    for pid in &family {
        for kind in names(&format!("/proc/{pid}/ns")) {
            let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}"));
            if link.is_ok_and(|link| seen.insert(link)) {
                *namespaces.entry(kind).or_default() += 1;
            }
        }
        descriptors += names(&format!("/proc/{pid}/fd")).len();
    }
    let user = std::fs::metadata(format!("/proc/{of}/stat"))
        .expect("a process")
        .uid();
    let mut cgroups = BTreeSet::new();
    let groups = std::fs::read_to_string(format!("/proc/{of}/cgroup")).unwrap_or_default();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controller, path) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        let controller = controller.trim_start_matches("name=");
        for top in [
            "/sys/fs/cgroup".to_owned(),
            format!("/sys/fs/cgroup/{controller}"),
        ] {
            folders(Path::new(&format!("{top}{path}")), user, &mut cgroups);
        }
    }
    let temporary = std::env::temp_dir();
    let mut files = names(&temporary.to_string_lossy());
    // Other clusters of this machine come and go, and so do browsers.
    files.extend(
        names("/dev/shm")
            .into_iter()
            .filter(|name| !name.starts_with("PostgreSQL.") && !name.starts_with(".org.chromium.")),
    );
    let comm = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Things {
        processes: family.iter().map(comm).collect(),
        namespaces,
        descriptors,
        mounts: lines(&format!("/proc/{of}/mountinfo")),
        cgroups,
        files,
    }
}

fn lines(file: &str) -> BTreeSet<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The folders below that belong to this user.
fn folders(at: &Path, user: u32, all: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(at).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.metadata().is_ok_and(|m| m.uid() == user) {
                all.insert(entry.path().to_string_lossy().into_owned());
            }
            folders(&entry.path(), user, all);
        }
    }
}

/// Orphans of a launch come to this process, so that none goes unseen; its own children are known, so the
/// tests take turns.
fn adopt() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let alone = ONE_AT_A_TIME.lock();
    nix::sys::prctl::set_child_subreaper(true).expect("to be a subreaper");
    alone.unwrap_or_else(PoisonError::into_inner)
}

fn children() -> BTreeSet<i32> {
    let me = std::process::id() as i32;
    // Nobody here collects an orphan that has ended; an init does.
    let living = living_processes().into_iter();
    living
        .filter(|(_, parent)| *parent == me)
        .map(|(pid, _)| pid)
        .collect()
}

/// Leaves something of every kind that a command can leave.
const COMMAND: &str = "sleep 1000 & echo left > ~/file; echo left > /tmp/file; echo left > /dev/shm/file; exit $((RANDOM % 2))";

const COUNT: i64 = 10_000;
/// A backend starts its launcher anew for each command, which takes several times as long.
const IN_A_BACKEND: i32 = 2_500;

#[test]
fn of_the_worker() {
    let _alone = adopt();
    let cluster = Cluster::new();
    let worker = cluster.worker(&["--concurrency", "2"]);
    let pid = worker.process().pid();
    let db = cluster.db();
    let users: Vec<uuid::Uuid> = (0..20).map(|n| db.user(&format!("user {n}"))).collect();
    run_all(&db, &users, 10);
    let before = (things(pid), children());

    run_all(&db, &users, COUNT / 20);

    nothing_new(&db, pid, &before);
    let ran = "select count(*) from shell.commands where exit_code in (0, 1) and attempt = 1 and command <> 'true'";
    assert_eq!(db.one::<i64>(ran, &[]), COUNT + 200);
}

#[test]
fn of_a_backend() {
    let _alone = adopt();
    let cluster = Cluster::new();
    let db = cluster.db();
    let pid: i32 = db.one("select pg_backend_pid()", &[]);
    run(&db, 10);
    let before = (things(pid), children());

    for _ in 0..IN_A_BACKEND / 100 {
        run(&db, 100);
    }

    nothing_new(&db, pid, &before);
}

/// Runs so many for each; and then some that change nothing, after which something waits for each session's next.
fn run_all(db: &Db, users: &[uuid::Uuid], each: i64) {
    for (command, each) in [(COMMAND, each), ("true", 3)] {
        let sql = "select count(shell.submit_command(user_id, $3)) from unnest($1::uuid[]) as user_id, generate_series(1, $2)";
        let submitted: i64 = db.one(sql, &[&users, &(each as i32), &command]);
        assert_eq!(submitted, each * users.len() as i64);
        drained(db);
    }
}

fn drained(db: &Db) {
    let mut left = i64::MAX;
    while left > 0 {
        // As long as some go, patience begins anew.
        let sql = "select count(*) from shell.commands where status in ('pending', 'running')";
        let now: i64 = db.one(sql, &[]);
        if now > 0 {
            let fewer = format!(
                "(select count(*) from shell.commands where status in ('pending', 'running')) < {now}"
            );
            db.until(&fewer, &[]);
        }
        assert!(now < left || now == 0);
        left = now;
    }
}

fn run(db: &Db, count: i32) {
    let sql = "select count(*) from generate_series(1, $1) as n,
      lateral shell.run_command('/tmp', jsonb_build_object('N', n::text), $2) as ran where ran.exit_code in (0, 1)";
    assert_eq!(db.one::<i64>(sql, &[&count, &COMMAND]), i64::from(count));
}

/// Asserts that there is nothing more than there was, as soon as the launcher's last processes have ended:
/// they do so a moment after their result is known.
fn nothing_new(db: &Db, of: i32, before: &(Things, BTreeSet<i32>)) {
    let began = Instant::now();
    loop {
        let mut news = things(of).beyond(&before.0);
        let orphans = children();
        news.extend(
            orphans
                .difference(&before.1)
                .map(|pid| format!("orphan {pid}")),
        );
        if news.is_empty() {
            return;
        }
        assert!(began.elapsed() < PATIENCE / 10, "left behind: {news:?}");
        db.query("select pg_sleep(0.01)", &[]);
    }
}
