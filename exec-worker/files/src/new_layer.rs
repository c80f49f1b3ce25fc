//! A layer that is being written, in the form in which overlayfs keeps one.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Mode, Timespec, Timestamps, UTIME_OMIT, XattrFlags, fgetxattr, fsetxattr,
    futimens, linkat, mkdirat, mknodat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use crate::cache::Remover;
use crate::cursor::Cursor;
use crate::error::{At, Error};

/// What marks a folder that hides what older layers have below its path.
const OPAQUE: &str = "user.overlay.opaque";
/// What a name takes on the disk, about: an inode, and its part of a folder.
const NAME_BYTES: u64 = 512;
const FOLDER_BYTES: u64 = 4096;

/// Whether a folder has the mark that it hides what older layers have.
pub(crate) fn is_opaque(folder: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let mut value = [0_u8; 2];
    match fgetxattr(folder, OPAQUE, &mut value) {
        Ok(1) => Ok(value[0] == b'y'),
        Ok(_) | Err(Errno::NODATA | Errno::RANGE | Errno::OPNOTSUPP) => Ok(false),
        Err(e) => Err(e),
    }
}

/// A time of change, and none of access.
pub(crate) fn times(mtime_ns: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: mtime_ns.div_euclid(1_000_000_000),
            tv_nsec: mtime_ns.rem_euclid(1_000_000_000),
        },
    }
}

/// What a folder of a layer shall be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Folder {
    pub mode: u32,
    pub mtime_ns: i64,
    pub opaque: bool,
}

/// A layer that is being written; dropped before [`crate::Cache::extend`] took it, it is removed.
#[derive(Debug)]
pub struct NewLayer {
    cursor: Cursor,
    /// The folders on the way, and which of them are not made yet.
    way: Vec<(Vec<u8>, Folder)>,
    made: usize,
    name: String,
    entries: u64,
    bytes: u64,
    /// `None` once the cache took it.
    remover: Option<Arc<Remover>>,
}

impl NewLayer {
    /// Writes into this folder, which is empty.
    pub(crate) fn new(cursor: Cursor, name: String, remover: Arc<Remover>) -> NewLayer {
        NewLayer {
            cursor,
            way: Vec::new(),
            made: 0,
            name,
            entries: 0,
            bytes: FOLDER_BYTES,
            remover: Some(remover),
        }
    }

    /// How many names it holds.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// What it takes on the disk, about.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Goes into a folder of this name; it is only made when there is something to put into it.
    pub(crate) fn enter(&mut self, name: &[u8], folder: Folder) {
        self.way.push((name.to_vec(), folder));
    }

    /// Makes the folders on the way that are not made yet: the folder where things are put.
    pub(crate) fn make(&mut self) -> Result<BorrowedFd<'_>, Error> {
        while let Some((name, folder)) = self.way.get(self.made) {
            mkdirat(self.cursor.fd(), name.as_slice(), Mode::RWXU).at("make folder", name)?;
            self.cursor.enter(name)?;
            if folder.opaque {
                fsetxattr(self.cursor.fd(), OPAQUE, b"y", XattrFlags::empty())
                    .at("mark folder", name)?;
            }
            self.made += 1;
            self.entries += 1;
            self.bytes += FOLDER_BYTES;
        }
        Ok(self.cursor.fd())
    }

    /// Goes back to the folder above.
    pub(crate) fn leave(&mut self) -> Result<(), Error> {
        let Some((_, folder)) = self.way.pop() else {
            return Ok(());
        };
        if self.made > self.way.len() {
            self.made -= 1;
            self.cursor.set_mode(folder.mode)?;
            // The mode is set on leaving; that changes no time that is kept.
            futimens(self.cursor.fd(), &times(folder.mtime_ns))
                .at("set the time of", self.cursor.path())?;
            self.cursor.leave()?;
        }
        Ok(())
    }

    /// Counts a file that was made in [`NewLayer::make`]'s folder.
    pub(crate) fn count(&mut self, allocated: u64) {
        self.entries += 1;
        self.bytes += NAME_BYTES + allocated;
    }

    /// Counts names that were put by a [`NewLayer::cursor`].
    pub(crate) fn count_all(&mut self, entries: u64, allocated: u64) {
        self.entries += entries;
        self.bytes += entries * NAME_BYTES + allocated;
    }

    /// Puts the mark that a name is gone.
    pub(crate) fn whiteout(&mut self, name: &[u8]) -> Result<(), Error> {
        let folder = self.make()?;
        mknodat(folder, name, FileType::CharacterDevice, Mode::empty(), 0)
            .at("mark as gone", name)?;
        self.count(0);
        Ok(())
    }

    /// Puts a symlink.
    pub(crate) fn symlink(
        &mut self,
        name: &[u8],
        target: &[u8],
        mtime_ns: i64,
    ) -> Result<(), Error> {
        let folder = self.make()?;
        symlinkat(target, folder, name).at("make symlink", name)?;
        utimensat(folder, name, &times(mtime_ns), AtFlags::SYMLINK_NOFOLLOW)
            .at("set the time of", name)?;
        self.count(0);
        Ok(())
    }

    /// Puts a hard link of something in this or another layer.
    pub(crate) fn link(
        &mut self,
        from: BorrowedFd<'_>,
        old: &[u8],
        name: &[u8],
        allocated: u64,
    ) -> Result<(), Error> {
        let folder = self.make()?;
        linkat(from, old, folder, name, AtFlags::empty()).at("link", name)?;
        self.count(allocated);
        Ok(())
    }

    /// Takes a file away that was just made.
    pub(crate) fn unlink(&mut self, name: &[u8]) -> Result<(), Error> {
        let folder = self.make()?;
        unlinkat(folder, name, AtFlags::empty()).at("remove", name)
    }

    /// A second way into the layer.
    pub(crate) fn cursor(&self) -> Result<Cursor, Error> {
        self.cursor.another()
    }

    /// Hands it over: it is not removed any more.
    pub(crate) fn keep(mut self) -> (String, u64, u64) {
        self.remover = None;
        (std::mem::take(&mut self.name), self.entries, self.bytes)
    }
}

impl Drop for NewLayer {
    fn drop(&mut self) {
        if let Some(remover) = self.remover.take() {
            remover.remove(std::mem::take(&mut self.name), 0);
        }
    }
}
