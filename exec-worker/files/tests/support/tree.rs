//! Trees as they are seen, and as the database would have them.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use files::{Change, Chunk, ChunkSource, Entry, Hash, Kind, chunks_of};

/// Paths and what is there.
pub type Tree = BTreeMap<Vec<u8>, Entry>;

/// What is seen below a folder.
pub fn seen(root: &Path) -> Tree {
    let mut tree = Tree::new();
    walk(root, b"", &mut tree);
    tree
}

fn walk(root: &Path, below: &[u8], tree: &mut Tree) {
    for entry in fs::read_dir(root.join(OsStr::from_bytes(below))).unwrap() {
        let entry = entry.unwrap();
        let mut path = below.to_vec();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(entry.file_name().as_bytes());
        let found = entry.metadata().unwrap();
        let mut seen = Entry::new(path.clone(), Kind::File);
        seen.mode = found.mode() & 0o7777;
        seen.mtime_ns = found.mtime() * 1_000_000_000 + found.mtime_nsec();
        if found.is_dir() {
            seen.kind = Kind::Folder;
            walk(root, &path, tree);
        } else if found.is_symlink() {
            seen.kind = Kind::Symlink;
            seen.target = Some(
                fs::read_link(entry.path())
                    .unwrap()
                    .as_os_str()
                    .as_bytes()
                    .to_vec(),
            );
        } else {
            assert!(found.is_file(), "{:?}", entry.path());
            seen.size = found.size();
            seen.content = Some(Hash::of(&fs::read(entry.path()).unwrap()));
        }
        tree.insert(path, seen);
    }
}

/// A tree without what is not seen: its hard links.
pub fn unlinked(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    tree.values_mut().for_each(|e| e.link = None);
    tree
}

/// Makes a change, as the database's reader does: links get numbers that no other tree's have.
pub fn apply(tree: &mut Tree, change: &Change, number: u64) {
    for entry in &change.entries {
        if entry.kind == Kind::Gone || entry.replaces {
            let below = [&entry.path[..], b"/"].concat();
            tree.retain(|path, _| !path.starts_with(&below));
        }
        if entry.kind == Kind::Gone {
            assert!(
                tree.remove(&entry.path).is_some(),
                "gone, and never was: {entry:?}"
            );
            continue;
        }
        let mut entry = entry.clone();
        entry.replaces = false;
        entry.link = entry.link.map(|link| number << 32 | link);
        tree.insert(entry.path.clone(), entry);
    }
}

/// Fails with the paths that are not alike.
pub fn assert_alike(found: &Tree, expected: &Tree, what: &str) {
    let paths = found.keys().chain(expected.keys());
    let mut wrong: Vec<_> = paths
        .filter(|p| found.get(*p) != expected.get(*p))
        .collect();
    wrong.sort();
    wrong.dedup();
    for path in wrong.iter().take(5) {
        eprintln!(
            "{}:\n found    {:?}\n expected {:?}",
            path.escape_ascii(),
            found.get(*path),
            expected.get(*path)
        );
    }
    assert!(wrong.is_empty(), "{what}: {} paths differ", wrong.len());
}

/// A store of contents in memory.
#[derive(Default, Clone)]
pub struct Store {
    pub contents: HashMap<Hash, Vec<Chunk>>,
    pub chunks: HashMap<Hash, Vec<u8>>,
}

impl Store {
    pub fn add(&mut self, bytes: &[u8]) -> Hash {
        let content = chunks_of(bytes, &mut |hash, chunk| {
            self.chunks.insert(hash, chunk.to_vec());
        });
        self.contents.insert(content.hash, content.chunks);
        content.hash
    }

    /// Keeps the contents of a change, whose chunks are here already.
    pub fn add_contents(&mut self, change: &Change) {
        for content in &change.contents {
            assert_eq!(
                content.size,
                content
                    .chunks
                    .iter()
                    .map(|c| u64::from(c.size))
                    .sum::<u64>()
            );
            for chunk in &content.chunks {
                assert_eq!(self.chunks[&chunk.hash].len(), chunk.size as usize);
            }
            self.contents.insert(content.hash, content.chunks.clone());
        }
    }
}

impl ChunkSource for Store {
    type Bytes = Vec<u8>;

    fn contents(&mut self, contents: &[Hash]) -> std::io::Result<Vec<Option<Vec<Chunk>>>> {
        Ok(contents
            .iter()
            .map(|c| self.contents.get(c).cloned())
            .collect())
    }

    fn chunks(&mut self, chunks: &[Hash]) -> std::io::Result<Vec<Option<Vec<u8>>>> {
        Ok(chunks.iter().map(|c| self.chunks.get(c).cloned()).collect())
    }
}
