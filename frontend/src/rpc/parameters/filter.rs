//! Filters: an operator, a dot and its operand, on a column of the result.

use crate::sql::Sql;

/// A comparison that a filter makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    /// An operator of SQL between the column and the value.
    Infix(&'static str),
    /// LIKE or ILIKE, with * for %.
    Like(&'static str),
    /// One of a list.
    In,
    /// IS null, true, false, unknown, not_null.
    Is,
    /// A text search, by the function that makes the query.
    Search(&'static str),
}

const OPERATORS: &[(&str, Operator)] = &[
    ("eq", Operator::Infix("=")),
    ("neq", Operator::Infix("<>")),
    ("gt", Operator::Infix(">")),
    ("gte", Operator::Infix(">=")),
    ("lt", Operator::Infix("<")),
    ("lte", Operator::Infix("<=")),
    ("match", Operator::Infix("~")),
    ("imatch", Operator::Infix("~*")),
    ("isdistinct", Operator::Infix("is distinct from")),
    ("cs", Operator::Infix("@>")),
    ("cd", Operator::Infix("<@")),
    ("ov", Operator::Infix("&&")),
    ("sl", Operator::Infix("<<")),
    ("sr", Operator::Infix(">>")),
    ("nxl", Operator::Infix("&>")),
    ("nxr", Operator::Infix("&<")),
    ("adj", Operator::Infix("-|-")),
    ("like", Operator::Like("like")),
    ("ilike", Operator::Like("ilike")),
    ("in", Operator::In),
    ("is", Operator::Is),
    ("fts", Operator::Search("to_tsquery")),
    ("plfts", Operator::Search("plainto_tsquery")),
    ("phfts", Operator::Search("phraseto_tsquery")),
    ("wfts", Operator::Search("websearch_to_tsquery")),
];

const TRUTHS: &[(&str, &str)] = &[
    ("null", "null"),
    ("not_null", "not null"),
    ("true", "true"),
    ("false", "false"),
    ("unknown", "unknown"),
];

/// A condition on a column of the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    column: String,
    negated: bool,
    operator: Operator,
    /// Of a list, its members.
    values: Vec<String>,
}

impl Filter {
    /// A value that is an operator, a dot and its operand; of any other, nothing.
    pub fn parse(column: &str, value: &str) -> Option<Filter> {
        let (negated, rest) = match value.strip_prefix("not.") {
            Some(rest) => (true, rest),
            None => (false, value),
        };
        let (name, operand) = rest.split_once('.')?;
        let (_, operator) = OPERATORS.iter().find(|(known, _)| *known == name)?;
        let values = match operator {
            Operator::In => list(operand)?,
            Operator::Is => {
                let wanted = operand.to_ascii_lowercase();
                let (_, sql) = TRUTHS.iter().find(|(known, _)| *known == wanted)?;
                vec![(*sql).into()]
            }
            Operator::Like(_) => vec![operand.replace('*', "%")],
            _ => vec![operand.into()],
        };
        Some(Filter {
            column: column.into(),
            negated,
            operator: *operator,
            values,
        })
    }

    /// Adds the condition to a statement.
    pub fn write(&self, sql: &mut Sql) {
        let value = || self.values.first().cloned().unwrap_or_default();
        if self.negated {
            sql.push("not ");
        }
        sql.push("t.");
        sql.name(&self.column);
        match self.operator {
            Operator::Infix(operator) | Operator::Like(operator) => {
                sql.push(&format!(" {operator} "));
                sql.value(value());
            }
            Operator::In => {
                sql.push(" = any (");
                sql.value(array(&self.values));
                sql.push(")");
            }
            Operator::Is => sql.push(&format!(" is {}", value())),
            Operator::Search(function) => {
                sql.push(&format!(" @@ {function}("));
                sql.value(value());
                sql.push(")");
            }
        }
    }
}

/// The members of `(a,"b,c")`.
fn list(text: &str) -> Option<Vec<String>> {
    let mut rest = text.strip_prefix('(')?.strip_suffix(')')?;
    let mut members = Vec::new();
    if rest.is_empty() {
        return Some(members);
    }
    loop {
        let (member, after) = match rest.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].to_owned(), &rest[end..])
            }
        };
        members.push(member);
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None if after.is_empty() => return Some(members),
            None => return None,
        }
    }
}

/// What stands before the closing quote, and what after it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut member = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((member, &text[at + 1..])),
            '\\' => member.push(letters.next()?.1),
            other => member.push(other),
        }
    }
    None
}

/// An array as Postgres reads it.
fn array(members: &[String]) -> String {
    let quote = |m: &String| format!("\"{}\"", m.replace('\\', "\\\\").replace('"', "\\\""));
    let members: Vec<_> = members.iter().map(quote).collect();
    format!("{{{}}}", members.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(value: &str) -> Option<String> {
        let mut sql = Sql::default();
        Filter::parse("c", value)?.write(&mut sql);
        let values: Vec<_> = sql.parameters.iter().filter_map(|v| v.0.clone()).collect();
        Some(format!("{} {}", sql.text, values.join("|")))
    }

    #[test]
    fn operators_and_what_is_none() {
        let rows = [
            ("eq.1", Some("t.\"c\" = $1 1")),
            ("eq.", Some("t.\"c\" = $1 ")),
            ("not.eq.a.b", Some("not t.\"c\" = $1 a.b")),
            ("like.a*", Some("t.\"c\" like $1 a%")),
            ("is.null", Some("t.\"c\" is null ")),
            ("is.NOT_NULL", Some("t.\"c\" is not null ")),
            ("is.maybe", None),
            (
                "in.(1,\"a,b\",\"q\\\"\")",
                Some("t.\"c\" = any ($1) {\"1\",\"a,b\",\"q\\\"\"}"),
            ),
            ("in.()", Some("t.\"c\" = any ($1) {}")),
            ("in.1", None),
            ("in.(\"a)", None),
            ("cs.{a}", Some("t.\"c\" @> $1 {a}")),
            ("fts.cat", Some("t.\"c\" @@ to_tsquery($1) cat")),
            ("plain", None),
            ("eq", None),
            ("equal.1", None),
            ("3.14", None),
        ];
        for (value, expected) in rows {
            assert_eq!(condition(value).as_deref(), expected, "{value}");
        }
    }
}
