//! How much to claim ahead, and when to write back: the two rules that keep the queue cheap.
//!
//! A commit costs as much for one command as for thirty. So while there is other work at hand, results
//! wait for company some milliseconds, and while commands are short, some are claimed ahead of a free
//! slot. Alone, a command is claimed and written back at once.

use std::time::{Duration, Instant};

/// Claimed ahead, at most.
const MOST_AHEAD: usize = 32;
/// Commands are claimed ahead for about so long.
const AHEAD: Duration = Duration::from_millis(100);
/// A result waits for company so long, and only while others run.
const COMPANY: Duration = Duration::from_millis(25);
/// Results that are company enough.
const COMPANY_ENOUGH: usize = 24;
/// A command that was claimed ahead and still waits after this goes back, for another worker to take.
pub const TOO_LONG_AHEAD: Duration = Duration::from_millis(500);

/// The worker's pace, as far as it matters for batching.
#[derive(Debug)]
pub struct Pace {
    slots: usize,
    /// Moving average of a command's time; unknown at first.
    average: Option<Duration>,
    first_waiting: Option<Instant>,
}

impl Pace {
    /// A worker with this many slots that has run nothing yet.
    pub fn new(slots: usize) -> Pace {
        Pace {
            slots,
            average: None,
            first_waiting: None,
        }
    }

    /// A command took this long.
    pub fn ran(&mut self, took: Duration) {
        self.average = Some(
            self.average
                .map_or(took, |average| (average * 7 + took) / 8),
        );
        self.first_waiting.get_or_insert_with(Instant::now);
    }

    /// Results have been sent: all of them, or all that fit.
    pub fn sent(&mut self, all: bool) {
        if all {
            self.first_waiting = None;
        }
    }

    /// Commands to hold, running and ahead together.
    pub fn capacity(&self) -> usize {
        let ahead = self.average.map_or(0.0, |average| {
            AHEAD.as_secs_f64() / average.as_secs_f64().max(1e-6) * self.slots as f64
        });
        self.slots + (ahead as usize).min(MOST_AHEAD)
    }

    /// True where `results` shall be sent now, although `ready` other commands are at hand.
    pub fn due(&self, results: usize, ready: usize) -> bool {
        results > 0
            && (ready == 0
                || results >= COMPANY_ENOUGH
                || self
                    .first_waiting
                    .is_some_and(|since| since.elapsed() >= COMPANY))
    }

    /// When results that wait for company are due at the latest.
    pub fn due_at(&self) -> Option<Instant> {
        self.first_waiting.map(|since| since + COMPANY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_commands_are_not_claimed_ahead() {
        let mut pace = Pace::new(2);
        assert_eq!(pace.capacity(), 2);
        pace.ran(Duration::from_secs(5));
        assert_eq!(pace.capacity(), 2);
        for _ in 0..100 {
            pace.ran(Duration::from_millis(1));
        }
        assert_eq!(pace.capacity(), 34);
    }

    #[test]
    fn a_lone_result_does_not_wait() {
        let mut pace = Pace::new(2);
        pace.ran(Duration::from_millis(1));
        assert!(pace.due(1, 0));
        assert!(!pace.due(1, 5));
        assert!(pace.due(COMPANY_ENOUGH, 5));
        assert!(!pace.due(0, 0));
    }
}
