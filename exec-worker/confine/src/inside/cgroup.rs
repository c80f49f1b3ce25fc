//! Step 4: PID 1 joins its control group, by a descriptor that its caller has opened: the kernel asks for
//! the opener's rights, and PID 1 has none.

use std::os::fd::{OwnedFd, RawFd};

use nix::sys::stat::fstat;

use super::{CGROUP_FD, Failure, GROUPED, STATE_FD, close_from, inherited, receive_any};
use crate::error::Step;

/// What a launch consists of, where PID 1 was forked ahead of it: standard output and error, the control
/// socket, the specification, the file for the shell's state.
const LAUNCH: usize = 5;
/// The same, and the group to be in.
const GROUPED_LAUNCH: usize = LAUNCH + 1;

/// A launch, and whether PID 1 is in the group that came with it.
pub(super) struct Received {
    pub(super) launch: [OwnedFd; LAUNCH],
    pub(super) joined: Result<(), Failure>,
}

/// The group that a helper of its own was passed; closes everything else that a launch does not consist of.
pub(super) fn passed() -> Result<Option<OwnedFd>, Failure> {
    if !std::env::args_os().any(|argument| argument.as_encoded_bytes() == GROUPED.to_bytes()) {
        close_from(STATE_FD + 1)?;
        return Ok(None);
    }
    close_from(CGROUP_FD + 1)?;
    inherited(CGROUP_FD).map(Some)
}

/// Moves this process into the group, if there is one; what it forks from then on is born there.
pub(super) fn join(procs: Option<&OwnedFd>) -> Result<(), Failure> {
    let Some(procs) = procs else { return Ok(()) };
    match nix::unistd::write(procs, b"0") {
        Ok(_) => Ok(()),
        Err(e) => Err((Step::Cgroup, e.to_string())),
    }
}

/// A launch, in the group that came with it. As a rule that is the one that came ahead, and was joined while
/// nobody waited.
pub(super) fn receive_launch(socket: RawFd) -> Result<Option<Received>, Failure> {
    let mut ahead = None;
    while let Some(mut received) = receive_any(socket)? {
        let group = match received.len() {
            1 => {
                let group = received.pop();
                // What fails is tried again for the launch, and told there.
                ahead = group.filter(|group| join(Some(group)).is_ok());
                continue;
            }
            GROUPED_LAUNCH => received.pop(),
            _ => None,
        };
        if let Ok(launch) = received.try_into() {
            let joined = match (&ahead, &group) {
                (Some(ahead), Some(group)) if is_same(ahead, group) => Ok(()),
                _ => join(group.as_ref()),
            };
            return Ok(Some(Received { launch, joined }));
        }
    }
    Ok(None)
}

fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    let file = |fd| fstat(fd).map(|s| (s.st_dev, s.st_ino));
    matches!((file(one), file(other)), (Ok(one), Ok(other)) if one == other)
}
