//! Making the first layer of a tree from the database.

use crate::entry::{Chunk, Hash};

/// Who gives contents.
pub trait ChunkSource {
    /// A chunk's bytes, such as a row that holds them.
    type Bytes: AsRef<[u8]> + Send;

    /// Of which chunks each of these contents consists, in order; `None` for one that is not there.
    fn contents(&mut self, contents: &[Hash]) -> std::io::Result<Vec<Option<Vec<Chunk>>>>;

    /// The bytes of each of these chunks, in order; `None` for one that is not there.
    fn chunks(&mut self, chunks: &[Hash]) -> std::io::Result<Vec<Option<Self::Bytes>>>;
}
