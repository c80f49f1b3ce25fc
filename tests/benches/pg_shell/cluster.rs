//! The cluster that is measured, and connections to it.

use std::path::PathBuf;

use pg_shell_tests::Cluster;
use tokio_postgres::{Client, Config, NoTls};

/// The database with the extension in it.
pub const PG_SHELL: &str = "pg_shell";
/// The database of the bare loop: a listener is woken by every notification of its own database.
pub const BARE: &str = "bare";

/// Where all that is written is. Not /tmp, which may be in memory: a commit must cost what it costs.
pub fn parent() -> PathBuf {
    std::env::var_os("PG_SHELL_BENCH_DIR").map_or_else(|| "/var/tmp".into(), PathBuf::from)
}

/// Makes it, with a database for either side.
pub fn start() -> Cluster {
    let options = std::env::var("PG_SHELL_BENCH_POSTGRES").unwrap_or_default();
    let options: Vec<String> = options.split_whitespace().map(str::to_owned).collect();
    let cluster = Cluster::durable(&parent(), &options);
    cluster
        .connect("postgres")
        .run(&format!("create database {BARE}"));
    cluster
}

/// A connection as superuser.
pub async fn client(cluster: &Cluster, database: &str) -> Client {
    let (client, connection) = config(cluster, database, "bench")
        .connect(NoTls)
        .await
        .expect("a connection to the cluster");
    tokio::spawn(connection);
    client
}

/// How the bare loop, in its own thread, connects.
pub fn bare_config(cluster: &Cluster) -> Config {
    config(cluster, BARE, "bare loop")
}

fn config(cluster: &Cluster, database: &str, name: &str) -> Config {
    let connection = cluster.connection("postgres", database);
    let mut config: Config = connection.parse().expect("a connection string");
    config.application_name(name);
    config
}
