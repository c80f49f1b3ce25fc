//! A session's files, on a worker.
//!
//! A command runs in an overlay whose lower layers are the [`Stack`] of the tree that it begins with and whose
//! upper folder is its own. [`read_upper`] reads that folder when the command has ended: it gives the
//! [`Change`] for the database, hands out the chunks of new contents, and writes the same change as one more
//! layer of the [`Cache`]. [`restore()`] makes the first layer of a tree that the cache does not know.
//!
//! What a command left is hostile, and is only reached by descriptors: every open stays beneath its folder and
//! follows no link. The cache is never trusted: an error in it means that the tree is fetched again.
//!
//! All of it blocks; there is no tokio and no Postgres in this crate.

#![forbid(unsafe_code)]

mod beneath;
mod cache;
mod chunks;
mod cursor;
mod entry;
mod error;
mod names;
mod new_layer;
mod path;
mod restore;
mod sparse;
mod upper;

pub use cache::{Cache, Stack};
pub use chunks::{CHUNK_MAX, chunks_of};
pub use entry::{Change, Chunk, Content, Entry, Hash, Kind, NotKept};
pub use error::Error;
pub use new_layer::NewLayer;
pub use restore::{ChunkSource, restore};
pub use upper::{Before, Limits, Sink, read_upper};
