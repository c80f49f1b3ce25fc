//! Waiting for what the cache's own thread does.

use std::fs::{self, File};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use rustix::fs::{FlockOperation, flock};

/// Waits until so many names are in a folder, of which others are removed.
pub fn for_names(folder: &Path, count: usize) {
    let queue = init(CreateFlags::CLOEXEC).unwrap();
    add_watch(&queue, folder, WatchFlags::DELETE).unwrap();
    let patience = Timespec {
        tv_sec: 120,
        tv_nsec: 0,
    };
    while fs::read_dir(folder).unwrap().count() > count {
        let events = poll(&mut [PollFd::new(&queue, PollFlags::IN)], Some(&patience)).unwrap();
        assert!(events > 0, "nothing is removed any more");
        rustix::io::read(&queue, &mut [0; 4096]).unwrap();
    }
    assert_eq!(fs::read_dir(folder).unwrap().count(), count);
}

/// Waits until a cache that was dropped has ended.
pub fn for_end(cache: &Path) {
    flock(File::open(cache).unwrap(), FlockOperation::LockExclusive).unwrap();
}
