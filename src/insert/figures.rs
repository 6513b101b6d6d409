//! What the inserters count. Several threads write, a few times a second.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::outcome::Class;

/// Upper bounds of the buckets of `insert_seconds`, in seconds.
pub const INSERT_SECONDS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Attempts by outcome.
#[derive(Debug, Default)]
pub struct ByOutcome {
    /// Proven.
    pub done: AtomicU64,
    /// Passing failures.
    pub retry: AtomicU64,
    /// Failures that need a person.
    pub hold: AtomicU64,
    /// Failures for which rows were, or will be, cut out.
    pub cut: AtomicU64,
}

impl ByOutcome {
    fn failed(&self, class: Class) {
        match class {
            Class::Retry => &self.retry,
            Class::Hold => &self.hold,
            Class::Cut => &self.cut,
        }
        .fetch_add(1, Relaxed);
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct InsertFigures {
    /// Attempts of inserts into the target table.
    pub rows: ByOutcome,
    /// Attempts of inserts into the quarantine table.
    pub quarantine: ByOutcome,
    /// Rows proven in the target table.
    pub inserted: AtomicU64,
    /// Lines proven in the quarantine table.
    pub quarantined: AtomicU64,
    /// Attempts by duration, and one bucket for the rest.
    pub buckets: [AtomicU64; INSERT_SECONDS.len() + 1],
    /// The sum of the durations in microseconds.
    pub microseconds: AtomicU64,
    held: Mutex<BTreeMap<u64, String>>,
    schema: Mutex<Option<String>>,
}

impl InsertFigures {
    /// Segments that need a person, by number, and why.
    pub fn held(&self) -> MutexGuard<'_, BTreeMap<u64, String>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the table as it is now can't be followed, if it can't.
    pub fn schema(&self) -> MutexGuard<'_, Option<String>> {
        self.schema.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an attempt that ended before anything was sent.
    pub fn not_begun(&self, quarantine: bool, class: Class) {
        if quarantine { &self.quarantine } else { &self.rows }.failed(class);
    }

    /// Counts an attempt of `rows` rows.
    pub fn attempted(&self, quarantine: bool, rows: u64, took: Duration, failed: Option<Class>) {
        let (by_outcome, proven) =
            if quarantine { (&self.quarantine, &self.quarantined) } else { (&self.rows, &self.inserted) };
        match failed {
            Some(class) => by_outcome.failed(class),
            None => {
                by_outcome.done.fetch_add(1, Relaxed);
                proven.fetch_add(rows, Relaxed);
            }
        }
        let seconds = took.as_secs_f64();
        let bucket = INSERT_SECONDS.iter().take_while(|bound| seconds > **bound).count();
        if let Some(counter) = self.buckets.get(bucket) {
            counter.fetch_add(1, Relaxed);
        }
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.fetch_add(microseconds, Relaxed);
    }
}
