//! The counters of a worker. Each struct has one writer, so an addition is a load and a store without a
//! locked instruction. The reader of the metrics adds up the workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::api::Shed;
use crate::batch::TableIndex;
use crate::ndjson::{FieldCounts, LineCode, RejectedByCode};

/// Upper bounds of the buckets of the histogram `request_seconds`, in seconds.
pub const REQUEST_SECONDS: [f64; 14] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `more`. Called by the owning thread only.
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(more), Relaxed);
    }

    /// Replaces the value. Called by the owning thread only.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value. Called by any thread.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The number of replies by status code.
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

    /// The status codes that were sent, each with its number of replies.
    pub fn sent(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        (0u16..).zip(&self.0).map(|(status, counter)| (status, counter.get())).filter(|(_, count)| *count > 0)
    }
}

/// A number for each table.
#[derive(Debug)]
pub struct ByTable(Box<[Counter]>);

impl Default for ByTable {
    /// For one table.
    fn default() -> Self {
        Self::new(1)
    }
}

impl ByTable {
    /// For so many tables.
    fn new(tables: usize) -> Self {
        Self(std::iter::repeat_with(Counter::default).take(tables).collect())
    }

    /// The number of a table; 0 for one that is not there.
    pub fn get(&self, table: TableIndex) -> u64 {
        self.0.get(table.get()).map_or(0, Counter::get)
    }

    fn add(&self, table: TableIndex, more: u64) {
        if let Some(counter) = self.0.get(table.get()) {
            counter.add(more);
        }
    }
}

/// The counters of one worker.
#[derive(Debug, Default)]
pub struct WorkerMetrics {
    /// Replies by status code.
    pub replies: ByStatus,
    /// Received lines, accepted or rejected.
    pub received: Counter,
    /// Events of committed batches, duplicates included.
    pub accepted: Counter,
    /// The same for each table.
    pub accepted_by_table: ByTable,
    /// Rejected lines, by table.
    pub rejected_by_table: ByTable,
    /// Accepted events that had been stored before, by table.
    pub duplicates_by_table: ByTable,
    /// Accepted events that had been stored before (`--dedup-field`).
    pub duplicates: Counter,
    /// Repeated requests (`Idempotency-Key`).
    pub repeated: Counter,
    /// Rejected lines, by code. Lines of a repeated request are not counted again.
    pub rejected: [Counter; LineCode::ALL.len()],
    /// Shed requests, by reason.
    pub shed: [Counter; Shed::ALL.len()],
    /// Open connections.
    pub connections: Counter,
    /// Requests by their time from the end of the body to the outcome of the commit; the last bucket
    /// has no upper bound.
    pub request_buckets: [Counter; REQUEST_SECONDS.len() + 1],
    /// The sum of these times, in nanoseconds.
    pub request_nanoseconds: Counter,
    /// What is counted of fields, by table.
    pub fields: Vec<Arc<FieldCounts>>,
    /// When the event loop last ran its periodic work, in Unix milliseconds.
    pub heartbeat_ms: Counter,
}

impl WorkerMetrics {
    /// The counters of a worker with so many tables.
    pub fn of_tables(tables: usize) -> Self {
        let fields = std::iter::repeat_with(Arc::default).take(tables).collect();
        let by_table = || ByTable::new(tables);
        Self {
            accepted_by_table: by_table(),
            rejected_by_table: by_table(),
            duplicates_by_table: by_table(),
            fields,
            ..Self::default()
        }
    }

    /// Counts the events of a committed batch, and how many of them had been stored before.
    pub fn accept(&self, table: TableIndex, events: u64, duplicates: u64) {
        self.accepted.add(events);
        self.accepted_by_table.add(table, events);
        if duplicates > 0 {
            self.duplicates.add(duplicates);
            self.duplicates_by_table.add(table, duplicates);
        }
    }

    /// Counts `requests` requests that took `time` each.
    pub fn request_took(&self, time: Duration, requests: u64) {
        let seconds = time.as_secs_f64();
        let bucket = REQUEST_SECONDS.iter().take_while(|bound| seconds > **bound).count();
        if let Some(counter) = self.request_buckets.get(bucket) {
            counter.add(requests);
        }
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.request_nanoseconds.add(nanoseconds.saturating_mul(requests));
    }

    /// Counts rejected lines.
    pub fn reject(&self, table: TableIndex, by_code: &RejectedByCode) {
        let mut sum = 0;
        for (counter, count) in self.rejected.iter().zip(by_code) {
            counter.add(u64::from(*count));
            sum += u64::from(*count);
        }
        self.rejected_by_table.add(table, sum);
    }

    /// Counts shed requests.
    pub fn shed(&self, reason: Shed, requests: u64) {
        if let Some(counter) = self.shed.get(reason.index()) {
            counter.add(requests);
        }
    }
}
