//! What the log says of failures: one line a change. Whatever hangs or breaks, a failure of a table is said when it
//! begins, then once a minute and less and less often while it lasts, with the number of those that were not said,
//! and its end is said once.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::failure::Failure;
use crate::batch::TableIndex;
use crate::clickhouse::client::ClientError;
use crate::spool::Cause;

/// Pause between the first two messages about the same failure; it doubles with each.
const PAUSE_FIRST: Duration = Duration::from_secs(60);

/// The longest pause between two messages about the same failure.
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// Kinds of failures that are told apart for a table; more are said as one.
const KINDS_MAX: usize = 32;

/// The failures that were said, of all tables.
#[derive(Debug, Default)]
pub(super) struct Said(Mutex<BTreeMap<TableIndex, BTreeMap<Kind, Last>>>);

/// What is the same failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    class: &'static str,
    error: &'static str,
    code: Option<u32>,
    /// Of a failure that is no error of the client: how its reason begins.
    text: u64,
}

/// What was said last of a kind of failure.
#[derive(Debug)]
struct Last {
    said: Instant,
    pause: Duration,
    /// Those that were not said since.
    unsaid: u64,
    /// When the failures of the table began that have not ended; `None` if they are one block's, over, or not said.
    since: Option<Instant>,
}

/// A failure is said again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Again {
    /// How many like it were not said.
    pub(super) unsaid: u64,
}

impl Said {
    /// Counts a failure. `Some` if it is to be said now.
    pub(super) fn failed(&self, table: TableIndex, failure: &Failure, cause: Cause, now: Instant) -> Option<Again> {
        let mut tables = self.lock();
        let kinds = tables.entry(table).or_default();
        let mut kind = Kind::of(failure);
        if kinds.len() >= KINDS_MAX && !kinds.contains_key(&kind) {
            kind = Kind { error: "other", code: None, text: 0, ..kind };
        }
        let began = (cause == Cause::Table).then_some(now);
        let Some(last) = kinds.get_mut(&kind) else {
            kinds.insert(kind, Last { said: now, pause: PAUSE_FIRST, unsaid: 0, since: began });
            return Some(Again { unsaid: 0 });
        };
        if now.duration_since(last.said) < last.pause {
            last.unsaid += 1;
            return None;
        }
        let is_over = now.duration_since(last.said) >= last.pause.saturating_mul(2);
        last.pause = if is_over { PAUSE_FIRST } else { PAUSE_MAX.min(last.pause.saturating_mul(2)) };
        last.said = now;
        // Only of what is said an end is said.
        last.since = last.since.or(began);
        Some(Again { unsaid: std::mem::take(&mut last.unsaid) })
    }

    /// An INSERT of the table got through: for how long none had, if that was said.
    pub(super) fn got_through(&self, table: TableIndex, now: Instant) -> Option<Duration> {
        let mut tables = self.lock();
        let ended = tables.get_mut(&table)?.values_mut().filter_map(|last| last.since.take());
        ended.min().map(|since| now.duration_since(since))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TableIndex, BTreeMap<Kind, Last>>> {
        // One entry is changed at a time: nothing can be left half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kind {
    /// By codes alone: a message may quote what a client wrote, and names the query.
    fn of(failure: &Failure) -> Self {
        let (error, code) = match &failure.error {
            None => ("none", None),
            Some(ClientError::NoConnection(_)) => ("no_connection", None),
            Some(ClientError::NoAnswer(_)) => ("no_answer", None),
            Some(ClientError::Refused { status, code, .. }) => ("refused", code.or(Some(u32::from(*status)))),
            Some(ClientError::Unproven(_)) => ("unproven", None),
            Some(ClientError::Damaged(_)) => ("damaged", None),
            Some(ClientError::Absent(_)) => ("absent", None),
        };
        let text = if failure.error.is_none() { beginning(&failure.reason) } else { 0 };
        Self { class: failure.class.as_str(), error, code, text }
    }
}

/// A hash of the first words of a reason, without numbers.
fn beginning(reason: &str) -> u64 {
    const CHARACTERS: usize = 60;
    let mut hasher = DefaultHasher::new();
    reason.chars().filter(|character| !character.is_ascii_digit()).take(CHARACTERS).for_each(|c| c.hash(&mut hasher));
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::super::outcome::Class;
    use super::*;

    const TABLE: TableIndex = TableIndex::new(1);

    fn refused(code: u32) -> Failure {
        let error = ClientError::Refused { status: 500, code: Some(code), message: format!("query {code}") };
        Failure { error: Some(error), ..Failure::passing(format!("text {code}")) }
    }

    #[test]
    fn a_failure_is_said_when_it_begins_and_then_less_and_less_often() {
        let (said, start) = (Said::default(), Instant::now());
        let mut times = Vec::new();
        for second in 0..4000 {
            if let Some(Again { unsaid }) =
                said.failed(TABLE, &refused(1), Cause::Table, start + Duration::from_secs(second))
            {
                times.push((second, unsaid));
            }
        }
        assert_eq!(times, [(0, 0), (60, 59), (180, 119), (420, 239), (900, 479), (1860, 959), (3780, 1919)]);
        assert!(said.failed(TABLE, &refused(2), Cause::Table, start).is_some(), "another one is said at once");
        assert!(
            said.failed(TableIndex::new(2), &refused(1), Cause::Table, start).is_some(),
            "that of another table too"
        );
        let held = Failure { class: Class::Hold, ..refused(1) };
        assert!(said.failed(TABLE, &held, Cause::Own, start).is_some());
        assert!(said.failed(TABLE, &refused(2), Cause::Table, start).is_none());
    }

    #[test]
    fn the_end_is_said_once_and_a_table_that_fails_now_and_then_is_no_flood() {
        let (said, start) = (Said::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        assert_eq!(said.got_through(TABLE, start), None);
        assert!(said.failed(TABLE, &refused(1), Cause::Table, at(1)).is_some());
        assert_eq!(said.got_through(TABLE, at(5)), Some(Duration::from_secs(4)));
        assert_eq!(said.got_through(TABLE, at(6)), None);
        // What is one block's own says nothing of the table.
        assert!(said.failed(TABLE, &refused(7), Cause::Own, at(6)).is_some());
        assert_eq!(said.got_through(TABLE, at(7)), None);
        let (mut begins, mut ends) = (0, 0);
        for second in 7..1000 {
            begins += usize::from(said.failed(TABLE, &refused(1), Cause::Table, at(second)).is_some());
            ends += usize::from(said.got_through(TABLE, at(second)).is_some());
        }
        assert!(begins < 6 && ends == begins, "{begins} {ends}");
        // After a quiet hour it is news again.
        assert!(said.failed(TABLE, &refused(1), Cause::Table, at(20_000)).is_some());
        assert!(said.failed(TABLE, &refused(1), Cause::Table, at(20_061)).is_some());
    }

    #[test]
    fn reasons_of_our_own_are_told_apart_by_their_words() {
        let (said, now) = (Said::default(), Instant::now());
        let says = |reason: &str| said.failed(TABLE, &Failure::hold(reason), Cause::Own, now).is_some();
        assert!(says("block 1 is damaged") && says("no server is configured"));
        assert!(!says("block 22 is damaged") && !says("no server is configured"));
    }

    #[test]
    fn kinds_are_bounded() {
        let (said, now) = (Said::default(), Instant::now());
        let lines = (0..1000).filter(|code| said.failed(TABLE, &refused(*code), Cause::Table, now).is_some());
        assert_eq!(lines.count(), KINDS_MAX + 1);
    }
}
