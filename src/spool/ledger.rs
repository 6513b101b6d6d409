//! The ledger (invariant 5), which accounts for every event that a table's spool was given.
//!
//! It uses double entry. An incoming event is booked twice: as *recovered* or *committed*, and on
//! the account of its segment. An outgoing event leaves the account of its segment and is booked as
//! *inserted* or *set aside*.
//!
//! *Spooled* is the sum over the segments' accounts, not the difference of the other accounts. The
//! number of inserted events comes from the segment's seal, not from the committer's count. A
//! segment that is closed with fewer events than it was given therefore unbalances the ledger at
//! once. Only a bug of this program can do that.
//!
//! The committer books once per group of batches, an inserter once per INSERT, a worker never.

use std::collections::BTreeMap;

use crate::batch::SegmentNumber;

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
    /// Events in segments that are open or wait for their insert.
    pub spooled: u64,
    /// Rows that ClickHouse refused and that are proven in the quarantine table, and events that
    /// can't be read from a damaged segment, whose file is in `damaged/`.
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
    recovered: Events,
    committed: Events,
    inserted: Events,
    set_aside: Events,
    segments: BTreeMap<SegmentNumber, Segment>,
}

/// The account of a segment that is open or waits for its insert.
#[derive(Debug)]
struct Segment {
    created_ms: u64,
    events: Events,
}

impl Ledger {
    /// Opens the account of a segment, without events.
    pub(super) fn open(&mut self, number: SegmentNumber, created_ms: u64) {
        self.segments.entry(number).or_insert(Segment { created_ms, events: Events::default() });
    }

    /// Books events that a start found in the segment.
    pub(super) fn recovered(&mut self, number: SegmentNumber, events: Events) {
        self.recovered.add(events);
        self.give(number, events);
    }

    /// Books events that were committed to the segment.
    pub(super) fn committed(&mut self, number: SegmentNumber, events: Events) {
        self.committed.add(events);
        self.give(number, events);
    }

    /// Books events of the segment that are proven in their tables.
    pub(super) fn inserted(&mut self, number: SegmentNumber, events: Events) {
        self.inserted.add(events);
        self.take(number, events);
    }

    /// Books events of the segment that are set aside: refused rows that are proven in the
    /// quarantine table, or events that can't be read.
    pub(super) fn set_aside(&mut self, number: SegmentNumber, events: Events) {
        self.set_aside.add(events);
        self.take(number, events);
    }

    /// A start found these events in a file that only an operator can do something with.
    pub(super) fn found_aside(&mut self, events: Events) {
        self.recovered.add(events);
        self.set_aside.add(events);
    }

    /// It is gone, and whatever was left on its account with it: nothing, if all is well.
    pub(super) fn close(&mut self, number: SegmentNumber) {
        self.segments.remove(&number);
    }

    /// Number of segments with an account.
    pub(super) fn segments(&self) -> u64 {
        self.segments.len() as u64
    }

    /// True while the segment has an account.
    pub(super) fn has(&self, number: SegmentNumber) -> bool {
        self.segments.contains_key(&number)
    }

    /// Creation time of the oldest segment, Unix ms; 0 if there is no segment.
    pub(super) fn oldest_ms(&self) -> u64 {
        self.segments.values().map(|segment| segment.created_ms).min().unwrap_or(0)
    }

    pub(super) fn snapshot(&self) -> LedgerSnapshot {
        let mut spooled = Events::default();
        for segment in self.segments.values() {
            spooled.add(segment.events);
        }
        let line = |of: fn(Events) -> u64| Accounts {
            recovered: of(self.recovered),
            committed: of(self.committed),
            inserted: of(self.inserted),
            spooled: of(spooled),
            set_aside: of(self.set_aside),
        };
        LedgerSnapshot { rows: line(|events| events.rows), rejected: line(|events| events.rejected) }
    }

    fn give(&mut self, number: SegmentNumber, events: Events) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.events.add(events);
        }
    }

    /// Takes events off the account of a segment, down to 0. Taking more than the account has
    /// unbalances the ledger.
    fn take(&mut self, number: SegmentNumber, events: Events) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.events.rows = segment.events.rows.saturating_sub(events.rows);
            segment.events.rejected = segment.events.rejected.saturating_sub(events.rejected);
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

    const fn events(rows: u64, rejected: u64) -> Events {
        Events { rows, rejected }
    }

    #[test]
    fn every_event_is_on_one_account() {
        let mut ledger = Ledger::default();
        ledger.open(SegmentNumber::new(1), 500);
        ledger.recovered(SegmentNumber::new(1), events(10, 2));
        ledger.open(SegmentNumber::new(2), 700);
        ledger.committed(SegmentNumber::new(2), events(5, 1));
        ledger.committed(SegmentNumber::new(2), events(5, 0));
        assert_eq!(ledger.oldest_ms(), 500);
        ledger.inserted(SegmentNumber::new(1), events(7, 0));
        ledger.set_aside(SegmentNumber::new(1), events(3, 0));
        let now = ledger.snapshot();
        assert!(now.balances(), "{now:?}");
        assert_eq!(now.rows.named().map(|(_, events)| events), [10, 10, 7, 10, 3]);
        assert_eq!(now.rejected.named().map(|(_, events)| events), [2, 1, 0, 3, 0]);
        ledger.inserted(SegmentNumber::new(1), events(0, 1));
        ledger.set_aside(SegmentNumber::new(1), events(0, 1));
        ledger.found_aside(events(4, 0));
        assert_eq!(ledger.snapshot().rows.named().map(|(_, events)| events), [14, 10, 7, 10, 7]);
        ledger.close(SegmentNumber::new(1));
        let now = ledger.snapshot();
        assert!(now.balances() && now.rejected.set_aside == 1, "{now:?}");
        assert_eq!(ledger.oldest_ms(), 700);
    }

    #[test]
    fn a_missing_or_doubled_event_unbalances_the_ledger() {
        let of = |change: fn(&mut Ledger)| {
            let mut ledger = Ledger::default();
            ledger.open(SegmentNumber::new(1), 1);
            ledger.committed(SegmentNumber::new(1), events(5, 1));
            change(&mut ledger);
            ledger.snapshot().balances()
        };
        assert!(of(|_| {}));
        assert!(!of(|ledger| ledger.close(SegmentNumber::new(1))), "gone with what was in it");
        assert!(!of(|ledger| ledger.inserted(SegmentNumber::new(1), events(6, 0))), "more than there was");
        assert!(!of(|ledger| ledger.inserted(SegmentNumber::new(1), events(0, 2))), "more lines than there were");
        assert!(!of(|ledger| ledger.inserted(SegmentNumber::new(2), events(1, 0))), "of a segment that is not there");
        assert!(!of(|ledger| ledger.set_aside(SegmentNumber::new(1), events(6, 0))), "more than there was");
        assert!(!of(|ledger| ledger.set_aside(SegmentNumber::new(1), events(0, 2))), "more lines than there were");
        assert!(!of(|ledger| ledger.committed(SegmentNumber::new(2), events(1, 0))), "to a segment that is not there");
    }
}
