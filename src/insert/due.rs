//! The blocks that wait for an insert: those that were never tried first, then the oldest due.
//!
//! Where there are several tables, a block of the table with the fewest INSERTs under way goes first, and no
//! table has so many of them that none is left for the others: one whose INSERTs hang, or take long, delays
//! no other.
//!
//! The committer puts sealed blocks into a lock-free queue and never waits; the inserters take them
//! from there. What was tried is in a set ordered by time. No inserter sleeps on a block: one that must wait goes back
//! with the time when it is due, and the inserter takes another.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, TryRecvError};

use super::step::Unrecorded;
use crate::batch::{BlockNumber, TableIndex};
use crate::handoff::Lifecycle;
use crate::spool::{Orders, SealedBlock};

/// A block that an inserter works on, with its state in this process.
pub struct Work {
    /// The block.
    pub block: SealedBlock,
    /// Number of attempts by this process.
    pub attempts: u32,
    /// Steps that are done and not noted on the disk.
    pub(super) progress: Unrecorded,
    /// The operator's orders.
    pub orders: Orders,
    /// The block is the salvaged copy of a damaged one. Replies that wait for the original are not
    /// released, because their events may be lost.
    pub salvaged: bool,
    /// A lookup after a successful repeat has found no rows, once so far.
    pub absent: bool,
    /// The limit of partitions that the INSERT uses.
    pub(super) partitions: PartitionLimit,
}

/// The limit of partitions per INSERT (`max_partitions_per_insert_block`).
///
/// An INSERT that exceeds the limit is sent without it. Pieces would go into the same partitions and only
/// make more parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum PartitionLimit {
    /// The limit of the server.
    #[default]
    AsConfigured,
    /// No limit.
    Lifted,
    /// The limit of the server, which this user may not lift.
    Fixed,
}

impl Work {
    fn new(block: SealedBlock) -> Self {
        let orders = Orders { force: block.is_forced(), ..Orders::default() };
        Self {
            block,
            attempts: 0,
            progress: Unrecorded::default(),
            orders,
            salvaged: false,
            absent: false,
            partitions: PartitionLimit::default(),
        }
    }
}

/// An entry of the heap, ordered by due time, then by block number.
struct DueEntry {
    due: Instant,
    /// The block is held, so a stop or a drain does not wait for it.
    is_held: bool,
    /// When it was put back.
    since: Instant,
    work: Work,
}

impl DueEntry {
    fn key(&self) -> Reverse<(Instant, BlockNumber)> {
        Reverse((self.due, self.work.block.number()))
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

/// The queue of blocks that wait for their insert.
pub struct Due {
    sealed: Receiver<SealedBlock>,
    waiting: Mutex<Waiting>,
    shares: Shares,
    lifecycle: Arc<Lifecycle>,
}

/// How the inserters are shared by the tables.
#[derive(Debug, Clone, Copy)]
pub struct Shares {
    /// How many inserters there are, and as many spare ones.
    pub inserters: usize,
    /// How many tables there are.
    pub tables: usize,
}

impl Shares {
    /// True if a table that has so many INSERTs under way may have another one, while all have so many: each has
    /// at most as many as there are inserters, and the last of the spare ones is for a table without any. `tables`
    /// have had some so far, those that are not configured any more too.
    fn permit(self, tables: usize, of_table: usize, of_all: usize) -> bool {
        let last = self.inserters.saturating_mul(2).saturating_sub(1);
        self.tables.max(tables) < 2 || of_table == 0 || of_table < self.inserters && of_all < last
    }
}

/// What no inserter has.
#[derive(Default)]
struct Waiting {
    /// Never tried, of each table in their order; no empty ones.
    fresh: BTreeMap<TableIndex, VecDeque<Work>>,
    /// Tried, and due at some time.
    timed: BinaryHeap<DueEntry>,
    /// How many of each table the inserters have; an entry for each that they have had one of.
    under_way: BTreeMap<TableIndex, usize>,
    /// Those that were given out.
    turn: u32,
    /// What waited at the beginning of a stop is due since.
    is_stopping: bool,
    /// The committer has ended, and all that it sealed is here.
    is_committed: bool,
    /// Blocks of each table that failed since the stop began, or since one got through.
    failed: BTreeMap<TableIndex, u32>,
}

impl Waiting {
    fn put_fresh(&mut self, block: SealedBlock) {
        self.fresh.entry(block.table()).or_default().push_back(Work::new(block));
    }

    /// Fresh ones first, so that however many wait again and again, none of these waits for them; but
    /// one in a few is another that is due, so that no stream of fresh ones makes it wait for ever.
    fn take(&mut self, now: Instant, shares: Shares) -> Option<Work> {
        self.turn = self.turn.wrapping_add(1);
        let timed_first = self.fresh.is_empty() || self.turn.is_multiple_of(FRESH_IN_A_ROW);
        let timed = if timed_first { self.take_timed(now, shares) } else { None };
        let work = timed.or_else(|| self.take_fresh(shares));
        let work = if timed_first { work } else { work.or_else(|| self.take_timed(now, shares)) }?;
        *self.under_way.entry(work.block.table()).or_default() += 1;
        Some(work)
    }

    /// True for a table that a stop gives up.
    fn is_given_up(&self, table: TableIndex) -> bool {
        self.is_committed && self.failed.get(&table).is_some_and(|failed| *failed >= STOP_FAILURES)
    }

    fn permits(&self, table: TableIndex, shares: Shares) -> bool {
        !self.is_given_up(table) && shares.permit(self.under_way.len(), self.of(table), self.under_way.values().sum())
    }

    /// How many of a table the inserters have.
    fn of(&self, table: TableIndex) -> usize {
        self.under_way.get(&table).copied().unwrap_or_default()
    }

    fn take_fresh(&mut self, shares: Shares) -> Option<Work> {
        let permitted = self.fresh.iter().filter(|(table, _)| self.permits(**table, shares));
        let order = |(table, of_table): &(&TableIndex, &VecDeque<Work>)| {
            (self.of(**table), of_table.front().map(|work| work.block.number()))
        };
        let table = *permitted.min_by_key(order)?.0;
        let of_table = self.fresh.get_mut(&table)?;
        let work = of_table.pop_front();
        if of_table.is_empty() {
            self.fresh.remove(&table);
        }
        work
    }

    fn take_timed(&mut self, now: Instant, shares: Shares) -> Option<Work> {
        let mut passed = Vec::new();
        let mut taken = None;
        while taken.is_none()
            && let Some(entry) = self.timed.pop()
        {
            if entry.due > now {
                passed.push(entry);
                break;
            }
            if self.permits(entry.work.block.table(), shares) {
                taken = Some(entry.work);
            } else {
                passed.push(entry);
            }
        }
        self.timed.extend(passed);
        taken
    }

    /// At the beginning of a stop all that waits is due, once: what does not get through then is not waited for.
    fn begin_stop(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.is_stopping, true) {
            let hurried = std::mem::take(&mut self.timed).into_iter().map(|mut entry| {
                entry.due = if entry.is_held { entry.due } else { entry.due.min(now) };
                entry
            });
            self.timed = hurried.collect();
        }
    }

    /// True if nothing is left that a stop since `stopping`, or the end of the committer, waits for.
    fn has_nothing_left(&self, stopping: Option<Instant>) -> bool {
        let fails = |entry: &DueEntry| {
            let has_failed = entry.work.attempts >= STOP_ATTEMPTS && stopping.is_some_and(|since| entry.since > since);
            has_failed || self.is_given_up(entry.work.block.table())
        };
        self.fresh.keys().all(|table| self.is_given_up(*table))
            && self.timed.iter().all(|entry| entry.is_held || fails(entry))
    }

    /// When the first of those is due that are not yet.
    fn soonest(&self, now: Instant) -> Option<Instant> {
        self.timed.iter().map(|entry| entry.due).filter(|due| *due > now).min()
    }
}

/// Of so many blocks that are given out one is not fresh, while some wait of both.
const FRESH_IN_A_ROW: u32 = 4;

/// A stop waits no longer for a block that has failed so often, and once more since the stop began: INSERTs don't get
/// through. Fewer failures pass by themselves.
const STOP_ATTEMPTS: u32 = 4;

/// So many blocks of a table that fail in a row during a stop say the same of all others, however many these are.
const STOP_FAILURES: u32 = 32;

/// The longest that an inserter waits without looking at the deadline of a stop.
const WAIT_MAX: Duration = Duration::from_millis(100);

impl Due {
    /// Creates a queue that takes blocks from `sealed` until the committer drops the sender, and
    /// returns none after the deadline of a stop.
    pub fn new(sealed: Receiver<SealedBlock>, shares: Shares, lifecycle: Arc<Lifecycle>) -> Self {
        Self { sealed, waiting: Mutex::default(), shares, lifecycle }
    }

    /// Waits for the next block that is due. `None` once the committer has ended and only held blocks are left, or,
    /// in a stop, those whose INSERTs don't get through; and after the deadline of a stop.
    pub fn next(&self) -> Option<Work> {
        loop {
            let now = Instant::now();
            if self.has_ended() {
                return None;
            }
            let (soonest, nothing_is_left) = {
                let mut waiting = self.waiting();
                let stopping = self.lifecycle.stopping_since();
                if stopping.is_some() {
                    waiting.begin_stop(now);
                }
                self.take_sealed(&mut waiting);
                if let Some(work) = waiting.take(now, self.shares) {
                    return Some(work);
                }
                (waiting.soonest(now), waiting.has_nothing_left(stopping))
            };
            let wait = soonest.map_or(WAIT_MAX, |due| due.saturating_duration_since(now).min(WAIT_MAX));
            match self.sealed.recv_timeout(wait) {
                Ok(block) => self.waiting().put_fresh(block),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if nothing_is_left => return None,
                // A disconnected channel returns at once, so sleep instead.
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(wait),
            }
        }
    }

    fn take_sealed(&self, waiting: &mut Waiting) {
        loop {
            match self.sealed.try_recv() {
                Ok(block) => waiting.put_fresh(block),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    waiting.is_committed = true;
                    return;
                }
            }
        }
    }

    /// Waits for the next block that is due, at most [`WAIT_MAX`].
    pub fn next_soon(&self) -> Option<Work> {
        let take = || {
            let mut waiting = self.waiting();
            self.take_sealed(&mut waiting);
            waiting.take(Instant::now(), self.shares)
        };
        take().or_else(|| {
            match self.sealed.recv_timeout(WAIT_MAX) {
                Ok(block) => self.waiting().put_fresh(block),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(WAIT_MAX),
            }
            take()
        })
    }

    /// An inserter has done what it could with a block of this table.
    pub fn finished(&self, table: TableIndex) {
        let mut waiting = self.waiting();
        if let Some(count) = waiting.under_way.get_mut(&table) {
            *count = count.saturating_sub(1);
        }
    }

    /// True after the deadline of a stop.
    pub fn has_ended(&self) -> bool {
        self.lifecycle.deadline().is_some_and(|deadline| deadline <= Instant::now())
    }

    /// Puts a block back, due after `delay`.
    pub fn later(&self, work: Work, delay: Duration) {
        self.put_back(work, delay, false);
    }

    /// Puts a held block back, due after `delay`.
    pub fn hold(&self, work: Work, delay: Duration) {
        self.put_back(work, delay, true);
    }

    fn put_back(&self, work: Work, delay: Duration, is_held: bool) {
        let (since, mut waiting) = (Instant::now(), self.waiting());
        if waiting.is_stopping && !is_held {
            let failed = waiting.failed.entry(work.block.table()).or_default();
            *failed = failed.saturating_add(1);
        }
        waiting.timed.push(DueEntry { due: since + delay, is_held, since, work });
    }

    /// A block of this table has got through.
    pub fn got_through(&self, table: TableIndex) {
        self.waiting().failed.remove(&table);
    }

    /// Makes the blocks that are meant due now with an operator's orders. Returns how many blocks
    /// that were.
    pub fn requeue(&self, is_meant: impl Fn(&SealedBlock) -> bool, orders: Orders) -> usize {
        let mut waiting = self.waiting();
        let mut count = 0;
        let mut order = |work: &mut Work| {
            let is_meant = is_meant(&work.block);
            if is_meant {
                work.orders = orders;
                count += 1;
            }
            is_meant
        };
        for work in waiting.fresh.values_mut().flatten() {
            order(work);
        }
        let entries = std::mem::take(&mut waiting.timed).into_iter().map(|mut entry| {
            if order(&mut entry.work) {
                (entry.due, entry.is_held) = (Instant::now(), false);
            }
            entry
        });
        waiting.timed = entries.collect();
        count
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing in the guarded sections can leave the sets half-changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
