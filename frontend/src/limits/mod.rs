//! How much one user, or one address, may ask for.

mod streams;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::http::{HeaderValue, StatusCode, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Refusal;
pub use streams::{Counted, Streams};

/// A burst may be so many seconds' worth.
const BURST_SECONDS: f64 = 10.0;
/// Beyond so many, those that are full again are forgotten.
const MANY: usize = 4096;

/// Buckets that fill at a rate; a request takes one from its asker's.
#[derive(Debug)]
pub struct Limits {
    rate: f64,
    most_calls: usize,
    turns: Mutex<HashMap<String, Arc<Semaphore>>>,
    buckets: Mutex<HashMap<String, (f64, Instant)>>,
}

impl Limits {
    /// Requests a second, 0 for any number; calls at a time.
    pub fn new(rate: u32, most_calls: usize) -> Limits {
        Limits {
            rate: rate.into(),
            most_calls: most_calls.max(1),
            turns: Mutex::default(),
            buckets: Mutex::default(),
        }
    }

    /// Takes one from the bucket.
    ///
    /// # Errors
    /// 429 where it is empty.
    pub fn take(&self, key: &str) -> Result<(), Refusal> {
        self.take_at(key, Instant::now())
    }

    fn take_at(&self, key: &str, now: Instant) -> Result<(), Refusal> {
        if self.rate == 0.0 {
            return Ok(());
        }
        let full = self.rate * BURST_SECONDS;
        let filled = |(level, at): (f64, Instant)| {
            full.min(level + self.rate * now.saturating_duration_since(at).as_secs_f64())
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MANY {
            buckets.retain(|_, bucket| filled(*bucket) < full);
        }
        let level = buckets.get(key).map_or(full, |bucket| filled(*bucket));
        if level < 1.0 {
            let sentence =
                "There are more requests than this server takes from one user or address.";
            return Err(too_many(
                sentence,
                "Wait a second, and send fewer at a time.",
            ));
        }
        buckets.insert(key.into(), (level - 1.0, now));
        Ok(())
    }

    /// Looks whether there is one in the bucket.
    ///
    /// # Errors
    /// 429 where it is empty.
    pub fn check(&self, key: &str) -> Result<(), Refusal> {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        match buckets.get(key) {
            Some((level, at))
                if self.rate > 0.0 && level + self.rate * at.elapsed().as_secs_f64() < 1.0 =>
            {
                Err(exhausted())
            }
            _ => Ok(()),
        }
    }

    /// Waits for this asker's turn: calls that wait for long would else hold every connection.
    pub async fn turn(&self, key: &str) -> Option<OwnedSemaphorePermit> {
        let turns = {
            let mut all = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            if all.len() >= MANY {
                all.retain(|_, turns| Arc::strong_count(turns) > 1);
            }
            let new = || Arc::new(Semaphore::new(self.most_calls));
            all.entry(key.into()).or_insert_with(new).clone()
        };
        turns.acquire_owned().await.ok()
    }
}

fn exhausted() -> Refusal {
    let sentence = "There are more requests than this server takes from one user or address.";
    too_many(sentence, "Wait a second, and send fewer at a time.")
}

fn too_many(sentence: &str, hint: &str) -> Refusal {
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "PSW429", sentence)
        .hint(hint)
        .header(header::RETRY_AFTER, HeaderValue::from_static("1"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_then_the_rate() {
        let limits = Limits::new(2, 1);
        let start = Instant::now();
        let passed =
            |n: usize, at: Instant| (0..n).filter(|_| limits.take_at("a", at).is_ok()).count();
        assert_eq!(passed(30, start), 20);
        assert_eq!(passed(30, start + Duration::from_secs(1)), 2);
        assert!(limits.take_at("b", start).is_ok());
        assert!(Limits::new(0, 1).take("a").is_ok());
    }

    #[test]
    fn one_user_waits_and_others_do_not() {
        use futures_util::FutureExt;
        let limits = Limits::new(1, 1);
        let first = limits.turn("a").now_or_never();
        assert!(first.is_some());
        assert!(limits.turn("a").now_or_never().is_none());
        assert!(limits.turn("b").now_or_never().is_some());
        drop(first);
        assert!(limits.turn("a").now_or_never().is_some());
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let limits = Limits::new(10, 1);
        let start = Instant::now();
        for n in 0..MANY {
            limits.take_at(&n.to_string(), start).unwrap();
        }
        limits
            .take_at("last", start + Duration::from_secs(60))
            .unwrap();
        assert_eq!(limits.buckets.lock().unwrap().len(), 1);
    }
}
