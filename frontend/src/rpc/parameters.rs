//! What stands after the `?`: filters on the result, its columns, order and range, and on GET the arguments.

use axum::http::StatusCode;

use crate::error::Refusal;
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
    fn parse(column: &str, value: &str) -> Option<Filter> {
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

/// A column of the result as the client wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Column {
    /// "*" is all of them.
    name: String,
    alias: Option<String>,
    cast: Option<String>,
}

/// `order=`: a column, and what SQL writes after it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    column: String,
    direction: &'static str,
    nulls: &'static str,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Parameters {
    /// On GET, what is no filter: the last of each name.
    pub arguments: Vec<(String, String)>,
    filters: Vec<Filter>,
    select: Vec<Column>,
    order: Vec<Term>,
    /// Rows to pass over.
    pub offset: u64,
    /// Rows to give.
    pub limit: Option<u64>,
}

impl Parameters {
    /// Reads a query string; `arguments` where what is no filter is an argument.
    ///
    /// # Errors
    /// PGRST100, PGRST103.
    pub fn parse(query: &str, arguments: bool) -> Result<Parameters, Refusal> {
        let mut all = Parameters::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "select" => all.select = columns(&value)?,
                "order" => all.order = terms(&value)?,
                "offset" => {
                    let number: i64 = number("offset", &value)?;
                    all.offset = number.max(0).unsigned_abs();
                }
                "limit" => {
                    let number: i64 = number("limit", &value)?;
                    let limit = u64::try_from(number).map_err(|_| {
                        unsatisfiable("Limit should be greater than or equal to zero.")
                    })?;
                    all.limit = Some(limit);
                }
                "columns" | "on_conflict" => {}
                "and" | "or" | "not.and" | "not.or" => {
                    return Err(unreadable("logic tree", &value).hint(
                        "This server combines filters by \"and\" only: give each as a parameter.",
                    ));
                }
                _ => match Filter::parse(&name, &value) {
                    Some(filter) => all.filters.push(filter),
                    None if arguments => {
                        all.arguments.retain(|(known, _)| *known != name);
                        all.arguments.push((name.into_owned(), value.into_owned()));
                    }
                    None => return Err(unreadable("filter", &value)),
                },
            }
        }
        Ok(all)
    }

    /// Takes the header `Range` into account: `0-4`, `5-`. What is no such range counts for nothing.
    ///
    /// # Errors
    /// PGRST103.
    pub fn range(&mut self, header: &str) -> Result<(), Refusal> {
        let text = header.strip_prefix("items=").unwrap_or(header);
        let Some((first, last)) = text.split_once('-') else {
            return Ok(());
        };
        let (Ok(first), last) = (first.trim().parse::<u64>(), last.trim()) else {
            return Ok(());
        };
        let end = match last {
            "" => None,
            _ => match last.parse::<u64>() {
                Ok(last) if last < first => {
                    return Err(unsatisfiable(
                        "The lower boundary must be lower than or equal to the upper boundary in the Range header.",
                    ));
                }
                Ok(last) => Some(last.saturating_add(1)),
                Err(_) => return Ok(()),
            },
        };
        let own_end = self.limit.map(|limit| self.offset.saturating_add(limit));
        self.offset = self.offset.max(first);
        let end = match (end, own_end) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.limit = end.map(|end| end.saturating_sub(self.offset));
        Ok(())
    }

    /// Adds the conditions.
    pub fn write_where(&self, sql: &mut Sql) {
        for (index, filter) in self.filters.iter().enumerate() {
            sql.push(if index == 0 { " where " } else { " and " });
            filter.write(sql);
        }
    }

    /// Adds the columns.
    pub fn write_select(&self, sql: &mut Sql) {
        if self.select.is_empty() {
            sql.push("t.*");
        }
        for (index, column) in self.select.iter().enumerate() {
            if index > 0 {
                sql.push(", ");
            }
            if column.name == "*" {
                sql.push("t.*");
                continue;
            }
            sql.push("t.");
            sql.name(&column.name);
            if let Some(cast) = &column.cast {
                sql.push(&format!("::{cast}"));
            }
            sql.push(" as ");
            sql.name(column.alias.as_ref().unwrap_or(&column.name));
        }
    }

    /// Adds order and range.
    pub fn write_order(&self, sql: &mut Sql) {
        for (index, term) in self.order.iter().enumerate() {
            sql.push(if index == 0 { " order by " } else { ", " });
            sql.push("t.");
            sql.name(&term.column);
            sql.push(term.direction);
            sql.push(term.nulls);
        }
        if let Some(limit) = self.limit {
            sql.push(" limit ");
            sql.value(limit.to_string());
        }
        if self.offset > 0 {
            sql.push(" offset ");
            sql.value(self.offset.to_string());
        }
    }
}

fn number(name: &str, value: &str) -> Result<i64, Refusal> {
    value
        .parse()
        .map_err(|_| unreadable(&format!("{name} parameter"), value))
}

fn columns(text: &str) -> Result<Vec<Column>, Refusal> {
    let mut all = Vec::new();
    for item in text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
    {
        let (rest, cast) = match item.split_once("::") {
            Some((rest, cast)) => (rest, Some(cast)),
            None => (item, None),
        };
        let (alias, name) = match rest.split_once(':') {
            Some((alias, name)) => (Some(alias), name),
            None => (None, rest),
        };
        // A type's name cannot be quoted as a whole, so only what can be nothing else passes.
        let is_type = |cast: &str| {
            let bare = cast.strip_suffix("[]").unwrap_or(cast);
            !bare.is_empty()
                && bare
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "_ ".contains(c))
        };
        let plain = |name: &str| !name.is_empty() && !name.contains(['(', ')', '>', '!']);
        if !plain(name) || alias.is_some_and(str::is_empty) || !cast.is_none_or(is_type) {
            return Err(unreadable("select parameter", text)
                .hint("A column, alias:column or column::type is wanted, with commas between."));
        }
        all.push(Column {
            name: unquoted(name),
            alias: alias.map(unquoted),
            cast: cast.map(str::to_owned),
        });
    }
    Ok(all)
}

fn terms(text: &str) -> Result<Vec<Term>, Refusal> {
    let mut all = Vec::new();
    for item in text.split(',').map(str::trim) {
        let mut parts = item.split('.');
        let mut term = Term {
            column: unquoted(parts.next().unwrap_or_default()),
            direction: "",
            nulls: "",
        };
        for part in parts {
            match part {
                "asc" => term.direction = " asc",
                "desc" => term.direction = " desc",
                "nullsfirst" => term.nulls = " nulls first",
                "nullslast" => term.nulls = " nulls last",
                _ => return Err(unreadable("order", text)),
            }
        }
        if term.column.is_empty() || term.column.contains(['(', ')', '>']) {
            return Err(unreadable("order", text));
        }
        all.push(term);
    }
    Ok(all)
}

fn unquoted(name: &str) -> String {
    let bare = name
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    bare.unwrap_or(name).into()
}

fn unreadable(what: &str, value: &str) -> Refusal {
    Refusal::new(
        StatusCode::BAD_REQUEST,
        "PGRST100",
        format!("\"failed to parse {what} ({value})\" (line 1, column 1)"),
    )
    .details(format!("unexpected value for {what}"))
}

fn unsatisfiable(details: &str) -> Refusal {
    Refusal::new(
        StatusCode::RANGE_NOT_SATISFIABLE,
        "PGRST103",
        "Requested range not satisfiable",
    )
    .details(details)
}

/// The offset is beyond the last row.
pub fn beyond(offset: u64, total: i64) -> Refusal {
    unsatisfiable(&format!(
        "An offset of {offset} was requested, but there are only {total} rows."
    ))
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

    #[test]
    fn on_get_the_last_of_a_name_is_the_argument() {
        let all = Parameters::parse("a=1&a=2&b=eq.3&c=x", true).unwrap();
        let expected = [("a", "2"), ("c", "x")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(all.arguments, expected);
        assert_eq!(all.filters.len(), 1);
        assert_eq!(
            Parameters::parse("a=1", false).unwrap_err().code,
            "PGRST100"
        );
    }

    #[test]
    fn columns_order_and_range() {
        let mut all = Parameters::parse(
            "select=id,who:user_id::text,*&order=id.desc.nullslast,b&limit=10&offset=5",
            true,
        )
        .unwrap();
        let mut sql = Sql::default();
        all.write_select(&mut sql);
        all.write_order(&mut sql);
        assert_eq!(
            sql.text,
            "t.\"id\" as \"id\", t.\"user_id\"::text as \"who\", t.* \
             order by t.\"id\" desc nulls last, t.\"b\" limit $1 offset $2"
        );
        all.range("7-8").unwrap();
        assert_eq!((all.offset, all.limit), (7, Some(2)));
        assert!(all.range("5-4").is_err());
        for bad in [
            "select=a::text;drop",
            "select=a(b)",
            "order=a.up",
            "limit=x",
            "limit=-1",
            "or=(a.eq.1)",
        ] {
            assert!(Parameters::parse(bad, true).is_err(), "{bad}");
        }
    }
}
