//! Upper folders that a command could leave to do harm, or to be a nuisance.

mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use files::{Before, Cache, Entry, Error, Hash, Kind, Limits, read_upper, restore};
use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat};
use support::namespace::{inside, without_capabilities};
use support::random::Random;
use support::tree::{Store, seen};
use support::upper::{Caching, summary};
use support::wait;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Makes folders in one another, and gives the last.
fn nest(top: &Path, depth: usize, name: &[u8]) -> OwnedFd {
    let mut at = OwnedFd::from(File::open(top).unwrap());
    for _ in 0..depth {
        mkdirat(&at, name, Mode::RWXU).unwrap();
        at = openat(&at, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    at
}

#[test]
fn names_are_any_bytes() {
    let caching = Caching::new();
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let upper = tempfile::tempdir().unwrap();
        let mut expected = Vec::new();
        for _ in 0..40 {
            let length = 1 + random.below(255) as usize;
            let mut name = random.bytes(length);
            name.iter_mut()
                .filter(|b| matches!(**b, 0 | b'/'))
                .for_each(|b| *b = b'\\');
            if name == b"." || name == b".." {
                continue;
            }
            fs::write(upper.path().join(OsStr::from_bytes(&name)), &name).unwrap();
            expected.push(name);
        }
        expected.sort();
        expected.dedup();
        let (change, stack) = caching.read(&caching.cache.empty(), seed as i64, upper.path());
        let found: Vec<Vec<u8>> = change.entries.into_iter().map(|e| e.path).collect();
        assert!(found == expected, "seed {seed}");
        assert_eq!(seen(&caching.layer(&stack)), seen(upper.path()));
    }
}

#[test]
fn folders_deeper_than_any_path_are_read_kept_merged_restored_and_removed() {
    let caching = Caching::new();
    let upper = caching.folder.path().join("upper").tap_made().to_owned();
    let deepest = nest(&upper, 2_000, b"deep");
    let file = openat(
        &deepest,
        "file",
        OFlags::CREATE | OFlags::WRONLY,
        Mode::RUSR,
    )
    .unwrap();
    File::from(file).write_all_at(b"found", 0).unwrap();
    let (change, stack) = caching.read(&caching.cache.empty(), 1, &upper);
    assert_eq!(change.entries.len(), 2_001);
    let last = change.entries.last().unwrap();
    assert_eq!(
        (last.path.len(), last.content),
        (2_000 * 5 + 4, Some(Hash::of(b"found")))
    );

    let before = stack.before().unwrap();
    assert_eq!(before.entry(&last.path).unwrap().unwrap().size, 5);
    assert_eq!(before.content(last).unwrap(), last.content);

    let empty = tempfile::tempdir().unwrap();
    let mut merged = stack;
    for tree in 2..20 {
        merged = caching.read(&merged, tree, empty.path()).1;
    }
    assert_eq!(
        merged
            .before()
            .unwrap()
            .entry(&last.path)
            .unwrap()
            .unwrap()
            .size,
        5
    );

    let mut store = Store::default();
    store.add(b"found");
    let mut layer = caching.cache.new_layer().unwrap();
    restore(&mut layer, &change.entries, &mut store).unwrap();
    let restored = caching
        .cache
        .extend(&caching.cache.empty(), 20, layer)
        .unwrap();
    assert_eq!(
        restored
            .before()
            .unwrap()
            .entry(&last.path)
            .unwrap()
            .unwrap()
            .size,
        5
    );
    drop((restored, merged, before));
    caching.cache.set_limit(0);
    let place = caching.folder.path().join("cache");
    wait::for_names(&place.join("layers"), 1);
    // As if another process had left it.
    fs::rename(&upper, place.join("layers/upper")).unwrap();
    drop(caching.cache);
    wait::for_end(&place);
    drop(Cache::open(&place, 0).unwrap());
    wait::for_end(&place);
    assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
}

#[test]
fn a_path_of_4000_bytes_is_kept_and_one_beyond_the_limit_is_named() {
    let caching = Caching::new();
    let upper = tempfile::tempdir_in("/dev/shm").unwrap();
    nest(upper.path(), 16, &[b'x'; 249]);
    let limits = Limits {
        path_bytes: 4_000,
        ..Limits::default()
    };
    let (change, _) = caching
        .try_read(&caching.cache.empty(), 1, upper.path(), &limits)
        .unwrap();
    assert_eq!(change.entries.last().unwrap().path.len(), 16 * 250 - 1);
    assert_eq!(change.not_kept, []);
    nest(upper.path().join("y").tap_made(), 20, &[b'x'; 249]);
    let (change, _) = caching
        .try_read(&caching.cache.empty(), 2, upper.path(), &limits)
        .unwrap();
    assert_eq!(change.not_kept.len(), 1);
    assert_eq!(change.not_kept[0].reason, "its path is too long");
    assert_eq!(change.not_kept[0].path.len(), 4_001);
    assert_eq!(change.entries.len(), 16 + 1 + 15);
}

trait TapMade {
    fn tap_made(&self) -> &Path;
}

impl TapMade for std::path::PathBuf {
    /// Makes the folder.
    fn tap_made(&self) -> &Path {
        fs::create_dir(self).unwrap();
        self
    }
}

#[test]
fn a_hundred_thousand_files_are_read_and_counted() {
    let caching = Caching::new();
    let upper = tempfile::tempdir_in("/dev/shm").unwrap();
    for number in 0..100_000 {
        File::create(upper.path().join(format!("{number}"))).unwrap();
    }
    let limits = Limits {
        entries: 99_999,
        ..Limits::default()
    };
    let refused = caching.try_read(&caching.cache.empty(), 1, upper.path(), &limits);
    assert!(matches!(
        refused,
        Err(Error::TooManyEntries { limit: 99_999 })
    ));
    let (change, _) = caching.read(&caching.cache.empty(), 1, upper.path());
    assert_eq!((change.entries.len(), change.contents.len()), (100_000, 1));
    assert!(change.entries.is_sorted_by_key(|e| &e.path));
}

#[test]
fn what_is_closed_to_its_owner_is_read_and_stays_closed() {
    inside(
        "what_is_closed_to_its_owner_is_read_and_stays_closed",
        || {
            let caching = Caching::new();
            let upper = tempfile::tempdir().unwrap();
            let root = upper.path();
            fs::create_dir_all(root.join("closed/below")).unwrap();
            fs::create_dir(root.join("not searched")).unwrap();
            fs::write(root.join("not searched/file"), "1").unwrap();
            fs::write(root.join("closed/below/secret"), "secret").unwrap();
            set_mode(&root.join("closed/below/secret"), 0);
            set_mode(&root.join("closed/below"), 0o300);
            set_mode(&root.join("closed"), 0);
            set_mode(&root.join("not searched"), 0o666);
            let expected = seen(root);
            let file = File::open(root).unwrap();
            set_mode(root, 0);
            let (change, stack) = without_capabilities(|| {
                let mut layer = caching.cache.new_layer().unwrap();
                let empty = caching.cache.empty();
                let change = read_upper(
                    file.into(),
                    &mut layer,
                    &empty.before().unwrap(),
                    &Limits::default(),
                    &mut |_, _| Ok(()),
                );
                (
                    change.unwrap(),
                    caching.cache.extend(&empty, 1, layer).unwrap(),
                )
            });
            assert_eq!(change.entries.len(), 5);
            let modes: Vec<u32> = change.entries.iter().map(|e| e.mode).collect();
            assert_eq!(modes, [0, 0o300, 0, 0o666, 0o644]);
            assert_eq!(seen(&caching.layer(&stack)), expected);
            // Looking for what is in it leaves it as it is.
            without_capabilities(|| {
                let before = stack.before().unwrap();
                assert_eq!(
                    before.entry(b"closed/below/secret").unwrap().unwrap().mode,
                    0
                );
            });
            assert_eq!(seen(&caching.layer(&stack)), expected);
            without_capabilities(|| {
                drop(stack);
                caching.cache.set_limit(0);
            });
        },
    );
}

#[test]
fn symlinks_lead_nowhere() {
    let caching = Caching::new();
    let (upper, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(elsewhere.path().join("secret"), "secret").unwrap();
    symlink("/", upper.path().join("root")).unwrap();
    symlink(elsewhere.path(), upper.path().join("session")).unwrap();
    symlink("/etc/shadow", upper.path().join("shadow")).unwrap();
    symlink("../../../..", upper.path().join("up")).unwrap();
    symlink("self", upper.path().join("self")).unwrap();
    symlink("/proc/self/fd/0", upper.path().join("magic")).unwrap();
    let (change, stack) = caching.read(&caching.cache.empty(), 1, upper.path());
    assert!(
        change
            .entries
            .iter()
            .all(|e| e.kind == Kind::Symlink && e.content.is_none())
    );
    assert_eq!(change.entries.len(), 6);
    assert_eq!(change.contents, []);
    let before = stack.before().unwrap();
    assert_eq!(before.entry(b"session/secret").unwrap(), None);
    assert_eq!(before.entry(b"root/etc").unwrap(), None);
    // One that replaces a folder of an older layer is not gone into.
    let over = tempfile::tempdir().unwrap();
    fs::create_dir(over.path().join("session")).unwrap();
    fs::write(over.path().join("session/x"), "x").unwrap();
    let (change, _) = caching.read(&stack, 2, over.path());
    let expected = [
        ("session".to_owned(), Kind::Folder),
        ("session/x".to_owned(), Kind::File),
    ];
    assert_eq!(summary(&change), expected);
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
}

#[test]
fn special_files_are_named_and_the_rest_is_kept() {
    let caching = Caching::new();
    let first = tempfile::tempdir().unwrap();
    fs::write(first.path().join("was a file"), "1").unwrap();
    let (_, stack) = caching.read(&caching.cache.empty(), 1, first.path());
    let upper = tempfile::tempdir().unwrap();
    for name in ["fifo", "was a file"] {
        mknodat(CWD, upper.path().join(name), FileType::Fifo, Mode::RUSR, 0).unwrap();
    }
    let _socket = UnixListener::bind(upper.path().join("socket")).unwrap();
    fs::write(upper.path().join("kept"), "2").unwrap();
    let (change, stack) = caching.read(&stack, 2, upper.path());
    let refused: Vec<_> = change
        .not_kept
        .iter()
        .map(|n| (&n.path[..], n.reason))
        .collect();
    assert_eq!(
        refused,
        [
            (&b"fifo"[..], "a FIFO"),
            (b"socket", "a socket"),
            (b"was a file", "a FIFO")
        ]
    );
    let expected = [
        ("kept".to_owned(), Kind::File),
        ("was a file".to_owned(), Kind::Gone),
    ];
    assert_eq!(summary(&change), expected);
    assert_eq!(stack.before().unwrap().entry(b"was a file").unwrap(), None);
    assert_eq!(stack.before().unwrap().entry(b"fifo").unwrap(), None);
}

#[test]
fn devices_are_named() {
    let upper = tempfile::tempdir().unwrap();
    let null = rustix::fs::makedev(1, 3);
    for (name, kind) in [
        ("null", FileType::CharacterDevice),
        ("disk", FileType::BlockDevice),
    ] {
        if mknodat(CWD, upper.path().join(name), kind, Mode::RUSR, null).is_err() {
            println!("skipped: only root may make a device");
            return;
        }
    }
    let caching = Caching::new();
    let (change, _) = caching.read(&caching.cache.empty(), 1, upper.path());
    assert_eq!(change.entries, []);
    assert_eq!(change.not_kept.len(), 2);
    assert!(change.not_kept.iter().all(|n| n.reason == "a device"));
}

#[test]
fn a_hole_of_a_gigabyte_is_not_written() {
    let caching = Caching::new();
    let upper = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = File::create(upper.path().join("sparse")).unwrap();
    file.write_all_at(b"in the middle", 600_000_000).unwrap();
    file.set_len(1 << 30).unwrap();
    let (change, stack) = caching.read(&caching.cache.empty(), 1, upper.path());
    let content = &change.contents[0];
    assert_eq!(content.size, 1 << 30);
    assert_eq!(
        content
            .chunks
            .iter()
            .map(|c| u64::from(c.size))
            .sum::<u64>(),
        1 << 30
    );
    let copy = File::open(caching.layer(&stack).join("sparse")).unwrap();
    assert!(copy.metadata().unwrap().blocks() * 512 < 100_000);
    let mut found = [0; 13];
    copy.read_exact_at(&mut found, 600_000_000).unwrap();
    assert_eq!(&found, b"in the middle");
    assert!(caching.cache.bytes() < 100_000);
    // The chunks are those of the same bytes without a hole.
    let mut bytes = vec![0; 4_000_000];
    bytes[2_000_000] = 1;
    let small = tempfile::tempdir_in("/dev/shm").unwrap();
    fs::write(small.path().join("full"), &bytes).unwrap();
    let file = File::create(small.path().join("sparse")).unwrap();
    file.write_all_at(&[1], 2_000_000).unwrap();
    file.set_len(4_000_000).unwrap();
    let (change, _) = caching.read(&caching.cache.empty(), 2, small.path());
    assert_eq!(change.contents.len(), 1);
    assert_eq!(change.contents[0].hash, Hash::of(&bytes));
    let expected = files::chunks_of(&bytes, &mut |_, _| {});
    assert_eq!(change.contents[0], expected);
}

#[test]
fn too_many_bytes_are_refused_before_they_are_read() {
    let caching = Caching::new();
    let upper = tempfile::tempdir_in("/dev/shm").unwrap();
    let file = File::create(upper.path().join("huge")).unwrap();
    file.set_len(1 << 42).unwrap();
    let refused = caching.try_read(&caching.cache.empty(), 1, upper.path(), &Limits::default());
    assert!(matches!(refused, Err(Error::TooManyBytes { limit }) if limit == 16 << 30));
}

#[test]
fn hard_links_are_one_file() {
    let caching = Caching::new();
    let upper = tempfile::tempdir().unwrap();
    fs::create_dir(upper.path().join("folder")).unwrap();
    fs::write(upper.path().join("folder/first"), "linked").unwrap();
    for name in ["a", "z"] {
        fs::hard_link(upper.path().join("folder/first"), upper.path().join(name)).unwrap();
    }
    // Its other name is not in the folder.
    let elsewhere = tempfile::tempdir_in(upper.path().parent().unwrap()).unwrap();
    fs::write(elsewhere.path().join("alone"), "alone").unwrap();
    fs::hard_link(elsewhere.path().join("alone"), upper.path().join("alone")).unwrap();
    let (change, stack) = caching.read(&caching.cache.empty(), 1, upper.path());
    let links: Vec<_> = change.entries.iter().map(|e| e.link.is_some()).collect();
    assert_eq!(links, [true, false, false, true, true]);
    assert_eq!(change.entries[0].link, change.entries[3].link);
    assert_eq!(change.entries[0].link, change.entries[4].link);
    assert_eq!(change.contents.len(), 2);
    assert_eq!(
        fs::metadata(caching.layer(&stack).join("z"))
            .unwrap()
            .nlink(),
        3
    );
}

#[test]
fn links_in_folders_that_are_closed_are_found_again() {
    inside("links_in_folders_that_are_closed_are_found_again", || {
        let caching = Caching::new();
        let upper = tempfile::tempdir().unwrap();
        let root = upper.path();
        for (at, folder) in ["one", "one/a", "two", "two/b", "z"].iter().enumerate() {
            fs::create_dir(root.join(folder)).unwrap();
            let first = root.join("one/linked");
            match at {
                0 => fs::write(&first, "linked").unwrap(),
                _ => (0..3).for_each(|n| {
                    fs::hard_link(&first, root.join(folder).join(n.to_string())).unwrap();
                }),
            }
        }
        for folder in ["one/a", "one", "two/b", "two", "z"] {
            set_mode(&root.join(folder), 0);
        }
        let expected = seen(root);
        let read = without_capabilities(|| {
            caching.try_read(&caching.cache.empty(), 1, root, &Limits::default())
        });
        let (change, stack) = read.unwrap();
        assert_eq!(change.entries.len(), 5 + 1 + 4 * 3);
        assert_eq!(seen(&caching.layer(&stack)), expected);
        without_capabilities(|| {
            drop(stack);
            caching.cache.set_limit(0);
        });
    });
}

#[test]
fn names_that_are_too_long_together_are_refused() {
    let caching = Caching::new();
    let upper = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("x".repeat(1000), upper.path().join("a")).unwrap();
    fs::write(upper.path().join("b"), "").unwrap();
    for (names_bytes, fits) in [(1002, true), (1001, false)] {
        let limits = Limits {
            names_bytes,
            ..Limits::default()
        };
        let read = caching.try_read(&caching.cache.empty(), 1, upper.path(), &limits);
        match read {
            Ok((change, _)) => assert!(fits && change.entries.len() == 2),
            Err(e) => assert!(!fits && matches!(e, Error::TooLongNames { limit: 1001 })),
        }
    }
}

#[test]
fn set_uid_is_dropped_and_odd_times_are_brought_into_range() {
    let caching = Caching::new();
    let upper = tempfile::tempdir_in("/dev/shm").unwrap();
    let seconds = [-10_000_000_000, -1, 20_000_000_000];
    for second in seconds {
        let path = upper.path().join(format!("{second}"));
        let file = File::create(&path).unwrap();
        let time = rustix::fs::Timespec {
            tv_sec: second,
            tv_nsec: 5,
        };
        let times = rustix::fs::Timestamps {
            last_access: time,
            last_modification: time,
        };
        rustix::fs::futimens(&file, &times).unwrap();
        set_mode(&path, 0o7755);
    }
    let (change, stack) = caching.read(&caching.cache.empty(), 1, upper.path());
    let times: Vec<i64> = change.entries.iter().map(|e| e.mtime_ns).collect();
    assert_eq!(times, [-999_999_995, -(1 << 31) * 1_000_000_000, i64::MAX]);
    for entry in &change.entries {
        assert_eq!(entry.mode, 0o1755);
        let kept = stack.before().unwrap().entry(&entry.path).unwrap().unwrap();
        assert_eq!((kept.mode, kept.mtime_ns), (entry.mode, entry.mtime_ns));
    }
}

#[test]
fn what_is_as_it_was_is_no_change() {
    let caching = Caching::new();
    let first = tempfile::tempdir().unwrap();
    fs::create_dir(first.path().join("folder")).unwrap();
    fs::write(first.path().join("folder/small"), "small").unwrap();
    fs::write(
        first.path().join("folder/large"),
        Random::new(1).bytes(300_000),
    )
    .unwrap();
    symlink("x", first.path().join("folder/symlink")).unwrap();
    let (_, stack) = caching.read(&caching.cache.empty(), 1, first.path());
    let (change, next) = caching.read(&stack, 2, first.path());
    assert_eq!(
        change,
        files::Change {
            contents: change.contents.clone(),
            ..Default::default()
        }
    );
    assert_eq!(change.contents, []);
    assert!(
        seen(&caching.layer(&next))
            .values()
            .all(|e| e.kind == Kind::Folder)
    );
    // The same attributes, but not the same bytes.
    let path = first.path().join("folder/small");
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "SMALL").unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
    let (change, _) = caching.read(&next, 3, first.path());
    assert_eq!(summary(&change), [("folder/small".to_owned(), Kind::File)]);
}

#[test]
fn a_mount_within_it_is_an_error() {
    inside("a_mount_within_it_is_an_error", || {
        let caching = Caching::new();
        let upper = tempfile::tempdir().unwrap();
        let inner = upper.path().join("mounted");
        fs::create_dir(&inner).unwrap();
        rustix::mount::mount(
            "tmpfs",
            &inner,
            "tmpfs",
            rustix::mount::MountFlags::empty(),
            None,
        )
        .unwrap();
        let refused = caching.try_read(&caching.cache.empty(), 1, upper.path(), &Limits::default());
        let Err(Error::Io { source, path, .. }) = refused else {
            panic!("gone into");
        };
        assert_eq!(
            (source.kind(), &path[..]),
            (std::io::ErrorKind::CrossesDevices, &b"mounted"[..])
        );
        rustix::mount::unmount(&inner, rustix::mount::UnmountFlags::empty()).unwrap();
    });
}

#[test]
fn who_takes_chunks_may_fail() {
    let caching = Caching::new();
    let upper = tempfile::tempdir().unwrap();
    fs::write(upper.path().join("file"), "x").unwrap();
    let mut layer = caching.cache.new_layer().unwrap();
    let nothing = |_: &[u8]| -> Option<Entry> { None };
    let folder = OwnedFd::from(File::open(upper.path()).unwrap());
    let mut sink = |_, _: &[u8]| Err(std::io::Error::other("the connection was lost"));
    let failed = read_upper(folder, &mut layer, &nothing, &Limits::default(), &mut sink);
    assert_eq!(
        failed.unwrap_err().to_string(),
        "storing a chunk: the connection was lost"
    );
    drop(layer);
    wait::for_names(&caching.folder.path().join("cache/layers"), 1);
}
