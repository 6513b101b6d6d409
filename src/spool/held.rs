//! The blocks that were tried and wait, which of them need an operator, and what an operator orders:
//! the one place that knows. The inserters write, once an INSERT; the committer and the admin address
//! read.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::batch::{BlockNumber, SegmentNumber, TableIndex};
use crate::clock::unix_ms;

/// Pause between two log messages about the same held block.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// The age of a table's blocks is doubled no further than to this.
const SLOWED_AGE_MAX: Duration = Duration::from_secs(30);

/// A second doubled so often is more than [`SLOWED_AGE_MAX`]; a shorter age comes closer to it.
const DOUBLINGS_MAX: u32 = 16;

/// An operator's orders for a held block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Orders {
    /// Send the block although ClickHouse may have it and may have forgotten its token.
    pub force: bool,
    /// Let ClickHouse convert the block's columns to those that the table has now.
    pub convert: bool,
}

/// Why a block is held, and what an operator can order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reason {
    /// A sentence.
    pub text: String,
    /// The orders that send the block whatever it waits for; none where it only has to be tried again.
    pub remedy: Orders,
}

impl<T: Into<String>> From<T> for Reason {
    fn from(text: T) -> Self {
        Self { text: text.into(), remedy: Orders::default() }
    }
}

/// A held block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBlock {
    /// Its number.
    pub number: BlockNumber,
    /// Its table.
    pub table: TableIndex,
    /// Why it is held.
    pub reason: Reason,
    /// Since when, Unix ms.
    pub since_unix_ms: u64,
}

/// Whose reason it is that a block waits: decides whether younger events wait with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The block's: it is damaged, its rows throw in a view, its quarantine table is missing. Others
    /// may well go in.
    Own,
    /// The table's or its server's: away, gone, or refusing whatever comes.
    Table,
}

/// The blocks that were tried and are not inserted, and why.
#[derive(Debug, Default)]
pub struct Held {
    blocks: Mutex<Tried>,
}

#[derive(Debug, Default)]
struct Tried {
    waiting: BTreeMap<BlockNumber, Waiting>,
    /// Those with an INSERT under way that nothing is heard of.
    silent: BTreeMap<BlockNumber, TableIndex>,
    /// How often the age that seals a table's blocks is doubled.
    slowed: BTreeMap<TableIndex, u32>,
}

/// Numbers of blocks of a table that do not go out with the next free inserter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delayed {
    /// All of them.
    pub(super) all: u64,
    /// Those that wait for the table, so that younger events would only wait with them.
    pub(super) of_table: u64,
    /// Those whose INSERT is silent.
    pub(super) silent: u64,
}

#[derive(Debug)]
struct Waiting {
    table: TableIndex,
    cause: Cause,
    /// Another INSERT of the table got through since it began to wait. Whatever it waits for is its own
    /// from then on: an INSERT that is too large for the server's memory looks like a server without any.
    passed: bool,
    /// It needs an operator.
    hold: Option<Hold>,
}

/// Why and since when a block is held.
#[derive(Debug)]
struct Hold {
    reason: Reason,
    since: Instant,
    since_unix_ms: u64,
    logged: Instant,
}

impl Held {
    /// A block needs an operator, for this reason. Returns for how long it has been held, when that is
    /// to be said in the log now.
    pub fn hold(
        &self,
        number: BlockNumber,
        table: TableIndex,
        reason: impl Into<Reason>,
        cause: Cause,
    ) -> Option<Duration> {
        let (now, reason) = (Instant::now(), reason.into());
        let mut blocks = self.lock();
        let waiting = blocks.waiting.entry(number).or_insert(Waiting { table, cause, passed: false, hold: None });
        waiting.cause = cause;
        let Some(hold) = &mut waiting.hold else {
            waiting.hold = Some(Hold { reason, since: now, since_unix_ms: unix_ms(), logged: now });
            return Some(Duration::ZERO);
        };
        hold.reason = reason;
        if now.duration_since(hold.logged) < LOG_PAUSE {
            return None;
        }
        hold.logged = now;
        Some(now.duration_since(hold.since))
    }

    /// A block is tried again by itself, and needs no operator.
    pub fn retry(&self, number: BlockNumber, table: TableIndex, cause: Cause) {
        let mut blocks = self.lock();
        let waiting = blocks.waiting.entry(number).or_insert(Waiting { table, cause, passed: false, hold: None });
        (waiting.cause, waiting.hold) = (cause, None);
    }

    /// The block waits for nothing any more.
    pub fn release(&self, number: BlockNumber) {
        self.lock().waiting.remove(&number);
    }

    /// The INSERT of a block is silent: it goes on, and leaves its place to another block.
    pub fn fall_silent(&self, number: BlockNumber, table: TableIndex) {
        self.lock().silent.insert(number, table);
    }

    /// The INSERT of a block has ended, or something is heard of it.
    pub fn end_silence(&self, number: BlockNumber) {
        self.lock().silent.remove(&number);
    }

    /// Number of blocks whose INSERT is silent, and number of blocks that are silent or held.
    pub fn silent(&self) -> (usize, usize) {
        let blocks = self.lock();
        let is_held = |number| blocks.waiting.get(number).is_some_and(|waiting| waiting.hold.is_some());
        let held_alone = blocks.waiting.keys().filter(|number| is_held(number) && !blocks.silent.contains_key(number));
        (blocks.silent.len(), blocks.silent.len() + held_alone.count())
    }

    /// An INSERT of rows into the table is proven: it takes rows.
    pub fn got_through(&self, table: TableIndex) {
        let mut blocks = self.lock();
        let of_table = blocks.waiting.values_mut().filter(|waiting| waiting.table == table);
        of_table.for_each(|waiting| waiting.passed = true);
        if let Some(doublings) = blocks.slowed.get_mut(&table) {
            *doublings = doublings.saturating_sub(1);
        }
    }

    /// ClickHouse can't merge a table's parts as fast as they come: fewer and larger INSERTs help.
    pub fn too_many_parts(&self, table: TableIndex) {
        let mut blocks = self.lock();
        let doublings = blocks.slowed.entry(table).or_default();
        *doublings = (*doublings + 1).min(DOUBLINGS_MAX);
    }

    /// The age that seals a table's blocks, where `configured` is that of its settings: longer after too many
    /// parts, and as configured again once so many INSERTs got through.
    pub(super) fn age(&self, table: TableIndex, configured: Duration) -> Duration {
        let doublings = self.lock().slowed.get(&table).copied().unwrap_or(0);
        configured.saturating_mul(1 << doublings.min(DOUBLINGS_MAX)).min(SLOWED_AGE_MAX).max(configured)
    }

    /// Blocks that are held, the oldest first, and why; at most so many.
    pub fn blocks(&self, max: usize) -> Vec<HeldBlock> {
        let blocks = self.lock();
        let held = blocks.waiting.iter().filter_map(|(number, waiting)| {
            let hold = waiting.hold.as_ref()?;
            let (reason, since_unix_ms) = (hold.reason.clone(), hold.since_unix_ms);
            Some(HeldBlock { number: *number, table: waiting.table, reason, since_unix_ms })
        });
        held.take(max).collect()
    }

    /// Blocks that are held, the oldest first, and why.
    pub fn reasons(&self) -> Vec<(BlockNumber, String)> {
        self.blocks(usize::MAX).into_iter().map(|held| (held.number, held.reason.text)).collect()
    }

    /// Number of held blocks of each table that has some.
    pub fn by_table(&self) -> BTreeMap<TableIndex, u64> {
        let mut counts = BTreeMap::new();
        for waiting in self.lock().waiting.values().filter(|waiting| waiting.hold.is_some()) {
            *counts.entry(waiting.table).or_default() += 1;
        }
        counts
    }

    /// Number of held blocks.
    pub fn count(&self) -> usize {
        self.lock().waiting.values().filter(|waiting| waiting.hold.is_some()).count()
    }

    /// How many blocks of a table are delayed. Those older than `from` have other columns, so what they wait for
    /// says nothing of younger ones.
    pub(super) fn delayed(&self, table: TableIndex, from: SegmentNumber) -> Delayed {
        let blocks = self.lock();
        let Tried { waiting, silent, .. } = &*blocks;
        let is_of_table = |number: &BlockNumber, waiting: &Waiting| {
            waiting.table == table && waiting.cause == Cause::Table && !waiting.passed && !silent.contains_key(number)
        };
        let of_table =
            waiting.range(BlockNumber::first(from)..).filter(|(number, waiting)| is_of_table(number, waiting)).count();
        let all = waiting.values().filter(|waiting| waiting.table == table).count();
        let of_silent = silent.iter().filter(|(_, of)| **of == table);
        let silent_alone = of_silent.clone().filter(|(number, _)| !waiting.contains_key(number)).count();
        Delayed { all: (all + silent_alone) as u64, of_table: of_table as u64, silent: of_silent.count() as u64 }
    }

    fn lock(&self) -> MutexGuard<'_, Tried> {
        // One entry is changed at a time: nothing can be left half-changed.
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_held_until_it_is_released_and_logged_once_a_minute() {
        let held = Held::default();
        let number = |segment| BlockNumber::first(SegmentNumber::new(segment));
        let table = TableIndex::new(1);
        assert_eq!(held.hold(number(3), table, "first", Cause::Table), Some(Duration::ZERO));
        assert_eq!(held.hold(number(3), table, "second", Cause::Own), None, "it was said a moment ago");
        assert_eq!(held.hold(number(2), table, "another", Cause::Table), Some(Duration::ZERO));
        held.retry(number(1), table, Cause::Table);
        assert_eq!(held.reasons(), [(number(2), "another".into()), (number(3), "second".into())]);
        held.release(number(2));
        held.release(number(7));
        assert_eq!((held.count(), held.reasons()), (1, vec![(number(3), "second".into())]));
        let orders = Orders { force: true, convert: false };
        held.hold(number(5), TableIndex::new(2), Reason { text: "third".into(), remedy: orders }, Cause::Own);
        let blocks = held.blocks(9);
        let shown = |held: &HeldBlock| (held.number, held.table, held.reason.text.clone(), held.reason.remedy);
        let second = (number(3), table, "second".to_owned(), Orders::default());
        let third = (number(5), TableIndex::new(2), "third".to_owned(), orders);
        assert_eq!(blocks.iter().map(shown).collect::<Vec<_>>(), [second, third]);
        assert!(blocks.iter().all(|held| held.since_unix_ms > 0));
        assert_eq!(held.blocks(1), blocks[..1]);
        assert_eq!(held.by_table(), [(table, 1), (TableIndex::new(2), 1)].into());
        held.release(number(5));
        held.retry(number(3), table, Cause::Own);
        assert_eq!(held.count(), 0);
    }

    #[test]
    fn after_too_many_parts_a_table_s_age_doubles_up_to_half_a_minute_and_falls_again() {
        let held = Held::default();
        let (slow, other, second) = (TableIndex::new(0), TableIndex::new(1), Duration::from_secs(1));
        let ages = [2, 4, 8, 16, 30, 30].map(|seconds| {
            held.too_many_parts(slow);
            (held.age(slow, second), Duration::from_secs(seconds))
        });
        assert!(ages.iter().all(|(age, expected)| age == expected), "{ages:?}");
        assert_eq!(held.age(other, second), second);
        assert_eq!(held.age(slow, 60 * second), 60 * second, "never below what is configured");
        for _ in 0..5 {
            held.got_through(slow);
        }
        assert_eq!(held.age(slow, second), 2 * second);
        held.got_through(slow);
        held.got_through(slow);
        assert_eq!(held.age(slow, second), second);
    }

    #[test]
    fn younger_events_wait_with_a_block_only_for_what_the_table_refuses_all() {
        let held = Held::default();
        let number = |segment| BlockNumber::first(SegmentNumber::new(segment));
        let table = TableIndex::new(1);
        held.hold(number(1), table, "older columns", Cause::Table);
        held.hold(number(5), table, "the table is gone", Cause::Table);
        held.hold(number(6), table, "damaged", Cause::Own);
        held.retry(number(7), table, Cause::Table);
        let delayed = |from| {
            let Delayed { all, of_table, silent } = held.delayed(table, SegmentNumber::new(from));
            (all, of_table, silent)
        };
        assert_eq!(delayed(0), (4, 3, 0));
        assert_eq!(delayed(2), (4, 2, 0));
        let other = held.delayed(TableIndex::new(2), SegmentNumber::default());
        assert_eq!(other, Delayed { all: 0, of_table: 0, silent: 0 }, "they are none of its own");
        held.got_through(TableIndex::new(2));
        assert_eq!(delayed(0), (4, 3, 0), "it was another table");
        held.got_through(table);
        held.retry(number(7), table, Cause::Table);
        assert_eq!(delayed(0), (4, 0, 0), "others get through: it is its own fault");
        held.retry(number(8), table, Cause::Table);
        assert_eq!(delayed(0), (5, 1, 0), "nothing has since this one failed");
        held.fall_silent(number(8), table);
        held.fall_silent(number(9), table);
        assert_eq!(delayed(0), (6, 0, 2), "each counts once");
        assert_eq!(held.silent(), (2, 5));
        held.fall_silent(number(6), table);
        assert_eq!(held.silent(), (3, 5), "one is held and silent");
        held.end_silence(number(6));
        held.end_silence(number(9));
        held.end_silence(number(8));
        assert_eq!(delayed(0), (5, 1, 0));
    }
}
