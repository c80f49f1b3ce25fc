//! A session knows its home and its `/tmp` by the names that they have at the level strict. Here they are
//! folders with a name that is new for every command: put in before it, and taken out of its state after.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::folder::{HOME as OWN_HOME, TMP as OWN_TMP};
use crate::spec::{HOME, Spec};

/// Variables that name a folder of the session's.
const FOLDERS: [&[u8]; 4] = [b"HOME", b"TMPDIR", b"PWD", b"OLDPWD"];
const TMP: &str = "/tmp";

/// The session's names and those of this command, home first.
pub(super) struct Names([(&'static str, Vec<u8>); 2]);

impl Names {
    pub(super) fn of(private: &Path) -> Names {
        let own = |name| private.join(name).as_os_str().as_bytes().to_vec();
        Names([(HOME, own(OWN_HOME)), (TMP, own(OWN_TMP))])
    }

    /// The command's home.
    pub(super) fn home(&self) -> CString {
        c_string(self.0[0].1.clone())
    }

    /// The session's specification in this command's words.
    pub(super) fn put_in(&self, spec: &Spec) -> Spec {
        let mut spec = spec.clone();
        spec.cwd = self.folder(&spec.cwd);
        if !spec
            .env
            .iter()
            .any(|(name, _)| name.to_bytes() == b"TMPDIR")
        {
            spec.env.push((c"TMPDIR".into(), c_string(TMP)));
        }
        for (name, value) in &mut spec.env {
            if FOLDERS.contains(&name.to_bytes()) {
                *value = self.folder(value);
            }
        }
        spec
    }

    fn folder(&self, path: &CStr) -> CString {
        for (session, own) in &self.0 {
            match path.to_bytes().strip_prefix(session.as_bytes()) {
                Some(rest) if rest.is_empty() || rest[0] == b'/' => {
                    return c_string([own, rest].concat());
                }
                _ => {}
            }
        }
        path.into()
    }

    /// What the shell has written, in the session's words.
    pub(super) fn taken_out(&self, state: &[u8]) -> Vec<u8> {
        let mut words = state.to_vec();
        for (session, own) in &self.0 {
            let mut rest = words.as_slice();
            let mut replaced = Vec::with_capacity(words.len());
            while let Some(at) = rest.windows(own.len()).position(|part| part == own) {
                replaced.extend_from_slice(&rest[..at]);
                replaced.extend_from_slice(session.as_bytes());
                rest = &rest[at + own.len()..];
            }
            replaced.extend_from_slice(rest);
            words = replaced;
        }
        words
    }
}

/// Of parts that held no NUL.
fn c_string(bytes: impl Into<Vec<u8>>) -> CString {
    CString::new(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_put_in_and_taken_out() {
        let names = Names::of(Path::new("/var/tmp/pg_shell-1"));
        for (session, own) in [
            (c"/home/sandbox", c"/var/tmp/pg_shell-1/home"),
            (c"/home/sandbox/a", c"/var/tmp/pg_shell-1/home/a"),
            (c"/tmp", c"/var/tmp/pg_shell-1/tmp"),
            (c"/home/sandboxes", c"/home/sandboxes"),
            (c"/tmpfs", c"/tmpfs"),
            (c"/usr", c"/usr"),
        ] {
            assert_eq!(names.folder(session).as_c_str(), own);
        }
        let state = b"\0/var/tmp/pg_shell-1/home/a\0x=/var/tmp/pg_shell-1/tmp /var/tmp/pg_shell-1";
        let told = b"\0/home/sandbox/a\0x=/tmp /var/tmp/pg_shell-1";
        assert_eq!(names.taken_out(state), told);
        assert_eq!(names.taken_out(b""), b"");
    }
}
