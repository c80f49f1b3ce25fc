//! What the caller tells the helper: one value, encoded with postcard, in a sealed memory file.

use std::ffi::CString;

use serde::{Deserialize, Serialize};

use crate::limits::Limits;
use crate::shell::Shell;

/// The folder in which every session begins.
pub const HOME: &str = "/home/sandbox";

/// A launch, complete: the helper reads nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Which shell runs it.
    pub shell: Shell,
    /// The text that the shell runs.
    pub command: CString,
    /// The environment: all of it, by name.
    pub env: Vec<(CString, CString)>,
    /// Where it starts; if that is gone, [`HOME`], with a word about it on standard error.
    pub cwd: CString,
    /// The script that restores the rest of the session's state.
    #[serde(with = "bytes")]
    pub shell_state: Vec<u8>,
    /// What it may use.
    pub limits: Limits,
    /// The programs that it may run besides the shell, by absolute path; `None` is any.
    pub programs: Option<Vec<CString>>,
    /// Of home: the layers of the session's files by name, the newest first, over which it is mounted; what is changed
    /// there is handed on. `None`: an empty one, of which nothing is kept.
    pub layers: Option<Vec<CString>>,
    /// No command yet: PID 1 makes itself ready for one that has the same disk, programs and layers.
    pub ahead: bool,
}

impl Spec {
    /// What PID 1 is made ready by: nothing of the command, nor of the state that it begins with.
    pub(crate) fn to_be_ready(&self) -> Spec {
        Spec {
            shell: self.shell,
            command: CString::default(),
            env: Vec::new(),
            cwd: self.cwd.clone(),
            shell_state: Vec::new(),
            limits: self.limits.clone(),
            programs: self.programs.clone(),
            layers: self.layers.clone(),
            ahead: true,
        }
    }

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
