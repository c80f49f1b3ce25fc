//! What stands at a path in a stack.

use std::cell::RefCell;

use rustix::fs::{FileType, OFlags, readlinkat};
use rustix::io::{Errno, read};
use sha2::{Digest, Sha256};

use crate::beneath::open;
use crate::cursor::Cursor;
use crate::entry::{Entry, Hash, Kind};
use crate::error::{At, Error};
use crate::names::attributes;
use crate::new_layer::is_opaque;
use crate::path::split;
use crate::upper::Before;

use super::Stack;

/// One layer, and where in it the last path was looked for: the next is often beside it.
#[derive(Debug)]
struct Level {
    cursor: Cursor,
    /// Of each folder on the way.
    opaque: Vec<bool>,
}

/// What a layer says of a path.
enum Says {
    /// It stands here, in the folder of the cursor.
    Here,
    /// Nothing stands there, whatever older layers have.
    Gone,
    /// Nothing: the next older layer knows.
    Nothing,
}

impl Level {
    /// Goes towards the folder that `path` is in.
    fn find(&mut self, path: &[u8]) -> Result<Says, Error> {
        let (folder, name) = split(path);
        while !self.cursor.is_within(folder) {
            self.cursor.leave()?;
            self.opaque.pop();
        }
        let rest = &folder[self.cursor.path().len()..];
        for name in rest.split(|&b| b == b'/').filter(|n| !n.is_empty()) {
            if !self.cursor.try_enter(name)? {
                return self.missing(name);
            }
            let opaque = is_opaque(self.cursor.fd()).at("look at", path)?;
            self.opaque.push(opaque);
        }
        match attributes(self.cursor.fd(), name) {
            Ok(found) if found.whiteout => Ok(Says::Gone),
            Ok(_) => Ok(Says::Here),
            Err(Errno::NOENT) => Ok(self.hidden()),
            Err(e) => Err(e).at("look at", path),
        }
    }

    /// A name on the way is no folder.
    fn missing(&self, name: &[u8]) -> Result<Says, Error> {
        match attributes(self.cursor.fd(), name) {
            Ok(_) => Ok(Says::Gone),
            Err(Errno::NOENT) => Ok(self.hidden()),
            Err(e) => Err(e).at("look at", name),
        }
    }

    fn hidden(&self) -> Says {
        if self.opaque.contains(&true) {
            Says::Gone
        } else {
            Says::Nothing
        }
    }
}

/// A stack that is looked through.
#[derive(Debug)]
pub(super) struct Lookup {
    /// The newest first.
    levels: RefCell<Vec<Level>>,
    /// Holds the layers.
    _stack: Stack,
}

impl Lookup {
    pub(super) fn new(cursors: Vec<Cursor>, stack: Stack) -> Lookup {
        let level = |cursor| Level {
            cursor,
            opaque: Vec::new(),
        };
        Lookup {
            levels: RefCell::new(cursors.into_iter().map(level).collect()),
            _stack: stack,
        }
    }

    /// Calls `look` with the folder in which `path` stands.
    fn with<T>(
        &self,
        path: &[u8],
        look: impl FnOnce(&Cursor) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        for level in self.levels.borrow_mut().iter_mut() {
            match level.find(path)? {
                Says::Here => return look(&level.cursor).map(Some),
                Says::Gone => return Ok(None),
                Says::Nothing => {}
            }
        }
        Ok(None)
    }
}

impl Before for Lookup {
    fn entry(&self, path: &[u8]) -> Result<Option<Entry>, Error> {
        self.with(path, |cursor| {
            let (_, name) = split(path);
            let found = attributes(cursor.fd(), name).at("look at", path)?;
            let kind = match found.kind {
                FileType::RegularFile => Kind::File,
                FileType::Directory => Kind::Folder,
                FileType::Symlink => Kind::Symlink,
                _ => return Err(Error::Damaged("a layer holds what is never kept")),
            };
            let mut entry = Entry::new(path.to_vec(), kind);
            entry.mode = found.mode & 0o1777;
            entry.mtime_ns = found.mtime_ns;
            if kind == Kind::File {
                entry.size = found.size;
            } else if kind == Kind::Symlink {
                let target = readlinkat(cursor.fd(), name, Vec::new()).at("read symlink", path)?;
                entry.target = Some(target.into_bytes());
            }
            Ok(entry)
        })
    }

    fn content(&self, entry: &Entry) -> Result<Option<Hash>, Error> {
        self.with(&entry.path, |cursor| {
            let (_, name) = split(&entry.path);
            let file = match open(cursor.fd(), name, OFlags::RDONLY | OFlags::NONBLOCK) {
                // Its owner may not read it, and others use it: it counts as changed.
                Err(Errno::ACCESS) => return Ok(None),
                file => file.at("open file", &entry.path)?,
            };
            let mut buffer = vec![0; 256 * 1024];
            let mut hash = Sha256::new();
            loop {
                match read(&file, &mut *buffer) {
                    Ok(0) => return Ok(Some(Hash(hash.finalize().into()))),
                    Ok(count) => hash.update(&buffer[..count]),
                    Err(Errno::INTR) => {}
                    Err(e) => return Err(e).at("read", &entry.path),
                }
            }
        })
        .map(Option::flatten)
    }
}
