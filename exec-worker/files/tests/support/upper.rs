//! Upper folders that are made by hand, and read over a stack.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

use files::{Cache, Change, Error, Hash, Kind, Limits, Stack, read_upper};

use super::namespace::without_capabilities;

/// A cache in a folder of its own.
pub struct Caching {
    pub folder: tempfile::TempDir,
    pub cache: Cache,
}

impl Caching {
    pub fn new() -> Caching {
        Caching::with_limit(u64::MAX)
    }

    pub fn with_limit(limit: u64) -> Caching {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("cache"), limit).unwrap();
        Caching { folder, cache }
    }

    /// Reads an upper folder as its owner would.
    pub fn read(&self, stack: &Stack, tree: i64, upper: &Path) -> (Change, Stack) {
        self.try_read(stack, tree, upper, &Limits::default())
            .unwrap()
    }

    pub fn try_read(
        &self,
        stack: &Stack,
        tree: i64,
        upper: &Path,
        limits: &Limits,
    ) -> Result<(Change, Stack), Error> {
        let upper = OwnedFd::from(File::open(upper).unwrap());
        without_capabilities(|| {
            let mut layer = self.cache.new_layer()?;
            let mut sink = |hash, bytes: &[u8]| {
                assert_eq!(hash, Hash::of(bytes));
                Ok(())
            };
            let change = read_upper(upper, &mut layer, &stack.before()?, limits, &mut sink)?;
            Ok((change, self.cache.extend(stack, tree, layer)?))
        })
    }

    /// Where the newest layer of a stack is.
    pub fn layer(&self, stack: &Stack) -> std::path::PathBuf {
        self.folder
            .path()
            .join("cache/layers")
            .join(stack.names()[0])
    }
}

/// Paths and kinds of a change.
pub fn summary(change: &Change) -> Vec<(String, Kind)> {
    change
        .entries
        .iter()
        .map(|e| (e.path.escape_ascii().to_string(), e.kind))
        .collect()
}
