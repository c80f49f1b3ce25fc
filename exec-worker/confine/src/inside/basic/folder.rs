//! The folder that a command of the level basic may write: fresh, its own, gone with it.
//!
//! It is made and removed by the command's own user, and nothing of it is named by more than one part of a
//! path: no link that a command leaves leads anywhere.

use std::ffi::{CStr, CString};
use std::fs::{File, canonicalize};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::Step;
use crate::inside::{At, Failure};

/// See the module.
pub(in crate::inside) struct Private {
    above: OwnedFd,
    name: CString,
    path: PathBuf,
}

/// Its folders.
pub(super) const HOME: &str = "home";
pub(super) const TMP: &str = "tmp";

impl Private {
    /// Makes one below `above`.
    pub(in crate::inside) fn make(above: &Path) -> Result<Private, Failure> {
        let about = |e: &dyn std::fmt::Display| (Step::Folder, format!("{}: {e}", above.display()));
        let above_path = canonicalize(above).map_err(|e| about(&e))?;
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_PATH;
        let above_fd =
            nix::fcntl::open(&above_path, flags, Mode::empty()).map_err(|e| about(&e))?;
        let mut random = [0; 16];
        File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut random))
            .at(Step::Folder)?;
        let name = format!("pg_shell-{:032x}", u128::from_ne_bytes(random));
        let made = Private {
            path: above_path.join(&name),
            above: above_fd,
            name: CString::new(name).at(Step::Folder)?,
        };
        mkdirat(&made.above, made.name.as_c_str(), Mode::S_IRWXU).map_err(|e| about(&e))?;
        if let Err(e) = made.furnish() {
            let _ = made.remove();
            return Err(about(&e));
        }
        Ok(made)
    }

    fn furnish(&self) -> nix::Result<()> {
        let own = open_below(&self.above, &self.name)?;
        for folder in [HOME, TMP] {
            mkdirat(&own, folder, Mode::S_IRWXU)?;
        }
        Ok(())
    }

    /// Where it is.
    pub(in crate::inside) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it, however deep, wide and closed its folders are. One at a time is open, and nothing recurs.
    pub(in crate::inside) fn remove(&self) -> nix::Result<()> {
        let mut here = match open_below(&self.above, &self.name) {
            Err(Errno::ENOENT) => return Ok(()),
            other => other?,
        };
        // The way to `here`: each folder's name, and what is left to remove of the one that it is in.
        let mut way: Vec<(CString, Vec<CString>)> = Vec::new();
        let mut left = clear(&here)?;
        loop {
            if let Some(name) = left.pop() {
                here = open_below(&here, &name)?;
                let of_above = std::mem::replace(&mut left, clear(&here)?);
                way.push((name, of_above));
            } else if let Some((name, of_above)) = way.pop() {
                // Nobody is left who could have moved it.
                let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
                here = openat(&here, c"..", flags, Mode::empty())?;
                unlinkat(&here, name.as_c_str(), UnlinkatFlags::RemoveDir)?;
                left = of_above;
            } else {
                let name = self.name.as_c_str();
                return unlinkat(&self.above, name, UnlinkatFlags::RemoveDir);
            }
        }
    }
}

/// Opens a folder, which need not be open to its owner.
fn open_below(above: &OwnedFd, name: &CStr) -> nix::Result<OwnedFd> {
    // A link would be followed here; but it is known to be a folder, and nobody is left to change that.
    fchmodat(above, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
    let how = OpenHow::new()
        .flags(OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_RDONLY)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(above, name, how)
}

/// Removes what is no folder, and returns the folders.
fn clear(folder: &OwnedFd) -> nix::Result<Vec<CString>> {
    let how = OpenHow::new().flags(OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY);
    let mut entries = Dir::from_fd(openat2(folder, c".", how)?)?;
    let mut folders = Vec::new();
    for entry in entries.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match unlinkat(folder, name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR) => folders.push(name.to_owned()),
            other => other?,
        }
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn whatever_a_command_leaves_is_removed_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let outside = place.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        let private = Private::make(place.path()).unwrap();
        let home = private.path().join("home");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(private.path()), mode(&home)), (0o700, 0o700));
        symlink(&outside, home.join("link")).unwrap();
        symlink("nowhere", private.path().join("broken")).unwrap();
        fs::create_dir_all(home.join("1/2/3")).unwrap();
        fs::create_dir_all(home.join("a/2/b")).unwrap();
        fs::write(home.join("1/2/file"), "x").unwrap();
        for closed in ["1/2/3", "1/2", "1"] {
            fs::set_permissions(home.join(closed), fs::Permissions::from_mode(0o0)).unwrap();
        }
        // Deeper than descriptors, or a path, would reach.
        let mut deep = open_below(&private.above, &private.name).unwrap();
        for _ in 0..3000 {
            mkdirat(&deep, c"deeper", Mode::S_IRWXU).unwrap();
            deep = open_below(&deep, c"deeper").unwrap();
        }
        drop(deep);
        private.remove().unwrap();
        assert!(!private.path().exists());
        assert_eq!(fs::read(outside.join("kept")).unwrap(), b"x");
        private.remove().unwrap();
    }

    #[test]
    fn where_none_can_be_made_the_folder_is_named() {
        let (step, why) = Private::make(Path::new("/nonesuch")).err().unwrap();
        assert_eq!(step, Step::Folder);
        assert!(why.contains("/nonesuch"), "{why}");
    }
}
