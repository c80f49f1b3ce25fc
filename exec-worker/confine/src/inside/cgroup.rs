//! PID 1 joins its control group, by a descriptor that its caller has opened: the kernel asks for
//! the opener's rights, and PID 1 has none.

use std::os::fd::{OwnedFd, RawFd};

use nix::sys::stat::fstat;

use super::{At, CGROUP_FD, Failure, GROUPED, STATE_FD, close_from, inherited, receive_any};
use crate::error::Step;

/// What a launch consists of, where PID 1 was forked ahead of it: standard output and error, the control
/// socket, the specification, the file for the shell's state.
type Parts = [OwnedFd; PARTS];
const PARTS: usize = 5;
/// The same, and the group to be in.
const GROUPED_PARTS: usize = PARTS + 1;

/// A launch, and whether PID 1 is in the group that came with it.
pub(super) struct Received {
    pub(super) launch: Parts,
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
    let joined = procs.map_or(Ok(0), |procs| nix::unistd::write(procs, b"0"));
    joined.at(Step::Cgroup)?;
    Ok(())
}

/// A launch, in the group that came with it. As a rule that is the one that came ahead, and was joined while
/// nobody waited.
pub(super) fn receive_launch(socket: RawFd) -> Result<Option<Received>, Failure> {
    let mut ahead = None;
    // What fails is tried again for the launch, and told there.
    let next = next_launch(socket, |group| {
        ahead = Some(group).filter(|group| join(Some(group)).is_ok());
    })?;
    let Some((launch, group)) = next else {
        return Ok(None);
    };
    let joined = match (&ahead, &group) {
        (Some(ahead), Some(group)) if is_same(ahead, group) => Ok(()),
        _ => join(group.as_ref()),
    };
    Ok(Some(Received { launch, joined }))
}

/// The next launch, and the group that came with it; what comes ahead of it is for `join_ahead`. `None` at
/// the end.
pub(super) fn next_launch(
    socket: RawFd,
    mut join_ahead: impl FnMut(OwnedFd),
) -> Result<Option<(Parts, Option<OwnedFd>)>, Failure> {
    while let Some(mut received) = receive_any(socket)? {
        let group = match received.len() {
            1 | GROUPED_PARTS => received.pop(),
            _ => None,
        };
        match (Parts::try_from(received), group) {
            (Ok(launch), group) => return Ok(Some((launch, group))),
            (Err(rest), Some(group)) if rest.is_empty() => join_ahead(group),
            _ => {}
        }
    }
    Ok(None)
}

fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    let file = |fd| fstat(fd).map(|s| (s.st_dev, s.st_ino));
    matches!((file(one), file(other)), (Ok(one), Ok(other)) if one == other)
}
