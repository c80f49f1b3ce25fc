//! The group of one PID 1, and of every command that it runs.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use super::folder::{count, open_to_write, put, read};
use super::owned::{Owned, kill};
use super::{CPU, MEMORY, PIDS};
use crate::limits::Limits;

/// The kernel gives out CPU time anew after so many microseconds.
const PERIOD: u64 = 100_000;

/// What happened in a group during a command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Events {
    /// Processes that were killed because all of them together had too much memory.
    pub oom_kills: u64,
    /// Processes that were not started because there were too many.
    pub refused_forks: u64,
}

/// See the module. Dropping it has it removed as soon as it is empty.
pub(crate) struct Group {
    owned: Arc<Owned>,
    name: String,
    procs: Option<OwnedFd>,
    limited: Option<[String; 3]>,
    /// What the kernel, which counts on, had counted when the command began.
    before: Counted,
}

#[derive(Clone, Copy, Default)]
struct Counted {
    events: Events,
    cpu_us: u64,
}

impl Group {
    pub(super) fn new(owned: Arc<Owned>) -> nix::Result<Group> {
        let name = owned.make()?;
        let mut group = Group {
            owned,
            name,
            procs: None,
            limited: None,
            before: Counted::default(),
        };
        if group.has(MEMORY) {
            // All of a command or nothing: what is left of one whose parts were killed is of no use.
            group.put("memory.oom.group", "1")?;
            match group.put("memory.swap.max", "0") {
                // A kernel without swap has no such file.
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(e) => return Err(e),
            }
        }
        let procs = open_to_write(group.owned.folder.as_fd(), &group.path("cgroup.procs"))?;
        group.procs = Some(procs);
        Ok(group)
    }

    fn has(&self, controller: &str) -> bool {
        self.owned.controllers.contains(&controller)
    }

    fn path(&self, file: &str) -> String {
        format!("{}/{file}", self.name)
    }

    fn put(&self, file: &str, value: &str) -> nix::Result<()> {
        put(self.owned.folder.as_fd(), &self.path(file), value)
    }

    fn count(&self, file: &str, key: &str) -> u64 {
        count(self.owned.folder.as_fd(), &self.path(file), key)
    }

    /// What a process joins the group by; `None` once one has.
    pub(crate) fn procs(&self) -> Option<BorrowedFd<'_>> {
        self.procs.as_ref().map(AsFd::as_fd)
    }

    /// PID 1 is in it, and all that follows will be.
    pub(crate) fn joined(&mut self) {
        self.procs = None;
    }

    /// Sets the limits of the command that comes next, as far as they differ from the last one's, and
    /// begins to count anew.
    pub(crate) fn limit(&mut self, limits: &Limits) -> nix::Result<()> {
        let wanted = values(limits);
        for (at, (controller, file)) in
            [(MEMORY, "memory.max"), (PIDS, "pids.max"), (CPU, "cpu.max")]
                .into_iter()
                .enumerate()
        {
            let known = self.limited.as_ref().map(|limited| &limited[at]);
            if self.has(controller) && known != Some(&wanted[at]) {
                self.put(file, &wanted[at])?;
            }
        }
        if self.limited.replace(wanted).is_some() {
            self.before = self.counted();
        }
        Ok(())
    }

    fn counted(&self) -> Counted {
        let mut counted = Counted {
            events: self.events_so_far(),
            cpu_us: 0,
        };
        if self.has(CPU) {
            counted.cpu_us = self.count("cpu.stat", "usage_usec");
        }
        counted
    }

    fn events_so_far(&self) -> Events {
        let mut events = Events::default();
        if self.has(MEMORY) {
            events.oom_kills = self.count("memory.events", "oom_kill");
        }
        if self.has(PIDS) {
            events.refused_forks = self.count("pids.events", "max");
        }
        events
    }

    /// What happened since the limits were set.
    pub(crate) fn events(&self) -> Events {
        let now = self.events_so_far();
        let before = self.before.events;
        Events {
            oom_kills: now.oom_kills.saturating_sub(before.oom_kills),
            refused_forks: now.refused_forks.saturating_sub(before.refused_forks),
        }
    }

    /// Microseconds of CPU since then and the most bytes ever, for a PID 1 that cannot tell any more.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let cpu_us = self.counted().cpu_us.saturating_sub(self.before.cpu_us);
        let peak = self
            .has(MEMORY)
            .then(|| read(self.owned.folder.as_fd(), &self.path("memory.peak")).ok())
            .flatten()
            .and_then(|text| text.trim().parse().ok());
        (cpu_us, peak.unwrap_or(0))
    }

    /// Kills every process in it.
    pub(crate) fn kill(&self) {
        let _ = kill(self.owned.folder.as_fd(), &self.name);
    }

    /// Moves a child of this process there, which ends at once.
    pub(super) fn try_to_join(self) -> nix::Result<()> {
        let procs = self.procs().ok_or(Errno::EBADF)?.as_raw_fd();
        // SAFETY: between here and its end the child makes two system calls, and allocates nothing.
        match unsafe { fork() }? {
            // SAFETY: one byte of a constant, to a descriptor that is open; and an end at once.
            ForkResult::Child => unsafe {
                let written = libc::write(procs, b"0".as_ptr().cast(), 1);
                libc::_exit(if written == 1 { 0 } else { Errno::last_raw() });
            },
            ForkResult::Parent { child } => loop {
                match waitpid(child, None) {
                    Err(Errno::EINTR) => {}
                    Ok(WaitStatus::Exited(_, 0)) => return Ok(()),
                    Ok(WaitStatus::Exited(_, error)) => return Err(Errno::from_raw(error)),
                    Ok(_) => return Err(Errno::ECHILD),
                    Err(e) => return Err(e),
                }
            },
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.owned.discard(std::mem::take(&mut self.name));
    }
}

/// For `memory.max`, `pids.max` and `cpu.max`.
fn values(limits: &Limits) -> [String; 3] {
    // One CPU, so that one command leaves the others theirs; more for one that may use more CPU time than
    // there is by the clock. Either way all its processes together use no more than the greater of the two.
    let wall_us = u64::try_from(limits.wall.as_micros()).unwrap_or(u64::MAX);
    let cpu_us = limits.cpu_seconds.saturating_mul(1_000_000);
    let share = u128::from(PERIOD) * u128::from(cpu_us) / u128::from(wall_us.max(1));
    let quota = share.clamp(u128::from(PERIOD), u128::from(PERIOD) << 16);
    [
        limits.memory_bytes.to_string(),
        // PID 1 counts too.
        limits.processes.saturating_add(1).to_string(),
        format!("{quota} {PERIOD}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn limits_become_what_the_kernel_reads() {
        let mut limits = Limits {
            memory_bytes: 1 << 26,
            processes: 10,
            ..Limits::default()
        };
        assert_eq!(values(&limits), ["67108864", "11", "100000 100000"]);
        limits.cpu_seconds = 1;
        assert_eq!(values(&limits)[2], "100000 100000", "never less than one");
        limits.cpu_seconds = 240;
        assert_eq!(values(&limits)[2], "400000 100000", "four");
        for wall in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            limits.wall = wall;
            limits.cpu_seconds = u64::MAX;
            let quota = values(&limits)[2].clone();
            assert!(quota.len() < 20 && quota.ends_with(" 100000"), "{quota}");
        }
    }

    /// A folder that looks like one with a group "1" and these controllers, and that group.
    fn fake(controllers: &[&'static str]) -> (tempfile::TempDir, Group) {
        let place = tempfile::tempdir().unwrap();
        let parent = super::super::folder::open_folder(place.path()).unwrap();
        let mut owned = Owned::new(parent).unwrap();
        owned.controllers = controllers.to_vec();
        let group = Group {
            name: owned.make().unwrap(),
            owned: Arc::new(owned),
            procs: None,
            limited: None,
            before: Counted::default(),
        };
        (place, group)
    }

    fn file(place: &tempfile::TempDir, name: &str) -> std::path::PathBuf {
        let own = std::fs::read_dir(place.path()).unwrap().next().unwrap();
        own.unwrap().path().join("1").join(name)
    }

    #[test]
    fn what_differs_is_written_and_what_happened_since_is_counted() {
        let (place, mut group) = fake(&[MEMORY, PIDS, CPU]);
        let write = |name: &str, text: &str| std::fs::write(file(&place, name), text).unwrap();
        let read = |name: &str| std::fs::read_to_string(file(&place, name)).unwrap();
        assert_eq!(
            group.limit(&Limits::default()),
            Err(Errno::ENOENT),
            "no group without its files"
        );
        for name in ["memory.max", "pids.max", "cpu.max"] {
            write(name, "");
        }
        group.limit(&Limits::default()).unwrap();
        assert_eq!(read("memory.max"), "1073741824");
        assert_eq!(read("pids.max"), "257");
        assert_eq!(read("cpu.max"), "100000 100000");

        write("memory.events", "low 0\nmax 9\noom 1\noom_kill 4\n");
        write("pids.events", "max 2\n");
        write("cpu.stat", "usage_usec 500\nuser_usec 1\n");
        write("memory.peak", "12345\n");
        let told = Events {
            oom_kills: 4,
            refused_forks: 2,
        };
        assert_eq!(group.events(), told);
        assert_eq!(group.usage(), (500, 12345));

        write("memory.max", "untouched");
        let others = Limits {
            processes: 7,
            ..Limits::default()
        };
        group.limit(&others).unwrap();
        assert!(read("pids.max").starts_with('8'));
        assert_eq!(read("memory.max"), "untouched");
        assert_eq!(group.events(), Events::default(), "the last command's");
        write("pids.events", "max 5\n");
        write("cpu.stat", "usage_usec 800\n");
        assert_eq!((group.events().refused_forks, group.usage().0), (3, 300));
    }

    #[test]
    fn only_what_is_controlled_is_written_or_read() {
        let (place, mut group) = fake(&[PIDS]);
        std::fs::write(file(&place, "pids.max"), "").unwrap();
        std::fs::write(file(&place, "memory.events"), "oom_kill 1\n").unwrap();
        group.limit(&Limits::default()).unwrap();
        assert_eq!(group.events(), Events::default());
        assert_eq!(group.usage(), (0, 0));
    }
}
