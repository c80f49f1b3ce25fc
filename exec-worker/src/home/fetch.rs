//! A tree that the cache does not have, from the database.

use std::collections::HashMap;
use std::io;
use std::pin::pin;

use daemon::describe;
use files::{Cache, Chunk, ChunkSource, Entry, Hash, Kind, Stack};
use futures_util::TryStreamExt;
use futures_util::future::try_join_all;
use tokio_postgres::{Row, Statement};

use super::Contents;
use crate::error::Error;

/// Paths and targets of symlinks of a tree, which are listed in memory, have no more bytes.
const NAMES_BYTES: u64 = 512 << 20;

/// Restores a tree as one layer.
pub(super) fn restore(cache: &Cache, contents: &Contents, tree: i64) -> Result<Stack, Error> {
    let nothing = cache.empty();
    let entries = contents.handle.block_on(entries(contents, tree))?;
    let mut layer = cache.new_layer()?;
    let mut source = Source {
        contents,
        failed: None,
    };
    let restored = files::restore(&mut layer, &entries, &mut source);
    if let Some(e) = source.failed {
        return Err(e);
    }
    restored?;
    Ok(cache.extend(&nothing, tree, layer)?)
}

/// All that a tree has, as it comes: the rows are not held beside it.
async fn entries(contents: &Contents, tree: i64) -> Result<Vec<Entry>, Error> {
    let connection = &contents.connection;
    let statement = &connection.tree_entries;
    let mut rows = pin!(connection.client.query_raw(statement, [tree]).await?);
    let mut entries = Vec::new();
    let mut names_bytes = 0;
    while let Some(row) = rows.try_next().await? {
        let entry = entry(&row)?;
        names_bytes += (entry.path.len() + entry.target.as_ref().map_or(0, Vec::len)) as u64;
        if names_bytes > NAMES_BYTES {
            let limit = NAMES_BYTES;
            return Err(files::Error::TooLongNames { limit }.into());
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn entry(row: &Row) -> Result<Entry, tokio_postgres::Error> {
    let kind = match row.try_get::<_, &str>(1)? {
        "file" => Kind::File,
        "folder" => Kind::Folder,
        "symlink" => Kind::Symlink,
        _ => Kind::Gone,
    };
    let unsigned = |number: i64| u64::try_from(number).unwrap_or(0);
    Ok(Entry {
        path: row.try_get(0)?,
        kind,
        mode: row
            .try_get::<_, Option<i32>>(2)?
            .map_or(0, i32::cast_unsigned),
        mtime_ns: row.try_get::<_, Option<i64>>(3)?.unwrap_or(0),
        size: row.try_get::<_, Option<i64>>(4)?.map_or(0, unsigned),
        content: row
            .try_get::<_, Option<&[u8]>>(5)?
            .and_then(|hash| Hash::try_from(hash).ok()),
        target: row.try_get(6)?,
        link: row.try_get::<_, Option<i64>>(7)?.map(unsigned),
        replaces: false,
    })
}

/// Contents by a connection, and from a content store.
struct Source<'a> {
    contents: &'a Contents,
    /// The reason, which an I/O error would lose.
    failed: Option<Error>,
}

/// A chunk's bytes.
pub(super) enum Bytes {
    /// Of `shell.read_chunks`; they stay where they came.
    Row(Row),
    Object(Vec<u8>),
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Bytes::Row(row) => row.get(1),
            Bytes::Object(bytes) => bytes,
        }
    }
}

impl Source<'_> {
    /// Of a statement about some hashes.
    fn rows(&mut self, statement: &Statement, hashes: &[&[u8]]) -> io::Result<Vec<Row>> {
        let client = &self.contents.connection.client;
        let rows = (self.contents.handle).block_on(client.query(statement, &[&hashes]));
        rows.map_err(|e| self.fails(e.into()))
    }

    /// What is in the content store; `None` for what is missing there.
    fn objects(&mut self, objects: &[(Hash, String)]) -> io::Result<Vec<Option<Vec<u8>>>> {
        let outside = match (self.contents.outside.as_deref(), objects.first()) {
            (_, None) => return Ok(Vec::new()),
            (None, Some((chunk, _))) => return Err(self.fails(Error::NoContentStore(*chunk))),
            (Some(outside), Some(_)) => outside,
        };
        let all = objects.iter().map(|(chunk, url)| outside.read(*chunk, url));
        let read = self.contents.handle.block_on(try_join_all(all));
        read.map_err(|e| self.fails(e))
    }

    fn fails(&mut self, e: Error) -> io::Error {
        let told = io::Error::other(e.to_string());
        self.failed = Some(e);
        told
    }
}

fn told(e: &tokio_postgres::Error) -> io::Error {
    io::Error::other(describe(e))
}

fn hash(row: &Row, column: usize) -> Hash {
    row.try_get::<_, &[u8]>(column)
        .ok()
        .and_then(|hash| Hash::try_from(hash).ok())
        .unwrap_or(Hash([0; 32]))
}

impl ChunkSource for Source<'_> {
    type Bytes = Bytes;

    fn contents(&mut self, contents: &[Hash]) -> io::Result<Vec<Option<Vec<Chunk>>>> {
        let wanted: Vec<&[u8]> = contents.iter().map(|c| c.0.as_slice()).collect();
        let rows = self.rows(&self.contents.connection.content_chunks, &wanted)?;
        let mut found: HashMap<Hash, Vec<Chunk>> = HashMap::new();
        for row in rows {
            let chunks = found.entry(hash(&row, 0)).or_default();
            // A content with none has a row all the same; one whose chunk is missing has no size.
            if let Some(chunk) = row.try_get::<_, Option<&[u8]>>(1).map_err(|e| told(&e))? {
                let size = row.try_get::<_, Option<i32>>(2).map_err(|e| told(&e))?;
                chunks.push(Chunk {
                    hash: Hash::try_from(chunk).map_err(io::Error::other)?,
                    size: size.map_or(0, i32::cast_unsigned),
                });
            }
        }
        Ok(contents.iter().map(|c| found.get(c).cloned()).collect())
    }

    fn chunks(&mut self, chunks: &[Hash]) -> io::Result<Vec<Option<Bytes>>> {
        let wanted: Vec<&[u8]> = chunks.iter().map(|c| c.0.as_slice()).collect();
        let rows = self.rows(&self.contents.connection.read_chunks, &wanted)?;
        let mut found = HashMap::new();
        let mut objects = Vec::new();
        for row in rows {
            let chunk = hash(&row, 0);
            match row.try_get::<_, Option<String>>(2).map_err(|e| told(&e))? {
                Some(url) => objects.push((chunk, url)),
                None => {
                    found.insert(chunk, Bytes::Row(row));
                }
            }
        }
        let read = self.objects(&objects)?;
        for ((chunk, _), bytes) in objects.into_iter().zip(read) {
            if let Some(bytes) = bytes {
                found.insert(chunk, Bytes::Object(bytes));
            }
        }
        Ok(chunks.iter().map(|c| found.remove(c)).collect())
    }
}
