//! A content store outside the database: chunks as objects of a folder, or of a bucket by S3's protocol. The one place
//! that knows the crate `object_store`.
//!
//! An object's life: announced by `shell.expect_objects` ─► written ─► named by `shell.add_chunks` ─► unnamed when its
//! chunk is collected ─► removed. What is lost on the way is unnamed, and removed likewise.

use std::fmt::Display;
use std::future::Future;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::Path as FilePath;
use std::time::Duration;

use files::{CHUNK_MAX, Hash};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, RetryConfig};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::warn;

use super::address::{Key, Place, StoreAddress};
use crate::config::ContentStore;
use crate::error::Error;

/// So many objects are read or written at a time, for all commands together.
const AT_ONCE: usize = 16;
/// How often, and for how long, a request is repeated that a server has no answer to.
const RETRIES: usize = 5;
const RETRY: Duration = Duration::from_secs(20);
/// After that an object counts as not to be had, whatever keeps it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of the host, by the worker's own user.
const SEEN_BY_COMMANDS: [&str; 2] = ["/usr", "/etc"];

/// The store.
pub(super) struct Outside {
    address: StoreAddress,
    prefix: String,
    store: Box<dyn ObjectStore>,
    min_bytes: usize,
    room: Semaphore,
}

impl Outside {
    /// The one that is set, if one is.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub(super) fn open(setting: &ContentStore) -> Result<Option<Outside>, Error> {
        let Some(address) = &setting.content_store else {
            return Ok(None);
        };
        let (store, prefix) = match address.place() {
            Place::Folder(folder) => (in_folder(folder)?, ""),
            Place::Bucket { name, prefix } => (in_bucket(name)?, prefix.as_str()),
        };
        Ok(Some(Outside {
            address: address.clone(),
            prefix: prefix.to_owned(),
            store,
            min_bytes: setting.content_store_min_bytes as usize,
            room: Semaphore::new(AT_ONCE),
        }))
    }

    /// Whether a chunk of so many bytes goes here.
    pub(super) fn takes(&self, bytes: usize) -> bool {
        bytes >= self.min_bytes
    }

    /// Where it is.
    pub(super) fn address(&self) -> &StoreAddress {
        &self.address
    }

    /// Writes, reads and removes an object: what is set wrong shall be said at once and not by each command.
    ///
    /// # Errors
    /// [`Error::Setting`].
    pub(super) async fn try_out(&self) -> Result<(), Error> {
        let bytes = b"pg_shell tries its content store".to_vec();
        let chunk = Hash::of(&bytes);
        let url = self.address.new_object(chunk);
        let tried = async {
            let location = self.location(self.address.key(&url).ok_or("it has no keys")?);
            self.put(&location, bytes.clone()).await?;
            let read = self.get(&location).await?;
            self.delete(&location).await?;
            if read.as_deref() == Some(&bytes) {
                Ok(())
            } else {
                Err("what was written is not what is read".to_owned())
            }
        };
        tried.await.map_err(wrong)
    }

    /// Writes a chunk's object; it is on disk when this returns.
    ///
    /// # Errors
    /// [`Error::NotWritten`].
    pub(super) async fn write(&self, chunk: Hash, url: &str, bytes: Vec<u8>) -> Result<(), Error> {
        let key = self.address.key(url).ok_or(Error::NotWritten(chunk))?;
        self.put(&self.location(key), bytes).await.map_err(|e| {
            warn!(%chunk, url, error = e, "an object cannot be written");
            Error::NotWritten(chunk)
        })
    }

    /// The bytes of a chunk's object, which may be any; `None` where it is missing.
    ///
    /// # Errors
    /// [`Error::NotRead`], [`Error::Elsewhere`].
    pub(super) async fn read(&self, chunk: Hash, url: &str) -> Result<Option<Vec<u8>>, Error> {
        let key = self.address.key(url).filter(|key| key.is_of(chunk));
        let key = key.ok_or(Error::Elsewhere(chunk))?;
        self.get(&self.location(key)).await.map_err(|e| {
            warn!(%chunk, url, error = e, "an object cannot be read");
            Error::NotRead(chunk)
        })
    }

    /// Removes an object, if it is there.
    ///
    /// # Errors
    /// Why it may still be there.
    pub(super) async fn remove(&self, url: &str) -> Result<(), String> {
        let key = self.address.key(url).ok_or("it is none of this store's")?;
        if let Place::Folder(folder) = self.address.place() {
            // The crate writes a file by this name first, and a worker that was killed meanwhile left it.
            let unfinished = folder.join(format!("{}#1", key.as_str()));
            let removed = spawn_blocking(move || std::fs::remove_file(unfinished)).await;
            match removed.map_err(told)? {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(told(e)),
                _ => {}
            }
        }
        self.delete(&self.location(key)).await
    }

    fn location(&self, key: Key<'_>) -> Path {
        Path::from_iter(self.prefix.split('/').chain(key.as_str().split('/')))
    }

    async fn put(&self, location: &Path, bytes: Vec<u8>) -> Result<(), String> {
        self.patiently(async {
            let put = self.store.put(location, bytes.into()).await;
            put.map(|_| ()).map_err(told)
        })
        .await
    }

    async fn get(&self, location: &Path) -> Result<Option<Vec<u8>>, String> {
        self.patiently(async {
            let found = match self.store.get(location).await {
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                found => found.map_err(told)?,
            };
            if found.meta.size > CHUNK_MAX as u64 {
                // Too large for any chunk, so that its hash need not be asked for.
                return Ok(Some(Vec::new()));
            }
            let bytes = found.bytes().await.map_err(told)?;
            Ok(Some(bytes.into()))
        })
        .await
    }

    async fn delete(&self, location: &Path) -> Result<(), String> {
        self.patiently(async {
            match self.store.delete(location).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                deleted => deleted.map_err(told),
            }
        })
        .await
    }

    /// A request in its turn, and not for ever: a folder may be on a server that is gone, or hold a pipe.
    async fn patiently<T>(
        &self,
        request: impl Future<Output = Result<T, String>>,
    ) -> Result<T, String> {
        let _turn = self.room.acquire().await.map_err(told)?;
        match timeout(PATIENCE, request).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
        }
    }
}

fn in_folder(folder: &FilePath) -> Result<Box<dyn ObjectStore>, Error> {
    let real = folder.canonicalize().map_err(wrong)?;
    let found = std::fs::metadata(&real).map_err(wrong)?;
    if !found.is_dir() {
        return Err(wrong("it is no folder"));
    }
    if found.permissions().mode() & 0o007 != 0 {
        let problem = "the folder is open to every user of this host; chmod o= it";
        return Err(wrong(problem));
    }
    if SEEN_BY_COMMANDS.iter().any(|seen| real.starts_with(seen)) {
        return Err(wrong("commands can read what is below /usr and /etc"));
    }
    let store = LocalFileSystem::new_with_prefix(real).map_err(wrong)?;
    // Nothing in the database may name what a power failure would take away.
    Ok(Box::new(store.with_fsync(true)))
}

/// Everything but the bucket is set by the variables `AWS_*`, as the crate reads them.
fn in_bucket(name: &str) -> Result<Box<dyn ObjectStore>, Error> {
    // An error says that there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let retry = RetryConfig {
        max_retries: RETRIES,
        retry_timeout: RETRY,
        ..RetryConfig::default()
    };
    let store = AmazonS3Builder::from_env()
        .with_bucket_name(name)
        .with_retry(retry)
        .build();
    Ok(Box::new(store.map_err(wrong)?))
}

fn wrong(problem: impl Display) -> Error {
    Error::Setting {
        name: "content-store",
        problem: problem.to_string(),
    }
}

fn told(e: impl Display) -> String {
    e.to_string()
}
