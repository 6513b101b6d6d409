//! The ledger (invariant 5): every event that a table's spool was given is somewhere.
//!
//! Double entry: what comes in is booked twice, as *recovered* or *committed* and on the account of
//! its segment; what goes out leaves its segment's account and is booked as *inserted* or *set
//! aside*. What is spooled is not a difference of the others but the sum over the segments, and what
//! an insert proves comes from the segment's own seal, not from what the committer counted. So a
//! segment that went away with less than it had been given shows at once: the ledger does not
//! balance, which no fault outside of this program can cause.
//!
//! The committer books once a group of batches, an inserter once an insert, a worker never.

use std::collections::BTreeMap;

use crate::batch::SegmentNumber;

/// A number of events: rows for the target table, and rejected lines for its quarantine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Events {
    /// Rows.
    pub rows: u64,
    /// Rejected lines.
    pub rejected: u64,
}

/// The accounts of one line of the ledger: rows, or rejected lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accounts {
    /// Found by the start, and not known to be in ClickHouse.
    pub recovered: u64,
    /// Committed since.
    pub committed: u64,
    /// Proven in their table.
    pub inserted: u64,
    /// In segments that are open or wait.
    pub spooled: u64,
    /// Rows that ClickHouse refused, proven in the quarantine table; and what could not be read any
    /// more of a segment whose file is kept in `damaged/`.
    pub set_aside: u64,
}

impl Accounts {
    /// What came in is what went out and what is here.
    pub fn balance(&self) -> bool {
        self.recovered + self.committed == self.inserted + self.spooled + self.set_aside
    }

    /// Each account with its name in metrics.
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

/// The whole ledger at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LedgerSnapshot {
    /// Rows for the target table.
    pub rows: Accounts,
    /// Rejected lines for the quarantine table.
    pub rejected: Accounts,
}

impl LedgerSnapshot {
    /// Both lines balance.
    pub fn balances(&self) -> bool {
        self.rows.balance() && self.rejected.balance()
    }
}

/// See the module. Guarded as a whole by [`super::SpoolMetrics`].
#[derive(Debug, Default)]
pub(super) struct Ledger {
    recovered: Events,
    committed: Events,
    inserted: Events,
    set_aside: Events,
    segments: BTreeMap<SegmentNumber, Segment>,
}

/// A segment that is open or waits.
#[derive(Debug)]
struct Segment {
    created_ms: u64,
    events: Events,
}

impl Ledger {
    /// A segment is there from now on, with nothing in it.
    pub(super) fn open(&mut self, number: SegmentNumber, created_ms: u64) {
        self.segments.entry(number).or_insert(Segment { created_ms, events: Events::default() });
    }

    /// A start found these events in it.
    pub(super) fn recovered(&mut self, number: SegmentNumber, events: Events) {
        self.recovered.add(events);
        self.give(number, events);
    }

    /// These events were committed to it.
    pub(super) fn committed(&mut self, number: SegmentNumber, events: Events) {
        self.committed.add(events);
        self.give(number, events);
    }

    /// These events of it are proven in their tables.
    pub(super) fn inserted(&mut self, number: SegmentNumber, events: Events) {
        self.inserted.add(events);
        self.take(number, events);
    }

    /// These events of it are for a person: rows that are proven in the quarantine table, or what is
    /// damaged.
    pub(super) fn set_aside(&mut self, number: SegmentNumber, events: Events) {
        self.set_aside.add(events);
        self.take(number, events);
    }

    /// It is gone, and whatever was left on its account with it: nothing, if all is well.
    pub(super) fn close(&mut self, number: SegmentNumber) {
        self.segments.remove(&number);
    }

    /// True while it is there.
    pub(super) fn has(&self, number: SegmentNumber) -> bool {
        self.segments.contains_key(&number)
    }

    /// When the oldest segment was created, Unix ms; 0 when there is none.
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

    /// More than was given can't be taken; the balance tells.
    fn take(&mut self, number: SegmentNumber, events: Events) {
        if let Some(segment) = self.segments.get_mut(&number) {
            segment.events.rows = segment.events.rows.saturating_sub(events.rows);
            segment.events.rejected = segment.events.rejected.saturating_sub(events.rejected);
        }
    }
}

impl Events {
    fn add(&mut self, more: Self) {
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
    fn what_comes_in_goes_out_or_is_here() {
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
        ledger.close(SegmentNumber::new(1));
        let now = ledger.snapshot();
        assert!(now.balances() && now.rejected.set_aside == 1, "{now:?}");
        assert_eq!(ledger.oldest_ms(), 700);
    }

    #[test]
    fn what_goes_missing_or_comes_twice_shows() {
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
