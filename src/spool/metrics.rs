//! What the spool counts. The committer and the inserters write, a few times per commit or insert;
//! the admin address and the workers' health check read.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::held::Held;
use super::ledger::{Events, Ledger, LedgerSnapshot};
use super::sealed::SealedSegment;
use crate::batch::{CommitRefusal, Position, SegmentNumber};

/// Upper bounds of the buckets of `commit_seconds`, in seconds.
pub const COMMIT_SECONDS: [f64; 13] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// The accounts and counters of one spool.
#[derive(Debug, Default)]
pub struct SpoolMetrics {
    ledger: Mutex<Ledger>,
    bytes: AtomicU64,
    durable: AtomicU64,
    heartbeat_ms: AtomicU64,
    refusal: AtomicU8,
    commit_buckets: [AtomicU64; COMMIT_SECONDS.len() + 1],
    commit_nanoseconds: AtomicU64,
    sealed: AtomicU64,
    /// Segments that need an operator.
    pub held: Held,
    newest: AtomicU64,
    keys: AtomicU64,
    /// When the oldest of as many keys as there may be came, Unix s; 0 while there may be more.
    keys_since: AtomicU64,
    damaged: AtomicU64,
}

impl SpoolMetrics {
    /// Every account at this moment (invariant 5).
    pub fn ledger(&self) -> LedgerSnapshot {
        self.accounts().snapshot()
    }

    /// Rows that are committed and not yet inserted.
    pub fn spooled_rows(&self) -> u64 {
        self.ledger().rows.spooled
    }

    /// Rejected lines that are committed and not yet in the quarantine table.
    pub fn spooled_rejected(&self) -> u64 {
        self.ledger().rejected.spooled
    }

    /// What the files of the spool occupy.
    pub fn spool_bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// The position up to which every frame is as durable as was asked for.
    pub fn durable_position(&self) -> Position {
        Position::new(self.durable.load(Relaxed))
    }

    /// When the oldest segment that waits was opened, Unix ms; 0 when none waits.
    pub fn oldest_unix_ms(&self) -> u64 {
        self.accounts().oldest_ms()
    }

    /// Files in `damaged/`: a person should look at them.
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Relaxed)
    }

    /// Sealed segments that are not inserted.
    pub fn outstanding(&self) -> u64 {
        self.sealed.load(Relaxed)
    }

    /// Sealed segments that the inserters have to do with before another one, whose columns are
    /// those of segment `from`. What is held alone, or is older than `from` and so of other columns,
    /// is no reason for younger events to wait. Where all are held (the table is gone), more
    /// segments would only be more files.
    pub(super) fn to_insert(&self, from: SegmentNumber) -> u64 {
        self.outstanding().saturating_sub(self.held.count_aside(from) as u64)
    }

    /// The newest segment's number; 0 before the first.
    pub fn newest(&self) -> SegmentNumber {
        SegmentNumber::new(self.newest.load(Relaxed))
    }

    /// True while a segment of this number is not inserted.
    pub fn is_waiting(&self, number: SegmentNumber) -> bool {
        self.accounts().has(number)
    }

    /// Request keys that are remembered, and since when, Unix s; 0 when as long as they may be.
    pub fn request_keys(&self) -> (u64, u64) {
        (self.keys.load(Relaxed), self.keys_since.load(Relaxed))
    }

    /// Unix milliseconds of the committer's last turn; 0 before its first.
    pub fn heartbeat_ms(&self) -> u64 {
        self.heartbeat_ms.load(Relaxed)
    }

    /// Why events would be refused now, if they would.
    pub fn refusal(&self) -> Option<CommitRefusal> {
        match self.refusal.load(Relaxed) {
            0 => None,
            1 => Some(CommitRefusal::SpoolFull),
            2 => Some(CommitRefusal::DiskFull),
            _ => Some(CommitRefusal::WriteFailed),
        }
    }

    /// Commits by duration, one bucket more than [`COMMIT_SECONDS`], and the sum in seconds.
    pub fn commits(&self) -> (Vec<u64>, f64) {
        let buckets = self.commit_buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        (buckets, self.commit_nanoseconds.load(Relaxed) as f64 / 1e9)
    }

    /// A start found a segment that waits for its insert.
    pub(super) fn found(&self, segment: &SealedSegment) {
        self.opened(segment.number(), segment.created_ms());
        let events = Events { rows: segment.rows_undecided(), rejected: segment.rejected() };
        self.accounts().recovered(segment.number(), events);
        self.sealed();
    }

    /// So many files are in `damaged/`.
    pub(super) fn found_damaged(&self, files: u64) {
        self.damaged.store(files, Relaxed);
    }

    /// A group was committed to a segment.
    pub(super) fn committed(&self, segment: SegmentNumber, events: Events, position: Position, took: Duration) {
        self.accounts().committed(segment, events);
        self.durable.store(position.get(), Relaxed);
        let seconds = took.as_secs_f64();
        let bucket = COMMIT_SECONDS.iter().take_while(|bound| seconds > **bound).count();
        if let Some(bucket) = self.commit_buckets.get(bucket) {
            bucket.fetch_add(1, Relaxed);
        }
        self.commit_nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    pub(super) fn keys(&self, count: u64, since: Option<u64>) {
        self.keys.store(count, Relaxed);
        self.keys_since.store(since.unwrap_or(0), Relaxed);
    }

    /// Rows or rejected lines of a segment are proven in their table.
    pub fn inserted(&self, segment: SegmentNumber, rows: u64, rejected: u64) {
        self.accounts().inserted(segment, Events { rows, rejected });
    }

    /// Rows of a segment that ClickHouse refuses are proven in the quarantine table.
    pub fn set_aside(&self, segment: SegmentNumber, rows: u64) {
        self.accounts().set_aside(segment, Events { rows, rejected: 0 });
    }

    /// What of a segment could not be read any more, and is kept in `damaged/`.
    pub(super) fn lost_to_damage(&self, segment: SegmentNumber, events: Events) {
        self.accounts().set_aside(segment, events);
    }

    pub(super) fn opened(&self, number: SegmentNumber, created_ms: u64) {
        self.accounts().open(number, created_ms);
        self.newest.fetch_max(number.get(), Relaxed);
    }

    pub(super) fn sealed(&self) {
        self.sealed.fetch_add(1, Relaxed);
    }

    pub(super) fn retired(&self, number: SegmentNumber) {
        self.sealed.fetch_sub(1, Relaxed);
        self.held.release(number);
        self.accounts().close(number);
    }

    pub(super) fn abandoned(&self, number: SegmentNumber) {
        self.accounts().close(number);
    }

    pub(super) fn occupy(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn release(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Relaxed);
    }

    pub(super) fn beat(&self, unix_ms: u64) {
        self.heartbeat_ms.store(unix_ms, Relaxed);
    }

    pub(super) fn refuse(&self, refusal: Option<CommitRefusal>) {
        let code = match refusal {
            None => 0,
            Some(CommitRefusal::SpoolFull) => 1,
            Some(CommitRefusal::DiskFull) => 2,
            Some(CommitRefusal::WriteFailed) => 3,
        };
        self.refusal.store(code, Relaxed);
    }

    fn accounts(&self) -> MutexGuard<'_, Ledger> {
        // Sums are changed one after the other; a panic in between ends the process.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
