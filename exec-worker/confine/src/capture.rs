//! Standard output and error, captured apart and yet in the order in which they were written.
//!
//! Two pipes alone lose that order: what is written within the time of a wake-up is found in both at
//! once. So each pipe begins with room for one packet (`O_DIRECT`, one page), and an inotify queue over
//! both tells in which order they were written; a second write to a full pipe waits until the first is
//! read. After [`ORDERED_PACKETS`] packets speed matters more: the pipes grow, and order is then kept as
//! far as reading in turn keeps it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{pipe2, read};

use crate::order::Order;

/// Where a piece of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Packets whose order is exact.
const ORDERED_PACKETS: usize = 64;
/// The largest packet of an `O_DIRECT` pipe, `PIPE_BUF`; a longer write is cut into such.
const PACKET: usize = 4096;
/// How long a write's event may take after its data.
const EVENT_PATIENCE: Duration = Duration::from_millis(2);
/// What a pipe holds once order is no longer exact.
const BULK_BYTES: i32 = 1 << 20;

/// Bytes in a pipe; `None` where it has ended.
fn bytes_waiting(pipe: &OwnedFd) -> nix::Result<Option<usize>> {
    let mut watched = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    poll(&mut watched, PollTimeout::ZERO)?;
    let ready = watched[0].revents().unwrap_or(PollFlags::empty());
    if !ready.contains(PollFlags::POLLIN) {
        return Ok((!ready.contains(PollFlags::POLLHUP)).then_some(0));
    }
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int.
    if unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &raw mut bytes) } < 0 {
        return Err(Errno::last());
    }
    Ok(Some(bytes.unsigned_abs() as usize))
}

/// Output as it was captured: the bytes that are kept, and of which stream each run of them is.
#[derive(Debug, Default, Clone)]
pub struct Output {
    /// Everything kept, in order.
    pub bytes: Vec<u8>,
    /// Runs of `bytes`: stream and length.
    pub runs: Vec<(Stream, usize)>,
    /// Bytes read, kept or not.
    pub total: u64,
    /// True where more was read than kept.
    pub truncated: bool,
}

impl Output {
    /// Keeps as much of `data` as `limit` leaves room for.
    fn push(&mut self, stream: Stream, data: &[u8], limit: usize) {
        self.total += data.len() as u64;
        let kept = data.len().min(limit.saturating_sub(self.bytes.len()));
        self.truncated |= kept < data.len();
        if kept == 0 {
            return;
        }
        self.bytes.extend_from_slice(&data[..kept]);
        match self.runs.last_mut() {
            Some((last, length)) if *last == stream => *length += kept,
            _ => self.runs.push((stream, kept)),
        }
    }

    /// The kept bytes of one stream.
    pub fn of(&self, wanted: Stream) -> Vec<u8> {
        let mut at = 0;
        let mut bytes = Vec::new();
        for &(stream, length) in &self.runs {
            if stream == wanted {
                bytes.extend_from_slice(&self.bytes[at..at + length]);
            }
            at += length;
        }
        bytes
    }
}

/// Opened again, as /dev/stdout, a pipe is a file of its maker, who may be another user than the shell.
fn open_to_all(pipe: &OwnedFd) -> nix::Result<()> {
    nix::sys::stat::fchmod(pipe, nix::sys::stat::Mode::from_bits_truncate(0o666))
}

struct Pipe {
    read_end: Option<OwnedFd>,
    /// A packet was read before its event came: that event is to be passed over.
    owed: bool,
}

/// The reading side of the two pipes.
pub(crate) struct Capture {
    pipes: [Pipe; 2],
    order: Option<Order>,
    packets: usize,
    /// Bytes to keep.
    pub(crate) limit: usize,
    buffer: Vec<u8>,
    pub(crate) output: Output,
}

impl Capture {
    /// Makes the pipes; returns the writing ends of standard output and error. Nothing is kept until there is a limit.
    pub(crate) fn new() -> io::Result<(Capture, OwnedFd, OwnedFd)> {
        let flags = OFlag::O_CLOEXEC | OFlag::O_DIRECT;
        let (out_read, out_write) = pipe2(flags)?;
        let (err_read, err_write) = pipe2(flags)?;
        open_to_all(&out_write)?;
        open_to_all(&err_write)?;
        for end in [&out_read, &err_read] {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        // Without it the order is that of reading in turn.
        let order = Order::watch([&out_read, &err_read]);
        if order.is_some() {
            for end in [&out_read, &err_read] {
                fcntl(end, FcntlArg::F_SETPIPE_SZ(PACKET as i32))?;
            }
        }
        let pipes = [out_read, err_read].map(|fd| Pipe {
            read_end: Some(fd),
            owed: false,
        });
        let capture = Capture {
            pipes,
            order,
            packets: 0,
            limit: 0,
            buffer: vec![0; 64 << 10],
            output: Output::default(),
        };
        Ok((capture, out_write, err_write))
    }

    /// What to wait on: each is readable when [`Capture::pump`] has something to do.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.pipes
            .iter()
            .filter_map(|p| p.read_end.as_ref())
            .map(AsFd::as_fd)
    }

    /// True once both pipes have ended.
    pub(crate) fn ended(&self) -> bool {
        self.pipes.iter().all(|p| p.read_end.is_none())
    }

    /// Reads what is there, without waiting.
    pub(crate) fn pump(&mut self) -> io::Result<()> {
        // Bounded, so that a flood does not keep the caller from its other duties.
        for _ in 0..256 {
            let mut progress = false;
            for index in self.take_events() {
                progress = true;
                self.follow(index)?;
            }
            if !progress {
                for index in 0..2 {
                    progress |= self.read_ahead(index)?;
                }
            }
            if !progress {
                break;
            }
        }
        Ok(())
    }

    fn take_events(&self) -> VecDeque<usize> {
        self.order.as_ref().map(Order::take).unwrap_or_default()
    }

    /// Reads the packet that an event is about.
    fn follow(&mut self, index: usize) -> io::Result<()> {
        if !std::mem::take(&mut self.pipes[index].owed)
            && let Some(n) = self.read_packet(index)?
        {
            self.keep(index, n);
        }
        Ok(())
    }

    /// Reads what has no event yet, and may never have one; false where there is nothing to do.
    ///
    /// A short packet's event is on its way, and to read the packet before it comes would lose the order:
    /// the event of the writer's next packet is dropped by the kernel where it is the same as the last in
    /// the queue. The packets of a long write are full, and their one event comes at its end.
    fn read_ahead(&mut self, index: usize) -> io::Result<bool> {
        let Some(fd) = &self.pipes[index].read_end else {
            return Ok(false);
        };
        if let Some(order) = &self.order {
            let waiting = bytes_waiting(fd)?;
            if waiting == Some(0) {
                return Ok(false);
            }
            let short = waiting.is_some_and(|n| n < PACKET);
            if short && order.wait(EVENT_PATIENCE) {
                return Ok(true);
            }
            if let Some(n) = self.read_packet(index)? {
                self.keep(index, n);
                self.pipes[index].owed = short && self.order.is_some();
                return Ok(true);
            }
            return Ok(false);
        }
        let read = self.read_packet(index)?;
        if let Some(n) = read {
            self.keep(index, n);
        }
        Ok(read.is_some())
    }

    /// Reads one packet (or, from a grown pipe, what one call gives) into the buffer.
    fn read_packet(&mut self, index: usize) -> io::Result<Option<usize>> {
        let Some(fd) = &self.pipes[index].read_end else {
            return Ok(None);
        };
        match read(fd, &mut self.buffer) {
            Ok(0) => {
                self.pipes[index].read_end = None;
                Ok(None)
            }
            Ok(n) => Ok(Some(n)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Keeps the first `n` bytes of the buffer as the next packet.
    fn keep(&mut self, index: usize, n: usize) {
        let stream = if index == 0 {
            Stream::Stdout
        } else {
            Stream::Stderr
        };
        self.output.push(stream, &self.buffer[..n], self.limit);
        self.packets += 1;
        if self.packets == ORDERED_PACKETS {
            self.grow();
        }
    }

    fn grow(&mut self) {
        self.order = None;
        for pipe in &mut self.pipes {
            pipe.owed = false;
            if let Some(fd) = &pipe.read_end {
                // Past the user's soft limit for pipes the kernel refuses; a small pipe is only slower.
                let _ = fcntl(fd, FcntlArg::F_SETPIPE_SZ(BULK_BYTES))
                    .or_else(|_| fcntl(fd, FcntlArg::F_SETPIPE_SZ(1 << 16)));
            }
        }
    }
}
