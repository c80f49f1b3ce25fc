//! How far a reader is, as the id of an event says it.

use std::str::FromStr;

/// How far a reader is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The command that it reads.
    pub command: i64,
    /// Under which attempt its chunks were written.
    pub attempt: i32,
    /// The last chunk; -1 before the first.
    pub seq: i32,
    /// Bytes of text so far.
    pub bytes: usize,
    /// The command is over, and was seen whole.
    pub ended: bool,
}

impl Cursor {
    /// Before the first chunk of a command.
    pub fn before(command: i64) -> Cursor {
        Cursor {
            command,
            seq: -1,
            ..Cursor::default()
        }
    }

    /// After a command that has been seen whole.
    pub fn after(command: i64) -> Cursor {
        Cursor {
            ended: true,
            ..Cursor::before(command)
        }
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Cursor {
            command,
            attempt,
            seq,
            bytes,
            ended,
        } = self;
        match ended {
            true => write!(f, "{command}-end"),
            false => write!(f, "{command}-{attempt}-{}-{bytes}", seq.saturating_add(1)),
        }
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Cursor, ()> {
        let (command, rest) = text.split_once('-').ok_or(())?;
        let command = command.parse().map_err(drop)?;
        if rest == "end" {
            return Ok(Cursor::after(command));
        }
        let mut parts = rest.splitn(3, '-');
        let mut part = || parts.next().ok_or(());
        let (attempt, chunks, bytes) = (part()?, part()?, part()?);
        Ok(Cursor {
            command,
            attempt: attempt.parse().map_err(drop)?,
            seq: chunks
                .parse::<i32>()
                .map_err(drop)?
                .checked_sub(1)
                .filter(|n| *n >= -1)
                .ok_or(())?,
            bytes: bytes.parse().map_err(drop)?,
            ended: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written() {
        for cursor in [
            Cursor {
                command: 7,
                attempt: 2,
                seq: -1,
                bytes: 0,
                ended: false,
            },
            Cursor::after(7),
        ] {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        assert_eq!("7-2-13-400".parse::<Cursor>().unwrap().bytes, 400);
        for bad in [
            "",
            "7",
            "x-end",
            "7-1",
            "7-1-2",
            "7-1-2-x",
            "7-1-2-3-4",
            "7-1--1-0",
        ] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }
}
