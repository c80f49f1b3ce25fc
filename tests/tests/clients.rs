//! The clients that people have for PostgREST find what they expect: @supabase/postgrest-js and PyPI's postgrest.

use std::path::{Path, PathBuf};
use std::process::Command;

use pg_shell_tests::{Cluster, run_if_installed, token};
use serde_json::json;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Runs a client's script against a server of its own.
fn try_client(program: &Path, script: &Path) {
    let cluster = Cluster::new();
    cluster.db().run(include_str!("rest/fixtures.sql"));
    let web = cluster.web(&["--request-rate", "0"]);
    let user = "11111111-1111-4111-8111-111111111111";
    let mut command = Command::new(program);
    command.arg(script).env("PG_SHELL_REST_URL", web.url());
    command.env(
        "PG_SHELL_TOKEN",
        token(&json!({"sub": user, "role": "shell_user"})),
    );
    run_if_installed(&mut command);
}

#[test]
fn postgrest_js() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    for file in ["package.json", "package-lock.json", "contract.mjs"] {
        std::fs::copy(folder().join(file), scratch.path().join(file))
            .expect("a file of the checkout");
    }
    let mut install = Command::new("npm");
    install
        .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(scratch.path());
    if run_if_installed(&mut install) {
        try_client(Path::new("node"), &scratch.path().join("contract.mjs"));
    }
}

#[test]
fn postgrest_py() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let python = scratch.path().join("venv/bin/python");
    if run_if_installed(
        Command::new("python3")
            .args(["-m", "venv"])
            .arg(scratch.path().join("venv")),
    ) {
        let mut install = Command::new(&python);
        install.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--requirement",
        ]);
        run_if_installed(install.arg(folder().join("requirements.txt")));
        try_client(&python, &folder().join("contract.py"));
    }
}
