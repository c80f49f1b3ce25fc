//! What a worker holds: commands claimed and waiting for a slot, commands that run, results to write back.
//! It knows nothing of the database.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;
use tokio::task::{Id, JoinSet};
use tracing::{debug, error};

use crate::batch::Pace;
use crate::command::{Claimed, Finished, Lease};
use crate::execute::Executor;

/// A write-back carries no more than this at a time, unless one result alone is larger.
const BATCH_BYTES: usize = 8 << 20;

/// A command that has a slot.
struct Slot {
    lease: Lease,
    cancel: Arc<Notify>,
}

/// See the module.
pub struct Held {
    executor: Executor,
    slots: usize,
    ready: VecDeque<Claimed>,
    tasks: JoinSet<Finished>,
    running: HashMap<Id, Slot>,
    results: Vec<Finished>,
    /// Sent, and not yet known to be written.
    sending: Option<Arc<Vec<Finished>>>,
    pace: Pace,
}

impl Held {
    /// Nothing yet, with room to run `slots` at a time.
    pub fn new(executor: Executor, slots: usize) -> Held {
        Held {
            executor,
            slots,
            ready: VecDeque::new(),
            tasks: JoinSet::new(),
            running: HashMap::new(),
            results: Vec::new(),
            sending: None,
            pace: Pace::new(slots),
        }
    }

    /// Takes care of what may wait until results are on their way: what ended commands have left, and, where
    /// there is nothing else to do, what the next launch needs.
    pub fn tidy(&self) {
        self.executor.tidy();
        if self.running.is_empty() && self.ready.is_empty() {
            self.executor.prepare();
        }
    }

    /// See [`Executor::end_idle_sessions`].
    pub fn end_idle_sessions(&self) {
        self.executor.end_idle_sessions();
    }

    /// True where there is nothing left to do.
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty()
            && self.running.is_empty()
            && self.results.is_empty()
            && self.sending.is_none()
    }

    /// The ids of all that it holds.
    pub fn ids(&self) -> Vec<i64> {
        self.leases().map(|lease| lease.command_id).collect()
    }

    fn leases(&self) -> impl Iterator<Item = Lease> {
        let sending = self.sending.iter().flat_map(|batch| batch.iter());
        let results = sending.chain(&self.results).map(Finished::lease);
        let running = self.running.values().map(|slot| slot.lease);
        self.ready_leases().chain(running).chain(results)
    }

    fn ready_leases(&self) -> impl Iterator<Item = Lease> {
        self.ready.iter().map(|claimed| claimed.lease)
    }

    /// Takes over what was claimed, and starts what has a slot.
    pub fn take(&mut self, mut claimed: Vec<Claimed>) {
        // A server that has crashed may have forgotten a claim, and give what runs already once more.
        let held: Vec<Lease> = self.leases().collect();
        claimed.retain(|c| !held.contains(&c.lease));
        self.ready.extend(claimed);
        self.tidy();
        self.fill_slots();
    }

    fn fill_slots(&mut self) {
        while self.running.len() < self.slots {
            let Some(claimed) = self.ready.pop_front() else {
                return;
            };
            let (lease, cancel) = (claimed.lease, Arc::new(Notify::new()));
            let task = self
                .tasks
                .spawn(self.executor.clone().run(claimed, cancel.clone()));
            self.running.insert(task.id(), Slot { lease, cancel });
        }
    }

    /// Waits until a command has ended, and fills its slot; for ever where none runs.
    pub async fn next_end(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(ended) => self.collect(ended),
            None => std::future::pending().await,
        }
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.collect(ended);
        }
        self.fill_slots();
    }

    fn collect(&mut self, ended: Result<(Id, Finished), tokio::task::JoinError>) {
        let finished = match ended {
            Ok((id, finished)) => {
                self.running.remove(&id);
                finished
            }
            // A bug of ours must not leave its row running for ever.
            Err(e) => {
                error!(error = %e, "a command's task ended without a result");
                let Some(slot) = self.running.remove(&e.id()) else {
                    return;
                };
                Finished::refused(slot.lease, "The worker failed while it ran the command.")
            }
        };
        debug!(command = finished.lease().command_id, took = ?finished.duration(), "ran");
        self.push(finished);
    }

    fn push(&mut self, finished: Finished) {
        self.pace.ran(finished.duration());
        self.results.push(finished);
    }

    /// Ends a command that runs, or drops it before it begins; one that it does not hold is no concern.
    pub fn cancel(&mut self, command_id: i64) {
        if let Some(slot) = self
            .running
            .values()
            .find(|slot| slot.lease.command_id == command_id)
        {
            slot.cancel.notify_one();
        }
        let at = self
            .ready_leases()
            .position(|lease| lease.command_id == command_id);
        if let Some(claimed) = at.and_then(|at| self.ready.remove(at)) {
            self.push(Finished::cancelled(claimed.lease));
        }
    }

    /// How many more commands it can hold.
    pub fn room(&self) -> usize {
        self.pace
            .capacity()
            .saturating_sub(self.running.len() + self.ready.len())
    }

    /// True where a slot is free, or will be before an answer comes.
    pub fn is_starving(&self) -> bool {
        self.running.len() < self.slots || self.ready.len() < self.slots
    }

    /// True where results shall be sent now.
    pub fn is_due(&self) -> bool {
        self.pace.due(self.results.len(), self.ready.len())
    }

    /// When results that wait for company are due.
    pub fn due_at(&self) -> Option<Instant> {
        self.pace.due_at().filter(|_| !self.results.is_empty())
    }

    /// When what was claimed ahead has waited too long.
    pub fn stale_at(&self) -> Option<Instant> {
        self.ready
            .front()
            .map(|claimed| claimed.claimed_at + crate::batch::TOO_LONG_AHEAD)
    }

    /// Gives up what has not begun; returns its ids.
    pub fn drain_ready(&mut self) -> Vec<i64> {
        self.ready
            .drain(..)
            .map(|claimed| claimed.lease.command_id)
            .collect()
    }

    /// The next results to send. They are kept until [`Held::sent`] or [`Held::unsent`].
    pub fn send(&mut self) -> Arc<Vec<Finished>> {
        debug_assert!(self.sending.is_none(), "one call at a time");
        let mut bytes = 0;
        let fitting = self.results.iter().take_while(|finished| {
            bytes += finished.size();
            bytes <= BATCH_BYTES
        });
        let count = fitting.count().max(1).min(self.results.len());
        let mut batch: Vec<Finished> = self.results.drain(..count).collect();
        batch.iter_mut().for_each(Finished::stamp);
        self.pace.sent(self.results.is_empty());
        let batch = Arc::new(batch);
        self.sending = Some(batch.clone());
        batch
    }

    /// The results that were sent are written.
    pub fn sent(&mut self) {
        self.sending = None;
    }

    /// They may not be, and the call that carried them has ended: they go back to the front. To write them twice is
    /// harmless, for the first time ends their lease.
    pub fn unsent(&mut self) {
        let Some(batch) = self.sending.take() else {
            return;
        };
        let Ok(mut results) = Arc::try_unwrap(batch) else {
            error!("results are lost: the call that carried them has not ended");
            return;
        };
        results.append(&mut self.results);
        self.results = results;
    }

    /// True where there is something to write back.
    pub fn has_results(&self) -> bool {
        !self.results.is_empty()
    }

    /// Takes the first result out, to be written another way.
    pub fn take_result(&mut self) -> Option<Finished> {
        let first = (!self.results.is_empty()).then(|| self.results.remove(0));
        self.pace.sent(self.results.is_empty());
        first
    }

    /// It was not written: it goes back to the front.
    pub fn put_back(&mut self, result: Finished) {
        self.results.insert(0, result);
    }

    /// Others have taken what it held: kills what runs and forgets everything.
    pub async fn abandon(&mut self) {
        self.tasks.shutdown().await;
        self.running.clear();
        self.ready.clear();
        self.results.clear();
        self.sending = None;
        self.pace.sent(true);
        self.tidy();
    }
}
