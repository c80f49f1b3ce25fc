//! The files of sessions: what a command begins with, and what becomes of what it leaves in its home.
//!
//! ```text
//!  tree ──► stack of layers (from the cache, or restored from the database) ──► home
//!  home's upper folder ──► change ──► chunks and tree in the database, and one more layer in the cache
//! ```
//!
//! A tree that was stored is nobody's until its command's result names it. Its chunks are in the database, or in a
//! content store that the database names.

mod address;
mod connection;
mod fetch;
mod folder;
mod outside;
mod removal;
mod store;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use confine::Pin;
use files::{Cache, Stack};
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::command::Lease;
use crate::config::{ContentStore, FilesCache};
use crate::error::Error;
use connection::{Connection, Pool};
use outside::Outside;
use removal::Round;

pub use address::StoreAddress;
pub use store::Stored;

/// Pauses between attempts while the database is away: about a minute in all.
const PAUSES_MS: [u64; 8] = [50, 200, 1_000, 5_000, 10_000, 15_000, 15_000, 15_000];
/// A connection that nobody has used for so long is closed.
const IDLE: Duration = Duration::from_secs(30);

/// What sessions' files take: a cache on the disk, and connections.
pub struct Files {
    cache: Arc<Cache>,
    folder: PathBuf,
    pool: Pool,
    outside: Option<Arc<Outside>>,
    round: Round,
    worker: AtomicI64,
}

/// Where contents are while a tree is stored or fetched, by a thread that may wait.
struct Contents {
    connection: Connection,
    handle: Handle,
    outside: Option<Arc<Outside>>,
}

impl Contents {
    /// Whether a chunk of so many bytes goes into the content store.
    fn takes_outside(&self, bytes: usize) -> bool {
        (self.outside.as_ref()).is_some_and(|outside| outside.takes(bytes))
    }
}

/// What a command begins with.
pub struct Begun {
    stack: Stack,
    /// The tree, where it is not an empty home.
    tree: Option<i64>,
}

impl Begun {
    /// The names of its layers, the newest first; none for an empty home.
    pub fn layers(&self) -> Vec<String> {
        match self.tree {
            Some(_) => self.stack.names().into_iter().map(str::to_owned).collect(),
            None => Vec::new(),
        }
    }

    /// What keeps the layers from being removed while they are mounted.
    pub fn pin(&self) -> Pin {
        Arc::new(self.stack.clone())
    }
}

impl Files {
    /// With an empty cache.
    ///
    /// # Errors
    /// [`Error::Setting`] where there cannot be one.
    pub fn new(
        setting: &FilesCache,
        content: &ContentStore,
        database: &tokio_postgres::Config,
    ) -> Result<Files, Error> {
        let outside = Outside::open(content)?.map(Arc::new);
        let (cache, folder) = folder::open(setting)?;
        Ok(Files {
            cache: Arc::new(cache),
            folder,
            pool: Pool::new(database),
            outside,
            round: Round::default(),
            worker: AtomicI64::new(0),
        })
    }

    /// Tries the content store, where one is set.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub async fn try_out(&self) -> Result<(), Error> {
        match &self.outside {
            Some(outside) => outside.try_out().await,
            None => Ok(()),
        }
    }

    async fn contents(&self) -> Result<Contents, Error> {
        Ok(Contents {
            connection: self.pool.take().await?,
            handle: Handle::current(),
            outside: self.outside.clone(),
        })
    }

    /// The folder in which layers have their names.
    pub fn layers(&self) -> PathBuf {
        self.folder.join("layers")
    }

    /// From now on this worker's leases count.
    pub fn serve(&self, worker: i64) {
        self.worker.store(worker, Ordering::Relaxed);
    }

    /// While there is nothing else to do: merges the layers of a tree that was stored lately, which the next command of
    /// its session would wait for. What that begins with, if the cache has it; it takes a while.
    pub fn settle(&self, tree: i64) -> Option<Begun> {
        if let Err(e) = self.cache.settle(tree) {
            warn!(tree, error = %e, "the cache is damaged; the tree is fetched again");
            self.cache.forget(tree);
        }
        let stack = self.cache.get(tree)?;
        Some(Begun {
            stack,
            tree: Some(tree),
        })
    }

    /// After a connection was lost: trees may have other numbers now, for a server that has crashed, or was put back to what
    /// it was before, gives out again those that it does not remember.
    pub fn forget_trees(&self) {
        self.cache.forget_all();
    }

    /// Closes connections that nobody has used lately.
    pub fn end_idle(&self) {
        self.pool.end_idle(IDLE);
    }

    /// The files with which a command begins. Where the cache does not have them they are fetched.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Files`]: they are not there, or not what they were.
    pub async fn begin(&self, tree: Option<i64>) -> Result<Begun, Error> {
        let stack = match tree {
            None => self.cache.empty(),
            Some(id) => match self.cache.get(id) {
                Some(stack) => stack,
                None => self.fetch(id).await?,
            },
        };
        Ok(Begun { stack, tree })
    }

    async fn fetch(&self, tree: i64) -> Result<Stack, Error> {
        let mut patience = Patience::new();
        loop {
            match self.try_to_fetch(tree).await {
                Err(e) => patience.wait_out(e).await?,
                fetched => return fetched,
            }
        }
    }

    async fn try_to_fetch(&self, tree: i64) -> Result<Stack, Error> {
        let (cache, contents) = (self.cache.clone(), self.contents().await?);
        let (contents, fetched) = blocking(move || {
            let fetched = fetch::restore(&cache, &contents, tree);
            (contents, fetched)
        })
        .await?;
        self.pool.put(contents.connection);
        debug!(tree, "fetched");
        fetched
    }

    /// Stores what a command has left in its home.
    ///
    /// # Errors
    /// As [`Files::begin`]; the session's files are then as they were.
    pub async fn keep(&self, lease: Lease, begun: &Begun, upper: OwnedFd) -> Result<Stored, Error> {
        let mut patience = Patience::new();
        loop {
            match self.try_to_keep(lease, begun, &upper).await {
                Err(e) => patience.wait_out(e).await?,
                stored => return stored,
            }
        }
    }

    async fn try_to_keep(
        &self,
        lease: Lease,
        begun: &Begun,
        upper: &OwnedFd,
    ) -> Result<Stored, Error> {
        let contents = Arc::new(self.contents().await?);
        let stored = self.store(lease, begun, upper, &contents).await;
        if let Some(contents) = Arc::into_inner(contents) {
            self.pool.put(contents.connection);
        }
        if let (Err(Error::Files(_)), Some(tree)) = (&stored, begun.tree) {
            // It may be the cache; whatever it is, the next command does without.
            self.cache.forget(tree);
        }
        stored
    }

    async fn store(
        &self,
        lease: Lease,
        begun: &Begun,
        upper: &OwnedFd,
        contents: &Arc<Contents>,
    ) -> Result<Stored, Error> {
        let stack = &begun.stack;
        let upper = || {
            upper.try_clone().map_err(|source| Error::System {
                what: "keeping the upper folder",
                source,
            })
        };
        let worker = self.worker.load(Ordering::Relaxed);
        let read = match store::read(&self.cache, contents, stack, upper()?, &store::SMALL) {
            Err(Error::Files(e)) if e.is_limit() => None,
            read => Some(read?),
        };
        let (stored, layer) = match read {
            Some(unstored) => unstored.store(contents, (worker, lease)).await?,
            None => {
                let (cache, contents) = (self.cache.clone(), contents.clone());
                let (stack, upper) = (stack.clone(), upper()?);
                let stored = blocking(move || {
                    let unstored = store::read(&cache, &contents, &stack, upper, &store::LIMITS)?;
                    (contents.handle).block_on(unstored.store(&contents, (worker, lease)))
                })
                .await?;
                match stored {
                    Err(Error::Files(e)) if e.is_limit() => return Ok(Stored::too_large(&e)),
                    stored => stored?,
                }
            }
        };
        if let Stored::Tree { id, .. } = stored
            && begun.tree != Some(id)
        {
            let extended = if stack.has_room() {
                self.cache.extend(stack, id, layer)
            } else {
                let (cache, stack) = (self.cache.clone(), stack.clone());
                blocking(move || cache.extend(&stack, id, layer)).await?
            };
            // It is stored: the next command may fetch it.
            if let Err(e) = extended {
                warn!(tree = id, error = %e, "a tree that was stored is not in the cache");
            }
        }
        Ok(stored)
    }
}

/// With a database that is away.
struct Patience(std::slice::Iter<'static, u64>);

impl Patience {
    fn new() -> Patience {
        Patience(PAUSES_MS.iter())
    }

    /// Returns when it is time to try again.
    ///
    /// # Errors
    /// The same, where that is of no use, or was of none often enough.
    async fn wait_out(&mut self, e: Error) -> Result<(), Error> {
        if !e.is_passing() {
            return Err(e);
        }
        let Some(pause) = self.0.next() else {
            return Err(e);
        };
        warn!(error = %e, again_in_ms = pause, "no database for files");
        sleep(Duration::from_millis(*pause)).await;
        Ok(())
    }
}

/// Work that waits for the disk has a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    spawn_blocking(work).await.map_err(|e| Error::System {
        what: "working on files",
        source: std::io::Error::other(e),
    })
}
