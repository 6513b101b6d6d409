//! The ledger (invariant 5), which accounts for every event that the spool was given, per table.
//!
//! It uses double entry. An incoming event is booked twice: as *recovered* or *committed*, and on
//! the account of its block. An outgoing event leaves the account of its block and is booked as
//! *inserted* or *set aside*.
//!
//! *Spooled* is the sum over the blocks' accounts, not the difference of the other accounts. The
//! number of inserted events comes from the block's seal, not from the committer's count. A
//! block that is closed with fewer events than it was given therefore unbalances the ledger at
//! once. Only a bug of this program can do that.
//!
//! The committer books once per group of batches, an inserter once per INSERT, a worker never.

use std::collections::BTreeMap;

use crate::batch::{BlockNumber, TableIndex};

/// A number of events, as rows for the target table and rejected lines for the quarantine table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Events {
    /// Rows.
    pub rows: u64,
    /// Rejected lines.
    pub rejected: u64,
}

/// The accounts of rows, or those of rejected lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Events found at the start and not known to be in ClickHouse.
    pub recovered: u64,
    /// Events committed since the start.
    pub committed: u64,
    /// Events proven in their table.
    pub inserted: u64,
    /// Events in blocks that are open or wait for their insert.
    pub spooled: u64,
    /// Rows that ClickHouse refused and that are proven in the quarantine table, and events that
    /// can't be read from a damaged block, whose file is in `damaged/`.
    pub set_aside: u64,
}

impl Accounts {
    /// True if the incoming events equal the outgoing and the spooled ones.
    pub fn balance(&self) -> bool {
        self.recovered + self.committed == self.inserted + self.spooled + self.set_aside
    }

    /// Each account with its name in the metrics.
    pub fn named(&self) -> [(&'static str, u64); 5] {
        [
            ("recovered", self.recovered),
            ("committed", self.committed),
            ("inserted", self.inserted),
            ("spooled", self.spooled),
            ("set_aside", self.set_aside),
        ]
    }
}

/// All accounts of the ledger at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LedgerSnapshot {
    /// Rows for the target table.
    pub rows: Accounts,
    /// Rejected lines for the quarantine table.
    pub rejected: Accounts,
}

impl LedgerSnapshot {
    /// True if the accounts of rows and those of rejected lines balance.
    pub fn balances(&self) -> bool {
        self.rows.balance() && self.rejected.balance()
    }
}

/// The accounts of one spool. [`super::SpoolMetrics`] guards them with one lock.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    tables: BTreeMap<TableIndex, Table>,
    blocks: BTreeMap<BlockNumber, Block>,
}

/// What has become of a table's events.
#[derive(Debug, Clone, Copy, Default)]
struct Table {
    recovered: Events,
    committed: Events,
    inserted: Events,
    set_aside: Events,
    /// Bytes of the frames in its blocks.
    bytes: u64,
    /// Number of its sealed blocks that are not inserted.
    sealed: u64,
}

/// The account of a block that is open or waits for its insert.
#[derive(Debug)]
struct Block {
    table: TableIndex,
    created_ms: u64,
    events: Events,
    bytes: u64,
}

impl Ledger {
    /// Opens the account of a block, without events.
    pub(super) fn open(&mut self, number: BlockNumber, table: TableIndex, created_ms: u64) {
        self.blocks.entry(number).or_insert(Block { table, created_ms, events: Events::default(), bytes: 0 });
        self.tables.entry(table).or_default();
    }

    /// Books events that a start found in the block, and the bytes of its frames.
    pub(super) fn recovered(&mut self, number: BlockNumber, events: Events, bytes: u64) {
        self.table_of(number).recovered.add(events);
        self.give(number, events, bytes);
    }

    /// Books events that were committed to the block, and the bytes of their frames.
    pub(super) fn committed(&mut self, number: BlockNumber, events: Events, bytes: u64) {
        self.table_of(number).committed.add(events);
        self.give(number, events, bytes);
    }

    /// Books events of the block that are proven in their tables.
    pub(super) fn inserted(&mut self, number: BlockNumber, events: Events) {
        self.table_of(number).inserted.add(events);
        self.take(number, events);
    }

    /// Books events of the block that are set aside: refused rows that are proven in the
    /// quarantine table, or events that can't be read.
    pub(super) fn set_aside(&mut self, number: BlockNumber, events: Events) {
        self.table_of(number).set_aside.add(events);
        self.take(number, events);
    }

    /// A start found these events in a file that only an operator can do something with. Whose they are is not
    /// known.
    pub(super) fn found_aside(&mut self, events: Events) {
        let table = self.tables.entry(TableIndex::OTHER).or_default();
        table.recovered.add(events);
        table.set_aside.add(events);
    }

    /// It is gone, and whatever was left on its account with it: nothing, if all is well.
    pub(super) fn close(&mut self, number: BlockNumber) {
        if let Some(Block { table, bytes, .. }) = self.blocks.remove(&number) {
            let table = self.tables.entry(table).or_default();
            table.bytes = table.bytes.saturating_sub(bytes);
            table.sealed = table.sealed.saturating_sub(1);
        }
    }

    /// A block of the table is sealed.
    pub(super) fn sealed(&mut self, table: TableIndex) {
        self.tables.entry(table).or_default().sealed += 1;
    }

    /// Number of a table's sealed blocks that are not inserted.
    pub(super) fn sealed_of(&self, table: TableIndex) -> u64 {
        self.tables.get(&table).map_or(0, |table| table.sealed)
    }

    /// Number of blocks with an account.
    pub(super) fn blocks(&self) -> u64 {
        self.blocks.len() as u64
    }

    /// Number of a table's blocks with an account.
    pub(super) fn blocks_of(&self, table: TableIndex) -> u64 {
        self.blocks.values().filter(|block| block.table == table).count() as u64
    }

    /// True while the block has an account.
    pub(super) fn has(&self, number: BlockNumber) -> bool {
        self.blocks.contains_key(&number)
    }

    /// What is on the account of a block, and the bytes of its frames.
    pub(super) fn block(&self, number: BlockNumber) -> Option<(Events, u64)> {
        self.blocks.get(&number).map(|block| (block.events, block.bytes))
    }

    /// Bytes of the frames in a table's blocks.
    pub(super) fn bytes(&self, table: TableIndex) -> u64 {
        self.tables.get(&table).map_or(0, |table| table.bytes)
    }

    /// Time of the first event of the oldest block, Unix ms; 0 if there is no block.
    pub(super) fn oldest_ms(&self) -> u64 {
        self.blocks.values().map(|block| block.created_ms).min().unwrap_or(0)
    }

    /// The same of a table's blocks.
    pub(super) fn oldest_ms_of(&self, table: TableIndex) -> u64 {
        let of_table = self.blocks.values().filter(|block| block.table == table);
        of_table.map(|block| block.created_ms).min().unwrap_or(0)
    }

    /// The accounts of all tables together.
    pub(super) fn snapshot(&self) -> LedgerSnapshot {
        self.snapshot_where(|_| true)
    }

    /// The accounts of each table that has some.
    pub(super) fn snapshots(&self) -> Vec<(TableIndex, LedgerSnapshot)> {
        self.tables.keys().map(|table| (*table, self.snapshot_where(|other| other == *table))).collect()
    }

    fn snapshot_where(&self, is_meant: impl Fn(TableIndex) -> bool) -> LedgerSnapshot {
        let mut spooled = Events::default();
        for block in self.blocks.values().filter(|block| is_meant(block.table)) {
            spooled.add(block.events);
        }
        let mut total = Table::default();
        for (_, table) in self.tables.iter().filter(|(table, _)| is_meant(**table)) {
            total.recovered.add(table.recovered);
            total.committed.add(table.committed);
            total.inserted.add(table.inserted);
            total.set_aside.add(table.set_aside);
        }
        let line = |of: fn(Events) -> u64| Accounts {
            recovered: of(total.recovered),
            committed: of(total.committed),
            inserted: of(total.inserted),
            spooled: of(spooled),
            set_aside: of(total.set_aside),
        };
        LedgerSnapshot { rows: line(|events| events.rows), rejected: line(|events| events.rejected) }
    }

    /// The table of a block; of one that is not there, which unbalances the ledger, any.
    fn table_of(&mut self, number: BlockNumber) -> &mut Table {
        let table = self.blocks.get(&number).map_or(TableIndex::OTHER, |block| block.table);
        self.tables.entry(table).or_default()
    }

    fn give(&mut self, number: BlockNumber, events: Events, bytes: u64) {
        if let Some(block) = self.blocks.get_mut(&number) {
            block.events.add(events);
            block.bytes += bytes;
            let table = block.table;
            self.tables.entry(table).or_default().bytes += bytes;
        }
    }

    /// Takes events off the account of a block, down to 0. Taking more than the account has
    /// unbalances the ledger.
    fn take(&mut self, number: BlockNumber, events: Events) {
        if let Some(block) = self.blocks.get_mut(&number) {
            block.events.rows = block.events.rows.saturating_sub(events.rows);
            block.events.rejected = block.events.rejected.saturating_sub(events.rejected);
        }
    }
}

impl Events {
    /// Counts these as well.
    pub(super) fn add(&mut self, more: Self) {
        self.rows += more.rows;
        self.rejected += more.rejected;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::SegmentNumber;

    const fn events(rows: u64, rejected: u64) -> Events {
        Events { rows, rejected }
    }

    const fn number(segment: u64) -> BlockNumber {
        BlockNumber::first(SegmentNumber::new(segment))
    }

    #[test]
    fn each_table_has_accounts_of_its_own_and_the_bytes_of_its_blocks() {
        let (one, two) = (TableIndex::new(1), TableIndex::new(2));
        let mut ledger = Ledger::default();
        for (block, table) in [(1, one), (2, two), (3, two)] {
            ledger.open(number(block), table, 500);
            ledger.committed(number(block), events(block, 1), 100);
        }
        ledger.inserted(number(2), events(2, 1));
        assert_eq!((ledger.bytes(one), ledger.bytes(two)), (100, 200));
        ledger.close(number(2));
        assert_eq!((ledger.bytes(one), ledger.bytes(two)), (100, 100));
        let of: BTreeMap<_, _> = ledger.snapshots().into_iter().collect();
        assert!(of.values().all(LedgerSnapshot::balances), "{of:?}");
        assert_eq!((of[&one].rows.spooled, of[&two].rows.spooled, of[&two].rows.inserted), (1, 3, 2));
        // Events of one table on the account of another.
        ledger.inserted(number(7), events(1, 0));
        assert!(!ledger.snapshot().balances());
    }

    #[test]
    fn every_event_is_on_one_account() {
        let mut ledger = Ledger::default();
        ledger.open(number(1), TableIndex::new(1), 500);
        ledger.recovered(number(1), events(10, 2), 10);
        ledger.open(number(2), TableIndex::new(2), 700);
        ledger.committed(number(2), events(5, 1), 10);
        ledger.committed(number(2), events(5, 0), 10);
        assert_eq!(ledger.oldest_ms(), 500);
        ledger.inserted(number(1), events(7, 0));
        ledger.set_aside(number(1), events(3, 0));
        let now = ledger.snapshot();
        assert!(now.balances(), "{now:?}");
        assert_eq!(now.rows.named().map(|(_, events)| events), [10, 10, 7, 10, 3]);
        assert_eq!(now.rejected.named().map(|(_, events)| events), [2, 1, 0, 3, 0]);
        ledger.inserted(number(1), events(0, 1));
        ledger.set_aside(number(1), events(0, 1));
        ledger.found_aside(events(4, 0));
        assert_eq!(ledger.snapshot().rows.named().map(|(_, events)| events), [14, 10, 7, 10, 7]);
        ledger.close(number(1));
        let now = ledger.snapshot();
        assert!(now.balances() && now.rejected.set_aside == 1, "{now:?}");
        assert_eq!(ledger.oldest_ms(), 700);
    }

    #[test]
    fn a_missing_or_doubled_event_unbalances_the_ledger() {
        let of = |change: fn(&mut Ledger)| {
            let mut ledger = Ledger::default();
            ledger.open(number(1), TableIndex::new(1), 1);
            ledger.committed(number(1), events(5, 1), 10);
            change(&mut ledger);
            ledger.snapshot().balances()
        };
        assert!(of(|_| {}));
        assert!(!of(|ledger| ledger.close(number(1))), "gone with what was in it");
        assert!(!of(|ledger| ledger.inserted(number(1), events(6, 0))), "more than there was");
        assert!(!of(|ledger| ledger.inserted(number(1), events(0, 2))), "more lines than there were");
        assert!(!of(|ledger| ledger.inserted(number(2), events(1, 0))), "of a block that is not there");
        assert!(!of(|ledger| ledger.set_aside(number(1), events(6, 0))), "more than there was");
        assert!(!of(|ledger| ledger.set_aside(number(1), events(0, 2))), "more lines than there were");
        assert!(!of(|ledger| ledger.committed(number(2), events(1, 0), 10)), "to a block that is not there");
    }
}
