//! Trees made from a listing and a store of chunks.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use files::{Cache, Entry, Error, Hash, Kind, restore};
use support::namespace::{inside, without_capabilities};
use support::random::Random;
use support::tree::{Store, Tree, assert_alike, seen, unlinked};

fn folder(path: &[u8], mode: u32) -> Entry {
    Entry {
        mode,
        mtime_ns: 1_600_000_000_123_456_789,
        ..Entry::new(path.to_vec(), Kind::Folder)
    }
}

fn file(store: &mut Store, path: &[u8], bytes: &[u8]) -> Entry {
    Entry {
        mode: 0o640,
        mtime_ns: -5_000_000_001,
        size: bytes.len() as u64,
        content: Some(store.add(bytes)),
        ..Entry::new(path.to_vec(), Kind::File)
    }
}

/// Restores into a cache of its own, and gives what is seen there.
fn restored(entries: &[Entry], store: &mut Store) -> Result<(tempfile::TempDir, Tree), Error> {
    let place = tempfile::tempdir().unwrap();
    let cache = Cache::open(&place.path().join("cache"), u64::MAX)?;
    let mut layer = cache.new_layer()?;
    without_capabilities(|| restore(&mut layer, entries, store))?;
    let stack = cache.extend(&cache.empty(), 1, layer)?;
    let root = place.path().join("cache/layers").join(stack.names()[0]);
    let tree = seen(&root);
    let bytes: u64 = entries.iter().map(|e| e.size).sum();
    assert!(cache.bytes() < 4096 + bytes + 5000 * entries.len() as u64);
    // Its layers are removed with the cache.
    std::mem::forget(cache);
    Ok((place, tree))
}

fn tree_of(entries: &[Entry]) -> Tree {
    entries
        .iter()
        .map(|e| (e.path.clone(), e.clone()))
        .collect()
}

#[test]
fn a_tree_is_what_its_listing_says() {
    // Its owner alone could not look into what is closed.
    inside("a_tree_is_what_its_listing_says", all_kinds);
}

fn all_kinds() {
    let mut store = Store::default();
    let mut random = Random::new(1);
    let mut sparse = vec![0; 9_000_000];
    sparse[8_000_000] = 1;
    let mut entries = vec![
        file(&mut store, b"a", b"a"),
        folder(b"b", 0o1755),
        file(&mut store, b"b.c", b""),
        folder(b"b/closed", 0),
        folder(b"b/closed/too", 0o500),
        file(
            &mut store,
            b"b/closed/too/\xff\n",
            &random.bytes(12_345_678),
        ),
        file(&mut store, b"b/closed/too/again", b"a"),
        file(&mut store, b"b/sparse", &sparse),
        folder(b"empty", 0o700),
    ];
    entries.push(Entry {
        mode: 0o777,
        target: Some(b"/\xfe".to_vec()),
        mtime_ns: 7,
        ..Entry::new(b"symlink".to_vec(), Kind::Symlink)
    });
    for path in [&b"z1"[..], b"z2"] {
        let mut link = file(&mut store, path, b"linked");
        link.link = Some(7);
        entries.push(link);
    }
    let (place, tree) = restored(&entries, &mut store).unwrap();
    assert_alike(&tree, &unlinked(&tree_of(&entries)), "restored");
    let layer = place.path().join("cache/layers/0");
    let inode = |name| fs::metadata(layer.join(name)).unwrap().ino();
    assert_eq!(inode("z1"), inode("z2"));
    assert!(fs::metadata(layer.join("b/sparse")).unwrap().blocks() * 512 <= 65_536);
    fs::set_permissions(layer.join("b/closed"), PermissionsExt::from_mode(0o700)).unwrap();
}

#[test]
fn thousands_of_files_come_in_batches() {
    let mut store = Store::default();
    let mut random = Random::new(2);
    let mut entries = Vec::new();
    for number in 0..30 {
        let path = format!("{number:02}").into_bytes();
        entries.push(folder(&path, 0o755));
        for file_number in 0..100 {
            let length = random.below(30_000) as usize;
            let path = format!("{number:02}/{file_number:02}").into_bytes();
            entries.push(file(&mut store, &path, &random.bytes(length)));
        }
    }
    let (_place, tree) = restored(&entries, &mut store).unwrap();
    assert_alike(&tree, &tree_of(&entries), "restored");
}

#[test]
fn what_is_missing_or_altered_is_named() {
    let mut store = Store::default();
    let bytes = Random::new(3).bytes(20_000_000);
    let entries = [
        file(&mut store, b"large", &bytes),
        file(&mut store, b"small", b"small"),
    ];
    let content = entries[0].content.unwrap();
    let chunks = store.contents[&content].clone();
    let some = chunks[chunks.len() / 2].hash;

    let mut altered = store.clone();
    altered.chunks.get_mut(&some).unwrap()[100] ^= 1;
    assert!(
        matches!(restored(&entries, &mut altered), Err(Error::ChunkAltered(hash)) if hash == some)
    );

    let mut altered = store.clone();
    altered.chunks.get_mut(&some).unwrap().pop();
    assert!(
        matches!(restored(&entries, &mut altered), Err(Error::ChunkAltered(hash)) if hash == some)
    );

    let mut altered = store.clone();
    altered.chunks.get_mut(&Hash::of(b"small")).unwrap()[0] = b'S';
    let small = Hash::of(b"small");
    assert!(
        matches!(restored(&entries, &mut altered), Err(Error::ChunkAltered(hash)) if hash == small)
    );

    let mut missing = store.clone();
    missing.chunks.remove(&some);
    assert!(
        matches!(restored(&entries, &mut missing), Err(Error::ChunkMissing(hash)) if hash == some)
    );

    let mut missing = store.clone();
    missing.contents.remove(&content);
    assert!(
        matches!(restored(&entries, &mut missing), Err(Error::ContentMissing(hash)) if hash == content)
    );

    // Of the right length and of whole chunks, but in another order.
    let mut swapped = store.clone();
    swapped.contents.get_mut(&content).unwrap().swap(0, 1);
    assert!(
        matches!(restored(&entries, &mut swapped), Err(Error::ContentAltered(hash)) if hash == content)
    );
}

#[test]
fn a_listing_cannot_lead_out_of_the_layer() {
    let mut store = Store::default();
    for path in [
        &b"../x"[..],
        b"/x",
        b"",
        b"a//b",
        b"a/../../x",
        b"x/",
        b".",
        b"a\0b",
    ] {
        let entries = [file(&mut store, path, b"x")];
        let refused = restored(&entries, &mut store);
        assert!(
            matches!(refused, Err(Error::Listing { .. })),
            "{}",
            path.escape_ascii()
        );
    }
    // A symlink to elsewhere, and a file in it.
    let place = tempfile::tempdir().unwrap();
    let mut link = Entry::new(b"link".to_vec(), Kind::Symlink);
    link.target = Some(place.path().as_os_str().as_encoded_bytes().to_vec());
    let entries = [link, file(&mut store, b"link/x", b"x")];
    assert!(matches!(
        restored(&entries, &mut store),
        Err(Error::Io { .. })
    ));
    assert!(fs::read_dir(place.path()).unwrap().next().is_none());
}
