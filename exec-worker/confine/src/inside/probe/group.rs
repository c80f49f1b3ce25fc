//! Control groups, version 2.

use std::fs;

use nix::unistd::getppid;

use super::Found;
use crate::cgroup::{CONTROLLERS, Cgroup};

/// What a worker would find that was started where the doctor was; `doctor` started this helper.
pub(super) fn delegated(doctor: u32) -> Found {
    // This process, and the helper that forked it, would not be there.
    let asking = [std::process::id(), getppid().as_raw() as u32, doctor];
    let path = Cgroup::would_be_found(&asking)?;
    let there = fs::read_to_string(path.join("cgroup.controllers")).map_err(|e| e.to_string())?;
    let there: Vec<&str> = there
        .split_whitespace()
        .filter(|c| CONTROLLERS.contains(c))
        .collect();
    Ok(format!("{} with {}", path.display(), there.join(", ")))
}
