//! The layers of one tree, held for as long as they are used.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::beneath::open_folder;
use crate::cursor::Cursor;
use crate::error::{At, Error};
use crate::upper::Before;

use super::lookup::Lookup;
use super::{EMPTY, Layer, STACK_MAX};

/// The layers of a tree. None of them is removed before the stack is dropped.
#[derive(Debug, Clone)]
pub struct Stack {
    folder: Arc<OwnedFd>,
    /// The newest first.
    layers: Vec<Arc<Layer>>,
    _pin: Option<Arc<()>>,
    /// Of the index that gave it.
    era: u64,
}

impl Stack {
    pub(super) fn new(
        folder: Arc<OwnedFd>,
        layers: Vec<Arc<Layer>>,
        pin: Option<Arc<()>>,
        era: u64,
    ) -> Stack {
        Stack {
            folder,
            layers,
            _pin: pin,
            era,
        }
    }

    pub(super) fn era(&self) -> u64 {
        self.era
    }

    pub(super) fn layers(&self) -> &[Arc<Layer>] {
        &self.layers
    }

    /// Whether it may have one more layer, and so [`super::Cache::extend`] merges none.
    pub fn has_room(&self) -> bool {
        self.layers.len() < STACK_MAX
    }

    /// The names of its folders in the cache's folder `layers`, the newest first; never none.
    pub fn names(&self) -> Vec<&str> {
        if self.layers.is_empty() {
            return vec![EMPTY];
        }
        self.layers.iter().map(|l| l.name()).collect()
    }

    /// Its folders, opened for reading, the newest first, as overlayfs takes them in `lowerdir`; never none.
    pub fn folders(&self) -> Result<Vec<OwnedFd>, Error> {
        let open = |name: &str| {
            open_folder(&*self.folder, name.as_bytes()).at("open layer", name.as_bytes())
        };
        self.names().into_iter().map(open).collect()
    }

    pub(super) fn cursors(&self, newest: usize) -> Result<Vec<Cursor>, Error> {
        let folders = self.folders()?;
        Ok(folders.into_iter().take(newest).map(Cursor::new).collect())
    }

    /// What a command that runs over these layers begins with, for [`crate::read_upper`].
    pub fn before(&self) -> Result<impl Before + use<>, Error> {
        Ok(Lookup::new(self.cursors(usize::MAX)?, self.clone()))
    }
}
