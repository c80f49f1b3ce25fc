//! Hashing and writing files, on a thread of its own.

use std::sync::mpsc::Receiver;

use rustix::fs::{Mode, fchmod, futimens};
use sha2::{Digest, Sha256};

use crate::beneath::create;
use crate::cursor::Cursor;
use crate::entry::Hash;
use crate::error::{At, Error};
use crate::new_layer::times;
use crate::sparse::SparseFile;

use super::folders::go_to;
use super::plan::File;

/// Chunks, and the files that they are for.
pub(super) struct Job<'a, B> {
    pub bytes: Vec<B>,
    pub parts: Vec<Part<'a>>,
}

/// A file, or the next part of one.
pub(super) struct Part<'a> {
    pub file: File<'a>,
    /// Where in the job its chunks are, in order.
    pub places: Vec<usize>,
    pub first: bool,
    pub last: bool,
}

/// A file that is not complete.
struct Begun {
    file: SparseFile,
    hash: Sha256,
}

/// Writes what it is sent.
pub(super) struct Writer {
    cursor: Cursor,
    begun: Option<Begun>,
    allocated: u64,
}

impl Writer {
    pub(super) fn new(cursor: Cursor) -> Writer {
        Writer {
            cursor,
            begun: None,
            allocated: 0,
        }
    }

    /// Writes all that comes: how many bytes that takes on the disk, about.
    pub(super) fn run<B: AsRef<[u8]>>(mut self, jobs: Receiver<Job<'_, B>>) -> Result<u64, Error> {
        for job in jobs {
            for part in &job.parts {
                self.write(part, &job.bytes)?;
            }
        }
        Ok(self.allocated)
    }

    fn write<B: AsRef<[u8]>>(&mut self, part: &Part<'_>, bytes: &[B]) -> Result<(), Error> {
        let entry = part.file.entry;
        let begun = match self.begun.take().filter(|_| !part.first) {
            Some(begun) => begun,
            None => {
                let name = go_to(&mut self.cursor, entry)?;
                let file = create(self.cursor.fd(), name).at("make file", &entry.path)?;
                Begun {
                    file: SparseFile::new(file),
                    hash: Sha256::new(),
                }
            }
        };
        let Begun { mut file, mut hash } = begun;
        for chunk in part.places.iter().filter_map(|&place| bytes.get(place)) {
            hash.update(chunk.as_ref());
            file.write(chunk.as_ref()).at("write", &entry.path)?;
        }
        if !part.last {
            self.begun = Some(Begun { file, hash });
            return Ok(());
        }
        if Hash(hash.finalize().into()) != part.file.content {
            return Err(Error::ContentAltered(part.file.content));
        }
        let (file, allocated) = file.finish().at("write", &entry.path)?;
        fchmod(&file, Mode::from_raw_mode(entry.mode & 0o1777))
            .at("change the mode of", &entry.path)?;
        futimens(&file, &times(entry.mtime_ns)).at("set the time of", &entry.path)?;
        self.allocated += allocated;
        Ok(())
    }
}
