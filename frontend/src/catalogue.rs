//! The functions of shell_api, as pg_proc has them, and which of them a request means.

use std::collections::HashMap;

use axum::http::StatusCode;
use serde::Deserialize;
use tokio_postgres::Client;

use crate::error::{Error, Refusal};

/// The only schema that is exposed.
pub const SCHEMA: &str = "shell_api";

/// An argument.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Argument {
    /// Its name; empty where it has none.
    pub name: String,
    /// Its type, as SQL writes it.
    #[serde(rename = "type")]
    pub kind: String,
    /// It has no default.
    pub required: bool,
}

impl Argument {
    /// True where any JSON is a value of its type.
    pub fn is_json(&self) -> bool {
        matches!(self.kind.as_str(), "json" | "jsonb")
    }
}

/// What a function returns.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Nothing.
    Void,
    /// One value a row.
    Scalar,
    /// Columns.
    Composite,
}

/// A function.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// What it is called with.
    pub arguments: Vec<Argument>,
    /// What a row of its result is.
    pub kind: Kind,
    /// It returns any number of rows.
    pub is_set: bool,
    /// It may write.
    pub volatile: bool,
    /// The media type that its result has, by the name of its domain.
    pub media: Option<String>,
}

/// A row a function: everything that PostgREST reads of it too.
const FUNCTIONS: &str = "select coalesce(json_agg(f), '[]')::text from (
  select p.proname as name, p.provolatile = 'v' as volatile, p.proretset as is_set,
    case
      when t.typname = 'void' then 'void'
      when b.typtype = 'c' or p.proargmodes::text[] && '{t,b,o}' then 'composite'
      else 'scalar'
    end as kind,
    case when t.typtype = 'd' and t.typname like '%/%' and not p.proretset then t.typname end as media,
    (
      select coalesce(json_agg(json_build_object(
        'name', coalesce(a.name, ''), 'type', pg_catalog.format_type(a.type, null),
        'required', a.n <= p.pronargs - p.pronargdefaults) order by a.n), '[]')
      from (
        select x.type, x.name, row_number() over (order by x.position) as n
        from unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]), p.proargnames, p.proargmodes::text[])
          with ordinality as x (type, name, mode, position)
        where coalesce(x.mode, 'i') in ('i', 'b', 'v')
      ) as a
      where a.type is not null
    ) as arguments
  from pg_catalog.pg_proc as p
  join pg_catalog.pg_namespace as s on s.oid = p.pronamespace
  join pg_catalog.pg_type as t on t.oid = p.prorettype
  join pg_catalog.pg_type as b on b.oid = case t.typtype when 'd' then t.typbasetype else t.oid end
  where s.nspname = $1 and p.prokind = 'f'
  order by p.proname, p.oid
) as f";

/// All of them, by name.
#[derive(Debug, Default)]
pub struct Catalogue {
    functions: HashMap<String, Vec<Function>>,
}

impl Catalogue {
    /// Reads them.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn read(client: &Client) -> Result<Catalogue, Error> {
        let rows = client
            .query_typed(FUNCTIONS, &[(&SCHEMA, tokio_postgres::types::Type::TEXT)])
            .await?;
        let text: &str = rows.first().map_or(Ok("[]"), |row| row.try_get(0))?;
        let functions: Vec<Function> = serde_json::from_str(text).map_err(|e| Error::System {
            what: "reading the functions of shell_api",
            source: e.into(),
        })?;
        Ok(Catalogue::from_iter(functions))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.functions.values().map(Vec::len).sum()
    }

    /// All with this name; true where any of them may write.
    pub fn volatile(&self, name: &str) -> Option<bool> {
        let all = self.functions.get(name)?;
        Some(all.iter().any(|f| f.volatile))
    }

    /// The one function of this name that takes these arguments.
    ///
    /// # Errors
    /// PGRST202 where there is none, PGRST203 where there are several.
    pub fn resolve<'a>(&'a self, name: &str, keys: &[&str]) -> Result<&'a Function, Refusal> {
        let all = self.functions.get(name).map_or(&[][..], Vec::as_slice);
        let mut fitting = all.iter().filter(|f| f.takes(keys));
        match (fitting.next(), fitting.next()) {
            (Some(function), None) => Ok(function),
            (None, _) => Err(self.none(name, keys, all)),
            (Some(_), Some(_)) => Err(ambiguous(all.iter().filter(|f| f.takes(keys)))),
        }
    }

    fn none(&self, name: &str, keys: &[&str], same_name: &[Function]) -> Refusal {
        let list = keys.join(", ");
        let (named, searched) = match keys.len() {
            0 => (" without parameters".into(), " without parameters".into()),
            1 => (format!("({list})"), format!(" with parameter {list}")),
            _ => (format!("({list})"), format!(" with parameters {list}")),
        };
        let near = match same_name.first() {
            Some(function) => Some(function.signature()),
            None => nearest(name, self.functions.keys()),
        };
        let refusal = Refusal::new(
            StatusCode::NOT_FOUND,
            "PGRST202",
            format!("Could not find the function {SCHEMA}.{name}{named} in the schema cache"),
        )
        .details(format!(
            "Searched for the function {SCHEMA}.{name}{searched}, but no matches were found in the schema cache."
        ));
        match near {
            Some(near) => refusal.hint(format!(
                "Perhaps you meant to call the function {SCHEMA}.{near}"
            )),
            None => refusal,
        }
    }
}

impl FromIterator<Function> for Catalogue {
    fn from_iter<T: IntoIterator<Item = Function>>(all: T) -> Catalogue {
        let mut functions: HashMap<String, Vec<Function>> = HashMap::new();
        for function in all {
            functions
                .entry(function.name.clone())
                .or_default()
                .push(function);
        }
        Catalogue { functions }
    }
}

impl Function {
    /// The required ones, and of the others any.
    fn takes(&self, keys: &[&str]) -> bool {
        let known = keys
            .iter()
            .all(|key| self.arguments.iter().any(|a| a.name == *key));
        known
            && self
                .arguments
                .iter()
                .filter(|a| a.required)
                .all(|a| keys.contains(&a.name.as_str()))
    }

    fn signature(&self) -> String {
        let names: Vec<_> = self.arguments.iter().map(|a| a.name.as_str()).collect();
        format!("{}({})", self.name, names.join(", "))
    }
}

fn ambiguous<'a>(functions: impl Iterator<Item = &'a Function>) -> Refusal {
    let list: Vec<_> = functions
        .map(|f| {
            let arguments: Vec<_> = f
                .arguments
                .iter()
                .map(|a| format!("{} => {}", a.name, a.kind))
                .collect();
            format!("{SCHEMA}.{}({})", f.name, arguments.join(", "))
        })
        .collect();
    Refusal::new(
        StatusCode::MULTIPLE_CHOICES,
        "PGRST203",
        format!("Could not choose the best candidate function between: {}", list.join(", ")),
    )
    .hint("Try renaming the parameters or the function itself in the database so function overloading can be resolved")
}

/// The name that is at most a third of its letters away.
fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a String>) -> Option<String> {
    // A name from outside may be long, and the table below grows with it.
    let name: Vec<char> = name.chars().take(64).collect();
    let (distance, near) = names.map(|other| (distance(&name, other), other)).min()?;
    (distance * 3 <= near.len()).then(|| near.clone())
}

fn distance(one: &[char], other: &str) -> usize {
    let mut row: Vec<usize> = (0..=one.len()).collect();
    for (i, b) in other.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, a) in one.iter().enumerate() {
            let changed = diagonal + usize::from(*a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[one.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(name: &str, arguments: &[(&str, bool)]) -> Function {
        let arguments = arguments
            .iter()
            .map(|(name, required)| Argument {
                name: (*name).into(),
                kind: "text".into(),
                required: *required,
            })
            .collect();
        Function {
            name: name.into(),
            arguments,
            kind: Kind::Scalar,
            is_set: false,
            volatile: false,
            media: None,
        }
    }

    #[test]
    fn keys_are_the_required_ones_and_any_of_the_others() {
        let all = Catalogue::from_iter([
            function("f", &[("a", true), ("b", false)]),
            function("g", &[("a", true)]),
            function("g", &[("a", true), ("c", false)]),
        ]);
        for keys in [&["a"][..], &["a", "b"], &["b", "a"]] {
            assert!(all.resolve("f", keys).is_ok(), "{keys:?}");
        }
        for keys in [&[][..], &["b"], &["a", "c"], &["a", "b", "c"]] {
            assert_eq!(
                all.resolve("f", keys).unwrap_err().code,
                "PGRST202",
                "{keys:?}"
            );
        }
        assert_eq!(all.resolve("g", &["a"]).unwrap_err().code, "PGRST203");
        assert_eq!(all.resolve("g", &["a", "c"]).unwrap().arguments.len(), 2);
    }

    #[test]
    fn a_near_name_is_hinted_at() {
        let all = Catalogue::from_iter([function("submit_command", &[])]);
        let hint = |name: &str| all.resolve(name, &[]).unwrap_err().hint;
        assert!(
            hint("submit_comand")
                .unwrap()
                .ends_with("shell_api.submit_command")
        );
        assert_eq!(hint("whatever"), None);
        assert_eq!(hint(&"x".repeat(100_000)), None);
    }
}
