//! What Postgres refuses, and that nothing of it is stored.

use tokio_postgres::Row;

use crate::db::{Db, Parameters};

/// An error that Postgres answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The SQLSTATE.
    pub code: String,
    /// What went wrong.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl Refusal {
    #[track_caller]
    fn of(sql: &str, error: &tokio_postgres::Error) -> Refusal {
        let db = error
            .as_db_error()
            .unwrap_or_else(|| panic!("{sql}: {error:?}"));
        Refusal {
            code: db.code().code().into(),
            message: db.message().into(),
            hint: db.hint().unwrap_or_default().into(),
        }
    }
}

impl Db {
    /// Runs a statement that Postgres must refuse.
    #[track_caller]
    pub fn refused(&self, sql: &str, parameters: Parameters) -> Refusal {
        let answer = self.within(sql, self.client.query(sql, parameters));
        let Err(error) = answer else {
            panic!("{sql} was accepted")
        };
        Refusal::of(sql, &error)
    }

    /// The only row of a statement, which Postgres may refuse.
    #[track_caller]
    pub fn tried(&self, sql: &str, parameters: Parameters) -> Result<Row, Refusal> {
        let answer = self.within(sql, self.client.query_one(sql, parameters));
        answer.map_err(|error| Refusal::of(sql, &error))
    }

    /// The one text of a statement, which Postgres may refuse.
    #[track_caller]
    pub fn attempt(&self, sql: &str) -> Result<Option<String>, Refusal> {
        let answer = self.within(sql, self.client.query_one(sql, &[]));
        answer
            .map(|row| row.get(0))
            .map_err(|error| Refusal::of(sql, &error))
    }

    /// Runs a statement that Postgres must refuse with this SQLSTATE, storing nothing. Rows are
    /// counted, so nobody else may write meanwhile.
    #[track_caller]
    pub fn refused_whole(&self, sql: &str, code: &str) -> Refusal {
        let before = self.counts();
        let refusal = self.refused(sql, &[]);
        assert_eq!(refusal.code, code, "{sql}: {refusal:?}");
        assert_eq!(self.counts(), before, "{sql} has stored something");
        refusal
    }

    /// The same, for an error of pg_shell's own: it has a hint.
    #[track_caller]
    pub fn refused_with_hint(&self, sql: &str, code: &str) {
        let refusal = self.refused_whole(sql, code);
        assert!(
            refusal.hint.ends_with('.') && refusal.hint.len() > 10,
            "{sql}: {refusal:?}"
        );
        assert!(!refusal.message.is_empty());
    }

    fn counts(&self) -> Vec<i64> {
        let tables = ["users", "sandboxes", "environments", "commands"];
        tables
            .map(|table| self.one(&format!("select count(*) from shell.{table}"), &[]))
            .into()
    }
}
