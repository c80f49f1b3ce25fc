//! What all processes of a command use together: the kernel's rlimits hold for each of them alone.

use std::fs;

use super::reap::Usage;
use crate::limits::Limits;
use crate::report::Used;

/// What of its limits a command has used up, if anything, with what its dead processes have `spent`.
///
/// A look at `/proc`, taken now and then: what grows faster than that is the rlimits' and the cgroup's.
pub(super) fn used_up(limits: &Limits, spent: Usage) -> Option<Used> {
    let (mut cpu_us, mut memory_bytes) = (spent.cpu_us, 0);
    let Ok(entries) = fs::read_dir("/proc") else {
        return None;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if name == "1" || !name.as_encoded_bytes()[0].is_ascii_digit() {
            continue;
        }
        // It may have ended meanwhile.
        if let Some(ticks) = cpu_ticks(&entry.path().join("stat")) {
            cpu_us += ticks * 1_000_000 / ticks_per_second();
        }
        if let Some(pages) = own_pages(&entry.path().join("statm")) {
            memory_bytes += pages * page_size();
        }
    }
    if cpu_us > limits.cpu_seconds.saturating_mul(1_000_000) {
        Some(Used::Cpu)
    } else if memory_bytes > limits.memory_bytes {
        Some(Used::Memory)
    } else {
        None
    }
}

/// utime, stime, cutime and cstime of proc(5)'s stat. The name before them may hold anything.
fn cpu_ticks(stat: &std::path::Path) -> Option<u64> {
    let text = fs::read(stat).ok()?;
    let after_name = text.iter().rposition(|&c| c == b')')? + 1;
    let fields = std::str::from_utf8(&text[after_name..]).ok()?;
    let times = fields.split_ascii_whitespace().skip(11).take(4);
    Some(times.filter_map(|t| t.parse::<u64>().ok()).sum())
}

/// Resident pages of proc(5)'s statm that it shares with no file.
fn own_pages(statm: &std::path::Path) -> Option<u64> {
    let text = fs::read_to_string(statm).ok()?;
    let mut fields = text.split_ascii_whitespace().skip(1);
    let resident: u64 = fields.next()?.parse().ok()?;
    let shared: u64 = fields.next()?.parse().ok()?;
    Some(resident.saturating_sub(shared))
}

fn ticks_per_second() -> u64 {
    // SAFETY: reads a constant of the system.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as u64
}

fn page_size() -> u64 {
    // SAFETY: reads a constant of the system.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(1) as u64
}
