//! Commands' overlays: mounted as a worker does it, over a stack of the cache.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use files::{Cache, Change, Limits, Stack, read_upper};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::namespace::without_capabilities;
use super::tree::Store;

/// A folder with a cache, and places to mount.
pub struct Place {
    pub folder: tempfile::TempDir,
    pub cache: Cache,
}

impl Place {
    pub fn new(limit: u64) -> Place {
        let folder = tempfile::tempdir().unwrap();
        for name in ["scratch", "merged"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let cache = Cache::open(&folder.path().join("cache"), limit).unwrap();
        Place { folder, cache }
    }

    pub fn merged(&self) -> PathBuf {
        self.folder.path().join("merged")
    }

    /// Mounts the stack with a new upper folder, runs `command` in it, and gives the upper folder.
    pub fn run(&self, stack: &Stack, command: impl FnOnce(&Path)) -> OwnedFd {
        let scratch = self.folder.path().join("scratch");
        mount("tmpfs", &scratch, "tmpfs", MountFlags::empty(), None).unwrap();
        let (upper, work) = (scratch.join("upper"), scratch.join("work"));
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&work).unwrap();
        let folders = stack.folders().unwrap();
        let lower: Vec<String> = folders
            .iter()
            .map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd()))
            .collect();
        let options = format!(
            "userxattr,lowerdir={},upperdir={},workdir={}",
            lower.join(":"),
            upper.display(),
            work.display()
        );
        let options = CString::new(options).unwrap();
        mount(
            "overlay",
            self.merged(),
            "overlay",
            MountFlags::empty(),
            Some(options.as_c_str()),
        )
        .unwrap();
        drop(folders);
        command(&self.merged());
        unmount(self.merged(), UnmountFlags::empty()).unwrap();
        let upper = open(&upper);
        unmount(&scratch, UnmountFlags::DETACH).unwrap();
        upper
    }

    /// What a command in this tree changed, and the tree after it.
    pub fn commit(
        &self,
        stack: &Stack,
        tree: i64,
        store: &mut Store,
        command: impl FnOnce(&Path),
    ) -> (Change, Stack) {
        let upper = self.run(stack, command);
        without_capabilities(|| {
            let mut layer = self.cache.new_layer().unwrap();
            let mut sink = |hash, bytes: &[u8]| {
                assert!(
                    store
                        .chunks
                        .insert(hash, bytes.to_vec())
                        .is_none_or(|b| b == bytes)
                );
                Ok(())
            };
            let before = stack.before().unwrap();
            let change =
                read_upper(upper, &mut layer, &before, &Limits::default(), &mut sink).unwrap();
            store.add_contents(&change);
            (change, self.cache.extend(stack, tree, layer).unwrap())
        })
    }
}

/// Opens a folder.
pub fn open(path: &Path) -> OwnedFd {
    rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .unwrap()
}
