//! The main loop: one task that holds the commands, the connection and the slots.
//!
//! ```text
//!            notice, pulse                        slot free
//!  database ───────────────► claim ──► ready ──────────────► running ──► results ──► write-back
//!                              ▲                                                        │
//!                              └──────────────── one call, one commit ──────────────────┘
//! ```
//!
//! One call is under way at a time; what finishes meanwhile goes with the next.

use std::slice;
use std::sync::Arc;
use std::time::Duration;

use confine::shell::Shell;
use confine::{Launcher, Level};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};
use uuid::Uuid;

use crate::command::{Claimed, Finished};
use crate::config::Config;
use crate::db::{Db, Notice, Terms};
use crate::error::Error;
use crate::execute::{Chunk, Executor};
use crate::groups;
use crate::held::Held;
use crate::home::Files;
use crate::shutdown::{Shutdown, Stage};
use crate::trial::trial;

/// Pauses between attempts to reach the database.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a goodbye waits for a call under way. What that claims all the same, the next heartbeat of any worker releases.
const LAST_ANSWER: Duration = Duration::from_secs(1);
/// Between two rounds of upkeep, while there is nothing else to do.
const UPKEEP_PAUSE: Duration = Duration::from_secs(1);

/// A worker, from its first connection to its goodbye.
pub struct Worker {
    config: Config,
    terms: Terms,
    held: Held,
    /// What the connection says, each its own: the last word of one is nothing to the next.
    notices: mpsc::UnboundedReceiver<Notice>,
    chunks: mpsc::UnboundedReceiver<Chunk>,
    files: Option<Arc<Files>>,
    id: Option<i64>,
    /// The user who was served last; the next claim begins after.
    turn: Option<Uuid>,
    /// More may wait than was claimed last.
    hungry: bool,
    /// Commands that the call under way asks for.
    asked: usize,
    pulse_at: Instant,
}

/// A call of `shell.work` under way: a task of its own, for its rows must be taken from the connection
/// while the worker waits for another call's answer, which comes behind them. Dropped, it is aborted.
type Call = AbortOnDropHandle<Result<Vec<Claimed>, Error>>;

/// Why the inner loop ended.
enum Left {
    Stopped,
    ConnectionLost,
    GivenUp,
}

impl Worker {
    /// A worker that has not connected yet.
    ///
    /// # Errors
    /// What [`Config`] refuses; a host without a shell, or on which commands cannot be confined.
    pub fn new(config: Config) -> Result<Worker, Error> {
        config.check_user()?;
        let (level, path) = (config.confinement.level, config.confinement.launcher()?);
        let mut launcher =
            Launcher::at(level, path, &std::env::temp_dir())?.within(groups::find(&config.cgroup)?);
        let files = match level {
            Level::Strict => Some(Arc::new(Files::new(
                &config.files,
                &config.content,
                &config.database_url,
            )?)),
            Level::Basic => None,
        };
        if let Some(files) = &files {
            launcher = launcher.with_layers(&files.layers())?;
        }
        let shell = Shell::find()?;
        trial(&launcher, shell)?;
        let (chunk_sender, chunks) = mpsc::unbounded_channel();
        let slots = config.slots();
        let terms = Terms {
            grace: config.grace,
            lease: config.lease,
            max_attempts: i32::try_from(config.max_attempts.get()).unwrap_or(i32::MAX),
        };
        Ok(Worker {
            terms,
            held: Held::new(
                Executor::new(
                    Arc::new(launcher),
                    shell,
                    config.max_limits.clone(),
                    files.clone(),
                    chunk_sender,
                ),
                slots,
            ),
            notices: mpsc::unbounded_channel().1,
            chunks,
            files,
            id: None,
            turn: None,
            hungry: true,
            asked: 0,
            pulse_at: Instant::now(),
            config,
        })
    }

    /// Works until told to stop.
    ///
    /// # Errors
    /// Whatever another attempt cannot mend: a refused user, an unknown version, a missing right.
    pub async fn run(mut self, mut shutdown: Shutdown) -> Result<(), Error> {
        if let Some(files) = &self.files {
            tokio::select! {
                tried = files.try_out() => tried?,
                () = shutdown.reaches(Stage::Soft) => return Ok(()),
            }
        }
        let mut pause = FIRST_PAUSE;
        let mut connected_at = None;
        loop {
            let leave_at = if self.held.is_empty() {
                Stage::Soft
            } else {
                Stage::Hard
            };
            // What fails at once each time is not tried as fast as it fails.
            let soon = connected_at.is_some_and(|at: Instant| at.elapsed() < pause);
            let attempt = tokio::select! {
                attempt = async {
                    if soon {
                        sleep(pause).await;
                    }
                    self.connect().await
                } => attempt,
                () = shutdown.reaches(leave_at) => return Ok(()),
            };
            match attempt {
                Ok(db) => {
                    pause = if soon {
                        (pause * 2).min(LONGEST_PAUSE)
                    } else {
                        FIRST_PAUSE
                    };
                    connected_at = Some(Instant::now());
                    match self.serve(&Arc::new(db), &mut shutdown).await? {
                        Left::Stopped => return Ok(()),
                        Left::ConnectionLost => warn!("connection to the database lost"),
                        Left::GivenUp => self.give_up().await,
                    }
                }
                Err(e) if e.is_connection() => {
                    warn!(error = %e, again_in = ?pause, "cannot reach the database");
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = shutdown.reaches(leave_at) => return Ok(()),
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                Err(e) => return Err(e),
            }
        }
    }

    async fn connect(&mut self) -> Result<Db, Error> {
        let (notify, notices) = mpsc::unbounded_channel();
        self.notices = notices;
        let db = Db::connect(&self.config.database_url, notify).await?;
        if let Some(id) = self.id {
            if let Some(files) = &self.files {
                files.forget_trees();
            }
            let holding = self.held.ids();
            if db.resume(id, &holding, self.terms.max_attempts).await? {
                info!(worker = id, held = holding.len(), "connected again");
            } else {
                self.give_up().await;
            }
        }
        if self.id.is_none() {
            let name = format!("{}:{}", hostname(), std::process::id());
            let slots = self.config.slots();
            let id = db
                .register(&name, &os_user(), i32::try_from(slots).unwrap_or(i32::MAX))
                .await?;
            let level = self.config.confinement.level.name();
            info!(worker = id, name, concurrency = slots, level, "ready");
            self.id = Some(id);
            if let Some(files) = &self.files {
                files.serve(id);
            }
        }
        self.hungry = true;
        self.pulse_at = Instant::now();
        Ok(db)
    }

    /// Others have taken what it held; nothing it could still say counts.
    async fn give_up(&mut self) {
        warn!(worker = self.id, "given up for lost; starting anew");
        self.id = None;
        self.held.abandon().await;
    }

    /// Claims, runs and writes back until the connection ends or the worker shall stop.
    async fn serve(&mut self, db: &Arc<Db>, shutdown: &mut Shutdown) -> Result<Left, Error> {
        let id = self.id.expect("connect() has set it");
        let mut call = None;
        let left = self.serve_with(db, id, shutdown, &mut call).await;
        let claimed = match call {
            Some(call) if matches!(left, Ok(Left::Stopped)) => self.last_answer(call).await,
            Some(call) => {
                end(call).await;
                Vec::new()
            }
            None => Vec::new(),
        };
        self.held.unsent();
        match left {
            Ok(Left::Stopped) => match self.leave(db, id, claimed).await {
                // The connection went first; the database finds out by itself.
                Err(e) if e.is_connection() => Ok(Left::Stopped),
                left => left.map(|()| Left::Stopped),
            },
            Err(e) if e.is_passing() => {
                warn!(error = %e, "a call has failed");
                Ok(Left::ConnectionLost)
            }
            left => left,
        }
    }

    async fn serve_with(
        &mut self,
        db: &Arc<Db>,
        id: i64,
        shutdown: &mut Shutdown,
        call: &mut Option<Call>,
    ) -> Result<Left, Error> {
        loop {
            let stage = shutdown.stage();
            if stage == Stage::Hard || (stage == Stage::Soft && self.held.is_empty()) {
                return Ok(Left::Stopped);
            }
            if stage == Stage::Soft {
                self.put_back(db, id).await?;
            }
            if call.is_none() {
                *call = self.next_call(db, id, stage);
            }
            let stale_at = self.held.stale_at().map(Instant::from_std);
            let due_at = self
                .held
                .due_at()
                .filter(|_| call.is_none())
                .map(Instant::from_std);
            tokio::select! {
                biased;
                () = shutdown.changes() => {}
                Some(notice) = self.notices.recv() => match notice {
                    Notice::Submitted => self.hungry = true,
                    Notice::Cancel(command) => self.held.cancel(command),
                    Notice::Closed => return Ok(Left::ConnectionLost),
                },
                answer = answer(call), if call.is_some() => {
                    *call = None;
                    self.take_answer(db, id, answer).await?;
                }
                () = self.held.next_end() => {}
                Some(first) = self.chunks.recv() => self.show(db, id, first).await?,
                () = at(due_at) => {}
                () = at(stale_at) => self.put_back(db, id).await?,
                () = sleep_until(self.pulse_at) => {
                    if !self.pulse(db, id).await? {
                        return Ok(Left::GivenUp);
                    }
                }
            }
        }
    }

    /// Writes back what is due and claims what there is room for, in one call.
    fn next_call(&mut self, db: &Arc<Db>, id: i64, stage: Stage) -> Option<Call> {
        let room = if stage == Stage::Work {
            self.held.room()
        } else {
            0
        };
        // To claim ahead of need is no reason for a call of its own.
        let claim = self.hungry && room > 0 && self.held.is_starving();
        if !claim && !self.held.is_due() {
            return None;
        }
        let results = self.held.send();
        // From here on only a notice, or as many commands as were asked for, say that more wait.
        self.hungry = false;
        self.asked = room;
        let (db, turn, want) = (
            db.clone(),
            self.turn,
            i32::try_from(room).unwrap_or(i32::MAX),
        );
        Some(AbortOnDropHandle::new(tokio::spawn(async move {
            db.work(id, &results, want, turn).await
        })))
    }

    async fn take_answer(
        &mut self,
        db: &Db,
        id: i64,
        answer: Result<Vec<Claimed>, Error>,
    ) -> Result<(), Error> {
        match answer {
            Ok(claimed) => {
                self.held.sent();
                if let Some(last) = claimed.last() {
                    self.turn = Some(last.user_id);
                }
                self.hungry |= claimed.len() == self.asked;
                self.held.take(claimed);
                Ok(())
            }
            Err(e) if e.is_connection() => Err(e),
            Err(e) => {
                self.held.unsent();
                // Alone, a claim that is refused would be refused again at once: it waits for a notice or a pulse.
                self.hungry = self.held.has_results();
                let what = if self.hungry { "write-back" } else { "claim" };
                warn!(error = %e, "a {what} was refused");
                self.write_one_by_one(db, id).await
            }
        }
    }

    /// One row that the database refuses must not hold up the others, nor its own session.
    async fn write_one_by_one(&mut self, db: &Db, id: i64) -> Result<(), Error> {
        while let Some(finished) = self.held.take_result() {
            if let Err(e) = self.write(db, id, &finished).await {
                self.held.put_back(finished);
                return Err(e);
            }
        }
        Ok(())
    }

    /// Writes a result; if it is refused, that.
    async fn write(&self, db: &Db, id: i64, finished: &Finished) -> Result<(), Error> {
        let Err(e) = db.work(id, slice::from_ref(finished), 0, self.turn).await else {
            return Ok(());
        };
        if e.is_connection() {
            return Err(e);
        }
        let lease = finished.lease();
        warn!(command = lease.command_id, error = %e, "a result cannot be written");
        let why = format!("The result could not be written: {e}.");
        let refused = Finished::refused(lease, &why);
        db.work(id, slice::from_ref(&refused), 0, self.turn).await?;
        Ok(())
    }

    /// Shows live output, as much as there is.
    async fn show(&mut self, db: &Db, id: i64, first: Chunk) -> Result<(), Error> {
        let mut chunks = vec![first];
        while let Ok(chunk) = self.chunks.try_recv() {
            chunks.push(chunk);
        }
        db.append(id, &chunks).await
    }

    /// Puts what has not begun back into the queue.
    async fn put_back(&mut self, db: &Db, id: i64) -> Result<(), Error> {
        let ids = self.held.drain_ready();
        if ids.is_empty() {
            Ok(())
        } else {
            db.release(id, &ids).await
        }
    }

    /// The slow poll; false where this worker no longer counts as alive.
    async fn pulse(&mut self, db: &Db, id: i64) -> Result<bool, Error> {
        self.held.end_idle_sessions();
        let pulse = db.heartbeat(id, self.terms).await?;
        if pulse.rescued > 0 {
            info!(commands = pulse.rescued, "rescued from lost workers");
        }
        for command in pulse.cancelled {
            self.held.cancel(command);
        }
        self.hungry |= pulse.waiting;
        if let Some(files) = self.files.as_ref().filter(|_| pulse.objects_left) {
            files.remove_objects();
        }
        let next = if pulse.lost {
            self.terms.grace
        } else if pulse.upkeep_left && self.held.is_empty() {
            UPKEEP_PAUSE.min(self.terms.lease / 3)
        } else {
            self.terms.lease / 3
        };
        self.pulse_at = Instant::now() + next;
        Ok(pulse.alive)
    }

    /// Waits for a call under way, before a goodbye: the ids of what it has claimed, which nobody else knows of.
    async fn last_answer(&mut self, mut call: Call) -> Vec<i64> {
        match timeout(LAST_ANSWER, &mut call).await {
            Ok(Ok(Ok(claimed))) => {
                self.held.sent();
                claimed.iter().map(|c| c.lease.command_id).collect()
            }
            Ok(_) => Vec::new(),
            Err(_) => {
                end(call).await;
                Vec::new()
            }
        }
    }

    /// Goodbye: nothing is held any more when this returns.
    async fn leave(&mut self, db: &Db, id: i64, claimed: Vec<i64>) -> Result<(), Error> {
        let mut held = self.held.ids();
        held.extend(claimed);
        // Kills what runs; its state has not been committed, so another worker may begin it again.
        self.held.abandon().await;
        if !held.is_empty() {
            db.release(id, &held).await?;
        }
        db.stop(id).await?;
        info!(worker = id, put_back = held.len(), "stopped");
        Ok(())
    }
}

async fn answer(call: &mut Option<Call>) -> Result<Vec<Claimed>, Error> {
    match call {
        Some(call) => match call.await {
            Ok(answer) => answer,
            Err(e) => std::panic::resume_unwind(e.into_panic()),
        },
        None => std::future::pending().await,
    }
}

/// Ends a call, which may have been carried out or not. What it carried is nobody else's when this returns.
async fn end(mut call: Call) {
    call.abort();
    let _ = (&mut call).await;
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

fn hostname() -> String {
    nix::unistd::gethostname().map_or_else(
        |_| "unknown".into(),
        |name| name.to_string_lossy().into_owned(),
    )
}

fn os_user() -> String {
    let uid = nix::unistd::Uid::effective();
    nix::unistd::User::from_uid(uid)
        .ok()
        .flatten()
        .map_or_else(|| uid.to_string(), |user| user.name)
}
