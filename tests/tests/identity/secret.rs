//! The secret that tokens are signed with, and what a dump has of all this.

use pg_shell_tests::{Caller, Cluster};

use crate::people::*;

#[test]
fn without_a_good_secret_nobody_signs_in_and_the_hint_says_what_to_do() {
    let cluster = Cluster::new();
    let db = cluster.db();
    user(&db, "early");
    let sql = "select shell_api.sign_in('early', 'correct horse')";
    let refused = |what: &str| {
        let refusal = cluster.db().forbidden(&Caller::anonymous(), sql, &[]);
        assert_eq!(refusal.code, "PS020", "{what}: {refusal:?}");
        assert!(refusal.message.contains(what) && refusal.hint.contains("pg_shell.jwt_secret"));
    };
    refused("not set");
    set_secret(&db, "short");
    refused("5 bytes");
    set_secret(&db, "@/nowhere/secret");
    refused("No such file");

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{SECRET}\n")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(file.path(), mode).unwrap();
    set_secret(&db, &format!("@{}", file.path().display()));
    caller(&cluster.db(), "early");

    // Not even its owner is shown a secret.
    let shown: String = db.one("select current_setting('pg_shell.jwt_secret')", &[]);
    assert_eq!(shown, "********");
    db.run("set role shell_admin");
    assert_eq!(db.refused("show pg_shell.jwt_secret", &[]).code, "42501");
    assert_eq!(
        db.refused("set pg_shell.jwt_secret = ''", &[]).code,
        "42501"
    );
}

#[test]
fn who_signed_in_before_a_dump_signs_in_after_the_restore() {
    let dump = tempfile::NamedTempFile::new().unwrap();
    let path = dump.path().to_str().unwrap();
    let token;
    {
        let old = Cluster::new();
        let db = old.db();
        set_secret(&db, SECRET);
        user(&db, "restored");
        let (caller, _) = caller(&db, "restored");
        token = create_token(&db, &caller, "'kept'")["token"].clone();
        old.client("pg_dump", &["--file", path, "pg_shell"]);
    }
    let new = Cluster::restored(path);
    let db = new.db();
    set_secret(&db, SECRET);
    caller(&db, "restored");
    exchange(&db, token.as_str().unwrap());
    assert_eq!(sign_in(&db, "restored", "wrong horse").1, "401");
}
