//! Collecting PID 1's children, and what each has used.

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::report::Ended;

/// What all processes of a command have used.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    /// User and system time, in microseconds.
    pub cpu_us: u64,
    /// Of the largest process.
    pub peak_memory_bytes: u64,
}

/// Collects the processes of one command.
pub(super) struct Reaper {
    shell: Pid,
    usage: Usage,
}

impl Reaper {
    pub(super) fn new(shell: Pid) -> Reaper {
        Reaper {
            shell,
            usage: Usage::default(),
        }
    }

    /// What those that it has collected have used.
    pub(super) fn usage(&self) -> Usage {
        self.usage
    }

    /// Collects whoever has died; the shell's end is the command's.
    pub(super) fn reap(&mut self) -> Option<Ended> {
        let mut ended = None;
        while let Ok((pid, status)) = self.wait(libc::WNOHANG)
            && pid.as_raw() != 0
        {
            if pid == self.shell {
                ended = if libc::WIFSIGNALED(status) {
                    Some(Ended::Signaled(libc::WTERMSIG(status)))
                } else {
                    Some(Ended::Exited(libc::WEXITSTATUS(status)))
                };
            }
        }
        ended
    }

    /// Kills every process of the namespace in one call, which no fork outruns, and collects them all.
    pub(super) fn end_everything(self) -> Usage {
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
        self.collect_everything()
    }

    /// Collects every child, those of the dead among them, until there is none.
    pub(super) fn collect_everything(mut self) -> Usage {
        while !matches!(self.wait(0), Err(Errno::ECHILD)) {}
        self.usage
    }

    fn wait(&mut self, flags: libc::c_int) -> nix::Result<(Pid, libc::c_int)> {
        let mut status = 0;
        // SAFETY: a zeroed rusage is a valid value.
        let mut used: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes one int and one rusage.
        let pid = unsafe { libc::wait4(-1, &raw mut status, flags, &raw mut used) };
        if pid < 0 {
            return Err(Errno::last());
        }
        let micros = |t: libc::timeval| (t.tv_sec * 1_000_000 + t.tv_usec) as u64;
        self.usage.cpu_us += micros(used.ru_utime) + micros(used.ru_stime);
        let peak = used.ru_maxrss as u64 * 1024;
        self.usage.peak_memory_bytes = self.usage.peak_memory_bytes.max(peak);
        Ok((Pid::from_raw(pid), status))
    }
}
