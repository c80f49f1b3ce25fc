//! What a command printed as a terminal shows it: escaped HTML, a logical line a string, colours as classes.
//!
//! Lines that have scrolled off the screen never change again; they are rendered once and forgotten. So what is kept
//! is a screenful, however much is printed. Text reaches HTML through [`escape`] alone, and everything else there is
//! written by this module from a fixed set of names: output can never become markup.

use avt::observer::{Observation, Observer};
use avt::{Cell, Color, Line, Pen, Terminal};

/// Wide enough that what is written for 80 columns is not broken; what is broken is joined again.
const COLUMNS: usize = 256;
const ROWS: usize = 24;
/// A line of so many rows is cut: it would be sent whole with each change.
const MOST_ROWS: usize = 64;

/// A screen that can be told what to show and asked what has changed.
pub struct Screen {
    terminal: Terminal,
    gone: Gone,
    /// The number of the first line of `shown`.
    first: usize,
    /// The lines that may still change, as they were last told.
    shown: Vec<String>,
}

/// The lines from number `from` on; what was told of these before is no longer so.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Change {
    /// The number of the first line, from 0.
    pub from: usize,
    /// HTML, without the line's end.
    pub lines: Vec<String>,
}

/// Gathers the rows that leave the screen.
#[derive(Default)]
struct Gone {
    line: Vec<Cell>,
    rows: usize,
    lines: Vec<String>,
}

impl Gone {
    fn push(&mut self, row: &Line) {
        self.line.extend_from_slice(row.cells());
        self.rows += 1;
        if !row.is_wrapped() || self.rows >= MOST_ROWS {
            self.lines.push(html(&self.line));
            self.line.clear();
            self.rows = 0;
        }
    }
}

impl Observer for &mut Gone {
    type Output = ();

    fn evicted(&mut self, _: &mut Observation<'_>, line: &Line) {
        self.push(line);
    }

    fn end(&mut self, _: &mut Observation<'_>) {}
}

impl Screen {
    /// An empty one.
    pub fn new() -> Screen {
        Screen {
            terminal: Terminal::new(COLUMNS, ROWS).expect("a size that is not zero"),
            gone: Gone::default(),
            first: 0,
            shown: Vec::new(),
        }
    }

    /// Shows text, and tells what has changed.
    pub fn feed(&mut self, text: &str) -> Option<Change> {
        // A terminal's driver makes both of a line's end; there is none between the command and here.
        for (index, line) in text.split('\n').enumerate() {
            if index > 0 {
                self.terminal.feed_with("\r\n", &mut self.gone);
            }
            self.terminal.feed_with(line, &mut self.gone);
        }
        let gone = std::mem::take(&mut self.gone.lines);
        let next_first = self.first + gone.len();
        let mut lines = gone;
        let kept = lines.len();
        lines.extend(self.visible());
        let same = lines
            .iter()
            .zip(&self.shown)
            .take_while(|(now, then)| now == then)
            .count();
        let unchanged = same == lines.len() && same == self.shown.len();
        let change = (!unchanged).then(|| Change {
            from: self.first + same,
            lines: lines[same..].to_vec(),
        });
        self.first = next_first;
        self.shown = lines.split_off(kept);
        change
    }

    /// The lines on the screen, without empty ones at its end.
    fn visible(&self) -> Vec<String> {
        let mut rest = Gone {
            line: self.gone.line.clone(),
            rows: self.gone.rows,
            lines: Vec::new(),
        };
        for row in self.terminal.screen().visible_lines() {
            rest.push(row);
        }
        if rest.rows > 0 {
            rest.lines.push(html(&rest.line));
        }
        while rest.lines.last().is_some_and(String::is_empty) {
            rest.lines.pop();
        }
        rest.lines
    }
}

/// Several changes, in their order, as one.
pub fn together(changes: Vec<Change>) -> Option<Change> {
    changes.into_iter().reduce(|mut whole, next| {
        if next.from <= whole.from {
            return next;
        }
        whole.lines.truncate(next.from - whole.from);
        whole.lines.extend(next.lines);
        whole
    })
}

/// All lines of finished output.
pub fn render(text: &str) -> Vec<String> {
    Screen::new()
        .feed(text)
        .map_or_else(Vec::new, |change| change.lines)
}

/// The cells of one line, blank ones at its end left out.
fn html(cells: &[Cell]) -> String {
    let blank = |cell: &&Cell| cell.char() == ' ' && *cell.pen() == Pen::default();
    let end = cells.len() - cells.iter().rev().take_while(blank).count();
    let mut text = String::new();
    let mut pen = Pen::default();
    // The second half of a wide character has no width.
    for cell in cells[..end].iter().filter(|cell| cell.width() > 0) {
        if *cell.pen() != pen {
            close(&mut text, &pen);
            pen = *cell.pen();
            open(&mut text, &pen);
        }
        escape(&mut text, cell.char());
    }
    close(&mut text, &pen);
    text
}

fn close(text: &mut String, pen: &Pen) {
    if *pen != Pen::default() {
        text.push_str("</span>");
    }
}

fn open(text: &mut String, pen: &Pen) {
    if *pen == Pen::default() {
        return;
    }
    let mut classes = Vec::new();
    if let Some(color) = pen.foreground() {
        classes.push(format!("fg{}", index(color)));
    }
    if let Some(color) = pen.background() {
        classes.push(format!("bg{}", index(color)));
    }
    let marks = [
        (pen.is_bold(), "bold"),
        (pen.is_faint(), "faint"),
        (pen.is_italic(), "italic"),
        (pen.is_underline(), "underline"),
        (pen.is_strikethrough(), "strike"),
        (pen.is_blink(), "blink"),
        (pen.is_inverse(), "inverse"),
    ];
    let set = marks.iter().filter(|(set, _)| *set);
    classes.extend(set.map(|(_, name)| (*name).to_owned()));
    text.push_str("<span class=\"");
    text.push_str(&classes.join(" "));
    text.push_str("\">");
}

/// Adds a character as text.
fn escape(text: &mut String, letter: char) {
    match letter {
        '&' => text.push_str("&amp;"),
        '<' => text.push_str("&lt;"),
        '>' => text.push_str("&gt;"),
        '"' => text.push_str("&quot;"),
        '\'' => text.push_str("&#39;"),
        // Others are commands to a terminal, never text.
        control if control.is_control() => text.push('\u{fffd}'),
        other => text.push(other),
    }
}

/// A colour of the 256: without inline styles there is a class for each. Others become the nearest of the cube.
fn index(color: Color) -> u8 {
    match color {
        Color::Indexed(index) => index,
        Color::RGB(rgb) => {
            let step = |value: u8| match value {
                0..48 => 0,
                48..115 => 1,
                _ => (value - 35) / 40,
            };
            16 + 36 * step(rgb.r) + 6 * step(rgb.g) + step(rgb.b)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_colours_and_carriage_returns() {
        let rows: &[(&str, &[&str])] = &[
            ("", &[]),
            ("a\nb\n", &["a", "b"]),
            ("a\n\nb", &["a", "", "b"]),
            ("10%\r100%\n", &["100%"]),
            (
                "\x1b[31mred\x1b[0m plain",
                &["<span class=\"fg1\">red</span> plain"],
            ),
            (
                "\x1b[1;4;38;5;200;48;2;255;0;0mx",
                &["<span class=\"fg200 bg196 bold underline\">x</span>"],
            ),
            ("<script>&'\"", &["&lt;script&gt;&amp;&#39;&quot;"]),
            ("\x1b]0;title\x07x", &["x"]),
            ("a\x1b[2Kb", &[" b"]),
            ("日本", &["日本"]),
        ];
        for (text, lines) in rows {
            assert_eq!(render(text), *lines, "{text:?}");
        }
    }

    #[test]
    fn long_lines_are_whole_and_endless_ones_cut() {
        let long = "x".repeat(1000);
        assert_eq!(render(&format!("{long}\ny")), [long, "y".into()]);
        let endless = "x".repeat(1_000_000);
        let lines = render(&endless);
        assert_eq!(lines.concat(), endless);
        assert!(lines.iter().all(|line| line.len() <= MOST_ROWS * COLUMNS));
    }

    #[test]
    fn only_what_changes_is_told() {
        let mut screen = Screen::new();
        let mut tell = |text: &str| screen.feed(text).map(|c| (c.from, c.lines));
        assert_eq!(
            tell("one\ntwo"),
            Some((0, vec!["one".into(), "two".into()]))
        );
        assert_eq!(tell(""), None);
        assert_eq!(tell("\rTWO"), Some((1, vec!["TWO".into()])));
        assert_eq!(tell("\nthree\n"), Some((2, vec!["three".into()])));
        assert_eq!(
            tell("\x1b[2A!"),
            Some((1, vec!["!WO".into(), "three".into()]))
        );
    }

    /// The lines that a client has that follows the changes.
    fn follow(pieces: &[String]) -> Vec<String> {
        let mut screen = Screen::new();
        let mut lines: Vec<String> = Vec::new();
        for change in pieces.iter().filter_map(|piece| screen.feed(piece)) {
            assert!(
                change.from <= lines.len(),
                "a gap before line {}",
                change.from
            );
            lines.truncate(change.from);
            lines.extend(change.lines);
        }
        lines
    }

    /// Nothing but spans with known classes, and entities.
    fn is_harmless(line: &str) -> bool {
        let mut rest = line;
        let mut depth = 0;
        while let Some(at) = rest.find(['<', '>', '"', '\'']) {
            let tag = &rest[at..];
            let open = tag
                .strip_prefix("<span class=\"")
                .and_then(|t| t.split_once("\">"));
            rest = match (open, tag.strip_prefix("</span>")) {
                (Some((classes, after)), _)
                    if classes
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b' ') =>
                {
                    depth += 1;
                    after
                }
                (None, Some(after)) => {
                    depth -= 1;
                    after
                }
                _ => return false,
            };
        }
        let entities = ["amp;", "lt;", "gt;", "quot;", "#39;"];
        let ampersands = line
            .split('&')
            .skip(1)
            .all(|after| entities.iter().any(|e| after.starts_with(e)));
        depth == 0 && ampersands && !line.contains(|c: char| c.is_control())
    }

    fn piece() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<String>(),
            "[<>&\"'a-z/= ]{0,30}",
            "(\x1b\\[[0-9;]{0,8}[A-Zm]|[a-z<>\r\n\t]|日){0,60}",
            "\x1b[\\]P_^X][<a-z>;\"]{0,20}(\x07|\x1b\\\\)?",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn output_never_becomes_markup(pieces in prop::collection::vec(piece(), 0..40)) {
            for line in follow(&pieces) {
                prop_assert!(is_harmless(&line), "{line:?}");
            }
        }

        #[test]
        fn bytes_never_become_markup(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            for line in render(&String::from_utf8_lossy(&bytes)) {
                prop_assert!(is_harmless(&line), "{line:?}");
            }
        }

        #[test]
        fn changes_add_up_to_the_whole(pieces in prop::collection::vec(piece(), 0..40)) {
            prop_assert_eq!(follow(&pieces), render(&pieces.concat()));
        }
    }
}
