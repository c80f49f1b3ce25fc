//! What the tests of one file share: each file is a program of its own, so these are its own, too.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::cluster::Cluster;
use crate::db::Db;
use crate::worker::Worker;

/// The file's cluster.
pub fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(Cluster::new)
}

/// The file's cluster with a worker. The first call's flags are the worker's, so a file calls it in one place.
pub fn with_worker(flags: &[&str]) -> &'static Cluster {
    static WORKER: OnceLock<Worker> = OnceLock::new();
    WORKER.get_or_init(|| cluster().worker(flags));
    cluster()
}

/// A connection to the file's cluster, and the promise that no other test that asks for it writes meanwhile.
pub fn alone() -> (Db, MutexGuard<'static, ()>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    (cluster().db(), alone)
}
