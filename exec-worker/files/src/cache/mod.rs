//! Layers of trees that were used lately, on the worker's disk.
//!
//! Nothing in it is trusted and nothing outlives the process: which layers make up which tree is only known in
//! memory, and what an earlier process left is removed.

mod layer;
mod lookup;
mod merge;
mod remove;
mod stack;

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FlockOperation, Mode, OFlags, fchmod, flock, mkdirat, open};
use rustix::io::Errno;

use crate::beneath::open_folder;
use crate::cursor::Cursor;
use crate::error::{At, Error};
use crate::new_layer::NewLayer;

use layer::Layer;
pub(crate) use remove::Remover;
pub use stack::Stack;

/// The folder in which layers are.
const LAYERS: &str = "layers";
/// The lower folder of an empty tree.
const EMPTY: &str = "empty";
/// The most layers of a stack: each makes a mount, and a look for a name that is not there, longer.
const STACK_MAX: usize = 8;

/// The trees whose layers are at hand.
#[derive(Debug)]
pub struct Cache {
    layers: Arc<OwnedFd>,
    index: Mutex<Index>,
    remover: Arc<Remover>,
    limit: AtomicU64,
    next: AtomicU64,
}

#[derive(Debug, Default)]
struct Index {
    trees: HashMap<i64, Tree>,
    /// Counts uses.
    clock: u64,
    /// Counts how often all was forgotten.
    era: u64,
}

#[derive(Debug)]
struct Tree {
    layers: Vec<Arc<Layer>>,
    /// Held by each stack that was given out, too.
    pin: Arc<()>,
    used: u64,
}

impl Cache {
    /// Begins with an empty cache in `folder`, which is made if need be, and which is to be nobody else's.
    ///
    /// `limit` is how many bytes of the disk layers may take; those in use, and those being written, may
    /// exceed it.
    ///
    /// Layers belong to the file system ids of the threads that call: those of the sandbox's user outside, or
    /// overlayfs cannot copy a file up. The thread that removes layers has those of the one that calls this.
    pub fn open(folder: &Path, limit: u64) -> Result<Cache, Error> {
        let name = folder.as_os_str().as_encoded_bytes();
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder);
        made.at("make folder", name)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = open(folder, flags, Mode::empty()).at("open folder", name)?;
        match flock(&root, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::AGAIN) => return Err(Error::InUse),
            locked => locked.at("lock", name)?,
        }
        fchmod(&root, Mode::RWXU).at("change the mode of", name)?;
        let old = remove::set_aside(&root, LAYERS)?;
        mkdirat(&root, LAYERS, Mode::RWXU).at("make folder", LAYERS.as_bytes())?;
        let layers = open_folder(&root, LAYERS.as_bytes()).at("open folder", LAYERS.as_bytes())?;
        mkdirat(&layers, EMPTY, Mode::RWXU).at("make folder", EMPTY.as_bytes())?;
        Ok(Cache {
            layers: Arc::new(layers),
            index: Mutex::default(),
            remover: Remover::start(root, old)?,
            limit: AtomicU64::new(limit),
            next: AtomicU64::new(0),
        })
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        // Each change of it is one insertion or removal.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stack of a tree, if it is at hand. Its layers stay as long as the stack is held.
    pub fn get(&self, tree: i64) -> Option<Stack> {
        let mut index = self.index();
        index.clock += 1;
        let now = index.clock;
        let found = index.trees.get_mut(&tree)?;
        found.used = now;
        let (layers, pin) = (found.layers.clone(), Some(found.pin.clone()));
        Some(self.stack(layers, pin, index.era))
    }

    /// The stack of an empty tree.
    pub fn empty(&self) -> Stack {
        self.stack(Vec::new(), None, self.index().era)
    }

    fn stack(&self, layers: Vec<Arc<Layer>>, pin: Option<Arc<()>>, era: u64) -> Stack {
        Stack::new(self.layers.clone(), layers, pin, era)
    }

    /// Begins a layer.
    pub fn new_layer(&self) -> Result<NewLayer, Error> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        mkdirat(&*self.layers, &name, Mode::RWXU).at("make folder", name.as_bytes())?;
        let folder =
            open_folder(&*self.layers, name.as_bytes()).at("open folder", name.as_bytes())?;
        Ok(NewLayer::new(
            Cursor::new(folder),
            name,
            self.remover.clone(),
        ))
    }

    /// From now on `tree` is what `parent` is with this layer on it, unless all was forgotten since `parent` was given
    /// out. The stack is made shorter where it would be longer than eight layers, by hard links: no content is copied.
    pub fn extend(&self, parent: &Stack, tree: i64, layer: NewLayer) -> Result<Stack, Error> {
        let mut layers = vec![Arc::new(Layer::new(layer, &self.remover))];
        layers.extend_from_slice(parent.layers());
        if layers.len() > STACK_MAX {
            layers = self.shorten(layers, parent.era())?;
        }
        Ok(self.keep(tree, layers, parent.era()))
    }

    /// What can be done when there is nothing else to do: forgets what has no room now that it is not in use any
    /// more, and makes the stack of `tree` shorter ahead of time, if it is more than half as long as it may be.
    /// Whether it was made shorter.
    pub fn settle(&self, tree: i64) -> Result<bool, Error> {
        self.shrink(&mut self.index());
        let Some(stack) = self.get(tree).filter(|s| s.layers().len() > STACK_MAX / 2) else {
            return Ok(false);
        };
        let layers = self.shorten(stack.layers().to_vec(), stack.era())?;
        self.keep(tree, layers, stack.era());
        Ok(true)
    }

    /// Merges the newest layers, so many that the next one holds twice as much: a name is merged about as often
    /// as the number of names can be halved.
    fn shorten(&self, mut layers: Vec<Arc<Layer>>, era: u64) -> Result<Vec<Arc<Layer>>, Error> {
        let mut count = STACK_MAX / 2;
        let mut sum: u64 = layers[..count].iter().map(|l| l.entries()).sum();
        while let Some(next) = layers.get(count) {
            if next.entries() >= 2 * sum {
                break;
            }
            sum += next.entries();
            count += 1;
        }
        let mut merged = self.new_layer()?;
        let stack = self.stack(layers.clone(), None, era);
        let bottom = count == layers.len();
        merge::merge(stack.cursors(count)?, bottom, &mut merged)?;
        let merged = Arc::new(Layer::new(merged, &self.remover));
        layers.splice(..count, [merged]);
        Ok(layers)
    }

    fn keep(&self, tree: i64, layers: Vec<Arc<Layer>>, era: u64) -> Stack {
        let pin = Arc::new(());
        let mut index = self.index();
        if index.era != era {
            return self.stack(layers, Some(pin), era);
        }
        index.clock += 1;
        let used = index.clock;
        let entry = Tree {
            layers: layers.clone(),
            pin: pin.clone(),
            used,
        };
        index.trees.insert(tree, entry);
        let stack = self.stack(layers, Some(pin), era);
        self.shrink(&mut index);
        stack
    }

    /// Forgets the trees that were not used for the longest time, until all fits.
    fn shrink(&self, index: &mut Index) {
        let limit = self.limit.load(Ordering::Relaxed);
        if self.remover.held() <= limit {
            return;
        }
        let mut unused: Vec<(u64, i64)> = (index.trees.iter())
            .filter(|(_, tree)| Arc::strong_count(&tree.pin) == 1)
            .map(|(&id, tree)| (tree.used, id))
            .collect();
        unused.sort_unstable();
        for (_, id) in unused {
            if self.remover.held() <= limit {
                break;
            }
            index.trees.remove(&id);
        }
    }

    /// Forgets a tree: what to do where its stack gave an error.
    pub fn forget(&self, tree: i64) {
        self.index().trees.remove(&tree);
    }

    /// Forgets all trees, those too that are being added: what to do where the numbers of trees may come to mean others.
    pub fn forget_all(&self) {
        let mut index = self.index();
        index.era += 1;
        index.trees.clear();
    }

    /// How many bytes of the disk layers may take, from now on.
    pub fn set_limit(&self, limit: u64) {
        self.limit.store(limit, Ordering::Relaxed);
        self.shrink(&mut self.index());
    }

    /// How many bytes of the disk layers take, about: what several layers hold counts for each.
    pub fn bytes(&self) -> u64 {
        self.remover.held()
    }

    /// How many trees are at hand.
    pub fn trees(&self) -> usize {
        self.index().trees.len()
    }
}
