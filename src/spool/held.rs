//! The registry of held segments, which need operator action, and the orders an operator can give.
//! Inserters write to it a few times a minute; the committer and the admin address read it.

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

/// The held segments, each with its reason.
#[derive(Debug, Default)]
pub struct Held {
    segments: Mutex<BTreeMap<SegmentNumber, Hold>>,
}

/// Why and since when a segment is held.
#[derive(Debug)]
struct Hold {
    reason: String,
    /// The reason concerns this segment only.
    alone: bool,
    since: Instant,
    logged: Instant,
}

impl Held {
    /// Holds a segment for this reason; `alone` if the reason concerns only this segment. Returns
    /// how long the segment has been held if the caller is to log that now, else `None`.
    pub fn hold(&self, number: SegmentNumber, reason: String, alone: bool) -> Option<Duration> {
        let now = Instant::now();
        let mut segments = self.lock();
        let Some(hold) = segments.get_mut(&number) else {
            segments.insert(number, Hold { reason, alone, since: now, logged: now });
            return Some(Duration::ZERO);
        };
        (hold.reason, hold.alone) = (reason, alone);
        if now.duration_since(hold.logged) < LOG_PAUSE {
            return None;
        }
        hold.logged = now;
        Some(now.duration_since(hold.since))
    }

    /// Notes that the segment is no longer held.
    pub fn release(&self, number: SegmentNumber) {
        self.lock().remove(&number);
    }

    /// The held segments with their reasons, the oldest first.
    pub fn reasons(&self) -> Vec<(SegmentNumber, String)> {
        self.lock().iter().map(|(number, hold)| (*number, hold.reason.clone())).collect()
    }

    /// Number of held segments.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Number of held segments that are no reason for newer events to wait: those that are held
    /// alone, and those older than `from`, which have other columns.
    pub(super) fn count_aside(&self, from: SegmentNumber) -> usize {
        self.lock().iter().filter(|(number, hold)| hold.alone || **number < from).count()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SegmentNumber, Hold>> {
        // Each change touches one entry, so a poisoned map is still consistent.
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
        assert_eq!(held.hold(number(3), "first".into(), false), Some(Duration::ZERO));
        assert_eq!(held.hold(number(3), "second".into(), true), None, "it was logged a moment ago");
        assert_eq!(held.hold(number(2), "another".into(), false), Some(Duration::ZERO));
        assert_eq!(held.reasons(), [(number(2), "another".into()), (number(3), "second".into())]);
        held.release(number(2));
        held.release(number(7));
        assert_eq!((held.count(), held.reasons()), (1, vec![(number(3), "second".into())]));
    }

    #[test]
    fn a_segment_held_alone_or_with_older_columns_is_aside() {
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
