//! Where the programs under test are, and as whom they run.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder made by `docker/stack/stage.sh`.
#[derive(Debug, Clone)]
pub struct Stage {
    root: PathBuf,
}

impl Stage {
    /// The one that `PG_SHELL_STAGE` names, or that of `make build`.
    ///
    /// # Panics
    /// Where there is none.
    pub fn find() -> Stage {
        let root = std::env::var_os("PG_SHELL_STAGE").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target/stage"),
            PathBuf::from,
        );
        assert!(
            root.join("bin/exec-worker").exists(),
            "nothing is staged in {}: run docker/stack/stage.sh DIR and set PG_SHELL_STAGE=DIR",
            root.display()
        );
        Stage { root }
    }

    /// A program of Postgres.
    pub fn postgres(&self, program: &str) -> PathBuf {
        let versions = self.root.join("usr/lib/postgresql");
        let version = std::fs::read_dir(&versions)
            .expect("a staged Postgres")
            .next();
        let version = version
            .expect("a staged Postgres")
            .expect("a folder that can be read");
        version.path().join("bin").join(program)
    }

    /// The helper that confines commands.
    pub fn launcher(&self) -> PathBuf {
        self.root.join("bin/pg-shell-launch")
    }

    /// The worker's program.
    pub fn worker(&self) -> PathBuf {
        self.root.join("bin/exec-worker")
    }

    /// The program of the page and of REST.
    pub fn web(&self) -> PathBuf {
        self.root.join("bin/pg-shell-web")
    }
}

/// True where the tests run as root: then Postgres and the worker each run as another user.
pub fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// The name of the OS user who runs the tests.
pub fn own_user() -> String {
    let me = nix::unistd::User::from_uid(nix::unistd::Uid::effective());
    me.ok().flatten().expect("an OS user with a name").name
}

/// The OS user of Postgres.
pub fn postgres_user() -> String {
    if is_root() {
        "postgres".into()
    } else {
        own_user()
    }
}

/// The OS user of the workers.
pub fn worker_user() -> String {
    if !is_root() {
        return own_user();
    }
    made_by_the_stack("pg_shell_worker")
}

/// The OS user of the web server.
pub fn web_user() -> String {
    if !is_root() {
        return own_user();
    }
    made_by_the_stack("pg_shell_web")
}

fn made_by_the_stack(name: &str) -> String {
    let user = nix::unistd::User::from_name(name).ok().flatten();
    user.map_or("nobody".into(), |user| user.name)
}

/// A command that runs as a user, with a clean environment, and ends with this process: `signal`
/// reaches it when the thread that starts it is gone.
pub fn command_as(user: &str, signal: &str, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args([
            "--reuid",
            user,
            "--regid",
            &group_of(user),
            "--clear-groups",
        ]);
        command.arg("--inh-caps=-all");
    }
    command
        .args(["--pdeathsig", signal, "--"])
        .arg(program)
        .current_dir("/")
        .env_clear();
    command
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("LANG", "C.UTF-8");
    command
}

fn group_of(user: &str) -> String {
    let user = nix::unistd::User::from_name(user)
        .ok()
        .flatten()
        .expect("a known OS user");
    user.gid.to_string()
}
