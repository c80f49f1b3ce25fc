//! What the helper tells the caller when all is over.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cgroup::Events;
use crate::error::Step;
use crate::running::Stop;

/// A limit that PID 1 itself keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Used {
    /// CPU time.
    Cpu,
    /// Memory.
    Memory,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ended {
    /// The shell exited with this code.
    Exited(i32),
    /// This signal ended the shell.
    Signaled(i32),
    /// It took longer than the wall-clock limit.
    TimedOut,
    /// All its processes together used more than they may.
    UsedUp(Used),
    /// The caller ended it.
    Stopped,
    /// It never ran: this step of the confinement failed, and why.
    Refused(Step, String),
    /// The launcher itself died; only a kill from outside does that.
    LauncherDied,
    /// It never ran: what was started is not the launcher, and this is how it ended.
    NoLauncher(String),
}

/// The helper's one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How it ended.
    pub ended: Ended,
    /// User and system time of all its processes, in microseconds.
    pub cpu_us: u64,
    /// Resident size of its largest process, in bytes.
    pub peak_memory_bytes: u64,
    /// True where PID 1 waits for another command.
    pub kept: bool,
    /// True where something in home is not as it was; the folder that says what comes with the report.
    pub home_changed: bool,
    /// Nanoseconds that each step took, where the helper was told to clock them.
    pub steps: Vec<(Step, u64)>,
}

impl Report {
    /// A report of something that never ran.
    pub fn of(ended: Ended) -> Report {
        Report {
            ended,
            cpu_us: 0,
            peak_memory_bytes: 0,
            kept: false,
            home_changed: false,
            steps: Vec::new(),
        }
    }

    /// The bytes of the message.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a Vec grows and every field has a length")
    }

    /// Reads what [`Report::encode`] wrote; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Report> {
        postcard::from_bytes(bytes).ok()
    }
}

/// A report, with what the caller measured and captured itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The helper's report.
    pub report: Report,
    /// From start to report.
    pub duration: Duration,
    /// Why the caller ended it, if it did.
    pub stopped: Option<Stop>,
    /// What its control group tells; nothing where it has none.
    pub events: Events,
    /// What the shell wrote about its state, as it came.
    pub state: Vec<u8>,
}
