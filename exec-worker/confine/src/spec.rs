//! What the caller tells the helper: one value, encoded with postcard, in a sealed memory file.

use std::ffi::CString;

use serde::{Deserialize, Serialize};

use crate::limits::Limits;

/// The folder in which every session begins.
pub const HOME: &str = "/home/sandbox";

/// A launch, complete: the helper reads nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Absolute path of the shell, and its arguments (`argv[0]` included).
    pub program: CString,
    /// The shell's arguments.
    pub argv: Vec<CString>,
    /// `NAME=value` strings: all that the shell's environment holds.
    pub envp: Vec<CString>,
    /// Where it starts; if that is gone, [`HOME`], with a word about it on standard error.
    pub cwd: CString,
    /// The script that restores the session's state, on descriptor [`crate::shell::SCRIPT_FD`].
    #[serde(with = "bytes")]
    pub script: Vec<u8>,
    /// The command's text on descriptor [`crate::shell::COMMAND_FD`], where it is too long for an argument.
    pub long_command: Option<Vec<u8>>,
    /// The number under which the shell finds the file for its state.
    pub state_fd: i32,
    /// What it may use.
    pub limits: Limits,
    /// The seccomp filter, the kernel's `sock_filter` array.
    #[serde(with = "bytes")]
    pub seccomp: Vec<u8>,
}

impl Spec {
    /// The bytes for the helper.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a Vec grows and every field has a length")
    }

    /// Reads what [`Spec::encode`] wrote.
    ///
    /// # Errors
    /// Anything that is not exactly one encoded specification.
    pub fn decode(bytes: &[u8]) -> Result<Spec, String> {
        match postcard::take_from_bytes(bytes) {
            Ok((spec, [])) => Ok(spec),
            Ok((_, rest)) => Err(format!("{} bytes too many", rest.len())),
            Err(e) => Err(e.to_string()),
        }
    }
}

/// Bytes as one block: serde's own way reads a `Vec<u8>` byte by byte.
mod bytes {
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        from.deserialize_bytes(Bytes)
    }
}
