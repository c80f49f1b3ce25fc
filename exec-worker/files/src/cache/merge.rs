//! Making one layer of several, by hard links.
//!
//! A folder that is closed to its owner is open to him while it is merged, and a command that looks at it for the
//! first time in that moment sees it so: a folder of its own session.

use std::collections::HashMap;

use rustix::fs::FileType;
use rustix::io::Errno;

use crate::cursor::Cursor;
use crate::error::{At, Error};
use crate::names::{Attributes, Names, attributes};
use crate::new_layer::{Folder, NewLayer, is_opaque};
use crate::path::join;

/// A folder that is still to be gone into.
struct Below {
    name: Vec<u8>,
    /// Of the newest layer that has it.
    found: Attributes,
    /// Which layers have it, the newest first, as far down as they show.
    layers: Vec<usize>,
    /// An older layer has something else by that name, which hides what is older still.
    hides: bool,
}

/// A folder on the way.
struct Level {
    below: std::vec::IntoIter<Below>,
    layers: Vec<usize>,
    /// Nothing older than the layers shows here.
    bottom: bool,
}

/// Merges layers, the newest first, into `into`. At the `bottom` of a stack nothing is older, and marks of what
/// is gone are left out.
pub(super) fn merge(layers: Vec<Cursor>, bottom: bool, into: &mut NewLayer) -> Result<(), Error> {
    let all = (0..layers.len()).collect();
    let mut merger = Merger { layers, into };
    let mut way = vec![merger.folder(all, bottom)?];
    while let Some(level) = way.last_mut() {
        if let Some(below) = level.below.next() {
            let bottom = level.bottom;
            let next = merger.enter(below, bottom)?;
            way.push(next);
        } else if let Some(left) = way.pop()
            && !way.is_empty()
        {
            merger.into.leave()?;
            for layer in left.layers {
                merger.layers[layer].leave()?;
            }
        }
    }
    Ok(())
}

struct Merger<'a> {
    layers: Vec<Cursor>,
    into: &'a mut NewLayer,
}

impl Merger<'_> {
    fn enter(&mut self, mut below: Below, bottom: bool) -> Result<Level, Error> {
        let mut shown = 0;
        for &layer in &below.layers {
            let cursor = &mut self.layers[layer];
            cursor.enter(&below.name)?;
            shown += 1;
            if is_opaque(cursor.fd()).at("look at", cursor.path())? {
                below.hides = true;
                break;
            }
        }
        below.layers.truncate(shown);
        let folder = Folder {
            mode: below.found.mode,
            mtime_ns: below.found.mtime_ns,
            opaque: below.hides && !bottom,
        };
        self.into.enter(&below.name, folder);
        self.into.make()?;
        self.folder(below.layers, bottom || below.hides)
    }

    /// Merges what is in a folder, but for its folders.
    fn folder(&mut self, layers: Vec<usize>, bottom: bool) -> Result<Level, Error> {
        let mut below: Vec<Below> = Vec::new();
        // Where in `below` a name is, while older layers may still show in it.
        let mut seen: HashMap<Vec<u8>, Option<usize>> = HashMap::new();
        for &layer in &layers {
            let cursor = &self.layers[layer];
            let names = Names::read(cursor.fd(), cursor.path(), u64::MAX)?;
            for name in names.iter() {
                let known = seen.get(name).copied();
                if known == Some(None) {
                    continue;
                }
                let found =
                    attributes(cursor.fd(), name).at("look at", &join(cursor.path(), name))?;
                let is_folder = found.kind == FileType::Directory;
                match known.flatten() {
                    Some(index) if is_folder => below[index].layers.push(layer),
                    Some(index) => {
                        below[index].hides = true;
                        seen.insert(name.to_vec(), None);
                    }
                    None if is_folder => {
                        seen.insert(name.to_vec(), Some(below.len()));
                        below.push(Below {
                            name: name.to_vec(),
                            found,
                            layers: vec![layer],
                            hides: false,
                        });
                    }
                    None => {
                        seen.insert(name.to_vec(), None);
                        put(self.into, cursor, name, &found, bottom)?;
                    }
                }
            }
        }
        Ok(Level {
            below: below.into_iter(),
            layers,
            bottom,
        })
    }
}

fn put(
    into: &mut NewLayer,
    cursor: &Cursor,
    name: &[u8],
    found: &Attributes,
    bottom: bool,
) -> Result<(), Error> {
    if found.whiteout {
        return if bottom { Ok(()) } else { into.whiteout(name) };
    }
    match into.link(cursor.fd(), name, name, found.blocks * 512) {
        Err(Error::Io { source, .. })
            if source.raw_os_error() == Some(Errno::MLINK.raw_os_error()) =>
        {
            Err(Error::Damaged(
                "a file has more names than the file system allows",
            ))
        }
        linked => linked,
    }
}
