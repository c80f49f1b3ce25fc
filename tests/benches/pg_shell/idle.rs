//! What a worker costs that has nothing to do.

use std::fs;
use std::iter::Sum;
use std::time::{Duration, Instant};

use pg_shell_tests::{Cluster, Worker, family_of, stat_fields};
use tokio_postgres::Client;

use crate::cluster::{self, PG_SHELL};

/// What was seen in the window.
pub struct Idle {
    pub transactions_per_second: f64,
    /// By the scheduler's count, all threads.
    pub cpu: Duration,
    /// By the clock ticks of `ps` and `top`.
    pub ticks: u64,
    pub resident_mib: f64,
}

/// The worker, its launcher, the bash that waits, and the PID 1 that it has forked ahead.
const PROCESSES: usize = 4;
/// Sessions' own PID 1s are kept for a minute after the last command, and looked at with the pulse.
const PATIENCE: Duration = Duration::from_secs(120);

/// Watches the worker for `window`. Nothing else may use the extension's database meanwhile.
pub async fn watch(cluster: &Cluster, worker: &Worker, window: Duration) -> Idle {
    let client = cluster::client(cluster, "postgres").await;
    alter_system(&client, "set autovacuum = off").await;
    let transactions = async || -> i64 {
        let counted = "select xact_commit + xact_rollback from pg_stat_database where datname = $1";
        client
            .query_one(counted, &[&PG_SHELL])
            .await
            .expect("statistics")
            .get(0)
    };
    // What ends within the window would be counted less than nothing.
    let began = Instant::now();
    while family_of(worker.process().pid()).len() > PROCESSES {
        assert!(began.elapsed() < PATIENCE, "the worker keeps sessions");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // What went before is counted late: backends report their statistics after up to ten seconds.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let (transactions_before, cpu_before, ticks_before) =
        (transactions().await, cpu(worker), ticks(worker));
    tokio::time::sleep(window).await;
    let idle = Idle {
        transactions_per_second: (transactions().await - transactions_before) as f64
            / window.as_secs_f64(),
        cpu: cpu(worker) - cpu_before,
        ticks: ticks(worker) - ticks_before,
        resident_mib: resident_kib(worker) as f64 / 1024.0,
    };
    alter_system(&client, "reset autovacuum").await;
    idle
}

async fn alter_system(client: &Client, change: &str) {
    // Each on its own: the first cannot run in a transaction.
    for sql in [&format!("alter system {change}"), "select pg_reload_conf()"] {
        client
            .batch_execute(sql)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
}

/// A figure's sum over the worker and its launcher, with whatever that has forked ahead.
fn sum<T: Sum>(worker: &Worker, of: impl Fn(i32) -> Option<T>) -> T {
    let all = family_of(worker.process().pid());
    all.into_iter().filter_map(of).sum()
}

fn cpu(worker: &Worker) -> Duration {
    sum(worker, |pid| -> Option<Duration> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        let times = tasks
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
            .filter_map(|text| text.split_whitespace().next()?.parse().ok());
        Some(times.map(Duration::from_nanos).sum())
    })
}

fn ticks(worker: &Worker) -> u64 {
    sum(worker, |pid| -> Option<u64> {
        let times = stat_fields(pid)?.into_iter().skip(11).take(2);
        Some(times.filter_map(|n| n.parse::<u64>().ok()).sum())
    })
}

/// What they share is shared out among them, and with whoever else has it.
fn resident_kib(worker: &Worker) -> u64 {
    sum(worker, |pid| -> Option<u64> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    })
}
