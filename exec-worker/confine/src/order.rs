//! In which order pipes were written: one inotify queue for the whole process.
//!
//! One queue and not one a command, because closing a queue waits for a grace period of the kernel
//! (12 ms where it was measured), and a user may have 128 of them only.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::sys::time::TimeSpec;

struct Queue {
    inotify: Inotify,
    /// Which pair of pipes, and which of the two.
    watches: HashMap<WatchDescriptor, (u64, usize)>,
    /// Events read for somebody else.
    waiting: HashMap<u64, VecDeque<usize>>,
    next: u64,
}

impl Queue {
    /// Gives each event that has come to the pair that it is about.
    fn sort(&mut self) {
        for event in self.inotify.read_events().unwrap_or_default() {
            if let Some((pair, index)) = self.watches.get(&event.wd)
                && let Some(waiting) = self.waiting.get_mut(pair)
            {
                waiting.push_back(*index);
            }
        }
    }
}

static QUEUE: Mutex<Option<Queue>> = Mutex::new(None);

fn queue() -> MutexGuard<'static, Option<Queue>> {
    // What a panic left behind is at worst an event too many or too few.
    QUEUE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The order of writes to two pipes. Dropping it ends the watch.
pub(crate) struct Order {
    pair: u64,
    watches: Vec<WatchDescriptor>,
}

impl Order {
    /// Watches two pipes by their reading ends; `None` where the system has no inotify to give.
    pub(crate) fn watch(pipes: [&OwnedFd; 2]) -> Option<Order> {
        let mut guard = queue();
        if guard.is_none() {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).ok()?;
            *guard = Some(Queue {
                inotify,
                watches: HashMap::new(),
                waiting: HashMap::new(),
                next: 0,
            });
        }
        let queue = guard.as_mut()?;
        let mut order = Order {
            pair: queue.next,
            watches: Vec::with_capacity(2),
        };
        queue.next += 1;
        for (index, pipe) in pipes.into_iter().enumerate() {
            let path = PathBuf::from(format!("/proc/self/fd/{}", pipe.as_raw_fd()));
            let Ok(watch) = queue.inotify.add_watch(&path, AddWatchFlags::IN_MODIFY) else {
                drop(guard);
                return None;
            };
            queue.watches.insert(watch, (order.pair, index));
            order.watches.push(watch);
        }
        queue.waiting.insert(order.pair, VecDeque::new());
        Some(order)
    }

    /// Waits for a write that [`Order::take`] has not told yet; false where none came within `patience`.
    pub(crate) fn wait(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            let mut guard = queue();
            let Some(queue) = guard.as_mut() else {
                return false;
            };
            queue.sort();
            if queue.waiting.get(&self.pair).is_some_and(|w| !w.is_empty()) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // Others' events may wake this, too.
            let mut watched = [PollFd::new(queue.inotify.as_fd(), PollFlags::POLLIN)];
            let _ = ppoll(&mut watched, Some(TimeSpec::from_duration(left)), None);
        }
    }

    /// The writes since the last call, each as the index of the pipe that was written.
    pub(crate) fn take(&self) -> VecDeque<usize> {
        let mut guard = queue();
        let Some(queue) = guard.as_mut() else {
            return VecDeque::new();
        };
        queue.sort();
        queue
            .waiting
            .get_mut(&self.pair)
            .map(std::mem::take)
            .unwrap_or_default()
    }
}

impl Drop for Order {
    fn drop(&mut self) {
        if let Some(queue) = queue().as_mut() {
            queue.waiting.remove(&self.pair);
            for watch in &self.watches {
                queue.watches.remove(watch);
                // Gone already where the pipe is.
                let _ = queue.inotify.rm_watch(*watch);
            }
        }
    }
}
