//! Content stores for tests, and what somebody does to them behind a worker's back.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use pg_shell_tests::{Process, run_if_installed, worker_user};
use tempfile::TempDir;
use uuid::Uuid;

/// A store of one test's own, empty.
pub trait Store: Sized {
    /// `None` where it cannot be had, and the reason was printed.
    fn new() -> Option<Self>;
    /// What `--content-store` names it.
    fn url(&self) -> String;
    /// What else a worker has to be told.
    fn variables(&self) -> Vec<(&'static str, String)>;
    /// An object's bytes, if it is there.
    fn get(&self, key: &str) -> Option<Vec<u8>>;
    /// Writes an object, or over it.
    fn put(&self, key: &str, bytes: &[u8]);
    /// Removes an object.
    fn remove(&self, key: &str);
}

/// Of the worker's user, as an administrator would make one.
pub struct Folder(TempDir);

impl Folder {
    pub fn path(&self) -> PathBuf {
        self.0.path().join("content")
    }
}

/// Makes a folder the worker's user's own.
pub fn give_to_worker(folder: &Path) {
    let user = nix::unistd::User::from_name(&worker_user());
    let user = user.ok().flatten().expect("the worker's user");
    let (user, group) = (user.uid.as_raw(), user.gid.as_raw());
    chown(folder, Some(user), Some(group)).expect("a folder for the worker's user");
}

impl Store for Folder {
    fn new() -> Option<Folder> {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let all = |mode| std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(parent.path(), all(0o755)).expect("a folder of our own");
        let folder = Folder(parent);
        std::fs::create_dir(folder.path()).expect("a folder for the store");
        std::fs::set_permissions(folder.path(), all(0o700)).expect("a folder of our own");
        give_to_worker(&folder.path());
        Some(folder)
    }

    fn url(&self) -> String {
        format!("file://{}", self.path().display())
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path().join(key)).ok()
    }

    fn put(&self, key: &str, bytes: &[u8]) {
        std::fs::write(self.path().join(key), bytes).expect("an object of the folder");
    }

    fn remove(&self, key: &str) {
        std::fs::remove_file(self.path().join(key)).expect("an object of the folder");
    }
}

/// A bucket of moto's server, which answers as S3 does.
pub struct Bucket {
    server: &'static str,
    name: String,
}

/// Moto asks who somebody is, and believes it.
const SOMEBODY: &str = "AWS4-HMAC-SHA256 Credential=somebody/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
/// What nobody but the worker may come to see.
pub const SECRET: &str = "the-secret-of-the-bucket";

impl Bucket {
    fn address(&self, key: &str) -> String {
        format!("{}/{}/prefix/{key}", self.server, self.name)
    }
}

impl Store for Bucket {
    fn new() -> Option<Bucket> {
        static SERVER: OnceLock<Option<(Process, String)>> = OnceLock::new();
        let (_, server) = SERVER.get_or_init(serve).as_ref()?;
        let name = format!("bucket-{}", Uuid::new_v4().simple());
        ureq::put(format!("{server}/{name}"))
            .header("Authorization", SOMEBODY)
            .send_empty()
            .expect("a new bucket");
        Some(Bucket { server, name })
    }

    fn url(&self) -> String {
        format!("s3://{}/prefix", self.name)
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT", self.server.to_owned()),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", "somebody".into()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.into()),
        ]
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        let ask = ureq::get(self.address(key)).header("Authorization", SOMEBODY);
        match ask.call() {
            Err(ureq::Error::StatusCode(404)) => None,
            answer => {
                let mut answer = answer.expect("an answer");
                Some(answer.body_mut().read_to_vec().expect("an object"))
            }
        }
    }

    fn put(&self, key: &str, bytes: &[u8]) {
        ureq::put(self.address(key))
            .header("Authorization", SOMEBODY)
            .send(bytes)
            .expect("an object is written");
    }

    fn remove(&self, key: &str) {
        ureq::delete(self.address(key))
            .header("Authorization", SOMEBODY)
            .call()
            .expect("an object is removed");
    }
}

/// The server, and where it is.
fn serve() -> Option<(Process, String)> {
    let venv = moto()?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    command.arg(venv.join("bin/python"));
    command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]);
    let process = Process::start("moto", command);
    let running = "Running on ";
    process.wait_for_log(running, 0);
    let log = process.log();
    let line = log.lines().find_map(|line| line.split_once(running));
    let server = line.expect("a line with the address").1.trim().to_owned();
    Some((process, server))
}

/// Installs moto where the last run left it, unless it is another version.
fn moto() -> Option<PathBuf> {
    let wanted = include_str!("s3-requirements.txt");
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moto");
    let installed = venv.join("installed.txt");
    if std::fs::read_to_string(&installed).is_ok_and(|found| found == wanted) {
        return Some(venv);
    }
    let mut make = Command::new("python3");
    if !run_if_installed(make.args(["-m", "venv", "--clear"]).arg(&venv)) {
        return None;
    }
    let requirements = venv.join("requirements.txt");
    std::fs::write(&requirements, wanted).expect("a file in the folder");
    let mut install = Command::new(venv.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", "--no-deps"]);
    install.args(["--disable-pip-version-check", "--requirement"]);
    run_if_installed(install.arg(requirements));
    std::fs::write(&installed, wanted).expect("a file in the folder");
    Some(venv)
}
