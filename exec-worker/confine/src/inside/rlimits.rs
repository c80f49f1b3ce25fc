//! Resource limits of the shell and, by inheritance, of every process it starts.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{At, Failure};
use crate::error::Step;
use crate::limits::Limits;

/// Past its CPU time a process gets SIGXCPU, which says why; after so many more seconds it gets SIGKILL.
const CPU_GRACE: u64 = 1;

/// Sets soft and hard limits alike, so that none can be raised again; but for CPU time's grace.
pub(super) fn set(limits: &Limits) -> Result<(), Failure> {
    let wanted = [
        // No core is so small, and with this very limit the host's own program for cores gets none either.
        (Resource::RLIMIT_CORE, 1),
        (
            Resource::RLIMIT_CPU,
            limits.cpu_seconds.saturating_add(CPU_GRACE),
        ),
        (Resource::RLIMIT_DATA, limits.memory_bytes),
        (Resource::RLIMIT_FSIZE, limits.file_size_bytes),
        (Resource::RLIMIT_MEMLOCK, 64 << 10),
        (Resource::RLIMIT_MSGQUEUE, 0),
        (Resource::RLIMIT_NOFILE, limits.open_files),
        // PID 1 of the namespace counts too.
        (Resource::RLIMIT_NPROC, limits.processes + 1),
        (Resource::RLIMIT_SIGPENDING, 1024),
    ];
    for (resource, value) in wanted {
        // The host may allow less than was asked for; less is never refused.
        let value = getrlimit(resource).map_or(value, |(_, hard)| value.min(hard));
        let soft = match resource {
            Resource::RLIMIT_CPU => value.saturating_sub(CPU_GRACE).max(1),
            _ => value,
        };
        setrlimit(resource, soft, value)
            .map_err(|e| format!("{resource:?} to {value}: {e}"))
            .at(Step::Rlimits)?;
    }
    Ok(())
}
