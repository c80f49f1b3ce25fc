//! Where the cache is: workers of one user on one host each have a folder of their own, and take over what one that
//! has ended left.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use files::Cache;
use nix::unistd::Uid;

use crate::config::FilesCache;
use crate::error::Error;

/// More workers than that are not on one host.
const MOST: u32 = 1024;

/// The cache, and its folder.
pub(super) fn open(setting: &FilesCache) -> Result<(Cache, PathBuf), Error> {
    let own = format!("pg_shell-cache-{}", Uid::effective());
    let parent = setting
        .files_cache
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(own));
    let refused = |problem: String| Error::Setting {
        name: "files-cache",
        problem: format!("{}: {problem}", parent.display()),
    };
    make(&parent).map_err(|e| refused(e.to_string()))?;
    for number in 0..MOST {
        let folder = parent.join(number.to_string());
        match Cache::open(&folder, setting.files_cache_bytes) {
            Err(files::Error::InUse) => {}
            Err(e) => return Err(refused(e.to_string())),
            Ok(cache) => return Ok((cache, folder)),
        }
    }
    Err(refused(format!("{MOST} workers use it")))
}

/// A folder that is nobody else's: in one that is for all, somebody may have been there before.
fn make(folder: &Path) -> io::Result<()> {
    if !folder.is_absolute() {
        return Err(io::Error::other("it is no absolute path"));
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let found = std::fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != Uid::effective().as_raw() || found.mode() & 0o022 != 0 {
        return Err(io::Error::other(
            "it is not a folder that this user alone can write",
        ));
    }
    Ok(())
}
