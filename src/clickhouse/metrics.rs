//! The counters of INSERT attempts. The inserters update them a few times a second.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Upper bounds of the buckets of `insert_seconds`, in seconds.
pub const INSERT_SECONDS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The counters of INSERT attempts into one table.
#[derive(Debug, Default)]
pub struct Attempts {
    done: AtomicU64,
    retry: AtomicU64,
    hold: AtomicU64,
    cut: AtomicU64,
    split: AtomicU64,
    rows: AtomicU64,
}

impl Attempts {
    /// Attempts by outcome, as the label of `inserts_total` names it.
    pub fn by_outcome(&self) -> [(&'static str, u64); 5] {
        [("done", &self.done), ("retry", &self.retry), ("hold", &self.hold), ("cut", &self.cut), ("split", &self.split)]
            .map(|(outcome, count)| (outcome, count.load(Relaxed)))
    }

    /// Number of rows that are proven in the table.
    pub fn rows(&self) -> u64 {
        self.rows.load(Relaxed)
    }

    fn failed(&self, outcome: &str) {
        match outcome {
            "retry" => &self.retry,
            "cut" => &self.cut,
            "split" => &self.split,
            _ => &self.hold,
        }
        .fetch_add(1, Relaxed);
    }
}

/// The segments whose INSERT fails and is retried, each with the time of the first failure and the last
/// reason.
#[derive(Debug, Default)]
pub struct Failing(Mutex<BTreeMap<u64, (Instant, String)>>);

/// Time of consecutive failures after which there is a warning.
const WORTH_A_WARNING: Duration = Duration::from_secs(60);

impl Failing {
    /// Notes that the INSERT of a segment failed.
    pub fn note(&self, segment: u64, reason: String) {
        let mut failing = self.lock();
        let since = failing.get(&segment).map_or_else(Instant::now, |(since, _)| *since);
        failing.insert(segment, (since, reason));
    }

    /// Notes that the INSERT of a segment no longer fails in this way.
    pub fn forget(&self, segment: u64) {
        self.lock().remove(&segment);
    }

    /// One sentence about the segments that have failed for longer than [`WORTH_A_WARNING`]; `None` if
    /// there are none.
    pub fn warning(&self) -> Option<String> {
        let failing = self.lock();
        let long = || failing.iter().filter(|(_, (since, _))| since.elapsed() >= WORTH_A_WARNING);
        let (segment, (since, reason)) = long().next()?;
        let seconds = since.elapsed().as_secs();
        let more = match long().count() {
            1 => String::new(),
            count => format!(", and {} more segments", count - 1),
        };
        Some(format!("the INSERT of segment {segment} has failed for {seconds} s{more}; it is retried: {reason}"))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, (Instant, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The counters of all inserters.
#[derive(Debug, Default)]
pub struct InsertMetrics {
    /// INSERTs into the target table.
    pub table: Attempts,
    /// INSERTs into the quarantine table.
    pub quarantine: Attempts,
    buckets: [AtomicU64; INSERT_SECONDS.len() + 1],
    microseconds: AtomicU64,
    table_problem: Mutex<Option<String>>,
    /// The segments whose INSERT fails and is retried.
    pub failing: Failing,
}

impl InsertMetrics {
    /// The reason why new events are still encoded for the old columns of a table that has changed;
    /// `None` if they are not.
    pub fn table_problem(&self) -> MutexGuard<'_, Option<String>> {
        self.table_problem.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of attempts in each bucket of [`INSERT_SECONDS`] and in one more for longer ones,
    /// and the sum of their durations in seconds.
    pub fn durations(&self) -> (Vec<u64>, f64) {
        let buckets = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        (buckets, self.microseconds.load(Relaxed) as f64 / 1e6)
    }

    /// Counts a proven INSERT of `rows` rows.
    pub fn proven(&self, quarantine: bool, rows: u64) {
        let attempts = self.of(quarantine);
        attempts.done.fetch_add(1, Relaxed);
        attempts.rows.fetch_add(rows, Relaxed);
    }

    /// Counts a failed attempt by what follows from it: `retry`, `hold`, `cut` or `split`.
    pub fn failed(&self, quarantine: bool, outcome: &str) {
        self.of(quarantine).failed(outcome);
    }

    /// Counts the duration of an attempt.
    pub fn took(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = INSERT_SECONDS.iter().take_while(|bound| seconds > **bound).count();
        if let Some(counter) = self.buckets.get(bucket) {
            counter.fetch_add(1, Relaxed);
        }
        self.microseconds.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    fn of(&self, quarantine: bool) -> &Attempts {
        if quarantine { &self.quarantine } else { &self.table }
    }
}
