//! A session as a recording: asciicast, version 2, which asciinema plays.
//!
//! The times are those that a person at the prompt would have seen. The prompt is there when the command before has
//! ended, and the command when it was submitted, or at once if it was submitted before. What a running command has
//! printed has its own times. Of one that has ended only the beginning, the end and the text are kept: its output is
//! spread evenly between them, line by line, so that a progress bar moves and a long log scrolls; the last line
//! comes at its end. Players are told to pass over long pauses, which are in the file as they were.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::sql::Sql;

/// A player passes over longer pauses.
const LONGEST_PAUSE_SECONDS: u32 = 2;
/// Output that is spread comes in this many pieces a second, and in so many at most.
const PIECES_A_SECOND: f64 = 20.0;
const MOST_PIECES: usize = 1000;

/// What has been written so far.
#[derive(Debug, Default)]
pub struct Cast {
    /// When it begins, in seconds since 1970; none before the first command.
    begin: Option<f64>,
    /// The time last written, from there: times never go back.
    last: f64,
    /// The folder of the next prompt.
    place: String,
}

impl Cast {
    /// Adds what [`Cast::command`] reads, of `c`.
    pub fn columns(sql: &mut Sql) {
        sql.push(
            "json_build_object(
               'command', c.command, 'cwd', c.cwd_snapshot, 'cwd_after', c.cwd_after, 'output', c.output,
               'submitted', extract(epoch from c.submitted_at), 'started', extract(epoch from c.started_at),
               'ended', extract(epoch from c.finished_at),
               'chunks', (
                 select json_agg(json_build_array(extract(epoch from o.written_at), o.data) order by o.seq)
                 from shell.output_chunks as o where c.status = 'running' and o.command_id = c.id))::text",
        );
    }

    /// A command's lines, after the file's first one.
    pub fn command(&mut self, command: &Value) -> String {
        let text = |key: &str| command[key].as_str().unwrap_or_default();
        let time = |key: &str| command[key].as_f64();
        let submitted = time("submitted").unwrap_or_default();
        let mut lines = String::new();
        if self.begin.is_none() {
            self.begin = Some(submitted);
            lines.push_str(&header(submitted));
        }
        let prompt = prompt(text("cwd"));
        let typed = format!("{}\n", text("command"));
        if self.since(submitted) > self.last {
            self.event(&mut lines, self.last, &prompt);
            self.event(&mut lines, self.since(submitted), &typed);
        } else {
            self.event(&mut lines, self.last, &format!("{prompt}{typed}"));
        }
        for chunk in command["chunks"].as_array().into_iter().flatten() {
            let at = chunk[0].as_f64().map_or(self.last, |at| self.since(at));
            self.event(&mut lines, at, chunk[1].as_str().unwrap_or_default());
        }
        let end = time("ended")
            .map_or(self.last, |at| self.since(at))
            .max(self.last);
        let start = time("started")
            .map_or(end, |at| self.since(at))
            .clamp(self.last, end);
        let pieces = pieces(text("output"), end - start);
        for (index, piece) in pieces.iter().enumerate() {
            let part = (index + 1) as f64 / pieces.len() as f64;
            self.event(&mut lines, start + (end - start) * part, piece);
        }
        self.last = end;
        self.place = command["cwd_after"].as_str().unwrap_or(text("cwd")).into();
        lines
    }

    /// What ends the file: the prompt that the last command has left.
    pub fn end(&mut self) -> String {
        let mut lines = String::new();
        match self.begin {
            Some(_) => self.event(&mut lines, self.last, &prompt(&self.place)),
            None => lines.push_str(&header(0.0)),
        }
        lines
    }

    fn since(&self, at: f64) -> f64 {
        at - self.begin.unwrap_or(at)
    }

    fn event(&mut self, lines: &mut String, at: f64, text: &str) {
        if text.is_empty() {
            return;
        }
        self.last = self.last.max(at);
        // A terminal goes down at \n, and to the left at \r.
        let text = text.replace('\n', "\r\n");
        let at = (self.last * 1e6).round() / 1e6;
        let _ = writeln!(lines, "{}", json!([at, "o", text]));
    }
}

/// Output cut at the ends of lines, also of those that are written over, into no more pieces than the time is good for.
fn pieces(output: &str, seconds: f64) -> Vec<String> {
    let lines: Vec<&str> = output.split_inclusive(['\n', '\r']).collect();
    let most = (seconds * PIECES_A_SECOND) as usize;
    let together = lines.len().div_ceil(most.clamp(1, MOST_PIECES)).max(1);
    lines.chunks(together).map(|some| some.concat()).collect()
}

fn prompt(place: &str) -> String {
    format!("\x1b[1;34m{place}\x1b[0m $ ")
}

fn header(begin: f64) -> String {
    let header = json!({
        "version": 2, "width": 80, "height": 24, "timestamp": begin as i64,
        "idle_time_limit": LONGEST_PAUSE_SECONDS, "env": {"SHELL": "/bin/bash", "TERM": "xterm-256color"},
    });
    format!("{header}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(text: &str) -> Vec<(f64, String)> {
        let lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines
            .filter(|line| line.is_array())
            .map(|line| {
                (
                    line[0].as_f64().unwrap(),
                    line[2]
                        .as_str()
                        .unwrap()
                        .replace("\x1b[1;34m", "")
                        .replace("\x1b[0m", ""),
                )
            })
            .collect()
    }

    fn expect(text: &str, wanted: &[(f64, &str)]) {
        let found = events(text);
        let found: Vec<_> = found
            .iter()
            .map(|(at, text)| (*at, text.as_str()))
            .collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_is_known_of_a_command_gives_its_times() {
        let mut cast = Cast::default();
        let one = json!({"command": "ls", "cwd": "/", "cwd_after": "/usr", "output": "a\nb\n", "submitted": 100.0, "started": 101.0, "ended": 103.0});
        let text = cast.command(&one);
        let header: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!(
            (&header["version"], &header["timestamp"]),
            (&json!(2), &json!(100))
        );
        expect(
            &text,
            &[(0.0, "/ $ ls\r\n"), (2.0, "a\r\n"), (3.0, "b\r\n")],
        );
        // Typed a while after; it is cancelled before it begins.
        let two = json!({"command": "x", "cwd": "/usr", "output": null, "submitted": 110.0, "ended": 111.0});
        expect(&cast.command(&two), &[(3.0, "/usr $ "), (10.0, "x\r\n")]);
        // Submitted while the other one waited; it runs.
        let three = json!({"command": "y", "cwd": "/usr", "submitted": 110.5, "chunks": [[111.5, "1"], [109.0, "2"]]});
        expect(
            &cast.command(&three),
            &[(11.0, "/usr $ y\r\n"), (11.5, "1"), (11.5, "2")],
        );
        expect(&cast.end(), &[(11.5, "/usr $ ")]);
        assert_eq!(Cast::default().end().lines().count(), 1);
    }

    #[test]
    fn output_is_spread_as_far_as_its_time_allows() {
        assert_eq!(pieces("a\nb\nc\n", 0.003), ["a\nb\nc\n"]);
        assert_eq!(
            pieces("10%\r20%\r\nend", 9.0),
            ["10%\r", "20%\r", "\n", "end"]
        );
        assert_eq!(pieces(&"x\n".repeat(5000), 1e6).len(), MOST_PIECES);
        assert_eq!(pieces(&"x\n".repeat(100), 1.0).len(), 20);
        assert_eq!(pieces("", 1.0), [""; 0]);
    }
}
