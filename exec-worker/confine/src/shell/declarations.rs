//! Reading what `declare -p`, `export -p` and `declare -f` print.

/// One declaration: a variable, its attributes, its value and the text that declares it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Declaration<'a> {
    /// Attribute letters of `declare`, without the dash; empty for none.
    pub attributes: &'a str,
    pub name: &'a str,
    /// The value as a word of the shell.
    word: Option<&'a [u8]>,
    /// The whole line, or lines.
    pub text: &'a [u8],
}

impl Declaration<'_> {
    /// The value of a scalar, unquoted; `None` for an array, or where there is no value.
    pub(super) fn value(&self) -> Option<Vec<u8>> {
        self.word.filter(|v| !v.starts_with(b"(")).and_then(unquote)
    }

    /// True for a variable that programs see.
    pub(super) fn exported(&self) -> bool {
        self.attributes.contains('x')
    }
}

/// Splits at newlines that stand outside quotes.
pub(super) fn logical_lines(text: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < text.len() {
        match text[at] {
            b'\n' => {
                lines.push(&text[start..at]);
                start = at + 1;
                at += 1;
            }
            b'"' => at = skip(text, at + 1, b'"', true),
            b'\'' => at = skip(text, at + 1, b'\'', at > 0 && text[at - 1] == b'$'),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    if start < text.len() {
        lines.push(&text[start..]);
    }
    lines
}

/// The position after the closing quote.
fn skip(text: &[u8], mut at: usize, quote: u8, escapes: bool) -> usize {
    while at < text.len() {
        match text[at] {
            b'\\' if escapes => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// Reads the output of `declare -p` (bash) or `export -p` (any shell).
pub(super) fn parse(text: &[u8]) -> impl Iterator<Item = Declaration<'_>> {
    logical_lines(text).into_iter().filter_map(declaration)
}

fn declaration(line: &[u8]) -> Option<Declaration<'_>> {
    let (attributes, rest) = if let Some(rest) = line.strip_prefix(b"declare -") {
        let end = rest.iter().position(|&c| c == b' ')?;
        (
            std::str::from_utf8(&rest[..end]).ok()?.trim_matches('-'),
            &rest[end + 1..],
        )
    } else {
        ("x", line.strip_prefix(b"export ")?)
    };
    let equals = rest.iter().position(|&c| c == b'=');
    let name = std::str::from_utf8(&rest[..equals.unwrap_or(rest.len())]).ok()?;
    if !is_name(name) {
        return None;
    }
    Some(Declaration {
        attributes,
        name,
        word: equals.map(|at| &rest[at + 1..]),
        text: line,
    })
}

/// True for what a shell accepts as the name of a variable.
pub(super) fn is_name(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
}

/// The bytes that a word of quoted and unquoted parts stands for; a shell's value has no NUL among them.
fn unquote(word: &[u8]) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    let mut rest = word;
    while let Some((&first, tail)) = rest.split_first() {
        rest = match (first, tail.first()) {
            (b'$', Some(b'\'')) => ansi_c(&tail[1..], &mut value)?,
            (b'\'', _) => {
                let end = tail.iter().position(|&c| c == b'\'')?;
                value.extend_from_slice(&tail[..end]);
                &tail[end + 1..]
            }
            (b'"', _) => double_quoted(tail, &mut value)?,
            (b'\\', Some(&c)) => {
                value.push(c);
                &tail[1..]
            }
            _ => {
                value.push(first);
                tail
            }
        };
    }
    (!value.contains(&0)).then_some(value)
}

fn double_quoted<'a>(mut rest: &'a [u8], value: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (&c, tail) = rest.split_first()?;
        rest = tail;
        match c {
            b'"' => return Some(rest),
            b'\\' => {
                let (&next, tail) = rest.split_first()?;
                rest = tail;
                if !matches!(next, b'"' | b'\\' | b'$' | b'`') {
                    value.push(b'\\');
                }
                value.push(next);
            }
            c => value.push(c),
        }
    }
}

/// What stands between `$'` and `'`, by the rules of bash's manual, "ANSI-C Quoting".
fn ansi_c<'a>(mut rest: &'a [u8], value: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (&c, tail) = rest.split_first()?;
        rest = tail;
        if c == b'\'' {
            return Some(rest);
        }
        if c != b'\\' {
            value.push(c);
            continue;
        }
        let (&escape, tail) = rest.split_first()?;
        rest = tail;
        match escape {
            b'a' => value.push(7),
            b'b' => value.push(8),
            b'e' | b'E' => value.push(27),
            b'f' => value.push(12),
            b'n' => value.push(10),
            b'r' => value.push(13),
            b't' => value.push(9),
            b'v' => value.push(11),
            b'0'..=b'7' => {
                let digits = rest
                    .iter()
                    .take(2)
                    .take_while(|c| (b'0'..=b'7').contains(c))
                    .count();
                let number = rest[..digits]
                    .iter()
                    .fold(u32::from(escape - b'0'), |n, c| n * 8 + u32::from(c - b'0'));
                value.push(number as u8);
                rest = &rest[digits..];
            }
            b'x' | b'u' | b'U' => {
                let most = match escape {
                    b'x' => 2,
                    b'u' => 4,
                    _ => 8,
                };
                let digits = rest
                    .iter()
                    .take(most)
                    .take_while(|c| c.is_ascii_hexdigit())
                    .count();
                let number =
                    u32::from_str_radix(std::str::from_utf8(&rest[..digits]).ok()?, 16).ok()?;
                rest = &rest[digits..];
                if escape == b'x' {
                    value.push(number as u8);
                } else {
                    value.extend_from_slice(
                        char::from_u32(number)?.encode_utf8(&mut [0; 4]).as_bytes(),
                    );
                }
            }
            other => value.push(other),
        }
    }
}

/// Removes functions whose name is in `ours` (or begins with its prefix) from the output of `declare -f`.
pub(super) fn without_functions(text: &[u8], is_ours: impl Fn(&str) -> bool) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut skipping = false;
    for line in text.split_inclusive(|&c| c == b'\n') {
        if !skipping {
            let name = line
                .strip_suffix(b" () \n")
                .and_then(|n| std::str::from_utf8(n).ok());
            skipping = name.is_some_and(&is_ours);
        }
        if !skipping {
            kept.extend_from_slice(line);
        } else if line == b"}\n" {
            skipping = false;
        }
    }
    kept
}
