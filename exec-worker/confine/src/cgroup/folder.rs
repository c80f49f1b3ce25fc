//! Files of a cgroup v2 folder: each is read or written by one call, and always from the folder's own
//! descriptor, with no symbolic link on the way.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, fstatfs};
use nix::unistd::{UnlinkatFlags, unlinkat, write};

const FOLDER: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);
const FILE: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_CLOEXEC);

pub(super) fn open_folder(path: &Path) -> nix::Result<OwnedFd> {
    open(path, FOLDER | OFlag::O_RDONLY, Mode::empty())
}

pub(super) fn open_below(folder: impl AsFd, name: &str) -> nix::Result<OwnedFd> {
    openat(folder, name, FOLDER | OFlag::O_RDONLY, Mode::empty())
}

pub(super) fn is_cgroup2(folder: &OwnedFd) -> bool {
    fstatfs(folder).is_ok_and(|s| s.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

pub(super) fn make(folder: impl AsFd, name: &str) -> nix::Result<()> {
    mkdirat(folder, name, Mode::from_bits_truncate(0o755))
}

/// Removes a group; one that is gone already counts as removed.
pub(super) fn remove(folder: impl AsFd, name: &str) -> nix::Result<()> {
    match unlinkat(folder, name, UnlinkatFlags::RemoveDir) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

/// The names of the groups below.
pub(super) fn groups(folder: impl AsFd) -> nix::Result<Vec<String>> {
    let mut all = Dir::from_fd(open_below(folder, ".")?)?;
    let mut names = Vec::new();
    for entry in all.iter() {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy();
        if entry.file_type() == Some(nix::dir::Type::Directory) && name != "." && name != ".." {
            names.push(name.into_owned());
        }
    }
    Ok(names)
}

/// Opens a file for writing only.
pub(super) fn open_to_write(folder: impl AsFd, name: &str) -> nix::Result<OwnedFd> {
    openat(folder, name, FILE | OFlag::O_WRONLY, Mode::empty())
}

/// Writes a whole value; the kernel takes it, or says why not, at once.
pub(super) fn put(folder: impl AsFd, name: &str, value: &str) -> nix::Result<()> {
    let written = write(open_to_write(folder, name)?, value.as_bytes())?;
    if written == value.len() {
        Ok(())
    } else {
        Err(Errno::EIO)
    }
}

/// Reads a whole file.
pub(super) fn read(folder: impl AsFd, name: &str) -> nix::Result<String> {
    let file = openat(folder, name, FILE | OFlag::O_RDONLY, Mode::empty())?;
    let mut text = String::new();
    File::from(file)
        .read_to_string(&mut text)
        .map_err(|e| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    Ok(text)
}

/// One number of a file whose lines are a name and a number each; 0 where it cannot be had.
pub(super) fn count(folder: impl AsFd, file: &str, key: &str) -> u64 {
    read(folder, file).map_or(0, |text| keyed(&text, key))
}

fn keyed(text: &str, key: &str) -> u64 {
    text.lines()
        .find_map(|line| line.split_once(' ').filter(|(name, _)| *name == key))
        .and_then(|(_, number)| number.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_found_by_their_whole_name() {
        let events = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!(keyed(events, "oom_kill"), 2);
        assert_eq!(keyed(events, "oom"), 3);
        for (text, key) in [
            (events, "kill"),
            ("", "max"),
            ("max", "max"),
            ("max -1", "max"),
            ("max x", "max"),
        ] {
            assert_eq!(keyed(text, key), 0, "{text} {key}");
        }
    }

    #[test]
    fn no_link_is_followed() {
        let place = tempfile::tempdir().unwrap();
        let real = place.path().join("real");
        std::fs::create_dir(&real).unwrap();
        std::fs::write(real.join("file"), "before").unwrap();
        std::os::unix::fs::symlink(&real, place.path().join("link")).unwrap();
        std::os::unix::fs::symlink("file", real.join("alias")).unwrap();
        assert!(open_folder(&place.path().join("link")).is_err());
        let folder = open_folder(&real).unwrap();
        assert!(!is_cgroup2(&folder));
        assert_eq!(put(&folder, "alias", "after"), Err(Errno::ELOOP));
        assert_eq!(put(&folder, "none", "x"), Err(Errno::ENOENT), "never made");
        assert_eq!(read(&folder, "file").unwrap(), "before");
        assert!(open_below(open_folder(place.path()).unwrap(), "link").is_err());
    }
}
