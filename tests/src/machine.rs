//! Processes that somebody else has started, as `/proc` shows them.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::PATIENCE;

/// The processes of the machine that have this text in their command line.
pub fn marked_processes(mark: &str) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.windows(mark.len())
            .any(|window| window == mark.as_bytes())
    })
    .collect()
}

/// The children of a process.
pub fn children_of(parent: i32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).expect("a process that runs");
    let lists =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

/// Waits until these processes, which need not be children, are gone.
///
/// # Panics
/// Where one of them is not, in [`PATIENCE`].
pub fn wait_until_gone(pids: &[i32]) {
    for &pid in pids {
        // SAFETY: a system call without pointers; it returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let Ok(fd @ 0..) = i32::try_from(fd) else {
            continue;
        };
        // SAFETY: the descriptor is new, and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let timeout = PollTimeout::try_from(PATIENCE).expect("a patience that fits");
        let ended = poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout);
        assert_eq!(ended, Ok(1), "process {pid} is still there");
    }
}

/// A process and its descendants.
pub fn family_of(pid: i32) -> Vec<i32> {
    let mut family = vec![pid];
    let parents = living_processes();
    loop {
        let known = family.len();
        for (pid, parent) in &parents {
            if family.contains(parent) && !family.contains(pid) {
                family.push(*pid);
            }
        }
        if family.len() == known {
            return family;
        }
    }
}

/// The machine's process ids, each with its parent's, without those that have ended and wait to be collected.
pub fn living_processes() -> Vec<(i32, i32)> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid: i32| {
        let stat = stat_fields(pid).filter(|stat| stat[0] != "Z")?;
        Some((pid, stat[1].parse().ok()?))
    })
    .collect()
}

/// What follows the name in a process's `stat`: its state, its parent and so on; none where it is gone.
pub fn stat_fields(pid: i32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    Some(after_name.split_whitespace().map(str::to_owned).collect())
}
