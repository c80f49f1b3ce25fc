//! Everything that can go wrong with files.

use std::io;

use crate::entry::Hash;

/// Why files could not be read, kept or restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed. `path` is relative to the folder that was worked on.
    #[error("{doing} {}: {source}", path.escape_ascii())]
    Io {
        /// What was to be done.
        doing: &'static str,
        /// With what; empty for the folder itself.
        path: Vec<u8>,
        /// The reason.
        source: io::Error,
    },
    /// A change has more files, folders and links than it may.
    #[error("more than {limit} files and folders were changed")]
    TooManyEntries {
        /// How many it may have.
        limit: u64,
    },
    /// The files of a change are larger than they may be, holes counted.
    #[error("the files that were changed hold more than {limit} bytes")]
    TooManyBytes {
        /// How many they may hold.
        limit: u64,
    },
    /// The names in a change, or in a tree, are longer than they may be.
    #[error("the paths and links have more than {limit} bytes together")]
    TooLongNames {
        /// How many they may have.
        limit: u64,
    },
    /// Who takes chunks failed.
    #[error("storing a chunk: {0}")]
    Sink(#[source] io::Error),
    /// Who gives chunks failed.
    #[error("fetching chunks: {0}")]
    Source(#[source] io::Error),
    /// There is no such chunk.
    #[error("chunk {0} is missing")]
    ChunkMissing(Hash),
    /// A chunk's bytes are not those of its hash.
    #[error("chunk {0} was altered")]
    ChunkAltered(Hash),
    /// It is not known of which chunks a content consists.
    #[error("content {0} is missing")]
    ContentMissing(Hash),
    /// A content's chunks, each of them whole, are not the content.
    #[error("content {0} was altered: its chunks are not those of its hash")]
    ContentAltered(Hash),
    /// A listing is not that of a tree.
    #[error("{}: {reason}", path.escape_ascii())]
    Listing {
        /// The entry's path.
        path: Vec<u8>,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Another process keeps its layers in this folder.
    #[error("the cache is in use by another process")]
    InUse,
    /// A layer of the cache is not what it was: drop its stack and restore the tree.
    #[error("the cache is damaged: {0}")]
    Damaged(&'static str),
    /// A thread ended early.
    #[error("a thread of the restoring ended early")]
    Thread,
}

impl Error {
    /// Whether something is larger than the limits that were given.
    pub fn is_limit(&self) -> bool {
        matches!(
            self,
            Error::TooManyEntries { .. } | Error::TooManyBytes { .. } | Error::TooLongNames { .. }
        )
    }
}

/// Says what failed.
pub(crate) trait At<T> {
    fn at(self, doing: &'static str, path: &[u8]) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, doing: &'static str, path: &[u8]) -> Result<T, Error> {
        self.map_err(|e| Error::Io {
            doing,
            path: path.to_vec(),
            source: e.into(),
        })
    }
}
