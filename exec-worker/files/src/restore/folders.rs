//! All but the files: folders and symlinks first, further names, modes and times last.

use rustix::fs::{AtFlags, Mode, chmodat, linkat, mkdirat, symlinkat, utimensat};

use crate::cursor::Cursor;
use crate::entry::Entry;
use crate::error::{At, Error};
use crate::new_layer::{NewLayer, times};
use crate::path::split;

use super::plan::Plan;

/// Stands in the folder that an entry is in: its name there.
pub(super) fn go_to<'a>(cursor: &mut Cursor, entry: &'a Entry) -> Result<&'a [u8], Error> {
    let (folder, name) = split(&entry.path);
    cursor.go(folder)?;
    Ok(name)
}

/// Makes folders that may be written, and symlinks.
pub(super) fn make(layer: &NewLayer, plan: &Plan<'_>) -> Result<(), Error> {
    let mut cursor = layer.cursor()?;
    for folder in &plan.folders {
        let name = go_to(&mut cursor, folder)?;
        mkdirat(cursor.fd(), name, Mode::RWXU).at("make folder", &folder.path)?;
    }
    for &(symlink, target) in &plan.symlinks {
        let name = go_to(&mut cursor, symlink)?;
        symlinkat(target, cursor.fd(), name).at("make symlink", &symlink.path)?;
        set_times(&cursor, name, symlink)?;
    }
    Ok(())
}

/// Gives files their further names, and folders their modes and times.
pub(super) fn finish(layer: &NewLayer, plan: &Plan<'_>) -> Result<(), Error> {
    let mut cursor = layer.cursor()?;
    if !plan.links.is_empty() {
        let mut other = layer.cursor()?;
        for &(link, first) in &plan.links {
            let old = go_to(&mut other, first)?;
            let name = go_to(&mut cursor, link)?;
            linkat(other.fd(), old, cursor.fd(), name, AtFlags::empty()).at("link", &link.path)?;
        }
    }
    // From below: a folder's own mode may close it.
    for folder in plan.folders.iter().rev() {
        let name = go_to(&mut cursor, folder)?;
        let mode = Mode::from_raw_mode(folder.mode & 0o1777);
        chmodat(cursor.fd(), name, mode, AtFlags::empty())
            .at("change the mode of", &folder.path)?;
        set_times(&cursor, name, folder)?;
    }
    Ok(())
}

fn set_times(cursor: &Cursor, name: &[u8], entry: &Entry) -> Result<(), Error> {
    let times = times(entry.mtime_ns);
    utimensat(cursor.fd(), name, &times, AtFlags::SYMLINK_NOFOLLOW)
        .at("set the time of", &entry.path)
}
