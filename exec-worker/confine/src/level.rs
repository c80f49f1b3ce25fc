//! How much confinement a command gets. An administrator says so, to whoever starts launches; no row and no
//! specification does.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A level of confinement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Everything: namespaces, a private root, seccomp, no capabilities.
    #[default]
    Strict,
    /// For hosts without user namespaces: Landlock, seccomp and rlimits.
    Basic,
}

impl Level {
    /// Every level, the strongest first.
    pub const ALL: [Level; 2] = [Level::Strict, Level::Basic];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Level::Strict => "strict",
            Level::Basic => "basic",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Level, String> {
        let known = Level::ALL.into_iter().find(|level| level.name() == text);
        known.ok_or_else(|| format!("\"{text}\" is neither strict nor basic"))
    }
}
