//! Which limit a command ran into, as far as its end tells.

use std::fmt;
use std::time::Duration;

use nix::libc::{SIGKILL, SIGXCPU, SIGXFSZ};

use crate::capture::{Output, Stream};
use crate::limits::Limits;
use crate::report::{Ended, Outcome, Used};
use crate::running::Stop;

/// A limit that ended a command, with what it was.
///
/// Open files and disk are not among them: at those the kernel only says no to a program, which says so in
/// its own words and may go on. Processes are where a control group counts how often it was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exceeded {
    /// It took longer than this.
    Wall(Duration),
    /// It used up so many seconds of CPU.
    Cpu(u64),
    /// It got no more than so many bytes.
    Memory(u64),
    /// All its processes together, with their files in memory, had more than so many bytes.
    MemoryTogether(u64),
    /// It wanted more than so many processes at a time, and failed.
    Processes(u64),
    /// A process of it wrote past so many bytes into one file.
    FileSize(u64),
    /// It printed more than so many bytes.
    Output(usize),
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exceeded::Wall(time) => {
                let time = seconds(time.as_secs_f64());
                write!(f, "the command took longer than {time} and was ended")
            }
            Exceeded::Cpu(time) => {
                let time = seconds(*time as f64);
                write!(f, "the command used more than {time} of CPU and was ended")
            }
            Exceeded::Memory(bytes) => {
                write!(f, "the command ran out of memory: it may use {bytes} bytes")
            }
            Exceeded::MemoryTogether(bytes) => {
                write!(
                    f,
                    "the command ran out of memory and was ended: all of it together may use {bytes} bytes"
                )
            }
            Exceeded::Processes(most) => {
                write!(
                    f,
                    "the command failed when it wanted more than {most} processes at a time"
                )
            }
            Exceeded::FileSize(bytes) => {
                write!(
                    f,
                    "a process of the command wrote more than {bytes} bytes into one file and was ended"
                )
            }
            Exceeded::Output(bytes) => {
                write!(
                    f,
                    "the command printed more than {bytes} bytes and was ended; the first {bytes} are kept"
                )
            }
        }
    }
}

fn seconds(count: f64) -> String {
    let unit = if count == 1.0 { "second" } else { "seconds" };
    format!("{count} {unit}")
}

/// How programs say that they got no memory.
const LAST_WORDS: [&str; 6] = [
    "out of memory",
    "memory exhausted",
    "cannot allocate",
    "memoryerror",
    "bad_alloc",
    "not enough memory",
];

/// How much of standard error, from its end, counts as last words.
const WORDS_BYTES: usize = 512;

impl Outcome {
    /// The limit that ended it. A command that succeeded ran into none, whatever its parts did.
    ///
    /// The caller and PID 1 know of time and output, and PID 1 of what grows slowly. CPU and file size are
    /// told by the signal that the kernel sends, to the shell or to its last program, whose end the shell gives
    /// as 128 and the signal; memory by the largest process' size or by its last words, for there the kernel
    /// sends nothing. A control group's counts are sure; its absence, and what a process' own limit refuses,
    /// leave the rest.
    pub fn exceeded(&self, limits: &Limits, output: &Output) -> Option<Exceeded> {
        if self.events.oom_kills > 0 && self.report.ended != Ended::Exited(0) {
            return Some(Exceeded::MemoryTogether(limits.memory_bytes));
        }
        let signal = match self.report.ended {
            Ended::TimedOut => return Some(Exceeded::Wall(limits.wall)),
            Ended::UsedUp(Used::Cpu) => return Some(Exceeded::Cpu(limits.cpu_seconds)),
            Ended::UsedUp(Used::Memory) => return Some(Exceeded::Memory(limits.memory_bytes)),
            // Past its deadline the helper is killed, should it not have ended by itself.
            Ended::LauncherDied if self.duration >= limits.wall => {
                return Some(Exceeded::Wall(limits.wall));
            }
            Ended::Stopped if self.stopped == Some(Stop::OutputLimit) => {
                return Some(Exceeded::Output(limits.output_bytes));
            }
            Ended::Exited(0)
            | Ended::Stopped
            | Ended::Refused(..)
            | Ended::NoLauncher(_)
            | Ended::LauncherDied => return None,
            Ended::Exited(code) => code - 128,
            Ended::Signaled(signal) => signal,
        };
        let cpu = limits.cpu_seconds.saturating_mul(1_000_000);
        match signal {
            // The kernel counts by the tick here and exactly there, which differ by some tenths.
            SIGXCPU if self.report.cpu_us >= cpu / 2 => Some(Exceeded::Cpu(limits.cpu_seconds)),
            // What takes no notice of the first signal gets this one.
            SIGKILL if self.report.cpu_us >= cpu => Some(Exceeded::Cpu(limits.cpu_seconds)),
            SIGXFSZ => Some(Exceeded::FileSize(limits.file_size_bytes)),
            _ if self.is_out_of_memory(limits, output) => {
                Some(Exceeded::Memory(limits.memory_bytes))
            }
            _ if self.events.refused_forks > 0 => Some(Exceeded::Processes(limits.processes)),
            _ => None,
        }
    }

    fn is_out_of_memory(&self, limits: &Limits, output: &Output) -> bool {
        if self.report.peak_memory_bytes >= limits.memory_bytes / 10 * 9 {
            return true;
        }
        let errors = output.of(Stream::Stderr);
        let last = &errors[errors.len().saturating_sub(WORDS_BYTES)..];
        let last = String::from_utf8_lossy(last).to_lowercase();
        LAST_WORDS.iter().any(|words| last.contains(words))
    }
}
