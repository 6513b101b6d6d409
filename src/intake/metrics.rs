//! What each worker counts. One writer a struct: an addition is a load and a store, no locked
//! instruction, and the reader (metrics) adds the workers up.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::api::Shed;
use crate::ndjson::{LineCode, RejectedByCode};

/// Upper bounds of the buckets of `request_seconds`, in seconds.
pub const REQUEST_SECONDS: [f64; 14] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning thread calls it.
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    /// Replaces; only the owning thread calls it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Reads, from any thread.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Replies by status.
#[derive(Debug)]
pub struct ByStatus([Counter; 600]);

impl Default for ByStatus {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl ByStatus {
    /// Counts a reply.
    pub fn count(&self, status: u16) {
        if let Some(counter) = self.0.get(usize::from(status)) {
            counter.add(1);
        }
    }

    /// The statuses that were sent, with how often.
    pub fn sent(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        (0u16..).zip(&self.0).map(|(status, counter)| (status, counter.get())).filter(|(_, count)| *count > 0)
    }
}

/// What one worker counts.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    /// Replies by status.
    pub replies: ByStatus,
    /// Lines that were events or should have been.
    pub received: Counter,
    /// Rows that a 200 promised.
    pub accepted: Counter,
    /// Events that were promised and had been stored before.
    pub duplicates: Counter,
    /// Requests whose key had come before.
    pub repeated: Counter,
    /// Refused lines, by code; those of a repeat are not refused again.
    pub rejected: [Counter; LineCode::ALL.len()],
    /// Shed requests, by reason.
    pub shed: [Counter; Shed::ALL.len()],
    /// Open connections.
    pub connections: Counter,
    /// Requests by time from the end of the body to the reply; one bucket more for the rest.
    pub request_buckets: [Counter; REQUEST_SECONDS.len() + 1],
    /// Sum of those times in nanoseconds.
    pub request_nanoseconds: Counter,
    /// Unix milliseconds of the loop's last turn.
    pub heartbeat_ms: Counter,
}

impl WorkerMetrics {
    /// Counts requests that were answered after the same time.
    pub fn request_took(&self, time: Duration, requests: u64) {
        let seconds = time.as_secs_f64();
        let bucket = REQUEST_SECONDS.iter().take_while(|bound| seconds > **bound).count();
        if let Some(counter) = self.request_buckets.get(bucket) {
            counter.add(requests);
        }
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.request_nanoseconds.add(nanoseconds.saturating_mul(requests));
    }

    /// Counts refused lines.
    pub fn reject(&self, by_code: &RejectedByCode) {
        for (counter, count) in self.rejected.iter().zip(by_code) {
            counter.add(u64::from(*count));
        }
    }

    /// Counts a shed request.
    pub fn shed(&self, reason: Shed, requests: u64) {
        if let Some(counter) = self.shed.get(reason.index()) {
            counter.add(requests);
        }
    }
}
