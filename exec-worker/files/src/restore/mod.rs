//! Making the first layer of a tree from the database.
//!
//! The caller's thread fetches; two others hash and write.

mod fetch;
mod folders;
mod plan;
mod write;

use std::sync::mpsc::sync_channel;
use std::thread;

use crate::entry::{Chunk, Entry, Hash};
use crate::error::Error;
use crate::new_layer::NewLayer;

use fetch::Fetcher;
use plan::Plan;
use write::Writer;

/// So many threads write. More only wait for one another where a folder gets many files.
const WRITERS: usize = 2;
/// So many batches wait for a writer.
const WAITING: usize = 2;

/// Who gives contents.
pub trait ChunkSource {
    /// A chunk's bytes, such as a row that holds them.
    type Bytes: AsRef<[u8]> + Send;

    /// Of which chunks each of these contents consists, in order; `None` for one that is not there. Called with
    /// some hundred at once.
    fn contents(&mut self, contents: &[Hash]) -> std::io::Result<Vec<Option<Vec<Chunk>>>>;

    /// The bytes of each of these chunks, in order; `None` for one that is not there. Called with some
    /// megabytes at once, each hash once; their hashes need not be checked.
    fn chunks(&mut self, chunks: &[Hash]) -> std::io::Result<Vec<Option<Self::Bytes>>>;
}

/// Makes a tree in `layer`, which is new. The listing is that of the whole tree, folders before what is in them.
///
/// Each content's hash is checked; where it is wrong, the error names the chunk that was altered, or the content
/// if all of its chunks are what they were. After an error the layer is of no use.
pub fn restore<S: ChunkSource>(
    layer: &mut NewLayer,
    entries: &[Entry],
    source: &mut S,
) -> Result<(), Error> {
    let plan = Plan::of(entries)?;
    folders::make(layer, &plan)?;
    let (fetched, written) = thread::scope(|scope| -> Result<_, Error> {
        let mut senders = Vec::with_capacity(WRITERS);
        let mut threads = Vec::with_capacity(WRITERS);
        for _ in 0..WRITERS {
            let (sender, receiver) = sync_channel(WAITING);
            let writer = Writer::new(layer.cursor()?);
            senders.push(sender);
            threads.push(scope.spawn(move || writer.run(receiver)));
        }
        let fetched = Fetcher::new(source, senders).fetch(&plan.files);
        let joined = threads
            .into_iter()
            .map(|t| t.join().unwrap_or(Err(Error::Thread)));
        Ok((fetched, joined.collect::<Result<Vec<_>, Error>>()))
    })?;
    match (fetched, written) {
        // Fetching ends early where a writer has.
        (Ok(()) | Err(Error::Thread), Err(Error::ContentAltered(hash))) => {
            return Err(fetch::blame(source, hash));
        }
        (Ok(()) | Err(Error::Thread), Err(e)) | (Err(e), _) => return Err(e),
        (Ok(()), Ok(written)) => {
            for allocated in written {
                layer.count_all(0, allocated);
            }
        }
    }
    layer.count_all(entries.len() as u64, 0);
    folders::finish(layer, &plan)
}
