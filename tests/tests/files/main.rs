//! A session's files: what a command leaves is what the next one finds, whoever runs it, and what a fork, a restore and a
//! dump bring back. What the database alone does with them is in `trees`.

mod attacks;
mod bad;
mod keeping;
mod outside;
mod stores;
mod workers;

use pg_shell_tests::Db;
use uuid::Uuid;

/// A file of a session as it is now, as text.
fn text(db: &Db, session: Uuid, path: &str) -> String {
    let sql = "select convert_from(shell.read_file($1, '/home/sandbox/' || $2), 'utf8')";
    db.one(sql, &[&session, &path])
}

/// All paths of a session below home, with their kinds.
fn listing(db: &Db, session: Uuid) -> Vec<String> {
    let sql = "select substr(path, 15) || case type when 'folder' then '/' when 'symlink' then '@' else '' end
               from shell.files($1) order by 1";
    db.column(sql, &[&session])
}

/// The session in which `submit_command` runs what names none.
fn session_of(db: &Db, user: Uuid) -> Uuid {
    db.one("select shell.default_session($1)", &[&user])
}

/// Runs a command that ends well; what it printed.
fn done(db: &Db, user: Uuid, command: &str) -> String {
    let ran = db.finish(user, command);
    assert_eq!(ran.failure_reason, None, "{command}");
    ran.text().to_owned()
}
