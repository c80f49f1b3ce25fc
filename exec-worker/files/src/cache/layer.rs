//! A layer that is complete.

use std::sync::Arc;

use crate::new_layer::NewLayer;

use super::Remover;

/// A folder of the cache; removed when nobody holds it any more.
#[derive(Debug)]
pub(crate) struct Layer {
    name: String,
    entries: u64,
    bytes: u64,
    remover: Arc<Remover>,
}

impl Layer {
    pub(super) fn new(layer: NewLayer, remover: &Arc<Remover>) -> Layer {
        let (name, entries, bytes) = layer.keep();
        remover.hold(bytes);
        Layer {
            name,
            entries,
            bytes,
            remover: remover.clone(),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        self.remover
            .remove(std::mem::take(&mut self.name), self.bytes);
    }
}
