//! What each step takes, for the bench: with the last argument `clock` the time between two points, where a
//! step may fail, counts for the step of the second. Without it a point is one look at a flag.

use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::time::{ClockId, clock_gettime};

use crate::error::Step;

const ARGUMENT: &str = "clock";

static ON: AtomicBool = AtomicBool::new(false);
/// Nanoseconds of the monotonic clock at the last point.
static LAST: AtomicU64 = AtomicU64::new(0);
/// By a step's place among all.
static SPENT: [AtomicU64; 32] = [const { AtomicU64::new(0) }; 32];

/// Looks for the argument.
pub(super) fn read(arguments: impl Iterator<Item = OsString>) {
    if arguments.last().is_some_and(|last| last == ARGUMENT) {
        LAST.store(now(), Ordering::Relaxed);
        ON.store(true, Ordering::Relaxed);
    }
}

/// The time since the last point was this step's.
pub(super) fn mark(step: Step) {
    if ON.load(Ordering::Relaxed) {
        let now = now();
        let spent = now - LAST.swap(now, Ordering::Relaxed);
        if let Some(total) = SPENT.get(step as usize) {
            total.fetch_add(spent, Ordering::Relaxed);
        }
    }
}

/// Nanoseconds by step, of this process and those that it was forked from; empty where nobody asked.
pub(super) fn spent() -> Vec<(Step, u64)> {
    if !ON.load(Ordering::Relaxed) {
        return Vec::new();
    }
    Step::all()
        .filter_map(|step| Some((step, SPENT.get(step as usize)?.load(Ordering::Relaxed))))
        .collect()
}

fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |t| {
        t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64
    })
}
