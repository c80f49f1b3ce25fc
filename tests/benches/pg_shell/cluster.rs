//! A private cluster and its worker, in a folder that goes when the bench ends.
//!
//! Postgres runs with its defaults, so every commit is on disk before it is answered. As root, Postgres is
//! the OS user `postgres` and the worker another unprivileged one, as in production; as an ordinary user,
//! both are that user.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, User};
use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls};

/// The database with the extension in it.
pub const PG_SHELL: &str = "pg_shell";
/// The database of the bare loop: a listener is woken by every notification of its own database.
pub const BARE: &str = "bare";

/// Who may be the worker, if the bench is root.
const WORKERS: &[&str] = &["pg_shell_worker", "nobody"];

/// A running cluster. Dropping it stops it and removes its folder.
pub struct Cluster {
    stage: PathBuf,
    folder: TempDir,
    postgres: Child,
    worker_user: User,
}

/// A running worker. Dropping it stops it.
pub struct Worker(Child);

impl Cluster {
    /// Makes a cluster of what is staged in `PG_SHELL_STAGE`, and starts it.
    pub async fn start() -> Cluster {
        let stage = std::env::var_os("PG_SHELL_STAGE")
            .expect("PG_SHELL_STAGE names a stage (docker/stack/stage.sh)");
        let stage = PathBuf::from(stage);
        let (postgres_user, worker_user) = users();
        // Not /tmp, which may be in memory: a commit must cost what it costs.
        let parent =
            std::env::var_os("PG_SHELL_BENCH_DIR").map_or_else(|| "/var/tmp".into(), PathBuf::from);
        let folder = tempfile::Builder::new()
            .prefix("pg_shell-bench-")
            .tempdir_in(parent)
            .expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let [data, socket] = ["data", "socket"].map(|name| folder.path().join(name));
        for path in [&data, &socket] {
            fs::create_dir(path).expect("mkdir");
            chown(
                path,
                Some(postgres_user.uid.as_raw()),
                Some(postgres_user.gid.as_raw()),
            )
            .expect("chown");
        }

        let bin = postgres_bin(&stage);
        let initdb = run_as(&bin.join("initdb"), &postgres_user, Signal::SIGKILL)
            .args([
                "--username=postgres",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--data-checksums",
            ])
            .args(["--auth=peer", "--pgdata"])
            .arg(&data)
            .stdout(Stdio::null())
            .status();
        assert!(initdb.expect("initdb").success(), "initdb failed");
        let me = User::from_uid(Uid::effective())
            .expect("a user")
            .expect("a user")
            .name;
        fs::write(data.join("pg_hba.conf"), "local all all peer map=bench\n").expect("pg_hba.conf");
        let map = format!(
            "bench {me} postgres\nbench {} shell_worker\n",
            worker_user.name
        );
        fs::write(data.join("pg_ident.conf"), map).expect("pg_ident.conf");

        let log = fs::File::create(folder.path().join("postgres.log")).expect("a log");
        let postgres = run_as(&bin.join("postgres"), &postgres_user, Signal::SIGQUIT)
            .arg("-D")
            .arg(&data)
            .args([
                "-c",
                "listen_addresses=",
                "-c",
                "unix_socket_permissions=0777",
                "-c",
            ])
            .arg(format!("unix_socket_directories={}", socket.display()))
            .args(
                std::env::var("PG_SHELL_BENCH_POSTGRES")
                    .unwrap_or_default()
                    .split_whitespace(),
            )
            .stderr(log)
            .spawn()
            .expect("postgres starts");
        let cluster = Cluster {
            stage,
            folder,
            postgres,
            worker_user,
        };
        cluster.prepare().await;
        cluster
    }

    async fn prepare(&self) {
        let client = self.client("postgres").await;
        for database in [PG_SHELL, BARE] {
            client
                .batch_execute(&format!("create database {database}"))
                .await
                .expect("create database");
        }
        let client = self.client(PG_SHELL).await;
        client
            .batch_execute("create extension pg_shell; alter role shell_worker login")
            .await
            .expect("the extension is staged");
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// A connection as superuser; waits until the cluster takes connections.
    pub async fn client(&self, database: &str) -> Client {
        let mut config = Config::new();
        config
            .host_path(self.socket())
            .user("postgres")
            .dbname(database)
            .application_name("bench");
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match config.connect(NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    return client;
                }
                Err(e) if Instant::now() > deadline => panic!("no connection to the cluster: {e}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// How the bare loop, in its own thread, connects.
    pub fn bare_config(&self) -> Config {
        let mut config = Config::new();
        config
            .host_path(self.socket())
            .user("postgres")
            .dbname(BARE)
            .application_name("bare loop");
        config
    }

    /// Starts a worker with its defaults and waits until it listens.
    pub async fn worker(&self) -> Worker {
        let log = fs::File::create(self.folder.path().join("worker.log")).expect("a log");
        let url = format!(
            "host={} user=shell_worker dbname={PG_SHELL}",
            self.socket().display()
        );
        let mut command = run_as(
            &self.stage.join("bin/exec-worker"),
            &self.worker_user,
            Signal::SIGKILL,
        );
        command.env("PG_SHELL_DATABASE_URL", url).stderr(log);
        if !Uid::effective().is_root() {
            command.env("PG_SHELL_ALLOW_POSTGRES_USER", "true");
        }
        let worker = Worker(command.spawn().expect("the worker starts"));
        let client = self.client(PG_SHELL).await;
        let ready = "select exists (select from shell.workers where stopped_at is null)";
        let deadline = Instant::now() + Duration::from_secs(30);
        while !client
            .query_one(ready, &[])
            .await
            .expect("a query")
            .get::<_, bool>(0)
        {
            assert!(
                Instant::now() < deadline,
                "the worker did not start: {}",
                self.worker_log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        worker
    }

    fn worker_log(&self) -> String {
        fs::read_to_string(self.folder.path().join("worker.log")).unwrap_or_default()
    }

    /// The helper that confines a command.
    pub fn launcher(&self) -> PathBuf {
        self.stage.join("bin/pg-shell-launch")
    }
}

impl Worker {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        end(&mut self.0, Signal::SIGTERM);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        end(&mut self.postgres, Signal::SIGINT);
    }
}

/// Asks a process to end, and kills it if it does not.
fn end(child: &mut Child, signal: Signal) {
    let _ = kill(Pid::from_raw(child.id().cast_signed()), signal);
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Ok(None) = child.try_wait() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Who is Postgres, and who the worker.
fn users() -> (User, User) {
    let named = |name: &str| User::from_name(name).ok().flatten();
    if Uid::effective().is_root() {
        let worker = WORKERS
            .iter()
            .find_map(|name| named(name))
            .expect("a user for the worker");
        return (named("postgres").expect("a user postgres"), worker);
    }
    let me = || {
        User::from_uid(Uid::effective())
            .expect("a user")
            .expect("a user")
    };
    (me(), me())
}

/// A command as `user`, without environment, that ends by `signal` when the bench is killed.
fn run_as(program: &Path, user: &User, signal: Signal) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null());
    if Uid::effective().is_root() {
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    // SAFETY: prctl is async-signal-safe and nothing is allocated.
    unsafe { command.pre_exec(move || set_pdeathsig(signal).map_err(Into::into)) };
    command
}

fn postgres_bin(stage: &Path) -> PathBuf {
    let versions = stage.join("usr/lib/postgresql");
    let mut found: Vec<PathBuf> = fs::read_dir(&versions)
        .unwrap_or_else(|e| panic!("{}: {e}", versions.display()))
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("postgres").exists())
        .collect();
    found.sort();
    found.pop().expect("a Postgres in the stage")
}
