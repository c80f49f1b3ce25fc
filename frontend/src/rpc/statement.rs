//! The one statement that calls a function and has Postgres build the answer.

use serde_json::Value;

use super::body;
use super::parameters::Parameters;
use crate::catalogue::{Function, Kind, SCHEMA};
use crate::sql::Sql;

/// The name of the only column of a scalar result.
const SCALAR: &str = "pg_shell_scalar";

/// A row of five texts: total (null unless counted), rows, body, response.headers, response.status.
pub fn build(
    function: &Function,
    arguments: &[(String, Value)],
    parameters: &Parameters,
    shape: Shape,
) -> Sql {
    let mut sql = Sql::default();
    sql.push("with source as (select ");
    match function.kind {
        Kind::Composite => sql.push("t.* from "),
        Kind::Scalar => sql.push(&format!("t.{SCALAR} from ")),
        Kind::Void => sql.push(&format!("null as {SCALAR} from ")),
    }
    sql.push(&format!("{SCHEMA}."));
    sql.name(&function.name);
    sql.push("(");
    for (index, (name, value)) in arguments.iter().enumerate() {
        if index > 0 {
            sql.push(", ");
        }
        if let Some(argument) = function.arguments.iter().find(|a| a.name == *name) {
            body::write(&mut sql, argument, value);
        }
    }
    sql.push(match function.kind {
        Kind::Composite => ") as t",
        _ => ") as t (pg_shell_scalar)",
    });
    sql.push("), page as (select ");
    parameters.write_select(&mut sql);
    sql.push(" from source as t");
    parameters.write_where(&mut sql);
    parameters.write_order(&mut sql);
    sql.push(") select ");
    if shape.counted {
        sql.push("(select count(*) from source as t");
        parameters.write_where(&mut sql);
        sql.push(")::text");
    } else {
        sql.push("null::text");
    }
    sql.push(", count(*)::text, ");
    sql.push(&shape.aggregate(function));
    sql.push(
        ", nullif(current_setting('response.headers', true), ''), \
         nullif(current_setting('response.status', true), '') from page",
    );
    sql
}

/// How the answer shall look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// With the number of all rows.
    pub counted: bool,
    /// One object, no array.
    pub single: bool,
    /// The value itself, no JSON.
    pub raw: bool,
}

impl Shape {
    fn aggregate(self, function: &Function) -> String {
        let row = match function.kind {
            Kind::Composite => "page".to_owned(),
            _ => format!("page.{SCALAR}"),
        };
        match function.kind {
            Kind::Void => "''::text".into(),
            _ if self.raw => format!("max({row}::text)"),
            _ if self.single || !function.is_set => {
                format!("coalesce((json_agg({row})->0)::text, 'null')")
            }
            _ => format!("coalesce(json_agg({row})::text, '[]')"),
        }
    }
}
