//! Home as a session has it: an overlay over the layers of its files, whose upper folder holds what the command
//! changes, and nothing else.
//!
//! The caller's folder of layers is part of the root, read-only, until the overlay is mounted; then an empty folder
//! covers it, and what the upper folder lies in. The upper folder is PID 1's to hand on when all processes have
//! ended.

use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::mount::{MsFlags, mount};

use super::{At, Failure, root};
use crate::error::Step;
use crate::spec::HOME;

/// Begins the helper's argument that says where the layers are, an absolute path.
pub const LAYERS: &str = "layers=";

/// What is below is nobody's to see once a command runs.
pub(super) const HIDDEN: &str = "/run";
/// Where the caller's layers are seen.
pub(super) const LAYERS_AT: &str = "/run/layers";
/// Where the tmpfs is mounted of which home, `/tmp` and `/dev/shm` are folders.
pub(super) const OWN: &str = "/run/own";
/// Home's folder there.
pub(super) const UPPER: &str = "/run/own/0";
/// A folder that overlayfs works in.
pub(super) const WORK: &str = "/run/own/work";
/// A folder of the read-only root with nothing in it.
pub(super) const EMPTY: &str = "/var/empty";

/// The folder that the caller has named, if any.
pub(super) fn folder_of_layers() -> Option<PathBuf> {
    let named = |argument: OsString| {
        let path = argument.as_bytes().strip_prefix(LAYERS.as_bytes())?;
        Some(PathBuf::from(OsString::from(std::ffi::OsStr::from_bytes(
            path,
        ))))
    };
    std::env::args_os().find_map(named)
}

/// Mounts home over these layers, the newest first; without any it is the upper folder alone.
pub(super) fn mount_over(layers: &[CString]) -> Result<(), Failure> {
    let mut lower = Vec::new();
    for layer in layers {
        let name = layer.to_bytes();
        if !is_name(name) {
            return Err((Step::Home, format!("{layer:?} is no name of a layer")));
        }
        lower.push(format!("{LAYERS_AT}/{}", String::from_utf8_lossy(name)));
    }
    if lower.is_empty() {
        return Ok(());
    }
    mount_overlay(&lower.join(":"))
        .map_err(|e| format!("mounting {} layers: {e}", lower.len()))
        .at(Step::Home)
}

fn mount_overlay(lower: &str) -> nix::Result<()> {
    let options = format!("lowerdir={lower},upperdir={UPPER},workdir={WORK},userxattr");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(
        Some("overlay"),
        HOME,
        Some("overlay"),
        flags,
        Some(options.as_str()),
    )
}

/// Whether this host can do it, all of it on a tmpfs: mounts home over a folder, and looks whether what is removed there
/// and made again is empty, for which upper folders need attributes. To be called in a root of one's own.
pub(super) fn try_out() -> Result<(), Failure> {
    let tried = || -> io::Result<()> {
        root::tmpfs(OWN, "mode=0700")?;
        let (lower, above) = (format!("{OWN}/lower"), format!("{HOME}/folder"));
        fs::create_dir_all(format!("{lower}/folder/below"))?;
        fs::create_dir(UPPER)?;
        fs::create_dir(WORK)?;
        mount_overlay(&lower)?;
        fs::remove_dir_all(&above)?;
        fs::create_dir(&above)?;
        match fs::read_dir(&above)?.next() {
            None => Ok(()),
            Some(_) => Err(io::Error::other("what was removed came back")),
        }
    };
    tried().at(Step::Home)
}

/// Covers what only PID 1 needs. An unmount would wait for the kernel.
pub(super) fn hide() -> Result<(), Failure> {
    mount(
        Some(EMPTY),
        HIDDEN,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .map_err(|e| format!("{HIDDEN}: {e}"))
    .at(Step::Home)
}

/// One word, which leads nowhere else, and means nothing in a mount's options.
fn is_name(name: &[u8]) -> bool {
    (1..=64).contains(&name.len())
        && name[0] != b'.'
        && name
            .iter()
            .all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(c))
}
