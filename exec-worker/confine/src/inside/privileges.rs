//! Step 4: capabilities and `no_new_privs`; and the seccomp filter, which the shell's process installs.

use caps::CapSet;
use nix::errno::Errno;

use super::{At, Failure};
use crate::error::Step;

/// Gives up every capability for good, in every set, and sets `no_new_privs`.
pub(super) fn drop_all() -> Result<(), Failure> {
    // The bounding set first: shrinking it needs one of the others. EINVAL is beyond the kernel's last.
    for capability in 0..64 {
        // SAFETY: changes a set of this process' own, and reads no memory.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
            match Errno::last() {
                Errno::EINVAL if capability > 0 => break,
                e => return Err((Step::Capabilities, format!("bounding set: {e}"))),
            }
        }
    }
    for set in [
        CapSet::Ambient,
        CapSet::Inheritable,
        CapSet::Effective,
        CapSet::Permitted,
    ] {
        caps::clear(None, set)
            .map_err(|e| format!("{set:?}: {e}"))
            .at(Step::Capabilities)?;
    }
    nix::sys::prctl::set_no_new_privs().at(Step::NoNewPrivs)
}

/// Installs a filter, the bytes of a `sock_filter` array. Needs `no_new_privs`.
pub(super) fn filter_calls(filter: &[u8]) -> Result<(), Failure> {
    let program: Vec<seccompiler::sock_filter> = filter
        .chunks_exact(8)
        .map(|b| seccompiler::sock_filter {
            code: u16::from_ne_bytes([b[0], b[1]]),
            jt: b[2],
            jf: b[3],
            k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        })
        .collect();
    // An empty filter is refused here too.
    seccompiler::apply_filter(&program).at(Step::Seccomp)
}
