//! PID 1s that wait for their session's next command, on the caller's side: no more than their control
//! sockets and their control groups. A PID 1 ends when its socket is closed.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cgroup::Group;
use crate::running::Pin;
use crate::spec::Spec;

/// Whose a kept PID 1 is, and what it was mounted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub session: u128,
    pub disk_bytes: u64,
    /// Of the list of programs.
    pub programs: u64,
    /// Of the names of the layers.
    pub layers: u64,
}

impl Key {
    pub(crate) fn new(session: u128, spec: &Spec) -> Key {
        Key {
            session,
            disk_bytes: spec.limits.disk_bytes,
            programs: hash(&spec.programs),
            layers: hash(&spec.layers),
        }
    }
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

struct Entry {
    key: Key,
    control: OwnedFd,
    group: Option<Group>,
    _pin: Option<Pin>,
    since: Instant,
}

/// The kept PID 1s of one launcher, the oldest first.
#[derive(Clone)]
pub(crate) struct Kept {
    most: usize,
    entries: Arc<Mutex<Vec<Entry>>>,
}

impl Kept {
    /// Keeps so many at the most.
    pub(crate) fn new(most: usize) -> Kept {
        Kept {
            most,
            entries: Arc::default(),
        }
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one of this session, if it lives.
    pub(crate) fn take(&self, key: Key) -> Option<(OwnedFd, Option<Group>)> {
        let mut entries = self.entries();
        let at = entries.iter().position(|e| e.key == key)?;
        let Entry { control, group, .. } = entries.remove(at);
        let mut watched = [PollFd::new(control.as_fd(), PollFlags::POLLIN)];
        let quiet = poll(&mut watched, PollTimeout::ZERO) == Ok(0);
        quiet.then_some((control, group))
    }

    /// Keeps one; the oldest goes where they are too many.
    pub(crate) fn put(&self, key: Key, control: OwnedFd, group: Option<Group>, pin: Option<Pin>) {
        let mut entries = self.entries();
        // With other files or limits, it is not asked for again.
        entries.retain(|e| e.key.session != key.session);
        entries.push(Entry {
            key,
            control,
            group,
            _pin: pin,
            since: Instant::now(),
        });
        if entries.len() > self.most {
            entries.remove(0);
        }
    }

    /// Ends those that have waited for so long.
    pub(crate) fn end_older(&self, age: Duration) {
        self.entries().retain(|e| e.since.elapsed() < age);
    }
}
