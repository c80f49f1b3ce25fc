//! What a command may use. The defaults stand here and nowhere else.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The limits of one command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Time by the clock.
    pub wall: Duration,
    /// CPU seconds of one process.
    pub cpu_seconds: u64,
    /// Bytes of private writable memory of one process.
    pub memory_bytes: u64,
    /// Processes and threads at a time.
    pub processes: u64,
    /// Descriptors of one process.
    pub open_files: u64,
    /// Bytes that one file may grow to.
    pub file_size_bytes: u64,
    /// Bytes in the home folder, and the same again in /tmp.
    pub disk_bytes: u64,
    /// Bytes of output kept; more ends the command.
    pub output_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            wall: Duration::from_secs(60),
            cpu_seconds: 60,
            memory_bytes: 1 << 30,
            processes: 256,
            open_files: 1024,
            file_size_bytes: 1 << 30,
            disk_bytes: 1 << 28,
            output_bytes: 10 << 20,
        }
    }
}
