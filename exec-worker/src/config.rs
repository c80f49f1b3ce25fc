//! Settings, from flags and environment.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser};
use confine::cgroup::Setting;
use confine::{Level, SomeLimits};
use daemon::log::Log;
use tokio_postgres::config::Host;

use crate::error::Error;
use crate::home::StoreAddress;

/// How commands are confined.
#[derive(Debug, Clone, Args)]
pub struct Confinement {
    /// The helper that confines a command, as an absolute path; default: pg-shell-launch beside this program.
    #[arg(long, env = "PG_SHELL_LAUNCHER", value_name = "PATH")]
    pub launcher: Option<PathBuf>,

    /// strict, or basic: a weaker level for hosts without user namespaces; its private folders are made
    /// below TMPDIR. See "exec-worker doctor" and SECURITY.md.
    #[arg(
        long,
        env = "PG_SHELL_LEVEL",
        value_name = "LEVEL",
        default_value = "strict"
    )]
    pub level: Level,
}

/// Where sessions' files are at hand.
#[derive(Debug, Clone, Args)]
pub struct FilesCache {
    /// A folder for the files of sessions that run here, an absolute path; nothing in it is lost with it.
    /// Workers of one user may share it. Default: pg_shell-cache-UID below TMPDIR.
    #[arg(long, env = "PG_SHELL_FILES_CACHE", value_name = "PATH")]
    pub files_cache: Option<PathBuf>,

    /// How many bytes of the disk they may take; those in use may exceed it.
    #[arg(
        long,
        env = "PG_SHELL_FILES_CACHE_BYTES",
        value_name = "BYTES",
        default_value = "10737418240"
    )]
    pub files_cache_bytes: u64,
}

/// Where contents of files are, if not in the database.
#[derive(Debug, Clone, Args)]
pub struct ContentStore {
    /// A store for the contents of sessions' files beside the database: file:///FOLDER, or s3://BUCKET/PREFIX with
    /// the AWS_* variables for credentials, region and endpoint. One database's alone, and the same for all its workers.
    #[arg(long, env = "PG_SHELL_CONTENT_STORE", value_name = "URL")]
    pub content_store: Option<StoreAddress>,

    /// Pieces of files with fewer bytes stay in the database. A piece has 524288 at most.
    // As much goes to the database in the statement that stores the tree: what changes little does not wait for the
    // store.
    #[arg(
        long,
        env = "PG_SHELL_CONTENT_STORE_MIN_BYTES",
        value_name = "BYTES",
        default_value = "65536",
        value_parser = clap::value_parser!(u32).range(1..=524_288)
    )]
    pub content_store_min_bytes: u32,
}

/// Runs the commands that users submit to Postgres: claims them from database queues, runs each in a
/// confined child, and writes back what it left. Any number of workers may share a database.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "exec-worker",
    version,
    after_help = "\"exec-worker doctor\" prints what this host can do of the confinement, and needs no database."
)]
pub struct Config {
    /// Where the database is, and as whom: a URL or "host=… port=… user=… dbname=…".
    #[arg(
        long,
        env = "PG_SHELL_DATABASE_URL",
        value_name = "CONNECTION",
        hide_env_values = true
    )]
    pub database_url: tokio_postgres::Config,

    /// Commands that run at the same time; default: two a CPU, for commands wait, and pass from process to process.
    #[arg(long, env = "PG_SHELL_CONCURRENCY", value_name = "N")]
    pub concurrency: Option<NonZeroU32>,

    #[command(flatten)]
    pub confinement: Confinement,

    #[command(flatten)]
    pub files: FilesCache,

    #[command(flatten)]
    pub content: ContentStore,

    /// Seconds without a heartbeat after which a worker is given up for lost.
    #[arg(long, env = "PG_SHELL_LEASE", value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub lease: Duration,

    /// Seconds that a worker whose connection is gone has to come back.
    #[arg(long, env = "PG_SHELL_GRACE", value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub grace: Duration,

    /// How often a command is tried whose worker is lost while it runs.
    #[arg(
        long,
        env = "PG_SHELL_MAX_ATTEMPTS",
        value_name = "N",
        default_value = "5"
    )]
    pub max_attempts: NonZeroU32,

    /// What no command may exceed here, whatever the database says: a JSON object with any of the keys
    /// wall_seconds, cpu_seconds, memory_bytes, processes, open_files, file_size_bytes, disk_bytes, output_bytes.
    #[arg(
        long,
        env = "PG_SHELL_MAX_LIMITS",
        value_name = "JSON",
        default_value = "{}",
        value_parser = SomeLimits::from_json
    )]
    pub max_limits: SomeLimits,

    /// A cgroup v2 folder that is delegated to this worker, for memory, processes and CPU of each command as a
    /// whole; or "auto", to use what its own group allows, or "off".
    #[arg(
        long,
        env = "PG_SHELL_CGROUP",
        value_name = "PATH",
        default_value = "auto"
    )]
    pub cgroup: Setting,

    /// Run commands although this worker's user is the one that Postgres runs as.
    #[arg(long, env = "PG_SHELL_ALLOW_POSTGRES_USER")]
    pub allow_postgres_user: bool,

    #[command(flatten)]
    pub log: Log,
}

/// A positive number of seconds, fractions allowed.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(s) if s.is_finite() && (0.001..=86_400.0).contains(&s) => Ok(Duration::from_secs_f64(s)),
        _ => Err("a number of seconds from 0.001 to 86400 is wanted".into()),
    }
}

impl Confinement {
    /// The helper's path.
    ///
    /// # Errors
    /// [`Error::Setting`] unless it is an absolute path of an executable file.
    pub fn launcher(&self) -> Result<PathBuf, Error> {
        let problem = |problem| Error::Setting {
            name: "launcher",
            problem,
        };
        let path = match &self.launcher {
            Some(path) => path.clone(),
            None => std::env::current_exe()
                .map_err(|source| Error::System {
                    what: "finding this program",
                    source,
                })?
                .with_file_name("pg-shell-launch"),
        };
        if !path.is_absolute() {
            return Err(problem(format!(
                "{} is not an absolute path",
                path.display()
            )));
        }
        nix::unistd::access(&path, nix::unistd::AccessFlags::X_OK)
            .map_err(|e| problem(format!("{}: {}", path.display(), e.desc())))?;
        Ok(path)
    }
}

impl Config {
    /// Commands at a time.
    pub fn slots(&self) -> usize {
        match self.concurrency {
            Some(n) => n.get() as usize,
            None => std::thread::available_parallelism().map_or(1, usize::from) * 2,
        }
    }

    /// Refuses to run commands as root, or as the user that Postgres runs as.
    ///
    /// # Errors
    /// [`Error::Root`], [`Error::PostgresUser`].
    pub fn check_user(&self) -> Result<(), Error> {
        let me = nix::unistd::Uid::effective();
        if me.is_root() {
            return Err(Error::Root);
        }
        if self.allow_postgres_user {
            return Ok(());
        }
        let ports = self.database_url.get_ports();
        for (index, host) in self.database_url.get_hosts().iter().enumerate() {
            let Host::Unix(folder) = host else { continue };
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            let socket = folder.join(format!(".s.PGSQL.{port}"));
            // Postgres makes its socket itself, so the file's owner is its user.
            if owner(&socket) == Some(me.as_raw()) {
                return Err(Error::PostgresUser { socket });
            }
        }
        Ok(())
    }
}

fn owner(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|m| m.uid())
}
