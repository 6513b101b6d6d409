//! The segments that wait for an insert: the oldest due first.
//!
//! The committer puts sealed segments into a lock-free queue and never waits; the inserters move
//! them into a set ordered by time. No inserter sleeps on a segment: one that must wait goes back
//! with the time when it is due, and the inserter takes another.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};

use super::step::Unrecorded;
use crate::batch::SegmentNumber;
use crate::handoff::Lifecycle;
use crate::spool::{Orders, SealedSegment};

/// A segment on its way to ClickHouse.
pub struct Work {
    /// The segment.
    pub segment: SealedSegment,
    /// Attempts that this process has made.
    pub attempts: u32,
    /// What is done of it and not noted on the disk.
    pub(super) progress: Unrecorded,
    /// What an operator ordered.
    pub orders: Orders,
    /// It is what was readable of a damaged one: whoever waits for that may wait for what is lost.
    pub salvaged: bool,
    /// The rows were missing after a repeat's success, once so far.
    pub absent: bool,
    /// ClickHouse's limit of partitions of one INSERT.
    pub(super) partitions: PartitionLimit,
}

/// The limit of partitions of one INSERT (`max_partitions_per_insert_block`). It guards against tables
/// of many partitions; the rows have to go into theirs all the same, and pieces would make more parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum PartitionLimit {
    /// As the server has it.
    #[default]
    AsConfigured,
    /// The INSERT asks for none.
    Lifted,
    /// The user may not lift it.
    Fixed,
}

impl Work {
    fn new(segment: SealedSegment) -> Self {
        let orders = Orders { force: segment.is_forced(), ..Orders::default() };
        Self {
            segment,
            attempts: 0,
            progress: Unrecorded::default(),
            orders,
            salvaged: false,
            absent: false,
            partitions: PartitionLimit::default(),
        }
    }
}

struct DueEntry {
    due: Instant,
    /// It needs an operator: no stop and no drain waits for it.
    is_held: bool,
    work: Work,
}

impl DueEntry {
    fn fresh(due: Instant, segment: SealedSegment) -> Self {
        Self { due, is_held: false, work: Work::new(segment) }
    }

    fn key(&self) -> Reverse<(Instant, SegmentNumber)> {
        Reverse((self.due, self.work.segment.number()))
    }
}

impl PartialEq for DueEntry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for DueEntry {}

impl PartialOrd for DueEntry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for DueEntry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// The set of segments that wait, by the time when each is due.
pub struct Due {
    sealed: Receiver<SealedSegment>,
    timed: Mutex<BinaryHeap<DueEntry>>,
    lifecycle: Arc<Lifecycle>,
}

/// The longest that an inserter waits without looking at the deadline of a stop.
const WAIT_MAX: Duration = Duration::from_millis(100);

impl Due {
    /// Takes segments from `sealed` until its sender, the committer, has ended, and gives none out
    /// after the deadline of a stop.
    pub fn new(sealed: Receiver<SealedSegment>, lifecycle: Arc<Lifecycle>) -> Self {
        Self { sealed, timed: Mutex::default(), lifecycle }
    }

    /// The next segment whose time has come, waiting for it. `None` when the committer has ended and
    /// nothing is left but what needs an operator, or when the deadline of a stop has passed.
    pub fn next(&self) -> Option<Work> {
        loop {
            let now = Instant::now();
            if self.lifecycle.deadline().is_some_and(|deadline| deadline <= now) {
                return None;
            }
            let (soonest, nothing_is_left) = {
                let mut timed = self.timed();
                while let Ok(segment) = self.sealed.try_recv() {
                    timed.push(DueEntry::fresh(now, segment));
                }
                if timed.peek().is_some_and(|entry| entry.due <= now) {
                    return timed.pop().map(|entry| entry.work);
                }
                (timed.peek().map(|entry| entry.due), timed.iter().all(|entry| entry.is_held))
            };
            let wait = soonest.map_or(WAIT_MAX, |due| due.saturating_duration_since(now).min(WAIT_MAX));
            match self.sealed.recv_timeout(wait) {
                Ok(segment) => {
                    self.timed().push(DueEntry::fresh(Instant::now(), segment));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if nothing_is_left => return None,
                // The channel no longer waits for us.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(wait),
            }
        }
    }

    /// The next segment whose time has come, if there is one.
    pub fn next_now(&self) -> Option<Work> {
        let now = Instant::now();
        let mut timed = self.timed();
        while let Ok(segment) = self.sealed.try_recv() {
            timed.push(DueEntry::fresh(now, segment));
        }
        timed.peek().is_some_and(|entry| entry.due <= now).then(|| timed.pop().map(|entry| entry.work)).flatten()
    }

    /// True once the server stops: no spare inserter begins anything then.
    pub fn has_ended(&self) -> bool {
        self.lifecycle.is_stopping()
    }

    /// Puts a segment back, due after `delay`.
    pub fn later(&self, work: Work, delay: Duration) {
        self.timed().push(DueEntry { due: Instant::now() + delay, is_held: false, work });
    }

    /// Puts a segment back that needs an operator, due after `delay`.
    pub fn hold(&self, work: Work, delay: Duration) {
        self.timed().push(DueEntry { due: Instant::now() + delay, is_held: true, work });
    }

    /// Makes segments due now, with an operator's orders: one, or all. Returns how many.
    pub fn requeue(&self, number: Option<SegmentNumber>, orders: Orders) -> usize {
        let mut timed = self.timed();
        let mut count = 0;
        let entries = std::mem::take(&mut *timed).into_iter().map(|mut entry| {
            if number.is_none_or(|number| number == entry.work.segment.number()) {
                (entry.due, entry.is_held) = (Instant::now(), false);
                entry.work.orders = orders;
                count += 1;
            }
            entry
        });
        *timed = entries.collect();
        count
    }

    fn timed(&self) -> MutexGuard<'_, BinaryHeap<DueEntry>> {
        // Nothing in the guarded sections can leave the heap half-changed.
        self.timed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
