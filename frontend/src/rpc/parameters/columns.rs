//! Which columns a client wants, and in which order.

use super::unreadable;
use crate::error::Refusal;

/// A column of the result as the client wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// "*" is all of them.
    pub name: String,
    /// What it is called in the result.
    pub alias: Option<String>,
    /// As which type.
    pub cast: Option<String>,
}

/// `order=`: a column, and what SQL writes after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// The column.
    pub column: String,
    /// Up or down.
    pub direction: &'static str,
    /// Where null stands.
    pub nulls: &'static str,
}

/// Reads `select`.
///
/// # Errors
/// PGRST100.
pub fn columns(text: &str) -> Result<Vec<Column>, Refusal> {
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

/// Reads `order`.
///
/// # Errors
/// PGRST100.
pub fn terms(text: &str) -> Result<Vec<Term>, Refusal> {
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
