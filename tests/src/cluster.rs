//! A private Postgres cluster with the extension, below a temporary folder, on a socket of its own.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, Weak};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::data::{self, give_to_postgres};
use crate::db::Db;
use crate::process::{Process, run};
use crate::stage::{self, Stage};
use crate::web::{JWT_SECRET, Web};
use crate::worker::Worker;

/// See the module. It ends when it is dropped, or with the test program.
#[derive(Debug)]
pub struct Cluster {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    stage: Stage,
    folder: Mutex<Option<TempDir>>,
    data: PathBuf,
    socket: PathBuf,
    options: Vec<String>,
    postmaster: Mutex<Option<Process>>,
}

impl Cluster {
    /// A new cluster with database `pg_shell`, the extension in it, and the roles of a worker and
    /// of the web server that may log in.
    pub fn new() -> Cluster {
        Cluster::empty().with_extension()
    }

    /// The same for figures, in a folder below this one: Postgres runs with its defaults and these
    /// options, so every commit is on disk before it is answered.
    pub fn durable(parent: &Path, options: &[String]) -> Cluster {
        let initdb = |stage: &Stage, data: &Path| data::initdb(stage, data, &["--data-checksums"]);
        Cluster::make(parent, options, initdb).with_extension()
    }

    /// A new cluster with nothing in it.
    pub fn empty() -> Cluster {
        // The operating system does not crash here, so nothing is gained from fsync.
        let settings = ["fsync=off", "max_wal_senders=0", "max_connections=200"];
        let options = settings.map(|setting| format!("-c{setting}"));
        Cluster::make(&std::env::temp_dir(), &options, data::copy_template)
    }

    /// A new cluster into which this dump of a database with the extension was read, without an error.
    pub fn restored(dump: &str) -> Cluster {
        let new = Cluster::empty();
        new.connect("postgres").run("create database pg_shell");
        let read = [
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-d",
            "pg_shell",
            "-f",
            dump,
        ];
        new.client("psql", &read);
        new
    }

    fn make(parent: &Path, options: &[String], initdb: impl FnOnce(&Stage, &Path)) -> Cluster {
        let stage = Stage::find();
        let folder = tempfile::Builder::new()
            .prefix("pgsh")
            .tempdir_in(parent)
            .expect("a temporary folder");
        open_to_all(folder.path());
        let (data, socket) = (folder.path().join("data"), folder.path().join("s"));
        std::fs::create_dir(&socket).expect("a folder for the socket");
        give_to_postgres(&socket);
        initdb(&stage, &data);
        let inner = Inner {
            stage,
            folder: Mutex::new(Some(folder)),
            data,
            socket,
            options: options.into(),
            postmaster: Mutex::new(None),
        };
        let cluster = Cluster {
            inner: Arc::new(inner),
        };
        remember(&cluster.inner);
        cluster.start();
        cluster
    }

    fn with_extension(self) -> Cluster {
        self.connect("postgres").run("create database pg_shell");
        self.db()
            .run("create extension pg_shell; alter role shell_worker login; alter role shell_authenticator login");
        self
    }

    /// Starts Postgres, and waits until it is ready.
    pub fn start(&self) {
        let inner = &self.inner;
        let user = stage::postgres_user();
        let mut command = stage::command_as(&user, "QUIT", &inner.stage.postgres("postgres"));
        command.arg("-D").arg(&inner.data);
        command.arg("-k").arg(&inner.socket);
        command.arg("-clisten_addresses=").args(&inner.options);
        let process = Process::start("postgres", command);
        process.wait_for_log("ready to accept connections", 0);
        *inner.postmaster.lock().unwrap() = Some(process);
    }

    /// Ends Postgres as a crash would: no checkpoint, recovery at the next start.
    pub fn crash(&self) {
        let process = self
            .inner
            .postmaster
            .lock()
            .unwrap()
            .take()
            .expect("a running cluster");
        process.signal(Signal::SIGQUIT);
        process.wait();
    }

    /// A new connection to database `pg_shell`, as the superuser.
    pub fn db(&self) -> Db {
        self.connect("pg_shell")
    }

    /// A new connection to a database, as the superuser.
    pub fn connect(&self, database: &str) -> Db {
        Db::connect(&self.connection("postgres", database))
    }

    /// A connection string.
    pub fn connection(&self, role: &str, database: &str) -> String {
        format!(
            "host={} user={role} dbname={database}",
            self.inner.socket.display()
        )
    }

    /// Starts a worker with these flags, and waits until it is ready.
    pub fn worker(&self, flags: &[&str]) -> Worker {
        self.starting_worker(flags).ready()
    }

    /// Starts a worker with these flags.
    pub fn starting_worker(&self, flags: &[&str]) -> Worker {
        self.worker_with(&[], flags)
    }

    /// Starts a worker with these variables and flags.
    pub fn worker_with(&self, variables: &[(&str, String)], flags: &[&str]) -> Worker {
        let connection = self.connection("shell_worker", "pg_shell");
        Worker::start(&self.inner.stage, &connection, None, variables, flags)
    }

    /// Starts a worker in this control group, and waits until it is ready.
    pub fn worker_in(&self, group: &Path, flags: &[&str]) -> Worker {
        let connection = self.connection("shell_worker", "pg_shell");
        Worker::start(&self.inner.stage, &connection, Some(group), &[], flags).ready()
    }

    /// Starts a web server with these flags, and waits until it is ready. Postgres gets the secret that it has.
    pub fn web(&self, flags: &[&str]) -> Web {
        let db = self.db();
        db.run("load 'pg_shell'");
        db.run(&format!(
            "alter system set pg_shell.jwt_secret = '{JWT_SECRET}'"
        ));
        db.run("select pg_reload_conf()");
        db.until("current_setting('pg_shell.jwt_secret') <> ''", &[]);
        Web::start(
            &self.inner.stage,
            &self.connection("shell_authenticator", "pg_shell"),
            flags,
        )
    }

    /// Runs a client program of Postgres as the superuser; it must succeed.
    pub fn client(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.inner.stage.postgres(program));
        command
            .env_clear()
            .env("LANG", "C.UTF-8")
            .args(["-U", "postgres", "-h"]);
        run(command.arg(&self.inner.socket).args(arguments))
    }

    /// The folder with the socket.
    pub fn socket(&self) -> &Path {
        &self.inner.socket
    }
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster::new()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.inner.end();
    }
}

impl Inner {
    fn end(&self) {
        let process = self.postmaster.lock().ok().and_then(|mut p| p.take());
        if let Some(process) = process {
            process.signal(Signal::SIGQUIT);
            process.wait();
        }
        drop(self.folder.lock().ok().and_then(|mut folder| folder.take()));
    }
}

/// Clusters in statics are never dropped: they are ended when the test program exits.
fn remember(inner: &Arc<Inner>) {
    static LIVING: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());
    extern "C" fn end_all() {
        let living = LIVING
            .lock()
            .map(|mut all| std::mem::take(&mut *all))
            .unwrap_or_default();
        for inner in living.iter().filter_map(Weak::upgrade) {
            inner.end();
        }
        data::forget_template();
    }
    let mut living = LIVING.lock().unwrap();
    if living.is_empty() {
        // SAFETY: a plain function that does not unwind.
        unsafe { libc::atexit(end_all) };
    }
    living.push(Arc::downgrade(inner));
}

fn open_to_all(folder: &Path) {
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder, mode).expect("a folder of our own");
}
