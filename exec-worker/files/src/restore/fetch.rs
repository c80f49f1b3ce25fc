//! Fetching chunks in batches: many small files at once, a large one piece by piece.

use std::collections::HashMap;
use std::mem::take;
use std::sync::mpsc::SyncSender;

use crate::chunks::CHUNK_MAX;
use crate::entry::{Chunk, Hash};
use crate::error::Error;

use super::ChunkSource;
use super::plan::File;
use super::write::{Job, Part};

/// So many bytes, and one chunk more, are fetched at once.
const BATCH_BYTES: u64 = 4 << 20;
/// So many chunks are fetched at once.
const BATCH_CHUNKS: usize = 1024;
/// Of so many files the chunks are asked for at once.
const FILES: usize = 512;

/// Sends what it fetches to the writers.
pub(super) struct Fetcher<'a, S: ChunkSource> {
    source: &'a mut S,
    writers: Vec<SyncSender<Job<'a, S::Bytes>>>,
    /// Which writer is next.
    turn: usize,
    batch: Batch<'a>,
}

/// What is to be fetched.
#[derive(Default)]
struct Batch<'a> {
    /// Each once.
    chunks: Vec<Chunk>,
    places: HashMap<Hash, usize>,
    bytes: u64,
    parts: Vec<Part<'a>>,
}

impl<'a> Batch<'a> {
    /// Puts part of a file in.
    fn add(&mut self, file: File<'a>, chunks: &[Chunk], first: bool, last: bool) {
        let mut places = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let next = self.chunks.len();
            let place = *self.places.entry(chunk.hash).or_insert(next);
            if place == next {
                self.chunks.push(*chunk);
                self.bytes += u64::from(chunk.size);
            }
            places.push(place);
        }
        self.parts.push(Part {
            file,
            places,
            first,
            last,
        });
    }

    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES
            || self.chunks.len() >= BATCH_CHUNKS
            || self.parts.len() >= BATCH_CHUNKS
    }
}

impl<'a, S: ChunkSource> Fetcher<'a, S> {
    pub(super) fn new(source: &'a mut S, writers: Vec<SyncSender<Job<'a, S::Bytes>>>) -> Self {
        Fetcher {
            source,
            writers,
            turn: 0,
            batch: Batch::default(),
        }
    }

    /// Fetches all; ends with [`Error::Thread`] where a writer has ended.
    pub(super) fn fetch(mut self, files: &[File<'a>]) -> Result<(), Error> {
        for files in files.chunks(FILES) {
            let contents = self.contents(files)?;
            for &file in files {
                let chunks = contents.get(&file.content).map_or(&[][..], Vec::as_slice);
                let size: u64 = chunks.iter().map(|c| u64::from(c.size)).sum();
                if size != file.entry.size {
                    return Err(Error::ContentAltered(file.content));
                }
                if size > BATCH_BYTES {
                    self.large(file, chunks)?;
                    continue;
                }
                self.batch.add(file, chunks, true, true);
                if self.batch.is_full() {
                    self.send()?;
                    self.turn += 1;
                }
            }
        }
        self.send()
    }

    fn contents(&mut self, files: &[File<'_>]) -> Result<HashMap<Hash, Vec<Chunk>>, Error> {
        let mut hashes: Vec<Hash> = files.iter().map(|f| f.content).collect();
        hashes.sort_unstable();
        hashes.dedup();
        let found = self.source.contents(&hashes).map_err(Error::Source)?;
        let mut contents = HashMap::with_capacity(hashes.len());
        let mut found = found.into_iter();
        for hash in hashes {
            let chunks = found.next().flatten().ok_or(Error::ContentMissing(hash))?;
            if chunks
                .iter()
                .any(|c| c.size == 0 || c.size as usize > CHUNK_MAX)
            {
                return Err(Error::ContentAltered(hash));
            }
            contents.insert(hash, chunks);
        }
        Ok(contents)
    }

    /// A file that one writer gets piece by piece.
    fn large(&mut self, file: File<'a>, chunks: &[Chunk]) -> Result<(), Error> {
        self.send()?;
        self.turn += 1;
        let mut rest = chunks;
        while !rest.is_empty() {
            let mut bytes = 0;
            let count = (rest.iter())
                .take(BATCH_CHUNKS)
                .take_while(|c| {
                    let room = bytes < BATCH_BYTES;
                    bytes += u64::from(c.size);
                    room
                })
                .count();
            let (piece, after) = rest.split_at(count);
            let first = rest.len() == chunks.len();
            self.batch.add(file, piece, first, after.is_empty());
            self.send()?;
            rest = after;
        }
        self.turn += 1;
        Ok(())
    }

    /// Fetches the batch and sends it to the writer whose turn it is.
    fn send(&mut self) -> Result<(), Error> {
        let Batch { chunks, parts, .. } = take(&mut self.batch);
        if parts.is_empty() {
            return Ok(());
        }
        let bytes = get(self.source, &chunks)?;
        let writer = &self.writers[self.turn % self.writers.len()];
        writer.send(Job { bytes, parts }).map_err(|_| Error::Thread)
    }
}

/// The bytes of each, of the right length.
fn get<S: ChunkSource>(source: &mut S, chunks: &[Chunk]) -> Result<Vec<S::Bytes>, Error> {
    if chunks.is_empty() {
        return Ok(Vec::new());
    }
    let hashes: Vec<Hash> = chunks.iter().map(|c| c.hash).collect();
    let mut found = source.chunks(&hashes).map_err(Error::Source)?.into_iter();
    let mut all = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let bytes = found
            .next()
            .flatten()
            .ok_or(Error::ChunkMissing(chunk.hash))?;
        if bytes.as_ref().len() != chunk.size as usize {
            return Err(Error::ChunkAltered(chunk.hash));
        }
        all.push(bytes);
    }
    Ok(all)
}

/// Why a content's hash was wrong: looks at each of its chunks again.
pub(super) fn blame<S: ChunkSource>(source: &mut S, content: Hash) -> Error {
    let found = match source.contents(&[content]) {
        Ok(found) => found,
        Err(e) => return Error::Source(e),
    };
    let Some(chunks) = found.into_iter().next().flatten() else {
        return Error::ContentMissing(content);
    };
    for few in chunks.chunks(16) {
        match get(source, few) {
            Ok(bytes) => {
                let altered = few
                    .iter()
                    .zip(bytes)
                    .find(|(c, b)| Hash::of(b.as_ref()) != c.hash);
                if let Some((chunk, _)) = altered {
                    return Error::ChunkAltered(chunk.hash);
                }
            }
            Err(e) => return e,
        }
    }
    Error::ContentAltered(content)
}
