//! The segments that were tried and wait, which of them need an operator, and what an operator orders:
//! the one place that knows. The inserters write, once an INSERT; the committer and the admin address
//! read.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::batch::SegmentNumber;

/// Pause between two log messages about the same held segment.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// An operator's orders for a held segment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Orders {
    /// Send the segment although ClickHouse may have it and may have forgotten its token.
    pub force: bool,
    /// Let ClickHouse convert the segment's columns to those that the table has now.
    pub convert: bool,
}

/// Whose reason it is that a segment waits: decides whether younger events wait with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The segment's: it is damaged, its rows throw in a view, its quarantine table is missing. Others
    /// may well go in.
    Own,
    /// The table's or its server's: away, gone, or refusing whatever comes.
    Table,
}

/// The segments that were tried and are not inserted, and why.
#[derive(Debug, Default)]
pub struct Held {
    segments: Mutex<BTreeMap<SegmentNumber, Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    cause: Cause,
    /// Another INSERT of the table got through since it began to wait. Whatever it waits for is its own
    /// from then on: an INSERT that is too large for the server's memory looks like a server without any.
    passed: bool,
    /// It needs an operator.
    hold: Option<Hold>,
}

/// Why and since when a segment is held.
#[derive(Debug)]
struct Hold {
    reason: String,
    since: Instant,
    logged: Instant,
}

impl Held {
    /// A segment needs an operator, for this reason. Returns for how long it has been held, when that is
    /// to be said in the log now.
    pub fn hold(&self, number: SegmentNumber, reason: String, cause: Cause) -> Option<Duration> {
        let now = Instant::now();
        let mut segments = self.lock();
        let waiting = segments.entry(number).or_insert(Waiting { cause, passed: false, hold: None });
        waiting.cause = cause;
        let Some(hold) = &mut waiting.hold else {
            waiting.hold = Some(Hold { reason, since: now, logged: now });
            return Some(Duration::ZERO);
        };
        hold.reason = reason;
        if now.duration_since(hold.logged) < LOG_PAUSE {
            return None;
        }
        hold.logged = now;
        Some(now.duration_since(hold.since))
    }

    /// A segment is tried again by itself, and needs no operator.
    pub fn retry(&self, number: SegmentNumber, cause: Cause) {
        let mut segments = self.lock();
        let waiting = segments.entry(number).or_insert(Waiting { cause, passed: false, hold: None });
        (waiting.cause, waiting.hold) = (cause, None);
    }

    /// The segment waits for nothing any more.
    pub fn release(&self, number: SegmentNumber) {
        self.lock().remove(&number);
    }

    /// An INSERT of rows into the table is proven: it takes rows.
    pub fn got_through(&self) {
        self.lock().values_mut().for_each(|waiting| waiting.passed = true);
    }

    /// Segments that are held, the oldest first, and why.
    pub fn reasons(&self) -> Vec<(SegmentNumber, String)> {
        let segments = self.lock();
        let held = segments.iter().filter_map(|(number, waiting)| Some((*number, waiting.hold.as_ref()?)));
        held.map(|(number, hold)| (number, hold.reason.clone())).collect()
    }

    /// Number of held segments.
    pub fn count(&self) -> usize {
        self.lock().values().filter(|waiting| waiting.hold.is_some()).count()
    }

    /// How many segments wait, and how many of them for the table, so that younger events would only
    /// wait with them. Those older than `from` have other columns: theirs are no news of the table.
    pub(super) fn waiting(&self, from: SegmentNumber) -> (u64, u64) {
        let segments = self.lock();
        let is_of_table = |waiting: &Waiting| waiting.cause == Cause::Table && !waiting.passed;
        let of_table = segments.range(from..).filter(|(_, waiting)| is_of_table(waiting)).count();
        (segments.len() as u64, of_table as u64)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SegmentNumber, Waiting>> {
        // One entry is changed at a time: nothing can be left half-changed.
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_held_until_it_is_released_and_logged_once_a_minute() {
        let held = Held::default();
        let number = SegmentNumber::new;
        assert_eq!(held.hold(number(3), "first".into(), Cause::Table), Some(Duration::ZERO));
        assert_eq!(held.hold(number(3), "second".into(), Cause::Own), None, "it was said a moment ago");
        assert_eq!(held.hold(number(2), "another".into(), Cause::Table), Some(Duration::ZERO));
        held.retry(number(1), Cause::Table);
        assert_eq!(held.reasons(), [(number(2), "another".into()), (number(3), "second".into())]);
        held.release(number(2));
        held.release(number(7));
        assert_eq!((held.count(), held.reasons()), (1, vec![(number(3), "second".into())]));
        held.retry(number(3), Cause::Own);
        assert_eq!(held.count(), 0);
    }

    #[test]
    fn younger_events_wait_with_a_segment_only_for_what_the_table_refuses_all() {
        let held = Held::default();
        let number = SegmentNumber::new;
        held.hold(number(1), "older columns".into(), Cause::Table);
        held.hold(number(5), "the table is gone".into(), Cause::Table);
        held.hold(number(6), "damaged".into(), Cause::Own);
        held.retry(number(7), Cause::Table);
        assert_eq!(held.waiting(number(0)), (4, 3));
        assert_eq!(held.waiting(number(2)), (4, 2));
        held.got_through();
        held.retry(number(7), Cause::Table);
        assert_eq!(held.waiting(number(0)), (4, 0), "others get through: it is its own fault");
        held.retry(number(8), Cause::Table);
        assert_eq!(held.waiting(number(0)), (5, 1), "nothing has since this one failed");
    }
}
