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

fn cpu(worker: &Worker) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{}/task", worker.pid())).expect("the worker lives");
    tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse().ok())
        .map(Duration::from_nanos)
        .sum()
}

fn ticks(worker: &Worker) -> u64 {
    let stat =
        fs::read_to_string(format!("/proc/{}/stat", worker.pid())).expect("the worker lives");
    let after_name = stat.rsplit_once(')').expect("a name").1;
    after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|n| n.parse::<u64>().expect("a number"))
        .sum()
}

fn resident_kib(worker: &Worker) -> u64 {
    let status =
        fs::read_to_string(format!("/proc/{}/status", worker.pid())).expect("the worker lives");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("VmRSS");
    line.trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number")
}
