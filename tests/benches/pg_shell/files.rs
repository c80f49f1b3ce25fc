//! Sessions with many files: what a command costs in them, a fork, a start on a worker that has none of them.
//!
//! Every session here is on workers of this part's own, each with a cache folder of its own beside the cluster, on the
//! same disk. Commands that are compared take turns in blocks, as elsewhere; forks and cold starts take turns one by one.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::unistd::User;
use pg_shell_tests::{Cluster, Worker, is_root, worker_user};
use tempfile::TempDir;
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::latency::{Submitter, compare};
use crate::table::median;

/// Of a folder of files.
const FOLDERS: usize = 100;
/// Builtins only: what it costs to start another program is not the question.
const CHANGE: &str = "printf %04096d $SRANDOM >d07/f007";
/// Bytes that cannot be compressed, and that no other fork has.
const CHANGE_RANDOMLY: &str = "head -c 4096 /dev/urandom >d07/f007";
/// Commands to warm a worker up with.
const WARM_UP: usize = 10;
/// For what takes long.
const PATIENCE: Duration = Duration::from_secs(300);

/// A user with a session without files, one with many small ones and one with as many larger ones.
pub struct Sessions<'a> {
    client: &'a Client,
    user: Uuid,
    empty: Uuid,
    small: Uuid,
    large: Uuid,
}

/// Two sides that took turns.
pub type Sides = (Vec<Duration>, Vec<Duration>);

/// What was seen of forks.
pub struct Forks {
    /// `fork_session`.
    pub fork: Vec<Duration>,
    /// The first command in each fork, and one in the session that it is of.
    pub first: Sides,
}

/// What was seen of workers with empty caches.
pub struct Cold {
    /// The first command less a warm one, and `cp -a`.
    pub small: Sides,
    pub large: Sides,
}

/// A worker, and the folder in which its cache is.
struct Own {
    worker: Worker,
    cache: TempDir,
}

impl Own {
    fn start(cluster: &Cluster) -> Own {
        let cache = tempfile::tempdir_in(crate::cluster::parent()).expect("a folder for a cache");
        if is_root() {
            let user = User::from_name(&worker_user()).ok().flatten();
            let user = user.expect("the worker's user");
            let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
            chown(cache.path(), Some(uid), Some(gid)).expect("the worker's folder");
        }
        let folder = cache.path().to_str().expect("a path that is text");
        let worker = cluster.worker(&["--files-cache", folder]);
        Own { worker, cache }
    }

    /// The layers that it has, the oldest first.
    fn layers(&self) -> Vec<PathBuf> {
        let folder = self.cache.path().join("0/layers");
        let names = fs::read_dir(&folder).expect("a cache");
        let mut numbers: Vec<u64> = names
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        numbers.sort_unstable();
        let path = |number: u64| folder.join(number.to_string());
        numbers.into_iter().map(path).collect()
    }

    fn end(self) {
        self.worker.terminate();
        self.worker.wait();
    }
}

/// All of it on one worker that has made the files, and so has them.
pub struct Warm<'a> {
    sessions: Sessions<'a>,
    own: Own,
}

impl<'a> Warm<'a> {
    /// Makes the sessions, with so many files each, of 4 KB and of so many bytes.
    pub async fn make(
        cluster: &Cluster,
        client: &'a Client,
        files: usize,
        bytes: usize,
    ) -> Warm<'a> {
        let sessions = Sessions::make(client).await;
        let own = Own::start(cluster);
        for (session, bytes) in [(sessions.small, 4096), (sessions.large, bytes)] {
            let began = Instant::now();
            sessions.fill(session, files, bytes).await;
            eprintln!(
                "{files} files of {bytes} bytes stored in {:.1?}",
                began.elapsed()
            );
        }
        // Or what was written would still be on its way while something else is measured.
        settle(client).await;
        Warm { sessions, own }
    }

    /// `true` in the session with the large files, and in the one with none.
    pub async fn warm(&self, count: usize) -> Sides {
        let mut full = self.sessions.submitter(self.sessions.large, "true").await;
        let mut empty = self.sessions.submitter(self.sessions.empty, "true").await;
        compare(&mut full, &mut empty, count).await
    }

    /// A file changed in the session with the large files, and `true` in the same.
    pub async fn change(&self, count: usize) -> Sides {
        let mut change = self.sessions.submitter(self.sessions.large, CHANGE).await;
        let mut same = self.sessions.submitter(self.sessions.large, "true").await;
        compare(&mut change, &mut same, count).await
    }

    /// Forks of the session with the large files.
    pub async fn forks(&self, count: usize) -> Forks {
        let Sessions {
            client,
            user,
            large,
            ..
        } = self.sessions;
        let fork = client.prepare("select shell.fork_session($1, $2, after => true)");
        let fork = fork.await.expect("prepare");
        let mut there = self.sessions.submitter(large, "true").await;
        let mut first = self.sessions.submitter(large, "true").await;
        let last = self.sessions.last_command(large).await;
        let mut forks = Forks {
            fork: Vec::new(),
            first: Default::default(),
        };
        for turn in 0..WARM_UP + count {
            let began = Instant::now();
            let row = client.query_one(&fork, &[&user, &last]).await;
            let took = began.elapsed();
            first.go_to(row.expect("a fork").get(0));
            let (in_fork, in_session) = (first.once().await, there.once().await);
            if turn >= WARM_UP {
                forks.fork.push(took);
                forks.first.0.push(in_fork);
                forks.first.1.push(in_session);
            }
        }
        forks
    }

    /// By how many bytes the database grows with so many forks that change a file each.
    pub async fn growth(&self, forks: usize) -> i64 {
        let client = self.sessions.client;
        let before = size(client).await;
        let last = self.sessions.last_command(self.sessions.large).await;
        let forks = i64::try_from(forks).expect("a small number");
        let submit = "
            select max(shell.submit_command($1, $3, shell.fork_session($1, $2, after => true)))
            from generate_series(1, $4::bigint)";
        let parameters: [&(dyn ToSql + Sync); 4] =
            [&self.sessions.user, &last, &CHANGE_RANDOMLY, &forks];
        client.query_one(submit, &parameters).await.expect("forks");
        let ended =
            "select not exists (select from shell.commands where status in ('pending', 'running'))";
        until(client, ended).await;
        let kept = "
            select count(*) from (select * from shell.commands order by id desc limit $1) as c
            where status = 'done' and tree_after is not null";
        let kept = client.query_one(kept, &[&forks]).await.expect("count");
        assert_eq!(kept.get::<_, i64>(0), forks, "forks that were changed");
        size(client).await - before
    }

    /// Ends this worker, and starts others.
    ///
    /// Before either side, all that was written is on the disk, and what is to be read is in memory: for the worker
    /// the database, for `cp -a` the tree that the worker has just written.
    pub async fn cold(self, cluster: &Cluster, rounds: usize) -> Cold {
        let Warm { sessions, own } = self;
        own.end();
        let mut cold = Cold {
            small: Default::default(),
            large: Default::default(),
        };
        for _ in 0..rounds {
            for (session, (ours, copies)) in [
                (sessions.small, &mut cold.small),
                (sessions.large, &mut cold.large),
            ] {
                let own = Own::start(cluster);
                let mut empty = sessions.submitter(sessions.empty, "true").await;
                let mut warm = Vec::new();
                for _ in 0..WARM_UP {
                    warm.push(empty.once().await);
                }
                let mut first = sessions.submitter(session, "true").await;
                settle(sessions.client).await;
                let took = first.once().await;
                ours.push(took.saturating_sub(median(&warm)));
                let layers = own.layers();
                let [layer] = layers.as_slice() else {
                    panic!("not one layer: {layers:?}");
                };
                settle(sessions.client).await;
                copies.push(copy(layer, &own.cache.path().join("copy")));
                own.end();
            }
        }
        cold
    }
}

impl<'a> Sessions<'a> {
    async fn make(client: &'a Client) -> Sessions<'a> {
        let user = "insert into shell.users (username) values ('files') returning id";
        let user: Uuid = client.query_one(user, &[]).await.expect("a user").get(0);
        let session =
            async |sql: &str| -> Uuid { client.query_one(sql, &[&user]).await.expect(sql).get(0) };
        let sessions = Sessions {
            client,
            user,
            empty: session("select shell.default_session($1)").await,
            small: session("select shell.create_session($1, 'small')").await,
            large: session("select shell.create_session($1, 'large')").await,
        };
        let room = "
            update shell.sandboxes
            set disk_bytes = 4::bigint << 30, file_size_bytes = 4::bigint << 30, wall_seconds = 600, cpu_seconds = 600
            where owner_id = $1";
        client.execute(room, &[&user]).await.expect("room");
        sessions
    }

    async fn submitter(&self, session: Uuid, command: &'a str) -> Submitter<'a> {
        Submitter::pg_shell(self.client, self.user, session, command).await
    }

    /// Random bytes, that nothing can make fewer.
    async fn fill(&self, session: Uuid, files: usize, bytes: usize) {
        let folder = files / FOLDERS * bytes;
        let command = format!(
            "set -e; for d in {{00..{}}}; do mkdir d$d
             head -c {folder} /dev/urandom | split -a 3 -d -b {bytes} - d$d/f; done",
            FOLDERS - 1
        );
        let submit = "select shell.submit_command($1, $2, $3)";
        let parameters: [&(dyn ToSql + Sync); 3] = [&self.user, &command, &session];
        let submitted = self.client.query_one(submit, &parameters).await;
        let id: i64 = submitted.expect("submit").get(0);
        let ended =
            format!("select status in ('done', 'failed') from shell.commands where id = {id}");
        until(self.client, &ended).await;
        let made = "
            select coalesce(failure_reason, 'made'), coalesce(t.entries, 0)
            from shell.commands as c left join shell.trees as t on t.id = c.tree_after where c.id = $1";
        let made = self.client.query_one(made, &[&id]).await.expect("a row");
        let (how, entries): (&str, i64) = (made.get(0), made.get(1));
        assert_eq!((how, entries), ("made", (files + FOLDERS) as i64));
    }

    async fn last_command(&self, session: Uuid) -> i64 {
        let last = "select max(id) from shell.commands where environment_id = $1";
        let row = self.client.query_one(last, &[&session]).await;
        row.expect("a command").get(0)
    }
}

/// What stands in the database, without what nobody needs any more.
async fn size(client: &Client) -> i64 {
    settle(client).await;
    let size = "select pg_database_size(current_database())";
    client.query_one(size, &[]).await.expect("a size").get(0)
}

/// What is written is on the disk.
async fn settle(client: &Client) {
    for statement in ["vacuum", "checkpoint"] {
        client.batch_execute(statement).await.expect(statement);
    }
    nix::unistd::sync();
}

async fn until(client: &Client, sql: &str) {
    let began = Instant::now();
    while !client
        .query_one(sql, &[])
        .await
        .expect(sql)
        .get::<_, bool>(0)
    {
        assert!(began.elapsed() < PATIENCE, "not in time: {sql}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn copy(from: &Path, to: &Path) -> Duration {
    let began = Instant::now();
    let status = Command::new("cp").arg("-a").args([from, to]).status();
    let took = began.elapsed();
    assert!(status.is_ok_and(|s| s.success()), "cp");
    took
}
