//! Names and values on their way into SQL: names are quoted, values are parameters in text form.

/// A name, quoted.
pub fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A value in text form, whose type Postgres finds from where it stands: what its input function refuses is
/// the caller's error, with Postgres's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(pub Option<String>);

impl<T: Into<String>> From<T> for Text {
    fn from(text: T) -> Text {
        Text(Some(text.into()))
    }
}

/// A statement that grows, with its parameters.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Sql {
    /// The text, with `$1` and so on.
    pub text: String,
    /// What these stand for.
    pub parameters: Vec<Text>,
}

impl From<&str> for Sql {
    fn from(text: &str) -> Sql {
        Sql {
            text: text.into(),
            parameters: Vec::new(),
        }
    }
}

impl Sql {
    /// Adds text of this program's own.
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Adds a name.
    pub fn name(&mut self, name: &str) {
        self.text.push_str(&identifier(name));
    }

    /// Adds a value.
    pub fn value(&mut self, value: impl Into<Text>) {
        self.parameters.push(value.into());
        self.text.push_str(&format!("${}", self.parameters.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::identifier;

    #[test]
    fn a_name_stays_a_name() {
        assert_eq!(identifier("plain"), "\"plain\"");
        assert_eq!(
            identifier("a\"; drop table x; --"),
            "\"a\"\"; drop table x; --\""
        );
    }
}
