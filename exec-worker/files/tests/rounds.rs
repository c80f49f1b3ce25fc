//! Hundreds of commands that do anything to a tree: what is read of each, kept as a layer and merged must be the
//! tree that the next one sees.

mod support;

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use files::{Entry, restore};
use support::namespace::{inside, without_capabilities};
use support::overlay::Place;
use support::random::Random;
use support::tree::{Store, Tree, apply, assert_alike, seen, unlinked};

const NAMES: [&[u8]; 9] = [
    b"a",
    b"b",
    b"c.txt",
    b"d",
    b"\xff\xfe",
    b"new\nline",
    b"back\\slash",
    b" ",
    b"-",
];

/// A path of up to four names.
fn place(random: &mut Random, root: &Path) -> PathBuf {
    let depth = 1 + random.below(4);
    let mut path = root.to_path_buf();
    for _ in 0..depth {
        path.push(OsStr::from_bytes(random.pick::<&[u8]>(&NAMES)));
    }
    path
}

/// Does one thing, which may fail.
fn step(random: &mut Random, root: &Path) -> std::io::Result<()> {
    let path = place(random, root);
    match random.below(16) {
        0..3 => {
            let length = [0, 10, 5_000, 40_000, 700_000][random.below(5) as usize];
            fs::write(path, random.bytes(length))
        }
        3 => OpenOptions::new()
            .append(true)
            .open(path)?
            .write_all(b"more"),
        4 => OpenOptions::new()
            .write(true)
            .open(path)?
            .set_len(random.below(100_000)),
        5 => {
            let file = OpenOptions::new().write(true).open(path)?;
            file.write_all_at(b"in the middle", random.below(300_000))
        }
        6..8 => fs::create_dir(path),
        8 => fs::create_dir_all(path),
        9 => fs::rename(path, place(random, root)),
        10 => fs::remove_dir_all(path),
        11 => fs::remove_file(path),
        12 => {
            let target = [&b"a"[..], b"/", b"../../x", b"\xff"][random.below(4) as usize];
            symlink(OsStr::from_bytes(target), path)
        }
        13 => fs::hard_link(path, place(random, root)),
        14 => {
            if fs::symlink_metadata(&path)?.is_symlink() {
                return Ok(());
            }
            let mode = [0o755, 0o000, 0o4755, 0o644, 0o1777, 0o300][random.below(6) as usize];
            fs::set_permissions(path, PermissionsExt::from_mode(mode))
        }
        // Copied up, and not changed.
        _ => OpenOptions::new().write(true).open(path).map(drop),
    }
}

/// No set-uid and set-gid bits are kept.
fn kept(mut tree: Tree) -> Tree {
    tree.values_mut().for_each(|e| e.mode &= 0o1777);
    tree
}

fn rounds(seed: u64, count: i64) {
    let mut random = Random::new(seed);
    let place = Place::new(u64::MAX);
    let mut store = Store::default();
    let mut tree = Tree::new();
    let mut stack = place.cache.empty();
    for round in 1..=count {
        let mut after = Tree::new();
        let (change, next) = place.commit(&stack, round, &mut store, |root| {
            compare(root, &tree, &format!("seed {seed}, begin of round {round}"));
            for _ in 0..random.below(12) {
                // What cannot be done is not done.
                let _ = step(&mut random, root);
            }
            after = kept(seen(root));
        });
        assert_eq!(change.not_kept, []);
        let untouched = tree.clone();
        apply(&mut tree, &change, round as u64);
        assert_alike(
            &unlinked(&tree),
            &after,
            &format!("seed {seed}, end of round {round}"),
        );
        for entry in &change.entries {
            // What its owner may not read is not compared, and a name of several is kept with the others.
            if entry.link.is_none() && entry.mode & 0o400 != 0 {
                assert!(
                    untouched.get(&entry.path) != Some(entry),
                    "no change: {entry:?}"
                );
            }
        }
        assert!(next.names().len() <= 8);
        stack = next;
        if random.below(10) == 0 {
            place.cache.settle(round).unwrap();
            stack = place.cache.get(round).unwrap();
        }
        if random.below(20) == 0 {
            // As if the session were forked.
            place.cache.forget(round - 1);
        }
    }
    let listing: Vec<Entry> = tree.values().cloned().collect();
    let mut layer = place.cache.new_layer().unwrap();
    without_capabilities(|| restore(&mut layer, &listing, &mut store)).unwrap();
    let stack = place.cache.extend(&place.cache.empty(), 0, layer).unwrap();
    place.run(&stack, |root| {
        compare(root, &tree, &format!("seed {seed}, restored"))
    });
}

/// Whether the tree is seen below `root`.
fn compare(root: &Path, tree: &Tree, what: &str) {
    assert_alike(&seen(root), &unlinked(tree), what);
    for link in linked(tree) {
        let inodes = link
            .iter()
            .map(|p| fs::metadata(root.join(OsStr::from_bytes(p))).unwrap().ino());
        let mut inodes: Vec<u64> = inodes.collect();
        inodes.dedup();
        assert_eq!(inodes.len(), 1, "{what}: links of each other: {link:?}");
    }
}

/// Paths that are links of each other.
fn linked(tree: &Tree) -> Vec<Vec<Vec<u8>>> {
    let mut groups = std::collections::BTreeMap::<u64, Vec<Vec<u8>>>::new();
    for (path, entry) in tree {
        if let Some(link) = entry.link {
            groups.entry(link).or_default().push(path.clone());
        }
    }
    groups.into_values().collect()
}

#[test]
fn what_any_commands_leave_is_what_the_next_sees() {
    inside("what_any_commands_leave_is_what_the_next_sees", || {
        let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
        match seed {
            Some(seed) => rounds(seed, 300),
            None => [1, 2, 3, 4, 79]
                .into_iter()
                .for_each(|seed| rounds(seed, 100)),
        }
    });
}
