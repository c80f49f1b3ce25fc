//! Capabilities, `no_new_privs` and seccomp.

use caps::CapSet;

use super::{At, Failure};
use crate::error::Step;

/// Gives up every capability for good, in every set, and sets `no_new_privs`.
pub(super) fn drop_all() -> Result<(), Failure> {
    // The bounding set first: shrinking it needs one of the others.
    for set in [
        CapSet::Bounding,
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

/// Installs filters, each the bytes of a `sock_filter` array. Needs `no_new_privs`.
pub(super) fn filter_calls(filters: &[Vec<u8>]) -> Result<(), Failure> {
    for filter in filters {
        let program: Vec<seccompiler::sock_filter> = filter
            .chunks_exact(8)
            .map(|b| seccompiler::sock_filter {
                code: u16::from_ne_bytes([b[0], b[1]]),
                jt: b[2],
                jf: b[3],
                k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
            })
            .collect();
        seccompiler::apply_filter(&program).at(Step::Seccomp)?;
    }
    if filters.is_empty() {
        Err((Step::Seccomp, "no filter was given".into()))
    } else {
        Ok(())
    }
}
