//! A cluster's data folder: what initdb makes, and who may connect.

use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use tempfile::TempDir;

use crate::process::run;
use crate::stage::{self, Stage};

static TEMPLATE: OnceLock<Mutex<Option<TempDir>>> = OnceLock::new();

/// Makes a data folder with these options beside those that every cluster has.
pub(crate) fn initdb(stage: &Stage, data: &Path, options: &[&str]) {
    std::fs::create_dir(data).expect("a folder for the data");
    give_to_postgres(data);
    let user = stage::postgres_user();
    let mut command = stage::command_as(&user, "KILL", &stage.postgres("initdb"));
    command.arg("-D").arg(data);
    command.args(["-U", "postgres", "--auth=peer"]);
    command.args(["--encoding=UTF8", "--locale=C.UTF-8"]);
    run(command.args(options));
    let hba = "local all postgres peer map=super\nlocal all shell_worker peer map=worker\n\
         local all shell_authenticator peer map=web\n";
    std::fs::write(data.join("pg_hba.conf"), hba).expect("pg_hba.conf");
    let (me, worker, web) = (stage::own_user(), stage::worker_user(), stage::web_user());
    let ident = format!(
        "super {me} postgres\nworker {worker} shell_worker\nweb {web} shell_authenticator\n"
    );
    std::fs::write(data.join("pg_ident.conf"), ident).expect("pg_ident.conf");
}

/// A data folder like all others of this test program: initdb takes longer than to copy what it made once.
pub(crate) fn copy_template(stage: &Stage, data: &Path) {
    let template = TEMPLATE.get_or_init(|| {
        let folder = tempfile::Builder::new()
            .prefix("pgsh")
            .tempdir()
            .expect("a temporary folder");
        give_to_postgres(folder.path());
        initdb(stage, &folder.path().join("data"), &["--no-sync"]);
        Mutex::new(Some(folder))
    });
    let template = template.lock().unwrap();
    let folder = template
        .as_ref()
        .expect("a test program that has not ended");
    run(Command::new("cp")
        .args(["-a", "--reflink=auto"])
        .args([&folder.path().join("data"), data]));
}

/// Removes what is copied, at the test program's end.
pub(crate) fn forget_template() {
    drop(TEMPLATE.get().and_then(|folder| folder.lock().ok()?.take()));
}

/// As root, Postgres is another user.
pub(crate) fn give_to_postgres(folder: &Path) {
    if stage::is_root() {
        let user = nix::unistd::User::from_name("postgres")
            .ok()
            .flatten()
            .expect("a user postgres");
        nix::unistd::chown(folder, Some(user.uid), Some(user.gid)).expect("chown as root");
    }
}
