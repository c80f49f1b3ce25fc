//! What the cache keeps, for how long, and what it does where it is damaged.

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use files::{Before, Cache, Entry, Error, Kind, Limits, Stack};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use support::namespace::inside;
use support::random::Random;
use support::upper::Caching;
use support::wait;

/// One more tree: a file of so many bytes is put into it.
fn put(caching: &Caching, stack: &Stack, tree: i64, name: &str, bytes: usize) -> Stack {
    let upper = tempfile::tempdir().unwrap();
    fs::write(
        upper.path().join(name),
        Random::new(tree as u64).bytes(bytes),
    )
    .unwrap();
    caching.read(stack, tree, upper.path()).1
}

fn entry(stack: &Stack, path: &str) -> Option<Entry> {
    stack.before().unwrap().entry(path.as_bytes()).unwrap()
}

/// Waits until so many layers are left.
fn wait_for_layers(caching: &Caching, count: usize) {
    wait::for_names(&caching.folder.path().join("cache/layers"), count + 1);
}

/// Without that of the empty tree.
fn layers(caching: &Caching) -> usize {
    fs::read_dir(caching.folder.path().join("cache/layers"))
        .unwrap()
        .count()
        - 1
}

#[test]
fn the_empty_tree_has_a_folder_and_nothing_in_it() {
    let caching = Caching::new();
    let empty = caching.cache.empty();
    assert_eq!(empty.names(), ["empty"]);
    assert_eq!(empty.folders().unwrap().len(), 1);
    assert_eq!(entry(&empty, "x"), None);
    assert!(caching.cache.get(1).is_none());
}

#[test]
fn nobody_else_may_look_into_it() {
    let caching = Caching::new();
    let mode = fs::metadata(caching.folder.path().join("cache"))
        .unwrap()
        .mode();
    assert_eq!(mode & 0o7777, 0o700);
}

#[test]
fn those_used_least_lately_go_first_and_those_in_use_stay() {
    let caching = Caching::with_limit(450_000);
    let empty = caching.cache.empty();
    let held = put(&caching, &empty, 1, "a", 100_000);
    drop(put(&caching, &empty, 2, "b", 100_000));
    drop(put(&caching, &empty, 3, "c", 100_000));
    drop(put(&caching, &empty, 4, "d", 100_000));
    assert!(caching.cache.get(2).is_some());
    drop(put(&caching, &empty, 5, "e", 100_000));
    // The first is held, the second was used after the third.
    assert!(caching.cache.get(3).is_none());
    for tree in [1, 2, 4, 5] {
        assert!(caching.cache.get(tree).is_some(), "{tree}");
    }
    wait_for_layers(&caching, 4);
    caching.cache.set_limit(0);
    assert_eq!(caching.cache.trees(), 1);
    wait_for_layers(&caching, 1);
    assert!(entry(&held, "a").is_some());
    drop(held);
    caching.cache.set_limit(0);
    wait_for_layers(&caching, 0);
    assert_eq!(caching.cache.bytes(), 0);
}

#[test]
fn a_layer_stays_while_any_tree_has_it() {
    let caching = Caching::new();
    let first = put(&caching, &caching.cache.empty(), 1, "a", 10);
    drop(put(&caching, &first, 2, "b", 10));
    drop(first);
    caching.cache.forget(1);
    let second = caching.cache.get(2).unwrap();
    assert!(entry(&second, "a").is_some());
    assert_eq!(layers(&caching), 2);
    drop(second);
    caching.cache.forget(2);
    wait_for_layers(&caching, 0);
}

#[test]
fn a_stack_stays_short_and_a_name_is_seldom_merged() {
    let caching = Caching::new();
    let mut stack = caching.cache.empty();
    for tree in 1..=300 {
        stack = put(&caching, &stack, tree, &format!("file{tree}"), 10);
        assert!(stack.names().len() <= 8, "{tree}");
        caching.cache.forget(tree - 1);
    }
    for tree in 1..=300 {
        assert!(entry(&stack, &format!("file{tree}")).is_some(), "{tree}");
    }
    // Settled when idle, it is shorter.
    while caching.cache.settle(300).unwrap() {}
    let settled = caching.cache.get(300).unwrap();
    assert!(settled.names().len() <= 4);
    drop(stack);
    wait_for_layers(&caching, settled.names().len());
}

#[test]
fn what_was_written_over_takes_no_room_once_it_is_merged() {
    let caching = Caching::new();
    let mut stack = caching.cache.empty();
    for tree in 1..=100 {
        stack = put(&caching, &stack, tree, "same", 100_000);
        caching.cache.forget(tree - 1);
    }
    assert!(
        caching.cache.bytes() < 9 * 110_000,
        "{}",
        caching.cache.bytes()
    );
    assert_eq!(entry(&stack, "same").unwrap().size, 100_000);
}

#[test]
fn what_an_earlier_process_left_is_removed_and_two_cannot_share_it() {
    let caching = Caching::new();
    drop(put(&caching, &caching.cache.empty(), 1, "a", 10));
    let place = caching.folder.path().join("cache");
    assert!(matches!(Cache::open(&place, 0), Err(Error::InUse)));
    fs::write(place.join("not a layer"), "").unwrap();
    drop(caching.cache);
    wait::for_end(&place);
    let cache = Cache::open(&place, u64::MAX).unwrap();
    assert!(cache.get(1).is_none());
    assert_eq!(fs::read_dir(place.join("layers")).unwrap().count(), 1);
    drop(cache);
    wait::for_end(&place);
    assert_eq!(fs::read_dir(&place).unwrap().count(), 2);
    assert!(place.join("not a layer").exists());
}

#[test]
fn a_layer_that_is_lost_is_an_error_and_the_tree_can_come_again() {
    let caching = Caching::new();
    let stack = put(&caching, &caching.cache.empty(), 1, "a", 10);
    fs::remove_dir_all(caching.layer(&stack)).unwrap();
    assert!(matches!(stack.folders(), Err(Error::Io { .. })));
    assert!(stack.before().is_err());
    let mut longer = stack;
    let mut failed = None;
    for tree in 2..20 {
        let upper = tempfile::tempdir().unwrap();
        let layer = caching.cache.new_layer().unwrap();
        drop(upper);
        match caching.cache.extend(&longer, tree, layer) {
            Ok(stack) => longer = stack,
            Err(e) => {
                failed = Some(e);
                break;
            }
        }
    }
    assert!(matches!(failed, Some(Error::Io { .. })));
    caching.cache.forget(1);
    assert!(caching.cache.get(1).is_none());
    let again = put(&caching, &caching.cache.empty(), 1, "a", 10);
    assert!(entry(&again, "a").is_some());
}

#[test]
fn what_others_put_into_a_layer_is_never_followed() {
    let caching = Caching::new();
    let stack = put(&caching, &caching.cache.empty(), 1, "a", 10);
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("secret"), "secret").unwrap();
    let layer = caching.layer(&stack);
    fs::remove_dir_all(&layer).unwrap();
    std::os::unix::fs::symlink(elsewhere.path(), &layer).unwrap();
    assert!(stack.folders().is_err());
    drop(stack);
    caching.cache.forget(1);
    wait_for_layers(&caching, 0);
    assert!(elsewhere.path().join("secret").exists());
}

#[test]
fn several_threads_use_it_at_once() {
    let caching = Caching::with_limit(200_000);
    std::thread::scope(|scope| {
        for thread in 0..4_i64 {
            let caching = &caching;
            scope.spawn(move || {
                let mut stack = caching.cache.empty();
                for number in 1..=60 {
                    let tree = thread * 1000 + number;
                    stack = put(caching, &stack, tree, &format!("{number}"), 1000);
                    for back in 1..=number {
                        let found = entry(&stack, &format!("{back}"));
                        assert_eq!(found.map(|e| e.kind), Some(Kind::File), "{tree}: {back}");
                    }
                    if let Some(other) = caching.cache.get((thread + 1) % 4 * 1000 + number) {
                        assert!(entry(&other, "1").is_some());
                        let lower = caching.folder.path().join("cache/layers");
                        assert!(
                            other
                                .names()
                                .iter()
                                .all(|n| Path::new(&lower).join(n).exists())
                        );
                    }
                }
            });
        }
    });
    caching.cache.set_limit(0);
    wait_for_layers(&caching, 0);
}

#[test]
fn a_full_disk_is_an_error_and_the_change_can_be_read_again() {
    inside(
        "a_full_disk_is_an_error_and_the_change_can_be_read_again",
        || {
            let folder = tempfile::tempdir().unwrap();
            let size = Some(c"size=1m");
            mount("tmpfs", folder.path(), "tmpfs", MountFlags::empty(), size).unwrap();
            let cache = Cache::open(&folder.path().join("cache"), u64::MAX).unwrap();
            let caching = Caching { folder, cache };
            drop(put(&caching, &caching.cache.empty(), 1, "older", 600_000));
            let upper = tempfile::tempdir().unwrap();
            fs::write(upper.path().join("newer"), Random::new(1).bytes(600_000)).unwrap();
            let (empty, limits) = (caching.cache.empty(), Limits::default());
            let full = caching.try_read(&empty, 2, upper.path(), &limits);
            let Err(Error::Io { source, path, .. }) = full else {
                panic!("there was room");
            };
            assert_eq!(
                (source.kind(), &path[..]),
                (std::io::ErrorKind::StorageFull, &b"newer"[..])
            );
            caching.cache.set_limit(0);
            wait_for_layers(&caching, 0);
            let (change, _) = caching.try_read(&empty, 2, upper.path(), &limits).unwrap();
            assert_eq!(change.entries.len(), 1);
            unmount(caching.folder.path(), UnmountFlags::DETACH).unwrap();
        },
    );
}
