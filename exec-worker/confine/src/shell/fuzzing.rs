//! For the fuzz targets alone: what the scripts for a shell say, read back.

use std::ffi::{CStr, CString};

use super::assemble::{by_script, executed, export, has_base, waiting_session};
use super::declarations::parse;
use crate::spec::Spec;

/// Both ways to start a shell: its script ends with the session's variables, each with its very value, and
/// then with the session's state.
///
/// # Panics
/// Where it does not.
pub fn check(spec: &Spec) {
    let shell = executed(spec);
    check_script(spec, &shell.script, by_script);
    assert!(shell.argv.iter().any(|a| a.as_bytes() == b"-c"));
    if let Some(script) = waiting_session(spec) {
        check_script(spec, &script, |name, value| {
            !has_base(spec.shell, name, value)
        });
    }
}

fn check_script(spec: &Spec, script: &[u8], chosen: impl Fn(&CStr, &CStr) -> bool) {
    let mut tail = Vec::new();
    export(spec, &chosen, &mut tail);
    let read: Vec<(Vec<u8>, Vec<u8>)> = parse(&tail)
        .map(|d| {
            assert!(d.exported());
            let value = d.value().expect("a value in quotes");
            (d.name.as_bytes().to_vec(), value)
        })
        .collect();
    let wanted: Vec<(Vec<u8>, Vec<u8>)> = spec
        .env
        .iter()
        .filter(|(name, value)| chosen(name, value) && !super::assemble::is_read_only(name))
        .map(|(name, value): &(CString, CString)| {
            (name.as_bytes().to_vec(), value.as_bytes().to_vec())
        })
        .collect();
    assert_eq!(read, wanted);
    tail.extend_from_slice(&spec.shell_state);
    assert!(script.ends_with(&tail));
}
