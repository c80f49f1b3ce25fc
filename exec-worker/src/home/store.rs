//! What a command left in its home, into the database and into the cache.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use files::{
    Cache, Change, Content, Entry, Hash, Kind, Limits, NewLayer, NotKept, Stack, read_upper,
};
use futures_util::future::try_join_all;
use serde::Serialize;
use tokio_postgres::types::{Json, ToSql};

use super::Contents;
use super::outside::Outside;
use crate::command::Lease;
use crate::error::Error;

/// Chunks are stored when there are so many bytes of them.
const BATCH_BYTES: usize = 2 << 20;
/// As many go with the tree, whether they are there already or not: to ask would take longer.
const ALONG_BYTES: usize = 64 << 10;

/// How large a change may be: paths as long as the database takes them, and all of it so much that neither the worker
/// nor the database is busy with it for long. A hole takes no room, but has to be hashed like anything else.
pub(super) const LIMITS: Limits = Limits {
    entries: 1_000_000,
    bytes: 4 << 30,
    path_bytes: 4095,
    names_bytes: 32 << 20,
};
/// How large a change may be that the thread reads which does everything else: half a millisecond's work. To pass it to
/// another and back takes as long.
pub(super) const SMALL: Limits = Limits {
    entries: 16,
    bytes: 64 << 10,
    path_bytes: 4095,
    names_bytes: 8 << 10,
};
/// So many of those that are not kept are named.
const NAMED: usize = 100;

/// What became of it.
#[derive(Debug)]
pub enum Stored {
    /// Nothing was changed.
    AsBefore { not_kept: Vec<String> },
    /// The files are this tree now.
    Tree { id: i64, not_kept: Vec<String> },
    /// They are more than they may be, in a sentence.
    OverQuota(String),
}

impl Stored {
    /// They are larger than the limits.
    pub(super) fn too_large(e: &files::Error) -> Stored {
        Stored::OverQuota(sentence(&e.to_string()))
    }
}

/// An element of `shell.add_tree`'s entries.
#[derive(Debug, Serialize)]
struct EntryRow<'a> {
    path: String,
    kind: &'a str,
    mode: Option<u32>,
    mtime_ns: Option<i64>,
    size: Option<u64>,
    content: Option<String>,
    target: Option<String>,
    link: Option<u64>,
    replaces: bool,
}

/// An element of its contents.
#[derive(Debug, Serialize)]
struct ContentRow {
    hash: String,
    size: u64,
    chunks: Vec<String>,
}

/// An upper folder that has been read: its large chunks are stored, its tree is not.
pub(super) struct Unstored {
    change: Change,
    layer: NewLayer,
    chunks: Vec<(Hash, Vec<u8>)>,
    not_kept: Vec<String>,
}

/// Reads the upper folder once: its chunks are stored as they come, and the change goes into a new layer.
///
/// # Errors
/// [`Error::Files`] where it is larger than `limits`, among others.
pub(super) fn read(
    cache: &Cache,
    contents: &Contents,
    stack: &Stack,
    upper: OwnedFd,
    limits: &Limits,
) -> Result<Unstored, Error> {
    let mut layer = cache.new_layer()?;
    let mut outbox = Outbox {
        contents,
        chunks: Vec::new(),
        bytes: 0,
        failed: None,
    };
    let before = stack.before()?;
    let read = read_upper(upper, &mut layer, &before, limits, &mut |hash, bytes| {
        outbox.add(hash, bytes)
    });
    if let Some(e) = outbox.failed {
        return Err(e);
    }
    let chunks = outbox.chunks;
    let change = read?;
    let not_kept = named(&change.not_kept);
    Ok(Unstored {
        change,
        layer,
        chunks,
        not_kept,
    })
}

/// Chunks that are not sent yet.
struct Outbox<'a> {
    contents: &'a Contents,
    chunks: Vec<(Hash, Vec<u8>)>,
    bytes: usize,
    /// The reason, which an I/O error would lose.
    failed: Option<Error>,
}

impl Outbox<'_> {
    fn add(&mut self, hash: Hash, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len();
        self.chunks.push((hash, bytes.to_vec()));
        if self.bytes < BATCH_BYTES {
            return Ok(());
        }
        self.bytes = 0;
        let chunks = std::mem::take(&mut self.chunks);
        (self.contents.handle)
            .block_on(self.contents.send(chunks))
            .map_err(|e| {
                let told = io::Error::other(e.to_string());
                self.failed = Some(e);
                told
            })
    }
}

impl Contents {
    /// Sends those chunks that the database lacks, each once; the large ones into the content store, where there is one.
    async fn send(&self, chunks: Vec<(Hash, Vec<u8>)>) -> Result<(), Error> {
        let mut missing = self.missing(&chunks).await?;
        let lacking = chunks.into_iter().filter(|(hash, _)| missing.remove(hash));
        let (objects, rows): (Vec<_>, Vec<_>) =
            lacking.partition(|(_, bytes)| self.takes_outside(bytes.len()));
        if !rows.is_empty() {
            self.add_rows(&rows).await?;
        }
        match self.outside.as_deref() {
            Some(outside) if !objects.is_empty() => self.add_objects(outside, objects).await,
            _ => Ok(()),
        }
    }

    async fn missing(&self, chunks: &[(Hash, Vec<u8>)]) -> Result<HashSet<Hash>, Error> {
        let connection = &self.connection;
        let hashes: Vec<&[u8]> = chunks.iter().map(|(hash, _)| hash.0.as_slice()).collect();
        let rows = (connection.client)
            .query(&connection.missing_chunks, &[&hashes])
            .await?;
        Ok(rows
            .iter()
            .filter_map(|row| Hash::try_from(row.get::<_, &[u8]>(0)).ok())
            .collect())
    }

    async fn add_rows(&self, chunks: &[(Hash, Vec<u8>)]) -> Result<(), Error> {
        let connection = &self.connection;
        let (hashes, bytes): (Vec<&[u8]>, Vec<&[u8]>) = chunks
            .iter()
            .map(|(hash, bytes)| (hash.0.as_slice(), bytes.as_slice()))
            .unzip();
        (connection.client)
            .query(&connection.add_chunks, &[&hashes, &bytes])
            .await?;
        Ok(())
    }

    /// A row names only what is written, and what is written has been announced: whenever this ends, nothing is there
    /// that nobody knows of.
    async fn add_objects(
        &self,
        outside: &Outside,
        chunks: Vec<(Hash, Vec<u8>)>,
    ) -> Result<(), Error> {
        let connection = &self.connection;
        let urls: Vec<String> = chunks
            .iter()
            .map(|(hash, _)| outside.address().new_object(*hash))
            .collect();
        let hashes: Vec<Hash> = chunks.iter().map(|(hash, _)| *hash).collect();
        let sizes: Vec<i32> = chunks.iter().map(|(_, bytes)| bytes.len() as i32).collect();
        (connection.client)
            .query(&connection.expect_objects, &[&urls])
            .await?;
        let writes = chunks.into_iter().zip(&urls);
        try_join_all(writes.map(|((hash, bytes), url)| outside.write(hash, url, bytes))).await?;
        let hashes: Vec<&[u8]> = hashes.iter().map(|hash| hash.0.as_slice()).collect();
        (connection.client)
            .query(&connection.add_objects, &[&hashes, &urls, &sizes])
            .await?;
        Ok(())
    }
}

impl Unstored {
    /// Stores its tree, and the chunks that it needs; gives the layer, which is that tree's.
    pub(super) async fn store(
        mut self,
        contents: &Contents,
        (worker, lease): (i64, Lease),
    ) -> Result<(Stored, NewLayer), Error> {
        let not_kept = self.not_kept;
        if self.change.entries.is_empty() {
            return Ok((Stored::AsBefore { not_kept }, self.layer));
        }
        let bytes: usize = self.chunks.iter().map(|(_, bytes)| bytes.len()).sum();
        let goes_outside = |(_, bytes): &(Hash, Vec<u8>)| contents.takes_outside(bytes.len());
        if bytes > ALONG_BYTES || self.chunks.iter().any(goes_outside) {
            contents.send(std::mem::take(&mut self.chunks)).await?;
        }
        let entries: Vec<EntryRow<'_>> = self.change.entries.iter().map(entry).collect();
        let rows: Vec<ContentRow> = self.change.contents.iter().map(content).collect();
        let (hashes, bytes): (Vec<&[u8]>, Vec<&[u8]>) = self
            .chunks
            .iter()
            .map(|(hash, bytes)| (hash.0.as_slice(), bytes.as_slice()))
            .unzip();
        let (entries, rows) = (Json(entries), Json(rows));
        let parameters: [&(dyn ToSql + Sync); 7] = [
            &worker,
            &lease.command_id,
            &lease.attempt,
            &entries,
            &rows,
            &hashes,
            &bytes,
        ];
        let connection = &contents.connection;
        let query = (connection.client).query_one(&connection.add_tree, &parameters);
        let row = query.await?;
        let stored = match (row.try_get(0)?, row.try_get(1)?) {
            (_, Some(refusal)) => Stored::OverQuota(refusal),
            (Some(id), None) => Stored::Tree { id, not_kept },
            (None, None) => Stored::AsBefore { not_kept },
        };
        Ok((stored, self.layer))
    }
}

fn entry(entry: &Entry) -> EntryRow<'_> {
    EntryRow {
        path: STANDARD.encode(&entry.path),
        kind: entry.kind.as_str(),
        mode: matches!(entry.kind, Kind::File | Kind::Folder).then_some(entry.mode),
        mtime_ns: (entry.kind != Kind::Gone).then_some(entry.mtime_ns),
        size: (entry.kind == Kind::File).then_some(entry.size),
        content: entry.content.map(|hash| hash.to_string()),
        target: entry.target.as_ref().map(|target| STANDARD.encode(target)),
        link: entry.link,
        replaces: entry.replaces,
    }
}

fn content(content: &Content) -> ContentRow {
    ContentRow {
        hash: content.hash.to_string(),
        size: content.size,
        chunks: content.chunks.iter().map(|c| c.hash.to_string()).collect(),
    }
}

/// What is not kept, and why: not so many that the row would be larger than what is kept.
fn named(not_kept: &[NotKept]) -> Vec<String> {
    let told = not_kept.iter().take(NAMED);
    let mut named: Vec<String> = told
        .map(|n| format!("{}: {}", shown(&n.path), n.reason))
        .collect();
    if let Some(more @ 1..) = not_kept.len().checked_sub(NAMED) {
        named.push(format!("and {more} more"));
    }
    named
}

/// A path as the database's functions take and give it: bytes that are no text in octal.
fn shown(path: &[u8]) -> String {
    let mut shown = format!("{}/", confine::HOME);
    for part in path.utf8_chunks() {
        for c in part.valid().chars() {
            match c {
                '\\' => shown.push_str("\\\\"),
                c if c.is_control() => {
                    let mut bytes = [0; 4];
                    let octal = |b: &u8| format!("\\{b:03o}");
                    shown.extend(c.encode_utf8(&mut bytes).as_bytes().iter().map(octal));
                }
                c => shown.push(c),
            }
        }
        shown.extend(part.invalid().iter().map(|b| format!("\\{b:03o}")));
    }
    shown
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        format!("{}{}.", first.to_uppercase(), letters.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn a_path_is_text_whatever_its_bytes() {
        assert_eq!(shown("ü/a".as_bytes()), "/home/sandbox/ü/a");
        assert_eq!(shown(b"a\n\\\xff"), "/home/sandbox/a\\012\\\\\\377");
    }
}
