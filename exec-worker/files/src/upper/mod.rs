//! Reading what a command changed: the upper folder of its overlay.
//!
//! All of its processes are dead, but its names, modes, depths and kinds are hostile. One pass reads, cuts and
//! hashes each file and writes it into a new layer.

mod file;

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, SeekFrom, fchmod, fstat, readlinkat, seek};

use crate::cursor::Cursor;
use crate::entry::{Change, Entry, Hash, Kind, NotKept};
use crate::error::{At, Error};
use crate::names::{Attributes, Names, attributes};
use crate::new_layer::{Folder, NewLayer, is_opaque};
use crate::path::join;

use file::Copier;

/// How large a change may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Names in the upper folder, those that did not change counted.
    pub entries: u64,
    /// Bytes of all files in it, holes counted.
    pub bytes: u64,
    /// Bytes of a path; what is deeper is not kept.
    pub path_bytes: usize,
    /// Bytes of all paths and of symlinks' targets.
    pub names_bytes: u64,
}

impl Default for Limits {
    /// A million entries, 16 GiB, paths of 16 KiB, of 1 GiB together.
    fn default() -> Limits {
        Limits {
            entries: 1_000_000,
            bytes: 16 << 30,
            path_bytes: 16 << 10,
            names_bytes: 1 << 30,
        }
    }
}

/// What the command began with.
pub trait Before {
    /// What stood at a path; `content` may be left out. `None` where nothing stood there.
    fn entry(&self, path: &[u8]) -> Result<Option<Entry>, Error>;

    /// What a file held that [`Before::entry`] gave; only asked for a file whose attributes are as they were.
    /// `None` where that is not known: then it counts as changed.
    fn content(&self, entry: &Entry) -> Result<Option<Hash>, Error> {
        Ok(entry.content)
    }
}

impl<F: Fn(&[u8]) -> Option<Entry>> Before for F {
    fn entry(&self, path: &[u8]) -> Result<Option<Entry>, Error> {
        Ok(self(path))
    }
}

/// Who takes chunks: each hash once for a change, with its bytes.
pub type Sink<'a> = dyn FnMut(Hash, &[u8]) -> std::io::Result<()> + 'a;

/// Reads an upper folder, which was opened for reading, from its beginning, and writes what changed into `layer`. The
/// attributes of the folder itself, which are home's, are not kept.
///
/// Chunks go to `sink` as they come, those of a large file also where it turns out to be as it was before.
pub fn read_upper(
    upper: OwnedFd,
    layer: &mut NewLayer,
    before: &dyn Before,
    limits: &Limits,
    sink: &mut Sink<'_>,
) -> Result<Change, Error> {
    let mode = fstat(&upper).at("look at", b"")?.st_mode & 0o7777;
    if mode & 0o700 != 0o700 {
        fchmod(&upper, Mode::from_raw_mode(mode | 0o700)).at("change the mode of", b"")?;
    }
    // It may have been read before.
    seek(&upper, SeekFrom::Start(0)).at("read folder", b"")?;
    let linked = layer.cursor()?;
    let mut reader = Reader {
        cursor: Cursor::new(upper),
        layer,
        before,
        limits,
        copier: Copier::new(sink),
        change: Change::default(),
        contents: HashSet::new(),
        links: HashMap::new(),
        linked,
        entries: 0,
        bytes: 0,
        names_bytes: 0,
    };
    reader.read()?;
    Ok(reader.finish())
}

/// A file with several names.
struct Linked {
    /// In the change.
    entry: usize,
    names: u64,
}

/// A folder that is still to be gone into.
struct Below {
    name: Vec<u8>,
    found: Attributes,
}

struct Reader<'a, 'b> {
    cursor: Cursor,
    layer: &'a mut NewLayer,
    before: &'a dyn Before,
    limits: &'a Limits,
    copier: Copier<'a, 'b>,
    change: Change,
    contents: HashSet<Hash>,
    links: HashMap<u64, Linked>,
    /// Where in the layer the last file with several names has its first.
    linked: Cursor,
    entries: u64,
    bytes: u64,
    names_bytes: u64,
}

impl Reader<'_, '_> {
    fn read(&mut self) -> Result<(), Error> {
        // What of each folder on the way is still to be gone into, and whether nothing stood in it before.
        let mut way = vec![(self.folder(false)?.into_iter(), false)];
        while let Some((below, new)) = way.last_mut() {
            let new = *new;
            if let Some(next) = below.next() {
                if let Some(new) = self.enter(&next, new)? {
                    way.push((self.folder(new)?.into_iter(), new));
                }
            } else {
                way.pop();
                if !way.is_empty() {
                    self.layer.leave()?;
                    self.cursor.leave()?;
                }
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Change {
        for linked in self.links.values().filter(|l| l.names == 1) {
            self.change.entries[linked.entry].link = None;
        }
        self.change
            .entries
            .sort_unstable_by(|a, b| a.path.cmp(&b.path));
        self.change
            .not_kept
            .sort_unstable_by(|a, b| a.path.cmp(&b.path));
        self.change
    }

    /// Reads what is in the folder where the cursor stands, but for its folders: these are given back.
    fn folder(&mut self, new: bool) -> Result<Vec<Below>, Error> {
        let left = self.limits.entries.saturating_sub(self.entries);
        let names =
            Names::read(self.cursor.fd(), self.cursor.path(), left).map_err(|e| match e {
                Error::TooManyEntries { .. } => Error::TooManyEntries {
                    limit: self.limits.entries,
                },
                e => e,
            })?;
        let mut folders = Vec::new();
        for name in names.iter() {
            self.entries += 1;
            let path = join(self.cursor.path(), name);
            self.count_name(&path)?;
            let found = attributes(self.cursor.fd(), name).at("look at", &path)?;
            if found.kind == FileType::Directory {
                let name = name.to_vec();
                folders.push(Below { name, found });
                continue;
            }
            let before = self.entry_before(&path, new)?;
            if path.len() > self.limits.path_bytes {
                self.refuse(path, name, "its path is too long", before)?;
                continue;
            }
            match found.kind {
                // Where nothing stood before it is no mark of overlayfs, which leaves none there.
                _ if found.whiteout && before.is_some() => self.gone(path, name, before)?,
                FileType::RegularFile => self.file(path, name, &found, before)?,
                FileType::Symlink => self.symlink(path, name, &found, before)?,
                kind => self.refuse(path, name, special(kind), before)?,
            }
        }
        Ok(folders)
    }

    fn count_name(&mut self, name: &[u8]) -> Result<(), Error> {
        self.names_bytes += name.len() as u64;
        let limit = self.limits.names_bytes;
        if self.names_bytes > limit {
            return Err(Error::TooLongNames { limit });
        }
        Ok(())
    }

    fn entry_before(&self, path: &[u8], new: bool) -> Result<Option<Entry>, Error> {
        if new {
            Ok(None)
        } else {
            self.before.entry(path)
        }
    }

    /// Goes into a folder: whether nothing stood in it before, or `None` where it is not kept.
    fn enter(&mut self, below: &Below, new: bool) -> Result<Option<bool>, Error> {
        let path = join(self.cursor.path(), &below.name);
        let before = self.entry_before(&path, new)?;
        if path.len() > self.limits.path_bytes {
            self.refuse(path, &below.name, "its path is too long", before)?;
            return Ok(None);
        }
        self.cursor.enter(&below.name)?;
        let opaque = is_opaque(self.cursor.fd()).at("look at", &path)?;
        let was_folder = before.as_ref().is_some_and(|b| b.kind == Kind::Folder);
        let mut entry = entry_of(path, Kind::Folder, &below.found);
        entry.replaces = opaque && was_folder;
        let folder = Folder {
            mode: entry.mode,
            mtime_ns: entry.mtime_ns,
            // Without the mark a merged layer would keep whiteouts in a folder that nothing older has: overlayfs
            // lists them there.
            opaque: (opaque || !was_folder) && !new,
        };
        self.layer.enter(&below.name, folder);
        let same = before.is_some_and(|b| b.same_attributes(&entry));
        if entry.replaces || !same {
            self.layer.make()?;
            self.change.entries.push(entry);
        }
        Ok(Some(opaque || !was_folder))
    }

    fn gone(&mut self, path: Vec<u8>, name: &[u8], before: Option<Entry>) -> Result<(), Error> {
        if before.is_some() {
            self.layer.whiteout(name)?;
            self.change.entries.push(Entry::new(path, Kind::Gone));
        }
        Ok(())
    }

    /// Keeps nothing of it; what stood there before is gone.
    fn refuse(
        &mut self,
        path: Vec<u8>,
        name: &[u8],
        reason: &'static str,
        before: Option<Entry>,
    ) -> Result<(), Error> {
        self.change.not_kept.push(NotKept {
            path: path.clone(),
            reason,
        });
        self.gone(path, name, before)
    }

    fn symlink(
        &mut self,
        path: Vec<u8>,
        name: &[u8],
        found: &Attributes,
        before: Option<Entry>,
    ) -> Result<(), Error> {
        let target = readlinkat(self.cursor.fd(), name, Vec::new()).at("read symlink", &path)?;
        self.count_name(target.to_bytes())?;
        let mut entry = entry_of(path, Kind::Symlink, found);
        entry.target = Some(target.to_bytes().to_vec());
        if let Some(before) = &before {
            if before.same_attributes(&entry) {
                return Ok(());
            }
            entry.replaces = before.kind == Kind::Folder;
        }
        self.layer
            .symlink(name, target.to_bytes(), entry.mtime_ns)?;
        self.change.entries.push(entry);
        Ok(())
    }

    fn file(
        &mut self,
        path: Vec<u8>,
        name: &[u8],
        found: &Attributes,
        before: Option<Entry>,
    ) -> Result<(), Error> {
        let replaces = before.as_ref().is_some_and(|b| b.kind == Kind::Folder);
        if let Some(linked) = self.links.get_mut(&found.inode) {
            linked.names += 1;
            let first = &self.change.entries[linked.entry];
            let (folder, old) = crate::path::split(&first.path);
            // Mostly it stands there: of many links only the first is looked for from the top.
            let linked = (self.linked.go(folder))
                .and_then(|()| self.layer.link(self.linked.fd(), old, name, 0));
            if linked.is_err() {
                // The folder was closed meanwhile.
                self.linked = self.layer.cursor()?;
                self.linked.go(folder)?;
                self.layer.link(self.linked.fd(), old, name, 0)?;
            }
            let entry = Entry {
                path,
                replaces,
                ..first.clone()
            };
            self.change.entries.push(entry);
            return Ok(());
        }
        self.bytes = self.bytes.saturating_add(found.size);
        if self.bytes > self.limits.bytes {
            let limit = self.limits.bytes;
            return Err(Error::TooManyBytes { limit });
        }
        let mut entry = entry_of(path, Kind::File, found);
        entry.size = found.size;
        entry.replaces = replaces;
        let several = found.links > 1;
        // A name that is left out could not be a link of those that are not.
        let expected = match &before {
            Some(before) if !several && before.same_attributes(&entry) => {
                self.before.content(before)?
            }
            _ => None,
        };
        let copied = self
            .copier
            .copy(self.cursor.fd(), name, &entry, expected, self.layer)?;
        let Some(content) = copied else {
            return Ok(());
        };
        entry.size = content.size;
        entry.content = Some(content.hash);
        if several {
            let index = self.change.entries.len();
            entry.link = Some(self.links.len() as u64 + 1);
            let linked = Linked {
                entry: index,
                names: 1,
            };
            self.links.insert(found.inode, linked);
        }
        if self.contents.insert(content.hash) {
            self.change.contents.push(content);
        }
        self.change.entries.push(entry);
        Ok(())
    }
}

/// An entry with the attributes that are kept.
fn entry_of(path: Vec<u8>, kind: Kind, found: &Attributes) -> Entry {
    Entry {
        // No set-uid and no set-gid.
        mode: found.mode & 0o1777,
        mtime_ns: found.mtime_ns,
        ..Entry::new(path, kind)
    }
}

fn special(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => "neither a file nor a folder nor a symlink",
    }
}
