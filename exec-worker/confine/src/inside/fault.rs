//! Faults, for tests: with the argument `fail=STEP.N` everything goes wrong from the N-th point on at which
//! that step can fail. No caller passes it, and neither a row nor a command has a say in the helper's
//! arguments.
//!
//! Points are counted from the helper's start, in the line of processes that leads to the shell. [`At`] makes
//! each, after what it is about has been done, so that what a failure leaves half done is there to be
//! cleared; only where success has no way back (`fork`, `execve`) does one stand by itself, before.
//!
//! [`At`]: super::At

use std::ffi::{CString, OsString};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Failure;
use crate::error::Step;

/// How the argument begins.
const FAIL: &str = "fail=";

/// Not set in production, where a point is one look at it.
static STEP: OnceLock<Step> = OnceLock::new();
/// The points that are passed before.
static LEFT: AtomicU32 = AtomicU32::new(0);

/// Looks for the argument, which is the last one.
pub(super) fn read(arguments: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let last = arguments.last().and_then(|a| a.into_string().ok());
    let Some(fault) = last.as_deref().and_then(|a| a.strip_prefix(FAIL)) else {
        return Ok(());
    };
    let read = || {
        let (name, passed) = fault.split_once('.').unwrap_or((fault, "0"));
        let step = Step::all().find(|step| format!("{step:?}") == name)?;
        Some((step, passed.parse().ok()?))
    };
    let Some((step, passed)) = read() else {
        return Err((Step::Spec, format!("no such fault: {fault}")));
    };
    LEFT.store(passed, Ordering::Relaxed);
    let _ = STEP.set(step);
    Ok(())
}

/// The argument for a program that this process becomes, which counts on.
pub(super) fn argument() -> Option<CString> {
    let step = STEP.get()?;
    CString::new(format!("{FAIL}{step:?}.{}", LEFT.load(Ordering::Relaxed))).ok()
}

/// Fails where a test wants it.
pub(super) fn point(step: Step) -> Result<(), Failure> {
    if STEP.get() != Some(&step) {
        return Ok(());
    }
    let next = |left: u32| left.checked_sub(1);
    match LEFT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
        Ok(_) => Ok(()),
        Err(_) => Err((step, "a test wants it".into())),
    }
}
