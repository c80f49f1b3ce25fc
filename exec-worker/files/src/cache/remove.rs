//! Removing layers, on a thread of its own: a layer may hold 100,000 files.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use rustix::fs::{AtFlags, renameat, unlinkat};
use rustix::io::Errno;

use crate::cursor::Cursor;
use crate::error::{At, Error};
use crate::names::Names;
use crate::path::split;

use super::LAYERS;

/// What an earlier process left is called so until it is removed.
const OLD: &str = "old-";

/// Takes what is to be removed, and knows how much is held.
#[derive(Debug)]
pub(crate) struct Remover {
    /// Folder and name.
    sender: Sender<(&'static str, String)>,
    held: AtomicU64,
}

impl Remover {
    /// Begins with what is there already: names in the cache's folder.
    pub(super) fn start(root: OwnedFd, old: Vec<String>) -> Result<Arc<Remover>, Error> {
        let (sender, receiver) = channel::<(&'static str, String)>();
        for name in old {
            // The receiver is here.
            let _ = sender.send(("", name));
        }
        let mut cursor = Cursor::new(root);
        let run = move || {
            for (folder, name) in receiver {
                // What cannot be removed is tried again by the next process.
                if cursor.go(folder.as_bytes()).is_ok() {
                    remove_all(&mut cursor, name.as_bytes());
                }
            }
        };
        let named = thread::Builder::new().name("layer-remover".into());
        named.spawn(run).at("start a thread", b"")?;
        Ok(Arc::new(Remover {
            sender,
            held: AtomicU64::new(0),
        }))
    }

    pub(super) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    pub(super) fn hold(&self, bytes: u64) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Removes a layer soon, for which so many bytes were held.
    pub(crate) fn remove(&self, layer: String, bytes: u64) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        // Without the thread it is left to the next process.
        let _ = self.sender.send((LAYERS, layer));
    }
}

/// Renames what an earlier process left, and gives all such names.
pub(super) fn set_aside(root: &OwnedFd, layers: &str) -> Result<Vec<String>, Error> {
    let names = Names::read(root.as_fd(), b"", u64::MAX)?;
    let mut old: Vec<String> = names
        .iter()
        .filter(|n| n.starts_with(OLD.as_bytes()))
        .filter_map(|n| String::from_utf8(n.to_vec()).ok())
        .collect();
    let free = (0_u64..)
        .map(|n| format!("{OLD}{n}"))
        .find(|name| !old.contains(name))
        .unwrap_or_default();
    match renameat(root, layers, root, &free) {
        Ok(()) => old.push(free),
        Err(Errno::NOENT) => {}
        Err(e) => return Err(e).at("rename", layers.as_bytes()),
    }
    Ok(old)
}

/// Removes what is at this name, however deep it is; goes on where something cannot be removed.
fn remove_all(cursor: &mut Cursor, name: &[u8]) {
    if unlinkat(cursor.fd(), name, AtFlags::empty()) != Err(Errno::ISDIR) {
        return;
    }
    let mut way = Vec::from_iter(enter(cursor, name));
    while let Some(folders) = way.last_mut() {
        if let Some(folder) = folders.pop() {
            way.extend(enter(cursor, &folder));
            continue;
        }
        way.pop();
        let path = cursor.path().to_vec();
        if cursor.leave().is_err() {
            return;
        }
        let (_, name) = split(&path);
        let _ = unlinkat(cursor.fd(), name, AtFlags::REMOVEDIR);
    }
}

/// Goes into a folder and removes all in it but its folders: these.
fn enter(cursor: &mut Cursor, name: &[u8]) -> Option<Vec<Vec<u8>>> {
    cursor.enter(name).ok()?;
    let names = Names::read(cursor.fd(), cursor.path(), u64::MAX).unwrap_or_default();
    let is_folder =
        |name: &&[u8]| unlinkat(cursor.fd(), *name, AtFlags::empty()) == Err(Errno::ISDIR);
    Some(names.iter().filter(is_folder).map(<[u8]>::to_vec).collect())
}
