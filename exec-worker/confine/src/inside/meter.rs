//! What all processes of a command use together: the kernel's rlimits hold for each of them alone.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use super::reap::Usage;
use crate::limits::Limits;
use crate::report::Used;

/// Which of the processes in `/proc` are the command's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// All but PID 1, which is this one.
    All,
    /// Those that descend from this one.
    Descendants,
}

/// What of its limits a command has used up, if anything, with what its dead processes have `spent`.
///
/// A look at `/proc`, taken now and then: what grows faster than that is the rlimits' and the cgroup's.
pub(super) fn used_up(limits: &Limits, spent: Usage, whose: Whose) -> Option<Used> {
    let (mut cpu_us, mut own_bytes, mut shared_bytes) = (spent.cpu_us, 0, 0);
    let Ok(entries) = fs::read_dir("/proc") else {
        return None;
    };
    let mut all: HashMap<u32, Process> = entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            // It may have ended meanwhile.
            Some((pid, process(&entry.path().join("stat"))?))
        })
        .collect();
    match whose {
        Whose::All => {
            all.remove(&1);
        }
        Whose::Descendants => all = descendants(all, std::process::id()),
    }
    for (pid, process) in &all {
        cpu_us += process.ticks * 1_000_000 / ticks_per_second();
        if let Some((own, shared)) =
            resident(&Path::new("/proc").join(pid.to_string()).join("status"))
        {
            own_bytes += own;
            // Which processes share it nothing tells: what the largest has is there for certain.
            shared_bytes = shared.max(shared_bytes);
        }
    }
    // A quarter more than one process may have, so that one alone, which the kernel says no to, can say so.
    let most = limits.memory_bytes.saturating_add(limits.memory_bytes / 4);
    // Files in memory are shared memory too, and have a limit of their own.
    let most_together = most.saturating_add(limits.disk_bytes);
    if cpu_us > limits.cpu_seconds.saturating_mul(1_000_000) {
        Some(Used::Cpu)
    } else if own_bytes > most || own_bytes + shared_bytes > most_together {
        Some(Used::Memory)
    } else {
        None
    }
}

struct Process {
    parent: u32,
    /// Its own CPU time, and that of the children that it has waited for.
    ticks: u64,
}

/// ppid; utime, stime, cutime and cstime of proc(5)'s stat. The name before them may hold anything.
fn process(stat: &Path) -> Option<Process> {
    let text = fs::read(stat).ok()?;
    let after_name = text.iter().rposition(|&c| c == b')')? + 1;
    let fields = std::str::from_utf8(&text[after_name..]).ok()?;
    let mut fields = fields.split_ascii_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let times = fields.skip(9).take(4);
    let ticks = times.filter_map(|t| t.parse::<u64>().ok()).sum();
    Some(Process { parent, ticks })
}

/// What of these has `ancestor` above it. Whoever has lost its parent is its subreaper's child.
fn descendants(all: HashMap<u32, Process>, ancestor: u32) -> HashMap<u32, Process> {
    let is_below = |mut pid: u32| {
        // A parent that has ended while this was read may look like a circle.
        for _ in 0..all.len() {
            match all.get(&pid) {
                Some(process) if process.parent == ancestor => return true,
                Some(process) => pid = process.parent,
                None => return false,
            }
        }
        false
    };
    let ours: Vec<u32> = all.keys().copied().filter(|&pid| is_below(pid)).collect();
    let mut all = all;
    ours.into_iter()
        .filter_map(|pid| all.remove_entry(&pid))
        .collect()
}

/// Resident bytes of proc(5)'s status: those that it shares with nobody, and those of memory that is shared. The
/// kernel has a limit for the first alone.
fn resident(status: &Path) -> Option<(u64, u64)> {
    let text = fs::read(status).ok()?;
    let bytes = |key: &str| {
        let mut lines = text.split(|&c| c == b'\n');
        let value = lines.find_map(|line| line.strip_prefix(key.as_bytes()))?;
        let value = std::str::from_utf8(value).ok()?.trim();
        let kibibytes: u64 = value.strip_suffix(" kB")?.parse().ok()?;
        Some(kibibytes << 10)
    };
    Some((bytes("RssAnon:")?, bytes("RssShmem:")?))
}

fn ticks_per_second() -> u64 {
    // SAFETY: reads a constant of the system.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as u64
}
