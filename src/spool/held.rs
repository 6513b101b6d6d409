//! The segments that need an operator, and what an operator orders for them: the one place that
//! knows. The inserters write, a few times a minute; the committer and the admin address read.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::batch::SegmentNumber;

/// How often the log says that a segment is held.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// What an operator orders for a segment that is held.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Orders {
    /// Send it though ClickHouse may have it and may not know its token any more.
    pub force: bool,
    /// Let ClickHouse convert the segment's columns into what the table has now.
    pub convert: bool,
}

/// The segments that are held.
#[derive(Debug, Default)]
pub struct Held {
    segments: Mutex<BTreeMap<SegmentNumber, Hold>>,
}

#[derive(Debug)]
struct Hold {
    reason: String,
    /// It is held for a reason of its own, whatever becomes of others.
    alone: bool,
    since: Instant,
    said: Instant,
}

impl Held {
    /// A segment needs an operator, for this reason; `alone` when the reason is its own and no other
    /// segment's. Returns for how long it has been held, when that is to be said in the log now.
    pub fn hold(&self, number: SegmentNumber, reason: String, alone: bool) -> Option<Duration> {
        let now = Instant::now();
        let mut segments = self.lock();
        let Some(hold) = segments.get_mut(&number) else {
            segments.insert(number, Hold { reason, alone, since: now, said: now });
            return Some(Duration::ZERO);
        };
        (hold.reason, hold.alone) = (reason, alone);
        if now.duration_since(hold.said) < SAY_AGAIN {
            return None;
        }
        hold.said = now;
        Some(now.duration_since(hold.since))
    }

    /// The segment needs no operator any more.
    pub fn release(&self, number: SegmentNumber) {
        self.lock().remove(&number);
    }

    /// Segments that are held, the oldest first, and why.
    pub fn reasons(&self) -> Vec<(SegmentNumber, String)> {
        self.lock().iter().map(|(number, hold)| (*number, hold.reason.clone())).collect()
    }

    /// How many are held.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// How many of them give younger events no reason to wait: those that are held alone, and those
    /// older than `from`, which have other columns.
    pub(super) fn count_aside(&self, from: SegmentNumber) -> usize {
        self.lock().iter().filter(|(number, hold)| hold.alone || **number < from).count()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SegmentNumber, Hold>> {
        // One entry is changed at a time: nothing can be left half-changed.
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_held_until_it_is_released_and_said_once_a_minute() {
        let held = Held::default();
        let number = SegmentNumber::new;
        assert_eq!(held.hold(number(3), "first".into(), false), Some(Duration::ZERO));
        assert_eq!(held.hold(number(3), "second".into(), true), None, "it was said a moment ago");
        assert_eq!(held.hold(number(2), "another".into(), false), Some(Duration::ZERO));
        assert_eq!(held.reasons(), [(number(2), "another".into()), (number(3), "second".into())]);
        held.release(number(2));
        held.release(number(7));
        assert_eq!((held.count(), held.reasons()), (1, vec![(number(3), "second".into())]));
    }

    #[test]
    fn what_is_held_alone_or_has_older_columns_is_aside() {
        let held = Held::default();
        let number = SegmentNumber::new;
        held.hold(number(1), "older columns".into(), false);
        held.hold(number(5), "the table is gone".into(), false);
        held.hold(number(6), "damaged".into(), true);
        assert_eq!(held.count_aside(number(0)), 1);
        assert_eq!(held.count_aside(number(2)), 2);
        assert_eq!(held.count_aside(number(6)), 3);
    }
}
