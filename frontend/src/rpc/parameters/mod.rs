//! What stands after the `?`: filters on the result, its columns, order and range, and on GET the arguments.

mod columns;
mod filter;

use axum::http::StatusCode;

use crate::error::Refusal;
use crate::sql::Sql;
use columns::{Column, Term, columns, terms};
use filter::Filter;

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
