//! A caller's own folder, which holds the groups of its launches, and what becomes of them.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::folder::{groups, make, open_below, put, remove};
use super::{PREFIX, pass_on};

/// A PID 1 has this long to end by itself, once nobody needs it, before its group is killed.
const PATIENCE: Duration = Duration::from_secs(5);
/// What was killed has this long to end before its folder is left to whoever comes next.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// Another caller that starts at this moment may take a folder that has no lock yet for a dead one's.
const ATTEMPTS: usize = 5;

/// See the module. Dropping it ends everything in it and removes it.
pub(super) struct Owned {
    parent: OwnedFd,
    pub(super) folder: Flock<OwnedFd>,
    name: String,
    pub(super) controllers: Vec<&'static str>,
    next: AtomicU64,
    leftovers: Mutex<Vec<Leftover>>,
}

/// A group that nobody needs any more, and whose processes may not have ended yet.
struct Leftover {
    name: String,
    since: Instant,
}

impl Owned {
    pub(super) fn new(parent: OwnedFd) -> nix::Result<Owned> {
        let mut failed = Errno::EAGAIN;
        for _ in 0..ATTEMPTS {
            let name = format!("{PREFIX}{}-{:016x}", std::process::id(), random());
            make(&parent, &name)?;
            match locked(&parent, &name) {
                Ok(folder) => {
                    let controllers = pass_on(&folder);
                    return Ok(Owned {
                        parent,
                        folder,
                        name,
                        controllers,
                        next: AtomicU64::new(1),
                        leftovers: Mutex::default(),
                    });
                }
                Err(e) => failed = e,
            }
        }
        Err(failed)
    }

    /// Makes a group; returns its name.
    pub(super) fn make(&self) -> nix::Result<String> {
        let name = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        make(self.folder.as_fd(), &name)?;
        Ok(name)
    }

    fn leftovers(&self) -> MutexGuard<'_, Vec<Leftover>> {
        self.leftovers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a group, now or as soon as nothing runs in it.
    pub(super) fn discard(&self, name: String) {
        if remove(self.folder.as_fd(), &name).is_err() {
            let since = Instant::now();
            self.leftovers().push(Leftover { name, since });
        }
    }

    /// Removes what has ended since, without waiting; kills what should have.
    pub(super) fn collect(&self) {
        self.leftovers().retain(|left| {
            if remove(self.folder.as_fd(), &left.name).is_ok() {
                return false;
            }
            if left.since.elapsed() > PATIENCE {
                let _ = kill(self.folder.as_fd(), &left.name);
            }
            true
        });
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = end(&self.parent, self.folder.as_fd(), &self.name);
    }
}

/// Kills every process of a group, which no fork outruns.
pub(super) fn kill(folder: impl AsFd, name: &str) -> nix::Result<()> {
    put(folder, &format!("{name}/cgroup.kill"), "1")
}

/// Removes the folders of callers that have ended without doing so.
pub(super) fn remove_stale(parent: &OwnedFd) {
    for name in groups(parent).unwrap_or_default() {
        if name.starts_with(PREFIX)
            && let Ok(folder) = locked(parent, &name)
        {
            let _ = end(parent, folder.as_fd(), &name);
        }
    }
}

/// The folder, under a lock that is held as long as its caller lives.
fn locked(parent: &OwnedFd, name: &str) -> nix::Result<Flock<OwnedFd>> {
    let folder = open_below(parent, name)?;
    let folder = Flock::lock(folder, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e)?;
    // It may have been removed just before.
    open_below(&*folder, ".")?;
    open_below(parent, name)?;
    Ok(folder)
}

/// Ends whatever runs in a caller's folder and removes it, within [`END_PATIENCE`].
fn end(parent: &OwnedFd, folder: impl AsFd, name: &str) -> nix::Result<()> {
    // Killed at once; the folders go as soon as the last has been reaped.
    let _ = put(&folder, "cgroup.kill", "1");
    let deadline = Instant::now() + END_PATIENCE;
    let mut pause = Duration::from_micros(500);
    loop {
        for group in groups(&folder)? {
            let _ = remove(&folder, &group);
        }
        match remove(parent, name) {
            Err(Errno::EBUSY) if Instant::now() < deadline => std::thread::sleep(pause),
            other => return other,
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// No secret: it keeps apart the folders of processes that have the same number in namespaces of their own.
fn random() -> u64 {
    let mut bytes = [0; 8];
    // SAFETY: the kernel writes at most so many bytes; a request this short is answered whole.
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    u64::from_ne_bytes(bytes)
}
