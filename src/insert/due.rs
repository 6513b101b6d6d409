//! The segments that wait for an insert: the oldest due first.
//!
//! The committer puts sealed segments into a lock-free queue and never waits; the inserters move
//! them into a set ordered by time. No inserter sleeps on a segment: one that must wait goes back
//! with the time when it is due, and the inserter takes another.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError};

use crate::spool::SealedSegment;

/// A segment on its way to ClickHouse.
pub struct Work {
    /// The segment.
    pub segment: SealedSegment,
    /// Attempts that this process has made.
    pub attempts: u32,
    /// ClickHouse has proven all of it; what is left is to take its file away.
    pub proven: bool,
    /// What a person said about it.
    pub orders: Orders,
    /// It is what was readable of a damaged one: whoever waits for that may wait for what is lost.
    pub salvaged: bool,
    /// The rows were missing after a repeat's success, once so far.
    pub absent: bool,
    /// Since when it needs a person, and when that was last said in the log.
    pub held: Option<(Instant, Instant)>,
}

/// What a person orders for a segment that is held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Orders {
    /// Send it though ClickHouse may have it and may not know its token any more.
    pub force: bool,
    /// Let ClickHouse convert the segment's columns into what the table has now.
    pub convert: bool,
}

impl Work {
    fn new(segment: SealedSegment) -> Self {
        let orders = Orders { force: segment.is_forced(), ..Orders::default() };
        Self { segment, attempts: 0, proven: false, orders, salvaged: false, absent: false, held: None }
    }
}

struct Entry {
    due: Instant,
    work: Work,
}

impl Entry {
    fn key(&self) -> Reverse<(Instant, u64)> {
        Reverse((self.due, self.work.segment.number()))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key().cmp(&other.key())
    }
}

/// See the module.
pub struct Due {
    sealed: Receiver<SealedSegment>,
    timed: Mutex<BinaryHeap<Entry>>,
    deadline: OnceLock<Instant>,
}

/// The longest that an inserter waits without looking at the deadline of a stop.
const LOOK: Duration = Duration::from_millis(100);

impl Due {
    /// Takes segments from `sealed` until its sender, the committer, has ended.
    pub fn new(sealed: Receiver<SealedSegment>) -> Self {
        Self { sealed, timed: Mutex::default(), deadline: OnceLock::new() }
    }

    /// The next segment whose time has come, waiting for it. `None` when the committer has ended
    /// and nothing is left, or when the deadline of a stop has passed.
    pub fn next(&self) -> Option<Work> {
        loop {
            let now = Instant::now();
            if self.deadline.get().is_some_and(|deadline| *deadline <= now) {
                return None;
            }
            let (soonest, is_empty) = {
                let mut timed = self.timed();
                while let Ok(segment) = self.sealed.try_recv() {
                    timed.push(Entry { due: now, work: Work::new(segment) });
                }
                if timed.peek().is_some_and(|entry| entry.due <= now) {
                    return timed.pop().map(|entry| entry.work);
                }
                (timed.peek().map(|entry| entry.due), timed.is_empty())
            };
            let wait = soonest.map_or(LOOK, |due| due.saturating_duration_since(now).min(LOOK));
            match self.sealed.recv_timeout(wait) {
                Ok(segment) => {
                    self.timed().push(Entry { due: Instant::now(), work: Work::new(segment) });
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if is_empty => return None,
                // The channel no longer waits for us.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(wait),
            }
        }
    }

    /// Puts a segment back, due after `delay`.
    pub fn later(&self, work: Work, delay: Duration) {
        self.timed().push(Entry { due: Instant::now() + delay, work });
    }

    /// Makes segments due now, with a person's orders: one, or all. Returns how many.
    pub fn requeue(&self, number: Option<u64>, orders: Orders) -> usize {
        let mut timed = self.timed();
        let mut count = 0;
        let entries = std::mem::take(&mut *timed).into_iter().map(|mut entry| {
            if number.is_none_or(|number| number == entry.work.segment.number()) {
                entry.due = Instant::now();
                entry.work.orders = orders;
                count += 1;
            }
            entry
        });
        *timed = entries.collect();
        count
    }

    /// No segment is given out after `deadline`. The first call counts.
    pub fn end_at(&self, deadline: Instant) {
        let _ = self.deadline.set(deadline);
    }

    fn timed(&self) -> MutexGuard<'_, BinaryHeap<Entry>> {
        // Nothing in the guarded sections can leave the heap half-changed.
        self.timed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
