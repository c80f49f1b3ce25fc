//! The page in a real browser: starts everything, and hands over to the tests in `tests/browser/`.

use std::path::Path;
use std::process::Command;

use pg_shell_tests::{Cluster, Stage};

#[test]
#[ignore = "needs node, chromium and `npm ci` in tests/browser: tests/run.sh has them"]
fn the_page_in_a_browser() {
    let cluster = Cluster::new();
    let web = cluster.web(&["--request-rate", "0"]);
    let _worker = cluster.worker(&["--concurrency", "4"]);
    let psql = serde_json::json!([
        Stage::find().postgres("psql"),
        "--no-psqlrc",
        "--set=ON_ERROR_STOP=1",
        "--dbname",
        cluster.connection("postgres", "pg_shell")
    ]);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("browser");
    let status = Command::new("npm")
        .args(["test", "--silent"])
        .current_dir(folder)
        .env("PG_SHELL_URL", web.url())
        .env("PG_SHELL_PSQL", psql.to_string())
        .status()
        .expect("npm");
    assert!(status.success(), "a test in the browser failed");
}
