//! Runs one command: starts it, watches it, and makes its result.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use confine::shell::{Shell, Start};
use confine::{Launcher, Output, Running, SomeLimits, Spec, Stop, Stream};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use std::os::fd::{AsFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::{Instant as TokioInstant, sleep_until};
use tracing::warn;

use crate::command::{Claimed, Finished, Lease, text};
use crate::home::{Begun, Files, Stored};

/// A command that runs longer shows its output as it comes: what one that ends at once prints is not written twice.
const MOMENT: Duration = Duration::from_millis(10);
/// How often it does: each time is a commit, of all that run together.
const CHUNK_INTERVAL: Duration = Duration::from_millis(25);
/// Past its deadline the launcher has this long to say so, before it is killed itself.
const BACKSTOP: Duration = Duration::from_secs(3);

/// So many sessions, of those whose files have changed last, are made ready for their next command.
const READY: usize = 16;
/// A session's confinement waits for so long for its next command.
const SESSION_PATIENCE: Duration = Duration::from_secs(60);

/// A piece of output of a command that still runs; `shell.append_output`'s shape.
#[derive(Debug, Serialize)]
pub struct Chunk {
    command_id: i64,
    attempt: i32,
    seq: i32,
    stream: &'static str,
    data: String,
}

/// A session whose files are another tree now, by the command that made it.
struct Changed {
    claimed: Claimed,
    tree: i64,
}

/// What running a command takes.
#[derive(Clone)]
pub struct Executor {
    launcher: Arc<Launcher>,
    shell: Shell,
    max_limits: SomeLimits,
    /// `None` at a level without mounts: home is the command's own then, and nothing of it is kept.
    files: Option<Arc<Files>>,
    chunks: mpsc::UnboundedSender<Chunk>,
    /// Since there was last nothing to do.
    changed: Arc<Mutex<Vec<Changed>>>,
    /// Ended, their results taken: what is left of them.
    spent: Arc<Mutex<Vec<Running>>>,
}

impl Executor {
    /// An executor that lets no command exceed `max_limits`, and sends live output to `chunks`.
    pub fn new(
        launcher: Arc<Launcher>,
        shell: Shell,
        max_limits: SomeLimits,
        files: Option<Arc<Files>>,
        chunks: mpsc::UnboundedSender<Chunk>,
    ) -> Executor {
        Executor {
            launcher,
            shell,
            max_limits,
            files,
            chunks,
            changed: Arc::default(),
            spent: Arc::default(),
        }
    }

    /// What neither a result nor the next launch shall wait for: cleans up after commands that have ended.
    pub fn tidy(&self) {
        let spent = std::mem::take(&mut *self.spent());
        spent.into_iter().for_each(reap_later);
    }

    /// Makes what the next launch needs ahead of it.
    pub fn prepare(&self) {
        self.launcher.prepare();
        let changed = std::mem::take(&mut *self.changed());
        if let Some(files) = self.files.clone()
            && !changed.is_empty()
        {
            let this = self.clone();
            spawn_blocking(move || {
                for changed in changed {
                    this.make_ready(&files, changed);
                }
            });
        }
    }

    /// Has all be ready for the next command of a session whose files have changed.
    fn make_ready(&self, files: &Files, Changed { claimed, tree }: Changed) {
        let Some(begun) = files.settle(tree) else {
            return;
        };
        if let Ok(spec) = self.specify(&claimed, Some(&begun)) {
            let session = claimed.session.as_u128();
            self.launcher.make_ready(session, &spec, begun.pin());
        }
    }

    fn note_changed(&self, new: Changed) {
        let mut changed = self.changed();
        changed.retain(|c| c.claimed.session != new.claimed.session);
        changed.push(new);
        if changed.len() > READY {
            changed.remove(0);
        }
    }

    fn changed(&self) -> MutexGuard<'_, Vec<Changed>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spent(&self) -> MutexGuard<'_, Vec<Running>> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what waits for a session that has been quiet.
    pub fn end_idle_sessions(&self) {
        self.launcher.end_kept(SESSION_PATIENCE);
        if let Some(files) = &self.files {
            files.end_idle();
        }
    }

    /// Runs a command to its end. Dropping the future kills it.
    pub async fn run(self, mut claimed: Claimed, cancel: Arc<Notify>) -> Finished {
        claimed.limits = claimed.limits.at_most(&self.max_limits);
        let not_run = |e: &dyn std::fmt::Display| {
            Finished::refused(claimed.lease, &format!("The command was not run: {e}."))
        };
        let begun = match &self.files {
            Some(files) => match files.begin(claimed.tree).await {
                Ok(begun) => Some(begun),
                Err(e) => return not_run(&format!("its session's files: {e}")),
            },
            None => None,
        };
        let began = Instant::now();
        let running = match self.start(&claimed, begun.as_ref()) {
            Ok(running) => running,
            Err(e) => return not_run(&e),
        };
        let (outcome, output, upper) = match self.watch(&claimed, running, &cancel).await {
            Ok(ended) => ended,
            Err(e) => {
                let why = format!("The command was lost sight of: {e}.");
                return Finished::refused(claimed.lease, &why);
            }
        };
        let home_changed = outcome.report.home_changed;
        let mut finished = Finished::new(&claimed, began, outcome, &output);
        if let (Some(files), Some(begun)) = (&self.files, &begun)
            && home_changed
            && finished.keeps_files()
            && let Some(tree) = keep_files(files, begun, upper, &mut finished).await
        {
            self.note_changed(Changed { claimed, tree });
        }
        finished
    }

    fn start(&self, claimed: &Claimed, begun: Option<&Begun>) -> Result<Running, confine::Error> {
        let spec = self.specify(claimed, begun)?;
        let session = Some(claimed.session.as_u128());
        Running::start(&self.launcher, session, &spec, begun.map(Begun::pin))
    }

    fn specify(&self, claimed: &Claimed, begun: Option<&Begun>) -> Result<Spec, confine::Error> {
        let layers = begun.map(Begun::layers);
        let start = Start {
            command: &claimed.command,
            cwd: &claimed.cwd,
            env: &claimed.env,
            shell_state: &claimed.shell_state,
            programs: claimed.programs.as_deref(),
            layers: layers.as_deref(),
        };
        self.shell.prepare(&start, claimed.limits.clone())
    }

    async fn watch(
        &self,
        claimed: &Claimed,
        running: Running,
        cancel: &Notify,
    ) -> std::io::Result<(confine::Outcome, Output, Option<OwnedFd>)> {
        // SAFETY: Running owns its epoll descriptor from start to drop, and never replaces it.
        let mut running = unsafe { AsyncFd::register_with_interest(running, Interest::READABLE) }?;
        let mut live = Live::new(claimed.lease);
        let started = TokioInstant::now();
        let mut backstop = started + claimed.limits.wall + BACKSTOP;
        let mut show_at = started + MOMENT;
        let mut shown = 0;
        loop {
            if let Some(outcome) = running.get_mut().pump()? {
                let output = running.get_mut().take_output();
                let upper = running.get_mut().take_upper();
                if shown > 0 {
                    live.show(&output, true, &self.chunks);
                }
                self.spent().push(running.into_inner());
                return Ok((outcome, output, upper));
            }
            // What pump left unread, for it is bounded, makes no new event.
            if is_readable(running.get_ref()) {
                tokio::task::yield_now().await;
                continue;
            }
            let unshown = running.get_ref().output().bytes.len() > shown;
            tokio::select! {
                guard = running.readable_mut() => guard?.clear_ready(),
                () = cancel.notified() => running.get_mut().stop(Stop::Cancelled),
                () = sleep_until(show_at), if unshown => {
                    live.show(running.get_ref().output(), false, &self.chunks);
                    shown = running.get_ref().output().bytes.len();
                    show_at = TokioInstant::now() + CHUNK_INTERVAL;
                }
                () = sleep_until(backstop) => {
                    running.get_mut().kill();
                    backstop += BACKSTOP;
                }
            }
        }
    }
}

/// Has a command's result say what became of its files; the tree that they are now, if they were kept.
async fn keep_files(
    files: &Files,
    begun: &Begun,
    upper: Option<OwnedFd>,
    finished: &mut Finished,
) -> Option<i64> {
    let Some(upper) = upper else {
        let why =
            "The command ran, but its files were not handed on; the session is as it was before.";
        finished.fail_files("refused", why.into());
        return None;
    };
    match files.keep(finished.lease(), begun, upper).await {
        Ok(Stored::AsBefore { not_kept }) => finished.left(None, not_kept),
        Ok(Stored::Tree { id, not_kept }) => {
            finished.left(Some(id), not_kept);
            return Some(id);
        }
        Ok(Stored::OverQuota(sentence)) => {
            let why = format!("{sentence} The session is as it was before.");
            finished.fail_files("limit", why);
        }
        Err(e) => {
            warn!(command = finished.lease().command_id, error = %e, "files cannot be kept");
            let why = format!(
                "The command ran, but its files could not be kept: {e}; the session is as it was before."
            );
            finished.fail_files("refused", why);
        }
    }
    None
}

fn is_readable(running: &Running) -> bool {
    let mut fds = [PollFd::new(running.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0)
}

/// The result is known a little before the launcher's process is gone; nobody needs to wait for that.
fn reap_later(mut running: Running) {
    if running.reap() {
        return;
    }
    tokio::spawn(async move {
        for pause in [1, 5, 50, 500] {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if running.reap() {
                return;
            }
        }
        // Dropped here: killed, and waited for.
    });
}

/// Turns output into numbered chunks, none of which cuts a character in two.
struct Live {
    lease: Lease,
    seq: i32,
    bytes: usize,
    run: usize,
    in_run: usize,
}

impl Live {
    fn new(lease: Lease) -> Live {
        Live {
            lease,
            seq: 0,
            bytes: 0,
            run: 0,
            in_run: 0,
        }
    }

    fn show(&mut self, output: &Output, all: bool, chunks: &mpsc::UnboundedSender<Chunk>) {
        while let Some(&(stream, length)) = output.runs.get(self.run) {
            let rest = &output.bytes[self.bytes..self.bytes + length - self.in_run];
            let last = self.run + 1 == output.runs.len();
            let take = if last && !all {
                whole_characters(rest)
            } else {
                rest.len()
            };
            if take > 0 {
                let stream = match stream {
                    Stream::Stdout => "stdout",
                    Stream::Stderr => "stderr",
                };
                let Lease {
                    command_id,
                    attempt,
                } = self.lease;
                // At the worker's end there is nobody left to show it to.
                let _ = chunks.send(Chunk {
                    command_id,
                    attempt,
                    seq: self.seq,
                    stream,
                    data: text(&rest[..take]).0,
                });
                self.seq += 1;
                self.bytes += take;
                self.in_run += take;
            }
            if last {
                break;
            }
            self.run += 1;
            self.in_run = 0;
        }
    }
}

/// How many bytes may be shown without cutting a character whose rest is still to come.
fn whole_characters(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let wants = match bytes[bytes.len() - back] {
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xff => 4,
            _ => 1,
        };
        return if wants > back {
            bytes.len() - back
        } else {
            bytes.len()
        };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::whole_characters;

    #[test]
    fn no_character_is_cut() {
        let text = "aü😀€z".as_bytes();
        for end in 0..=text.len() {
            let whole = whole_characters(&text[..end]);
            assert!(
                std::str::from_utf8(&text[..whole]).is_ok() && end - whole < 4,
                "{end}"
            );
        }
        assert_eq!(whole_characters(b"\x9f\x98\x80"), 3);
    }
}
