//! What looks at the database find, as events of what its reader does not have yet.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::cursor::Cursor;
use super::{Form, Subject};
use crate::db::Row;
use crate::listener::Notice;
use crate::sql::Sql;
use crate::terminal::{Screen, together};

/// Chunks read at a time.
const CHUNKS: usize = 500;
/// Commands of a session read at a time.
const COMMANDS: usize = 100;

/// What to do after a look.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Look again at once.
    More,
    /// Wait for news.
    Wait,
    /// There will be no more.
    Over,
}

/// Turns looks into events.
pub struct Follower {
    subject: Subject,
    form: Form,
    /// What the reader had when it came.
    resumed: Cursor,
    cursor: Cursor,
    /// The terminal of the command at the cursor.
    screen: Option<Screen>,
    /// The status last told of each command that has not ended.
    told: HashMap<i64, String>,
}

/// A command as a look finds it.
struct Found {
    id: i64,
    status: String,
    attempt: i32,
    facts: Value,
    output: Option<String>,
    chunks: Vec<(i32, String, String)>,
}

impl Follower {
    /// A reader that is here now.
    pub fn new(subject: Subject, form: Form, cursor: Cursor) -> Follower {
        Follower {
            subject,
            form,
            resumed: cursor,
            cursor,
            screen: None,
            told: HashMap::new(),
        }
    }

    /// The commands from the cursor on; of the one there, what was printed since.
    pub fn question(&self) -> Sql {
        let Cursor {
            command,
            attempt,
            seq,
            ..
        } = self.cursor;
        // A terminal that is not there yet needs everything.
        let seq = if self.form == Form::Html && self.screen.is_none() {
            -1
        } else {
            seq
        };
        let mut sql = Sql::default();
        sql.push(
            "select c.id, c.status, c.attempt,
               (to_jsonb(c) - array['output'])::text,
               case when c.status in ('done', 'failed') then coalesce(c.output, '') end,
               case when c.status = 'running' then (
                 select json_agg(json_build_array(o.seq, o.stream, o.data) order by o.seq)::text
                 from (select x.* from shell_api.output_since(c.id, case when c.id = ",
        );
        sql.value(command.to_string());
        sql.push(" and c.attempt = ");
        sql.value(attempt.to_string());
        sql.push(" then ");
        sql.value(seq.to_string());
        sql.push(&format!(" else -1 end) as x order by x.seq limit {CHUNKS}) as o) end from shell_api.command_log as c where "));
        match self.subject {
            Subject::Command(id) => {
                sql.push("c.id = ");
                sql.value(id.to_string());
            }
            Subject::Session(id) => {
                sql.push("c.environment_id = ");
                sql.value(id.to_string());
                sql.push(if self.cursor.ended {
                    " and c.id > "
                } else {
                    " and c.id >= "
                });
                sql.value(command.to_string());
                sql.push(&format!(" order by c.id limit {COMMANDS}"));
            }
        }
        sql
    }

    /// Whether this may be news of what it follows.
    pub fn concerns(&self, notice: &Notice) -> bool {
        notice.all
            || match &self.subject {
                Subject::Command(id) => notice.commands.contains(id),
                Subject::Session(id) => notice.sessions.contains(id),
            }
    }

    /// Adds what a look has found that the reader does not have.
    pub fn take(&mut self, rows: &[Row], events: &mut String) -> Step {
        let mut step = Step::Wait;
        let mut at_cursor = true;
        for found in rows.iter().filter_map(Found::read) {
            if self.told.get(&found.id) != Some(&found.status) {
                event(events, "command", None, &found.facts);
                self.told.insert(found.id, found.status.clone());
            }
            // Commands of a session run one by one: those after one that has not ended wait.
            if !at_cursor {
                continue;
            }
            let full = found.chunks.len() == CHUNKS;
            if self.advance(found, events) {
                if matches!(self.subject, Subject::Command(_)) {
                    return Step::Over;
                }
            } else {
                at_cursor = false;
                if full {
                    step = Step::More;
                }
            }
        }
        if at_cursor && rows.len() == COMMANDS {
            step = Step::More;
        }
        // Its command is gone, by retention.
        if rows.is_empty() && matches!(self.subject, Subject::Command(_)) {
            step = Step::Over;
        }
        step
    }

    /// Tells what is new of the command at the cursor; true where it has ended.
    fn advance(&mut self, found: Found, events: &mut String) -> bool {
        if self.cursor.command != found.id || self.cursor.ended {
            self.cursor = Cursor::before(found.id);
            self.screen = None;
        }
        let again = self.cursor.attempt != found.attempt && self.cursor.seq >= 0;
        if again && found.status != "pending" {
            // What ended under a later attempt than was seen has another output as well.
            event(events, "restart", None, &json!({"command_id": found.id}));
            self.cursor = Cursor::before(found.id);
            self.screen = Some(Screen::new());
        }
        if found.status == "running" {
            self.cursor.attempt = found.attempt;
        }
        // The reader knows what the terminal shows up to here, if it was here before.
        let known = if self.resumed.command == found.id && !again && self.screen.is_none() {
            self.resumed.seq
        } else {
            -1
        };
        match found.output {
            None => {
                self.print_chunks(found.id, known, &found.chunks, events);
                false
            }
            Some(output) => {
                self.print_rest(found.id, &output, events);
                self.cursor = Cursor::after(found.id);
                self.screen = None;
                self.told.remove(&found.id);
                event(events, "end", Some(self.cursor), &found.facts);
                true
            }
        }
    }

    fn print_chunks(
        &mut self,
        id: i64,
        known: i32,
        chunks: &[(i32, String, String)],
        events: &mut String,
    ) {
        if self.form == Form::Text {
            for (seq, stream, data) in chunks {
                self.cursor.seq = *seq;
                self.cursor.bytes += data.len();
                let data = json!({"command_id": id, "stream": stream, "data": data});
                event(events, "output", Some(self.cursor), &data);
            }
            return;
        }
        let screen = self.screen.get_or_insert_with(Screen::new);
        let mut changes = Vec::new();
        for (seq, _, data) in chunks {
            if *seq > self.cursor.seq {
                self.cursor.seq = *seq;
                self.cursor.bytes += data.len();
            }
            match screen.feed(data) {
                Some(change) if *seq > known => changes.push(change),
                _ => {}
            }
        }
        // Only the lines that are so in the end: one change replaces all after it.
        if let Some(change) = together(changes) {
            let data = json!({"command_id": id, "from": change.from, "lines": change.lines});
            event(events, "lines", Some(self.cursor), &data);
        }
    }

    fn print_rest(&mut self, id: i64, output: &str, events: &mut String) {
        let (before, rest) = output.split_at(output.floor_char_boundary(self.cursor.bytes));
        self.cursor.bytes = output.len();
        if self.form == Form::Text {
            if !rest.is_empty() {
                let data = json!({"command_id": id, "stream": null, "data": rest});
                event(events, "output", Some(self.cursor), &data);
            }
            return;
        }
        let screen = self.screen.get_or_insert_with(|| {
            let mut screen = Screen::new();
            screen.feed(before);
            screen
        });
        if let Some(change) = screen.feed(rest) {
            let data = json!({"command_id": id, "from": change.from, "lines": change.lines});
            event(events, "lines", Some(self.cursor), &data);
        }
    }
}

impl Found {
    fn read(row: &Row) -> Option<Found> {
        let json = |text: Option<&str>| text.and_then(|text| serde_json::from_str(text).ok());
        let chunks: Option<Value> = json(row.text(5));
        Some(Found {
            id: row.number(0)?,
            status: row.text(1)?.into(),
            attempt: row.number(2)?,
            facts: json(row.text(3)).unwrap_or_default(),
            output: row.text(4).map(str::to_owned),
            chunks: chunks
                .and_then(|all| serde_json::from_value(all).ok())
                .unwrap_or_default(),
        })
    }
}

/// Adds an event. JSON has no line ends of its own, so its data is one line.
fn event(events: &mut String, name: &str, id: Option<Cursor>, data: &Value) {
    use std::fmt::Write;
    let _ = match id {
        Some(id) => write!(events, "event: {name}\nid: {id}\ndata: {data}\n\n"),
        None => write!(events, "event: {name}\ndata: {data}\n\n"),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower(form: Form, cursor: Cursor) -> Follower {
        Follower::new(Subject::Command(7), form, cursor)
    }

    fn found(status: &str, attempt: i32, chunks: &[(i32, &str)], output: Option<&str>) -> Found {
        Found {
            id: 7,
            status: status.into(),
            attempt,
            facts: json!({"id": 7}),
            output: output.map(str::to_owned),
            chunks: chunks
                .iter()
                .map(|(n, data)| (*n, "stdout".into(), (*data).into()))
                .collect(),
        }
    }

    fn events(follower: &mut Follower, found: Found) -> Vec<String> {
        let mut events = String::new();
        follower.advance(found, &mut events);
        events
            .split("\n\n")
            .filter(|e| !e.is_empty())
            .map(|e| e.replace('\n', "|"))
            .collect()
    }

    #[test]
    fn text_comes_once_and_the_rest_at_the_end() {
        let mut it = follower(Form::Text, Cursor::before(7));
        let first = events(&mut it, found("running", 1, &[(0, "ab"), (1, "ü")], None));
        assert_eq!(first.len(), 2);
        assert!(
            first[1].starts_with("event: output|id: 7-1-2-4|"),
            "{first:?}"
        );
        let last = events(&mut it, found("done", 1, &[], Some("abücd")));
        assert!(last[0].contains(r#""data":"cd""#), "{last:?}");
        assert!(last[1].starts_with("event: end|id: 7-end|"), "{last:?}");

        let mut back = follower(Form::Text, "7-1-2-4".parse().unwrap());
        assert_eq!(
            events(&mut back, found("done", 1, &[], Some("abücd"))),
            last
        );
    }

    #[test]
    fn lines_come_once_and_a_reader_that_comes_back_goes_on() {
        let mut it = follower(Form::Html, Cursor::before(7));
        let first = events(
            &mut it,
            found("running", 1, &[(0, "one\n"), (1, "10%")], None),
        );
        assert_eq!(
            first,
            [r#"event: lines|id: 7-1-2-7|data: {"command_id":7,"from":0,"lines":["one","10%"]}"#]
        );
        let next = events(&mut it, found("running", 1, &[(2, "\r20%")], None));
        assert_eq!(
            next,
            [r#"event: lines|id: 7-1-3-11|data: {"command_id":7,"from":1,"lines":["20%"]}"#]
        );

        let all = [(0, "one\n"), (1, "10%"), (2, "\r20%")];
        let mut back = follower(Form::Html, "7-1-2-7".parse().unwrap());
        assert_eq!(events(&mut back, found("running", 1, &all, None)), next);
        let mut late = follower(Form::Html, "7-1-2-7".parse().unwrap());
        let end = events(&mut late, found("done", 1, &[], Some("one\n10%\r20%\n")));
        assert!(end[0].contains(r#""from":1,"lines":["20%"]"#), "{end:?}");
    }

    #[test]
    fn another_attempt_begins_again() {
        for form in [Form::Text, Form::Html] {
            let mut it = follower(form, Cursor::before(7));
            events(&mut it, found("running", 1, &[(0, "lost")], None));
            assert!(events(&mut it, found("pending", 1, &[], None)).is_empty());
            let again = events(&mut it, found("running", 2, &[(0, "new")], None));
            assert!(again[0].starts_with("event: restart|"), "{again:?}");
            assert!(
                again[1].contains("id: 7-2-1-3|") && again[1].contains("new"),
                "{again:?}"
            );
        }
    }
}
