//! What a tree consists of, and what a command changed in it.

use std::fmt;

use sha2::{Digest, Sha256};

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Of these bytes.
    pub fn of(bytes: &[u8]) -> Hash {
        Hash(Sha256::digest(bytes).into())
    }
}

impl TryFrom<&[u8]> for Hash {
    type Error = std::array::TryFromSliceError;

    /// From its 32 bytes.
    fn try_from(bytes: &[u8]) -> Result<Hash, Self::Error> {
        bytes.try_into().map(Hash)
    }
}

impl fmt::Display for Hash {
    /// In 64 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Symlink,
    /// Nothing any more; of a folder, all below is gone with it. Only in a [`Change`].
    Gone,
}

impl Kind {
    /// As the database names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Folder => "folder",
            Kind::Symlink => "symlink",
            Kind::Gone => "gone",
        }
    }
}

/// One path of a tree, or of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to home, without a leading `/`: any bytes but NUL.
    pub path: Vec<u8>,
    /// What stands there.
    pub kind: Kind,
    /// Permission bits, within 0o1777.
    pub mode: u32,
    /// Nanoseconds since 1970, not before 1901-12-13 and not after 2262-04-11.
    pub mtime_ns: i64,
    /// Bytes of a file, holes counted; 0 for all else.
    pub size: u64,
    /// Of a file; `None` where it was not looked for.
    pub content: Option<Hash>,
    /// Of a symlink: any bytes but NUL.
    pub target: Option<Vec<u8>>,
    /// Equal for files that are hard links of each other.
    pub link: Option<u64>,
    /// Hides all that stood below this path before. Only in a [`Change`].
    pub replaces: bool,
}

impl Entry {
    /// An entry with nothing but a path and a kind.
    pub fn new(path: Vec<u8>, kind: Kind) -> Entry {
        Entry {
            path,
            kind,
            mode: 0,
            mtime_ns: 0,
            size: 0,
            content: None,
            target: None,
            link: None,
            replaces: false,
        }
    }

    /// Whether both say the same, but for their links and what a file holds.
    pub(crate) fn same_attributes(&self, other: &Entry) -> bool {
        self.kind == other.kind
            && self.mode == other.mode
            && self.mtime_ns == other.mtime_ns
            && self.size == other.size
            && self.target == other.target
    }
}

/// A piece of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Of its bytes.
    pub hash: Hash,
    /// In bytes.
    pub size: u32,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Of all its bytes.
    pub hash: Hash,
    /// In bytes.
    pub size: u64,
    /// Its bytes, in order; none for an empty file.
    pub chunks: Vec<Chunk>,
}

/// What was left out of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotKept {
    /// Relative to home.
    pub path: Vec<u8>,
    /// Such as "a socket".
    pub reason: &'static str,
}

/// What a command changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// In order of path.
    pub entries: Vec<Entry>,
    /// Those of the entries, each once.
    pub contents: Vec<Content>,
    /// In order of path.
    pub not_kept: Vec<NotKept>,
}
