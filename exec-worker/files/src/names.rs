//! What is in a folder.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, RawDir, Stat, statat};

use crate::error::{At, Error};

/// Earlier than any time of ext4's: 1901-12-13.
const EARLIEST_NS: i64 = -(1 << 31) * 1_000_000_000;

/// What `stat` says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes {
    pub kind: FileType,
    /// A character device 0/0.
    pub whiteout: bool,
    /// All twelve bits.
    pub mode: u32,
    pub mtime_ns: i64,
    pub size: u64,
    /// Of 512 bytes.
    pub blocks: u64,
    pub inode: u64,
    pub links: u64,
}

impl From<Stat> for Attributes {
    // On other machines some fields are narrower.
    #[allow(clippy::unnecessary_cast)]
    fn from(stat: Stat) -> Attributes {
        let kind = FileType::from_raw_mode(stat.st_mode);
        let nanoseconds = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
        Attributes {
            kind,
            whiteout: kind == FileType::CharacterDevice && stat.st_rdev == 0,
            mode: stat.st_mode & 0o7777,
            mtime_ns: stat
                .st_mtime
                .saturating_mul(1_000_000_000)
                .saturating_add(nanoseconds)
                .max(EARLIEST_NS),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
            inode: stat.st_ino,
            links: stat.st_nlink as u64,
        }
    }
}

/// Of a name in a folder; a link's own.
pub(crate) fn attributes(folder: impl AsFd, name: &[u8]) -> rustix::io::Result<Attributes> {
    statat(folder, name, AtFlags::SYMLINK_NOFOLLOW).map(Attributes::from)
}

/// The names in a folder, in one piece of memory.
#[derive(Debug, Default)]
pub(crate) struct Names {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Names {
    /// Reads all names of a folder that was opened for reading; not more than `limit`.
    pub(crate) fn read(folder: BorrowedFd<'_>, path: &[u8], limit: u64) -> Result<Names, Error> {
        let mut names = Names::default();
        let mut buffer = [MaybeUninit::<u8>::uninit(); 32 * 1024];
        let mut entries = RawDir::new(folder, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.at("read folder", path)?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            if names.ends.len() as u64 >= limit {
                return Err(Error::TooManyEntries { limit });
            }
            names.bytes.extend_from_slice(name);
            names.ends.push(names.bytes.len());
        }
        Ok(names)
    }

    /// Each of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(from, &to)| &self.bytes[from..to])
    }
}
