//! What a worker costs that has nothing to do.

use std::fs;
use std::time::Duration;

use crate::cluster::{Cluster, PG_SHELL, Worker};

/// What was seen in the window.
pub struct Idle {
    pub transactions_per_second: f64,
    /// By the scheduler's count, all threads.
    pub cpu: Duration,
    /// By the clock ticks of `ps` and `top`.
    pub ticks: u64,
    pub resident_mib: f64,
}

/// Watches the worker for `window`. Nothing else may use the extension's database meanwhile.
pub async fn watch(cluster: &Cluster, worker: &Worker, window: Duration) -> Idle {
    let client = cluster.client("postgres").await;
    client
        .batch_execute("alter system set autovacuum = off")
        .await
        .expect("alter system");
    client
        .batch_execute("select pg_reload_conf()")
        .await
        .expect("reload");
    let transactions = async || -> i64 {
        let counted = "select xact_commit + xact_rollback from pg_stat_database where datname = $1";
        client
            .query_one(counted, &[&PG_SHELL])
            .await
            .expect("statistics")
            .get(0)
    };
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
    client
        .batch_execute("alter system reset autovacuum")
        .await
        .expect("alter system");
    client
        .batch_execute("select pg_reload_conf()")
        .await
        .expect("reload");
    idle
}

/// The worker and its launcher, with whatever that has forked ahead.
fn processes(worker: &Worker) -> Vec<u32> {
    let parent = |pid: &u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let after_name = stat.rsplit_once(')')?.1;
        after_name.split_whitespace().nth(1)?.parse().ok()
    };
    let all: Vec<u32> = fs::read_dir("/proc")
        .expect("a process list")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let mut ours = vec![worker.pid()];
    let mut at = 0;
    while at < ours.len() {
        let next = ours[at];
        ours.extend(all.iter().filter(|&pid| parent(pid) == Some(next)));
        at += 1;
    }
    ours
}

fn cpu(worker: &Worker) -> Duration {
    let of = |pid: u32| -> Option<Duration> {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        let times = tasks
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
            .filter_map(|text| text.split_whitespace().next()?.parse().ok());
        Some(times.map(Duration::from_nanos).sum())
    };
    processes(worker).into_iter().filter_map(of).sum()
}

fn ticks(worker: &Worker) -> u64 {
    let of = |pid: u32| -> Option<u64> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let after_name = stat.rsplit_once(')')?.1;
        let times = after_name.split_whitespace().skip(11).take(2);
        Some(times.filter_map(|n| n.parse::<u64>().ok()).sum())
    };
    processes(worker).into_iter().filter_map(of).sum()
}

/// What they share is shared out among them, and with whoever else has it.
fn resident_kib(worker: &Worker) -> u64 {
    let of = |pid: u32| -> Option<u64> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    };
    processes(worker).into_iter().filter_map(of).sum()
}
