//! What this host can do of a confinement, step by step, and which level is to be had.
//!
//! The helper tries each step for real, in children of its own (`inside/probe`): whoever asks, a Postgres
//! backend for one, forks nothing. What a step is and who uses it stands in `steps`.

mod ask;
mod steps;

use serde::{Deserialize, Serialize};

use crate::level::Level;

pub use ask::examine;
pub(crate) use steps::STEPS;

/// Whether a level uses a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// Without it the level is not available.
    Required,
    /// It is used on hosts that have it.
    WhereThere,
    /// The level has no need of it.
    NotUsed,
}

impl Use {
    fn word(self) -> &'static str {
        match self {
            Use::Required => "required",
            Use::WhereThere => "used where there",
            Use::NotUsed => "not used",
        }
    }
}

/// What the helper says of a step: what was found, or why it cannot be had.
pub(crate) type Found = Result<String, String>;

/// What is said of a step that needs a user namespace where there is none.
pub(crate) const NOT_TRIED: &str = "not tried without a user namespace";

/// A line of the answer: a step, or at the end a level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The step's name, or `level strict` and `level basic`.
    pub step: String,
    /// Whether this host can do it.
    pub available: bool,
    /// What was tried, and what came of it.
    pub detail: String,
    /// What an administrator can do where it is not available; else empty.
    pub hint: String,
    /// Whether the level `strict` uses it.
    pub strict: String,
    /// Whether the level `basic` uses it.
    pub basic: String,
}

/// The name of a level's own row.
fn level_row(level: Level) -> String {
    format!("level {level}")
}

/// Whether the rows say that a level is to be had.
pub fn is_available(rows: &[Row], level: Level) -> bool {
    let name = level_row(level);
    rows.iter().any(|row| row.step == name && row.available)
}

/// The rows of the steps, from what was found of each, and then those of the levels.
fn rows(found: &[Found]) -> Vec<Row> {
    let mut rows: Vec<Row> = STEPS
        .iter()
        .zip(found)
        .map(|(step, found)| {
            let (told, hint) = match found {
                Ok(told) => (told, ""),
                Err(told) if told == NOT_TRIED => (told, "See the user namespace."),
                Err(told) => (told, step.hint),
            };
            Row {
                step: step.name.into(),
                available: found.is_ok(),
                detail: format!("{}: {told}", step.needs),
                hint: hint.into(),
                strict: step.strict.word().into(),
                basic: step.basic.word().into(),
            }
        })
        .collect();
    rows.extend(Level::ALL.map(|level| of_level(level, found)));
    rows
}

fn of_level(level: Level, found: &[Found]) -> Row {
    let uses = |step: &steps::Step| match level {
        Level::Strict => step.strict,
        Level::Basic => step.basic,
    };
    let missing: Vec<&str> = STEPS
        .iter()
        .zip(found)
        .filter(|(step, found)| uses(step) == Use::Required && found.is_err())
        .map(|(step, _)| step.name)
        .collect();
    let available = missing.is_empty();
    let (detail, hint) = match (available, level) {
        (true, _) => ("every step that it requires is there".into(), ""),
        (false, Level::Strict) => (
            format!("missing: {}", missing.join(", ")),
            "Commands are refused until these steps can be taken; where they never can, an administrator may \
             choose the level basic, which is weaker (SECURITY.md).",
        ),
        (false, Level::Basic) => (
            format!("missing: {}", missing.join(", ")),
            "Nothing needs to be done where strict is available.",
        ),
    };
    let word = |of: Level| if of == level { "the level" } else { "" }.into();
    Row {
        step: level_row(level),
        available,
        detail,
        hint: hint.into(),
        strict: word(Level::Strict),
        basic: word(Level::Basic),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(name: &str) -> Vec<Row> {
        let found: Vec<Found> = STEPS
            .iter()
            .map(|step| {
                if step.name == name {
                    Err("no".into())
                } else {
                    Ok("yes".into())
                }
            })
            .collect();
        rows(&found)
    }

    #[test]
    fn a_level_needs_what_it_requires_and_nothing_else() {
        for step in STEPS {
            let rows = without(step.name);
            for (level, uses) in [(Level::Strict, step.strict), (Level::Basic, step.basic)] {
                assert_eq!(
                    is_available(&rows, level),
                    uses != Use::Required,
                    "{level} without {}",
                    step.name
                );
            }
        }
    }

    #[test]
    fn what_is_missing_is_named_with_a_hint() {
        let rows = without("id map");
        let row = rows.iter().find(|r| r.step == "id map").unwrap();
        assert!(!row.available && !row.hint.is_empty());
        assert_eq!(row.detail, "writing uid_map and gid_map: no");
        let strict = rows.iter().find(|r| r.step == "level strict").unwrap();
        assert_eq!(strict.detail, "missing: id map");
        assert!(rows.iter().all(|r| r.available == r.hint.is_empty()));
    }

    #[test]
    fn names_are_told_once_and_hints_are_sentences() {
        for (at, step) in STEPS.iter().enumerate() {
            assert!(STEPS[..at].iter().all(|other| other.name != step.name));
            assert!(step.hint.ends_with(['.', ')']), "{}", step.name);
        }
    }
}
