//! A launch that confines nothing but `:`, before any command needs one: a launcher that is not the helper,
//! or a host on which a step fails, shall be said at once and not by each command.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use confine::shell::{Shell, Start};
use confine::{Ended, HOME, Launcher, Limits, Running};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::Error;

/// The launch takes milliseconds; on a host that is overloaded it may take this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tries the launcher.
///
/// # Errors
/// [`Error::Trial`] where the launch does not end as it should.
pub fn trial(launcher: &Launcher, shell: Shell) -> Result<(), Error> {
    let start = Start {
        command: ":",
        cwd: HOME,
        env: &BTreeMap::new(),
        shell_state: "",
        programs: None,
        layers: None,
    };
    let spec = shell.prepare(&start, Limits::default())?;
    let running = Running::start(launcher, None, &spec)?;
    match wait(running)? {
        Some(Ended::Exited(0)) => Ok(()),
        Some(Ended::Refused(step, why)) => Err(Error::Trial {
            problem: format!("{step} failed: {why}"),
            hint: step.hint(),
        }),
        Some(Ended::NoLauncher(why)) => Err(Error::Trial {
            problem: why,
            hint: "Set --launcher to the path of pg-shell-launch.",
        }),
        Some(other) => Err(Error::Trial {
            problem: format!("it ended with {other:?}"),
            hint: "The log of the system may say who ended it.",
        }),
        None => Err(Error::Trial {
            problem: format!("it did not end within {} s", PATIENCE.as_secs()),
            hint: "Set --launcher to the path of pg-shell-launch.",
        }),
    }
}

fn wait(mut running: Running) -> Result<Option<Ended>, Error> {
    let lost = |source| Error::System {
        what: "watching the trial launch",
        source,
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(outcome) = running.pump().map_err(lost)? {
            return Ok(Some(outcome.report.ended));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let mut watched = [PollFd::new(running.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut watched, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(lost(e.into())),
        }
    }
}
