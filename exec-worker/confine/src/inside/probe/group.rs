//! Control groups, version 2.

use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::Found;

/// The controllers that limits of a command would need.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// Whether this process' group, or the one above, is its user's to divide.
pub(super) fn delegated() -> Found {
    let own = own()?;
    let may_write = |folder: &Path| {
        ["cgroup.procs", "cgroup.subtree_control"]
            .iter()
            .all(|file| access(&folder.join(file), AccessFlags::W_OK).is_ok())
    };
    let Some(folder) = own.ancestors().take(2).find(|f| may_write(f)) else {
        return Err(format!("{} is not delegated", own.display()));
    };
    let there = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    let there: Vec<&str> = there
        .split_whitespace()
        .filter(|c| CONTROLLERS.contains(c))
        .collect();
    let path = folder.display();
    if there.is_empty() {
        Err(format!("{path} has none of {}", CONTROLLERS.join(", ")))
    } else {
        Ok(format!("{path} with {}", there.join(", ")))
    }
}

/// The folder of the group that this process is in.
fn own() -> Result<PathBuf, String> {
    let read = |file: &str| fs::read_to_string(file).map_err(|e| format!("{file}: {e}"));
    let (groups, mounts) = (read("/proc/self/cgroup")?, read("/proc/self/mountinfo")?);
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let group = group.ok_or("this process is in no group of version 2")?;
    let mount = mounts.lines().find_map(|line| {
        let (about, _) = line.split_once(" - cgroup2 ")?;
        let mut fields = about.split(' ').skip(3);
        Some((fields.next()?, fields.next()?))
    });
    let (root, mount) = mount.ok_or("cgroup v2 is not mounted")?;
    let below = Path::new(group)
        .strip_prefix(root)
        .map_err(|_| format!("its group {group} cannot be seen from here"))?;
    // Without the slash that an empty part would leave.
    Ok(Path::new(mount).join(below).components().collect())
}
