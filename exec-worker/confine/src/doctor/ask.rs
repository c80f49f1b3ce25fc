//! Asking the helper.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::pipe2;

use super::{Found, Row, STEPS, rows};
use crate::error::{Context, Error};
use crate::helper::{Helper, argument};

/// It takes some tens of milliseconds; on a host that is overloaded it may take this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Has the helper at `launcher` try every step; private folders would be made below `temporary`.
///
/// # Errors
/// [`Error::Spawn`] where the helper cannot be started, [`Error::Probe`] where it does not answer.
pub fn examine(launcher: &Path, temporary: &Path) -> Result<Vec<Row>, Error> {
    let (answer, inside) =
        pipe2(OFlag::O_CLOEXEC).or_cannot("make a pipe for the launcher's answer")?;
    // Killed, with all its children, where it is given up.
    let _helper = probe(launcher, temporary, inside.as_fd())?;
    drop(inside);
    let text = read(File::from(answer)).ok_or_else(|| Error::Probe(launcher.into()))?;
    let found: Vec<Found> =
        serde_json::from_slice(&text).map_err(|_| Error::Probe(launcher.into()))?;
    if found.len() != STEPS.len() {
        return Err(Error::Probe(launcher.into()));
    }
    Ok(rows(&found))
}

/// Up to the end; `None` where that does not come.
fn read(mut answer: File) -> Option<Vec<u8>> {
    let deadline = Instant::now() + PATIENCE;
    let mut text = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(
            &mut [PollFd::new(answer.as_fd(), PollFlags::POLLIN)],
            timeout,
        ) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(Errno::EINTR) => continue,
            Err(_) => return None,
        }
        let mut part = [0; 4096];
        match answer.read(&mut part) {
            Ok(0) => return Some(text),
            Ok(n) => text.extend_from_slice(&part[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
}

/// A helper that writes what this host can do to `answer`. Private folders would be made below `temporary`.
fn probe(path: &Path, temporary: &Path, answer: BorrowedFd<'_>) -> Result<Helper, Error> {
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
        .or_cannot("open /dev/null")?;
    let temporary = argument(temporary)?;
    let arguments = [c"pg-shell-launch", c"probe", &temporary];
    Helper::spawn(path, &arguments, &[(answer, 1), (null.as_fd(), 2)])
}
