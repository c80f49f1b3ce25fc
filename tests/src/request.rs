//! A request as PostgREST makes it: one transaction under a role, with the claims of a token.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::db::{Db, Parameters};
use crate::refusal::Refusal;

/// Who a request is from.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The database role that its token names.
    pub role: &'static str,
    /// The claims of its token.
    pub claims: Value,
}

impl Caller {
    /// A user with this role.
    pub fn new(role: &'static str, user: Uuid) -> Caller {
        Caller {
            role,
            claims: json!({"sub": user.to_string(), "role": role}),
        }
    }

    /// A signed-in user.
    pub fn user(user: Uuid) -> Caller {
        Caller::new("shell_user", user)
    }

    /// Nobody, under a role that is somebody's.
    pub fn nobody(role: &'static str) -> Caller {
        Caller {
            role,
            claims: json!({}),
        }
    }

    /// A request without a token.
    pub fn anonymous() -> Caller {
        Caller::nobody("shell_anonymous")
    }
}

impl Db {
    /// Does this as the caller, in one transaction.
    #[track_caller]
    pub fn request<T>(&self, caller: &Caller, work: impl FnOnce(&Db) -> T) -> T {
        self.run(&format!(
            "set session authorization shell_authenticator; begin; set local role {}",
            caller.role
        ));
        self.query(
            "select set_config('request.jwt.claims', $1, true)",
            &[&caller.claims.to_string()],
        );
        let answer = work(self);
        self.run("commit; reset session authorization");
        answer
    }

    /// The first column of the only row of a query of the caller's.
    #[track_caller]
    pub fn asked<T: tokio_postgres::types::FromSqlOwned>(
        &self,
        caller: &Caller,
        sql: &str,
        parameters: Parameters,
    ) -> T {
        self.request(caller, |db| db.one(sql, parameters))
    }

    /// How the caller is refused.
    #[track_caller]
    pub fn forbidden(&self, caller: &Caller, sql: &str, parameters: Parameters) -> Refusal {
        self.request(caller, |db| db.refused(sql, parameters))
    }
}

impl Refusal {
    /// The error's code, where PostgREST's way of raising one was used, too.
    pub fn told(&self) -> String {
        let within = || {
            let error: Value = serde_json::from_str(&self.message).ok()?;
            Some(error["code"].as_str()?.to_owned())
        };
        match self.code.as_str() {
            "PGRST" => within().expect("an error of PostgREST's form"),
            code => code.to_owned(),
        }
    }
}
