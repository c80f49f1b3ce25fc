//! Reading one file, cutting and hashing it, and writing it into the layer.

use std::collections::HashSet;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, SeekFrom, fchmod, fstat, futimens, seek};
use rustix::io::{Errno, pread};
use sha2::{Digest, Sha256};

use crate::beneath::{chmod_path, create, open};
use crate::chunks::{CHUNK_MAX, CHUNK_MIN, ZEROS, cut, zeros};
use crate::entry::{Chunk, Content, Entry, Hash};
use crate::error::{At, Error};
use crate::new_layer::{NewLayer, times};
use crate::sparse::SparseFile;

use super::Sink;

/// How much of a large file is read at once.
const BUFFER: usize = 4 * CHUNK_MAX;

/// Copies files; what it needs for one is used for the next.
pub(super) struct Copier<'a, 'b> {
    sink: &'a mut Sink<'b>,
    /// What the sink was given.
    given: HashSet<Hash>,
    buffer: Vec<u8>,
}

impl<'a, 'b> Copier<'a, 'b> {
    pub(super) fn new(sink: &'a mut Sink<'b>) -> Self {
        Copier {
            sink,
            given: HashSet::new(),
            buffer: Vec::new(),
        }
    }

    /// Copies the file `name` of `folder` into the layer: its content, or `None` where that is the one that was
    /// expected, and nothing was written.
    pub(super) fn copy(
        &mut self,
        folder: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        expected: Option<Hash>,
        layer: &mut NewLayer,
    ) -> Result<Option<Content>, Error> {
        let from = open_file(folder, name).at("open file", &entry.path)?;
        if self.buffer.is_empty() {
            // Zeroed pages are the kernel's: what a small file does not use is never touched.
            self.buffer = vec![0; BUFFER];
        }
        if entry.size <= CHUNK_MIN as u64 {
            return self.copy_small(&from, name, entry, expected, layer);
        }
        let to = create(layer.make()?, name).at("make file", &entry.path)?;
        let mut to = SparseFile::new(to);
        let content = self.copy_large(&from, &mut to, entry)?;
        let (to, allocated) = to.finish().at("write", &entry.path)?;
        if expected == Some(content.hash) {
            layer.unlink(name)?;
            return Ok(None);
        }
        finish(&to, entry)?;
        layer.count(allocated);
        Ok(Some(content))
    }

    fn copy_small(
        &mut self,
        from: &OwnedFd,
        name: &[u8],
        entry: &Entry,
        expected: Option<Hash>,
        layer: &mut NewLayer,
    ) -> Result<Option<Content>, Error> {
        let mut length = 0;
        while length < entry.size as usize {
            let read = read_at(from, &mut self.buffer[length..CHUNK_MIN], length as u64);
            match read.at("read", &entry.path)? {
                0 => break,
                count => length += count,
            }
        }
        let bytes = &self.buffer[..length];
        let hash = Hash::of(bytes);
        if expected == Some(hash) {
            return Ok(None);
        }
        let mut chunks = Vec::new();
        if !bytes.is_empty() {
            let size = length as u32;
            chunks.push(Chunk { hash, size });
            if self.given.insert(hash) {
                (self.sink)(hash, bytes).map_err(Error::Sink)?;
            }
        }
        let to = create(layer.make()?, name).at("make file", &entry.path)?;
        let mut to = SparseFile::new(to);
        to.write(bytes).at("write", &entry.path)?;
        let (to, allocated) = to.finish().at("write", &entry.path)?;
        finish(&to, entry)?;
        layer.count(allocated);
        Ok(Some(Content {
            hash,
            size: length as u64,
            chunks,
        }))
    }

    fn copy_large(
        &mut self,
        from: &OwnedFd,
        to: &mut SparseFile,
        entry: &Entry,
    ) -> Result<Content, Error> {
        let mut source = Source::new(from).at("look at", &entry.path)?;
        let mut whole = Sha256::new();
        let mut chunks = Vec::new();
        let mut size = 0;
        // What was read and not cut yet.
        let (mut start, mut end) = (0, 0);
        loop {
            if start == end {
                // A chunk of nothing but a hole need not be read, nor written.
                let zeros = zeros();
                while source.hole().at("read", &entry.path)? >= u64::from(zeros.size) {
                    source.position += u64::from(zeros.size);
                    to.skip(u64::from(zeros.size));
                    let bytes = &ZEROS[..zeros.size as usize];
                    whole.update(bytes);
                    self.give(zeros.hash, bytes)?;
                    chunks.push(zeros);
                    size += u64::from(zeros.size);
                }
            }
            if BUFFER - start < CHUNK_MAX {
                self.buffer.copy_within(start..end, 0);
                (start, end) = (0, end - start);
            }
            while end - start < CHUNK_MAX {
                match source
                    .read(&mut self.buffer[end..])
                    .at("read", &entry.path)?
                {
                    0 => break,
                    count => {
                        let bytes = &self.buffer[end..end + count];
                        to.write(bytes).at("write", &entry.path)?;
                        end += count;
                    }
                }
            }
            if start == end {
                break;
            }
            let length = cut(&self.buffer[start..end]);
            let bytes = &self.buffer[start..start + length];
            let hash = Hash::of(bytes);
            whole.update(bytes);
            if self.given.insert(hash) {
                (self.sink)(hash, bytes).map_err(Error::Sink)?;
            }
            chunks.push(Chunk {
                hash,
                size: length as u32,
            });
            start += length;
            size += length as u64;
        }
        Ok(Content {
            hash: Hash(whole.finalize().into()),
            size,
            chunks,
        })
    }

    fn give(&mut self, hash: Hash, bytes: &[u8]) -> Result<(), Error> {
        if self.given.insert(hash) {
            (self.sink)(hash, bytes).map_err(Error::Sink)?;
        }
        Ok(())
    }
}

/// A file's own mode and time, when all is written.
fn finish(file: &OwnedFd, entry: &Entry) -> Result<(), Error> {
    fchmod(file, Mode::from_raw_mode(entry.mode)).at("change the mode of", &entry.path)?;
    futimens(file, &times(entry.mtime_ns)).at("set the time of", &entry.path)
}

/// Opens a file for reading, whatever its mode says to its owner.
fn open_file(folder: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    // Never waits, should it be something else by now.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    match open(folder, name, flags) {
        Err(Errno::ACCESS) => {
            let closed = open(folder, name, OFlags::PATH)?;
            let mode = fstat(&closed)?.st_mode & 0o7777;
            chmod_path(&closed, mode | 0o400)?;
            let opened = open(folder, name, flags);
            // It may be read again, and its mode is part of what is read.
            chmod_path(&closed, mode)?;
            opened
        }
        opened => opened,
    }
}

fn read_at(from: &OwnedFd, buffer: &mut [u8], position: u64) -> rustix::io::Result<usize> {
    loop {
        match pread(from, &mut *buffer, position) {
            Err(Errno::INTR) => {}
            read => return read,
        }
    }
}

/// A file's bytes in order; its holes are known, and not read.
struct Source<'a> {
    from: &'a OwnedFd,
    size: u64,
    position: u64,
    /// The data that comes next: from and to.
    data: (u64, u64),
}

impl<'a> Source<'a> {
    fn new(from: &'a OwnedFd) -> rustix::io::Result<Source<'a>> {
        let stat = fstat(from)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let full = u64::try_from(stat.st_blocks).unwrap_or(0) * 512 >= size;
        Ok(Source {
            from,
            size,
            position: 0,
            data: if full { (0, size) } else { (0, 0) },
        })
    }

    /// How many bytes from here on are a hole.
    fn hole(&mut self) -> rustix::io::Result<u64> {
        if self.position >= self.data.1 && self.position < self.size {
            self.data = match seek(self.from, SeekFrom::Data(self.position)) {
                Err(Errno::NXIO) => (self.size, self.size),
                // A file system that knows no holes.
                Err(Errno::INVAL | Errno::OPNOTSUPP) => (self.position, self.size),
                start => {
                    let start = start?.min(self.size);
                    (
                        start,
                        seek(self.from, SeekFrom::Hole(start))?.min(self.size),
                    )
                }
            };
        }
        Ok(self.data.0.saturating_sub(self.position))
    }

    /// Reads what comes next; 0 at the end.
    fn read(&mut self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        let hole = self.hole()?;
        let count = if hole > 0 {
            let count = hole.min(buffer.len() as u64) as usize;
            buffer[..count].fill(0);
            count
        } else {
            let left = self.data.1.saturating_sub(self.position);
            let length = left.min(buffer.len() as u64) as usize;
            read_at(self.from, &mut buffer[..length], self.position)?
        };
        self.position += count as u64;
        Ok(count)
    }
}
