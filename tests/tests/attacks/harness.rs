//! What every attack needs: a world to attack, the two ways into it, and what must hold afterwards.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use pg_shell_tests::{
    Cluster, Db, Stage, Worker, is_root, marked_processes, wait_until_gone, worker_user,
};
use tempfile::TempDir;
use uuid::Uuid;

/// Functions of every bash attack. A denied attack prints nothing; a control that fails does.
const BASH: &str = r#"
denied() { if "$@"; then echo "ALLOWED: $*" >&3; fi >/dev/null 2>&1; } 3>&1
allowed() { "$@" || echo "CONTROL FAILED: $*" >&3; } 3>&1 >/dev/null 2>&1
"#;

/// The same for perl, the one language for raw system calls that is on every Debian.
const PERL: &str = r#"
use strict; use warnings; no warnings 'syscalls';
use Errno; use Fcntl ':DEFAULT', ':flock', ':mode'; use POSIX (); use Socket;
$| = 1;
sub cause { my ($name) = grep { $!{$_} } sort keys %!; $name // 'errno ' . ($! + 0) }
sub denied { my ($what, $result) = @_; print "ALLOWED: $what\n" if $result }
sub allowed { my ($what, $result) = @_; print "CONTROL FAILED: $what: ", cause(), "\n" unless $result }
sub fails { my ($what, $why, $result) = @_;
  my $got = $result ? 'ALLOWED' : cause();
  print "$what: $got, not $why\n" if $got ne $why }
sub call { my $number = shift; my $result = syscall($number, @_); $result == -1 ? undef : $result || '0 but true' }
sub opens { my ($mode, $path) = @_; open(my $f, $mode, $path) or return undef; $f }
sub reads { my $f = opens('<', $_[0]) or return undef; sysread $f, my $bytes, 100 }
sub writes { my $f = opens('>', $_[0]) or return undef; syswrite $f, $_[1] }
sub ready { $0 = 'ready' . ':{id}'; print "ready\n"; sleep 1000 }
"#;

/// The two ways to run a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `shell.submit_command`, a worker, `shell.wait_command`.
    Row,
    /// `shell.run_command`.
    Backend,
}

pub const WAYS: [Way; 2] = [Way::Row, Way::Backend];

/// A limit, by the sandbox's column and the extension's setting.
#[derive(Debug, Clone, Copy)]
pub struct Limit(&'static str, &'static str, i64);

pub const fn wall_seconds(seconds: i64) -> Limit {
    Limit("wall_seconds", "s", seconds)
}
pub const fn memory_mib(mib: i64) -> Limit {
    Limit("memory_bytes", "MB", mib)
}
pub const fn processes(count: i64) -> Limit {
    Limit("processes", "", count)
}
pub const fn output_kib(kib: i64) -> Limit {
    Limit("output_bytes", "kB", kib)
}

impl Limit {
    fn column_value(self) -> i64 {
        match self.1 {
            "MB" => self.2 << 20,
            "kB" => self.2 << 10,
            _ => self.2,
        }
    }

    fn setting(self) -> String {
        let name = match self.0 {
            "wall_seconds" => "timeout",
            "memory_bytes" => "memory",
            "output_bytes" => "max_output",
            same => same,
        };
        format!("set pg_shell.{name} = '{}{}'", self.2, self.1)
    }
}

/// What came of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub exit: Option<i32>,
    pub output: String,
}

/// A command that must print `end` and nothing else.
pub struct Attack {
    pub name: String,
    pub command: String,
}

/// An attack in bash, with `denied COMMAND…` and `allowed COMMAND…`.
pub fn bash(name: &str, text: &str) -> Attack {
    Attack {
        name: name.into(),
        command: format!("{BASH}{text}\necho end"),
    }
}

/// An attack in perl, with `denied(what, result)`, `allowed(what, result)`, `fails(what, errno, result)` and
/// `call(number, …)`, a system call.
pub fn perl(name: &str, text: &str) -> Attack {
    Attack {
        name: name.into(),
        command: perl_command(&format!("{text}\nprint \"end\\n\";")),
    }
}

/// The same, for a command of which something else is expected.
pub fn perl_command(text: &str) -> String {
    format!("perl - <<'PERL'\n{PERL}{text}\nPERL")
}

/// The world under attack, with things in it that no command may see or change.
pub struct World {
    pub cluster: Cluster,
    pub worker: Worker,
    pub data: PathBuf,
    bait: TempDir,
    before: Vec<String>,
}

/// What no output may contain: it stands in the worker's environment, in files and in rows of the host.
pub const SECRET: &str = "pgsh-the-hosts-secret";

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The one world that all tests share.
pub fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(World::new)
}

impl World {
    fn new() -> World {
        let cluster = Cluster::new();
        let connection = cluster.connection("shell_worker", "pg_shell");
        let program = Stage::find().worker();
        let variable = format!("PG_SHELL_SECRET={SECRET}");
        // As a service has it: its commands' limit must not be what keeps it alive.
        let mut flags = vec![
            "--nofile=1024:",
            "/usr/bin/env",
            variable.as_str(),
            program.to_str().expect("a path in UTF-8"),
        ];
        flags.extend(["--database-url", &connection, "--concurrency", "4"]);
        if !is_root() {
            flags.push("--allow-postgres-user");
        }
        let worker = Worker::run_as(&worker_user(), Path::new("/usr/bin/prlimit"), &flags).ready();
        let data: String = cluster
            .db()
            .one("select current_setting('data_directory')", &[]);
        let bait = bait();
        let before = record(bait.path());
        World {
            cluster,
            worker,
            data: data.into(),
            bait,
            before,
        }
    }

    pub fn bait(&self) -> &Path {
        self.bait.path()
    }

    /// Puts what this world is into an attack's text; returns what marks its process once it is `ready`.
    fn fill_in(&self, command: &str) -> (String, String) {
        let id = format!(
            "{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let path = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
        let filled = command
            .replace("{id}", &id)
            .replace("{bait}", &path(self.bait.path()))
            .replace("{data}", &path(&self.data))
            .replace("{socket}", &path(self.cluster.socket()))
            .replace("{worker}", &self.worker.process().pid().to_string())
            .replace("{postmaster}", &self.postmaster().to_string())
            .replace("{tests}", &std::process::id().to_string());
        (filled, format!("ready:{id}"))
    }

    fn postmaster(&self) -> i32 {
        let file = std::fs::read_to_string(self.data.join("postmaster.pid"));
        match file.ok().as_deref().and_then(|text| text.lines().next()) {
            Some(pid) => pid.parse().expect("a process id"),
            // Only Postgres' user may look into its folder.
            None => self.cluster.db().one(
                "select pid from pg_stat_activity where backend_type = 'checkpointer'",
                &[],
            ),
        }
    }

    /// Runs attacks, each in a session of its own and each both ways. All must print `end` alone.
    #[track_caller]
    pub fn withstands(&self, attacks: &[Attack]) {
        self.withstands_within(&[], attacks);
    }

    /// The same, with other limits than the default.
    #[track_caller]
    pub fn withstands_within(&self, limits: &[Limit], attacks: &[Attack]) {
        let mut successes = Vec::new();
        for way in WAYS {
            let mut session = Session::new(self, way, limits);
            for attack in attacks {
                let seen = session.anew().run(&attack.command);
                if seen.exit != Some(0) || seen.output != "end\n" {
                    successes.push(format!("{} ({way:?}): {seen:?}", attack.name));
                }
            }
        }
        self.is_untouched();
        assert!(successes.is_empty(), "{}", successes.join("\n"));
    }

    /// The host is what it was: its files, and those who serve.
    #[track_caller]
    pub fn is_untouched(&self) {
        assert_eq!(record(self.bait.path()), self.before, "the host's files");
        assert!(self.worker.process().is_running(), "the worker has ended");
        let one: i32 = self.cluster.db().one("select 1", &[]);
        assert_eq!(one, 1, "the database answers");
    }

    /// Runs `then` while `holder`, a perl program that ends with `ready()`, holds what it has taken.
    pub fn while_held(&self, way: Way, holder: &str, then: impl FnOnce(&str)) {
        self.while_running(way, &perl_command(holder), then);
    }

    /// The same for any command; it says that it is ready by the name `ready:{id}` of a process.
    pub fn while_running(&self, way: Way, holder: &str, then: impl FnOnce(&str)) {
        let (command, mark) = self.fill_in(holder);
        let id = &mark["ready:".len()..];
        let db = self.cluster.db();
        std::thread::scope(|scope| {
            let (user, row) = match way {
                Way::Row => {
                    let user = self.user(&db);
                    (Some(user), Some(db.submit(user, &command)))
                }
                Way::Backend => {
                    let (command, name) = (command.clone(), id.to_owned());
                    scope.spawn(move || {
                        let db = self.cluster.db();
                        db.run(&format!("set application_name = '{name}'"));
                        let sql = "select shell.run_command('/tmp', '{}', $1)";
                        assert_eq!(db.refused(sql, &[&command]).code, "57014");
                    });
                    (None, None)
                }
            };
            let deadline = std::time::Instant::now() + pg_shell_tests::PATIENCE;
            let mut held = marked_processes(&mark);
            while held.is_empty() && std::time::Instant::now() < deadline {
                if let Some(row) = row {
                    let command = db.command(row);
                    assert_eq!(
                        command.exit_code, None,
                        "{user:?}: it ended early: {command:?}"
                    );
                }
                db.query("select pg_sleep(0.005)", &[]);
                held = marked_processes(&mark);
            }
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                assert!(!held.is_empty(), "the holder was never ready");
                then(id);
            }));
            match row {
                Some(row) => {
                    db.cancel(row);
                    db.wait(row);
                }
                None => {
                    let sql = "select pg_cancel_backend(pid) from pg_stat_activity where application_name = $1";
                    db.query(sql, &[&id]);
                }
            }
            wait_until_gone(&held);
            if let Err(panic) = ended {
                std::panic::resume_unwind(panic);
            }
        });
    }

    pub fn user(&self, db: &Db) -> Uuid {
        db.user(&format!(
            "attacker {}",
            NEXT.fetch_add(1, Ordering::Relaxed)
        ))
    }
}

/// A connection, and the limits and the session for the next commands.
pub struct Session<'a> {
    world: &'a World,
    way: Way,
    pub db: Db,
    pub user: Option<Uuid>,
    session: Option<Uuid>,
    /// The variables of the next commands, JSON.
    pub env: serde_json::Value,
}

impl Session<'_> {
    pub fn new<'a>(world: &'a World, way: Way, limits: &[Limit]) -> Session<'a> {
        let db = world.cluster.db();
        let mut user = None;
        match way {
            Way::Row => {
                let new = world.user(&db);
                user = Some(new);
                for limit in limits {
                    db.limit(new, limit.0, limit.column_value());
                }
            }
            Way::Backend => {
                db.run("set client_min_messages = error");
                for limit in limits {
                    db.run(&limit.setting());
                }
            }
        }
        Session {
            world,
            way,
            db,
            user,
            session: None,
            env: serde_json::json!({}),
        }
    }

    /// From here on in a new session of the same user.
    pub fn anew(&mut self) -> &mut Self {
        self.session = self.user.map(|user| self.db.session(user));
        self
    }

    /// Runs a command to its end. Whatever it prints, it does not print a secret.
    #[track_caller]
    pub fn run(&mut self, command: &str) -> Seen {
        let (command, _) = self.world.fill_in(command);
        let seen = match self.way {
            Way::Row => {
                let user = self.user.expect("a user");
                let session = *self.session.get_or_insert_with(|| self.db.session(user));
                let sql = "update shell.environments set env = env::jsonb || $2::jsonb where id = $1 and $2::jsonb <> '{}'";
                self.db.query(sql, &[&session, &self.env]);
                let row = self.db.submit_to(user, session, &command);
                let row = self.db.wait(row);
                Seen {
                    exit: row.exit_code,
                    output: row.output.unwrap_or_default(),
                }
            }
            Way::Backend => {
                let sql =
                    "select exit_code, output from shell.run_command('/home/sandbox', $1, $2)";
                let rows = self.db.query(sql, &[&self.env, &command]);
                Seen {
                    exit: rows[0].get(0),
                    output: rows[0].get(1),
                }
            }
        };
        assert!(!seen.output.contains(SECRET), "a secret got out: {seen:?}");
        seen
    }
}

/// Files that every user of the host may read, and some that every user may write.
fn bait() -> TempDir {
    let folder = tempfile::Builder::new()
        .prefix("pgsh")
        .tempdir()
        .expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("our own");
    };
    for (name, mode) in [("secret", 0o644), ("writable", 0o666)] {
        std::fs::write(at(name), format!("{SECRET}\n")).expect("a file");
        open(&at(name), mode);
    }
    std::fs::create_dir(at("open")).expect("a folder");
    open(&at("open"), 0o777);
    symlink("writable", at("link")).expect("a link");
    open(folder.path(), 0o777);
    folder
}

/// All that a command could change about the bait.
fn record(folder: &Path) -> Vec<String> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();
    let mut all = vec![folder.to_owned(), folder.join("open")];
    for folder in all.clone() {
        let entries = std::fs::read_dir(folder).expect("our own folder");
        all.extend(entries.map(|entry| entry.expect("our own file").path()));
    }
    all.sort();
    all.dedup();
    let about = |path: &PathBuf| {
        let m = std::fs::symlink_metadata(path).expect("our own file");
        let content = std::fs::read(path).unwrap_or_default();
        format!(
            "{} {:o} {}:{} {} links {}.{} {content:?}",
            path.display(),
            m.mode(),
            m.uid(),
            m.gid(),
            m.nlink(),
            m.mtime(),
            m.mtime_nsec()
        )
    };
    all.iter().map(about).collect()
}
