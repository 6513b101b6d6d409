//! The counters of INSERT attempts. The inserters update them a few times a second.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::name::TableName;
use crate::batch::BlockNumber;
use crate::limits;

/// Upper bounds of the buckets of `insert_seconds`, in seconds.
pub const INSERT_SECONDS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Upper bounds of the buckets of `delivery_seconds`, in seconds.
pub const DELIVERY_SECONDS: [f64; 15] =
    [0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 21_600.0, 86_400.0];

/// Times by the bucket that they are in, with `N` buckets, the last of which has no upper bound.
#[derive(Debug)]
pub struct Durations<const N: usize> {
    buckets: [AtomicU64; N],
    microseconds: AtomicU64,
    bounds: &'static [f64],
}

impl<const N: usize> Durations<N> {
    /// No times yet. `bounds` are the upper bounds of all buckets but the last, in seconds.
    const fn new(bounds: &'static [f64]) -> Self {
        assert!(bounds.len() + 1 == N);
        Self { buckets: [const { AtomicU64::new(0) }; N], microseconds: AtomicU64::new(0), bounds }
    }

    /// Counts a time.
    pub fn add(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let bucket = self.bounds.iter().take_while(|bound| seconds > **bound).count();
        if let Some(counter) = self.buckets.get(bucket) {
            counter.fetch_add(1, Relaxed);
        }
        self.microseconds.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// The number of times in each bucket, and their sum in seconds.
    pub fn get(&self) -> (Vec<u64>, f64) {
        let buckets = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        (buckets, self.microseconds.load(Relaxed) as f64 / 1e6)
    }
}

/// The counters of INSERT attempts into one table.
#[derive(Debug, Default)]
pub struct Attempts {
    done: AtomicU64,
    retry: AtomicU64,
    hold: AtomicU64,
    cut: AtomicU64,
    split: AtomicU64,
    rows: AtomicU64,
}

impl Attempts {
    /// Attempts by outcome, as the label of `inserts_total` names it.
    pub fn by_outcome(&self) -> [(&'static str, u64); 5] {
        [("done", &self.done), ("retry", &self.retry), ("hold", &self.hold), ("cut", &self.cut), ("split", &self.split)]
            .map(|(outcome, count)| (outcome, count.load(Relaxed)))
    }

    /// Number of rows that are proven in the table.
    pub fn rows(&self) -> u64 {
        self.rows.load(Relaxed)
    }

    fn failed(&self, outcome: &str) {
        match outcome {
            "retry" => &self.retry,
            "cut" => &self.cut,
            "split" => &self.split,
            _ => &self.hold,
        }
        .fetch_add(1, Relaxed);
    }
}

/// The blocks whose INSERT fails and is retried, each with the time of the first failure and the last
/// reason.
#[derive(Debug, Default)]
pub struct Failing(Mutex<BTreeMap<BlockNumber, (Instant, String)>>);

/// Time of consecutive failures after which there is a warning.
const WORTH_A_WARNING: Duration = Duration::from_secs(60);

impl Failing {
    /// Notes that the INSERT of a block failed.
    pub fn note(&self, block: BlockNumber, reason: String) {
        let mut failing = self.lock();
        let since = failing.get(&block).map_or_else(Instant::now, |(since, _)| *since);
        failing.insert(block, (since, reason));
    }

    /// Notes that the INSERT of a block no longer fails in this way.
    pub fn forget(&self, block: BlockNumber) {
        self.lock().remove(&block);
    }

    /// One sentence about the blocks that have failed for longer than [`WORTH_A_WARNING`]; `None` if
    /// there are none.
    pub fn warning(&self) -> Option<String> {
        let failing = self.lock();
        let long = || failing.iter().filter(|(_, (since, _))| since.elapsed() >= WORTH_A_WARNING);
        let (block, (since, reason)) = long().next()?;
        let seconds = since.elapsed().as_secs();
        let more = match long().count() {
            1 => String::new(),
            count => format!(", and {} more blocks", count - 1),
        };
        Some(format!("the INSERT of block {block} has failed for {seconds} s{more}; it is retried: {reason}"))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<BlockNumber, (Instant, String)>> {
        lock(&self.0)
    }
}

/// A table that INSERTs go into: one that events are taken for, or its quarantine.
#[derive(Debug)]
pub struct Inserted {
    /// The name in metrics.
    pub label: String,
    /// True for a quarantine table.
    pub is_quarantine: bool,
    /// The attempts.
    pub attempts: Attempts,
    /// Of each block, the time from its first event's commit until all of its rows are proven.
    pub delivery: Durations<{ DELIVERY_SECONDS.len() + 1 }>,
}

impl Inserted {
    fn new(label: String, is_quarantine: bool) -> Self {
        Self { label, is_quarantine, attempts: Attempts::default(), delivery: Durations::new(&DELIVERY_SECONDS) }
    }
}

/// The label of the tables beyond [`limits::UNKNOWN_TABLES_MAX`]; no table's name has a bracket.
pub const OTHER_TABLES: &str = "(other)";

/// The counters of all inserters.
#[derive(Debug)]
pub struct InsertMetrics {
    /// The tables of the configuration and their quarantines, in that order.
    tables: Vec<Arc<Inserted>>,
    /// The places in `tables`.
    places: HashMap<TableName, usize>,
    /// Tables of blocks that a server with another configuration has written.
    unknown: Mutex<BTreeMap<(TableName, bool), Arc<Inserted>>>,
    attempts: Durations<{ INSERT_SECONDS.len() + 1 }>,
    /// Inserters that work on a block.
    busy: AtomicU64,
    problems: Mutex<BTreeMap<String, String>>,
    /// The blocks whose INSERT fails and is retried.
    pub failing: Failing,
}

impl Default for InsertMetrics {
    fn default() -> Self {
        Self {
            tables: Vec::new(),
            places: HashMap::new(),
            unknown: Mutex::default(),
            attempts: Durations::new(&INSERT_SECONDS),
            busy: AtomicU64::new(0),
            problems: Mutex::default(),
            failing: Failing::default(),
        }
    }
}

impl InsertMetrics {
    /// Counters for these tables, each with its label, and their quarantines.
    pub fn new(tables: impl IntoIterator<Item = (TableName, String)>) -> Self {
        let mut metrics = Self::default();
        for (name, label) in tables {
            let quarantine = (name.quarantine(), quarantine_label(&label), true);
            for (name, label, is_quarantine) in [(name, label, false), quarantine] {
                metrics.places.insert(name, metrics.tables.len());
                metrics.tables.push(Arc::new(Inserted::new(label, is_quarantine)));
            }
        }
        metrics
    }

    /// The tables of the configuration, each followed by its quarantine, and then those of other blocks.
    pub fn tables(&self) -> Vec<Arc<Inserted>> {
        let unknown = lock(&self.unknown);
        self.tables.iter().chain(unknown.values()).cloned().collect()
    }

    /// Rows that are proven in target tables, or in quarantine tables.
    pub fn rows(&self, is_quarantine: bool) -> u64 {
        let tables = self.tables();
        tables.iter().filter(|table| table.is_quarantine == is_quarantine).map(|table| table.attempts.rows()).sum()
    }

    /// The counters of the table that an INSERT goes into.
    pub fn of(&self, table: &TableName, is_quarantine: bool) -> Arc<Inserted> {
        if let Some(known) = self.places.get(table).and_then(|place| self.tables.get(*place)) {
            return known.clone();
        }
        let mut unknown = lock(&self.unknown);
        if let Some(found) = unknown.get(&(table.clone(), is_quarantine)) {
            return found.clone();
        }
        let label = format!("{}.{}", table.database, table.table);
        let is_other =
            unknown.len() >= limits::UNKNOWN_TABLES_MAX || self.tables.iter().any(|table| table.label == label);
        let (name, label) =
            if is_other { (TableName::default(), OTHER_TABLES.to_owned()) } else { (table.clone(), label) };
        unknown.entry((name, is_quarantine)).or_insert_with(|| Arc::new(Inserted::new(label, is_quarantine))).clone()
    }

    /// Notes why the table with this label can't be followed or filled; `None` when it can.
    pub fn set_problem(&self, label: &str, problem: Option<String>) {
        let mut problems = lock(&self.problems);
        match problem {
            Some(problem) => drop(problems.insert(label.to_owned(), problem)),
            None => drop(problems.remove(label)),
        }
    }

    /// Why the table with this label can't be followed or filled; `None` if it can.
    pub fn problem(&self, label: &str) -> Option<String> {
        lock(&self.problems).get(label).cloned()
    }

    /// Why tables can't be followed or filled, by label.
    pub fn problems(&self) -> BTreeMap<String, String> {
        lock(&self.problems).clone()
    }

    /// The number of attempts in each bucket of [`INSERT_SECONDS`] and in one more for longer ones,
    /// and the sum of their durations in seconds.
    pub fn durations(&self) -> (Vec<u64>, f64) {
        self.attempts.get()
    }

    /// An inserter takes a block.
    pub fn begin(&self) {
        self.busy.fetch_add(1, Relaxed);
    }

    /// An inserter has done with a block what it could.
    pub fn end(&self) {
        self.busy.fetch_sub(1, Relaxed);
    }

    /// Inserters that work on a block now, spare ones too.
    pub fn busy(&self) -> u64 {
        self.busy.load(Relaxed)
    }

    /// Counts a proven INSERT of `rows` rows into a table.
    pub fn proven(&self, table: &TableName, is_quarantine: bool, rows: u64) {
        let inserted = self.of(table, is_quarantine);
        inserted.attempts.done.fetch_add(1, Relaxed);
        inserted.attempts.rows.fetch_add(rows, Relaxed);
    }

    /// Counts a failed attempt by what follows from it: `retry`, `hold`, `cut` or `split`.
    pub fn failed(&self, table: &TableName, is_quarantine: bool, outcome: &str) {
        self.of(table, is_quarantine).attempts.failed(outcome);
    }

    /// Counts the duration of an attempt.
    pub fn took(&self, time: Duration) {
        self.attempts.add(time);
    }
}

/// The label of the quarantine of the table with this label.
pub fn quarantine_label(label: &str) -> String {
    format!("{label}_quarantine")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(metrics: &InsertMetrics) -> Vec<(String, u64)> {
        metrics.tables().iter().map(|table| (table.label.clone(), table.attempts.rows())).collect()
    }

    #[test]
    fn each_table_and_each_quarantine_has_counters_of_its_own() {
        let (events, hits) = (TableName::new("d", "events"), TableName::new("web", "hits"));
        let metrics = InsertMetrics::new([(events.clone(), "events".into()), (hits.clone(), "hits".into())]);
        metrics.proven(&events, false, 3);
        metrics.proven(&hits, false, 4);
        metrics.proven(&hits.quarantine(), true, 5);
        metrics.failed(&hits.quarantine(), true, "hold");
        let expected = [("events", 3), ("events_quarantine", 0), ("hits", 4), ("hits_quarantine", 5)];
        assert_eq!(labels(&metrics), expected.map(|(label, rows)| (label.to_owned(), rows)));
        assert_eq!((metrics.rows(false), metrics.rows(true)), (7, 5));
        let outcomes = metrics.of(&hits.quarantine(), true).attempts.by_outcome();
        assert_eq!(outcomes, [("done", 1), ("retry", 0), ("hold", 1), ("cut", 0), ("split", 0)]);
    }

    #[test]
    fn tables_of_old_blocks_have_labels_of_their_own_up_to_a_limit() {
        let metrics = InsertMetrics::new([(TableName::new("d", "web.old"), "web.old".into())]);
        metrics.proven(&TableName::new("d", "old"), false, 1);
        metrics.proven(&TableName::new("d", "old"), false, 1);
        metrics.proven(&TableName::new("d", "old_quarantine"), true, 1);
        assert_eq!(labels(&metrics)[2..], [("d.old".to_owned(), 2), ("d.old_quarantine".to_owned(), 1)]);
        // A label that a table of the configuration has is not given twice.
        metrics.proven(&TableName::new("web", "old"), false, 7);
        assert!(labels(&metrics).contains(&("(other)".to_owned(), 7)), "{:?}", labels(&metrics));
        for number in 0..1000 {
            metrics.proven(&TableName::new("many", &number.to_string()), number % 2 == 0, 1);
        }
        assert!(metrics.tables().len() <= limits::UNKNOWN_TABLES_MAX + 4);
        assert_eq!(metrics.rows(false) + metrics.rows(true), 2 + 1 + 7 + 1000, "none is lost");
    }

    #[test]
    fn a_table_s_problem_stays_until_it_is_taken_back() {
        let metrics = InsertMetrics::default();
        metrics.set_problem("a", Some("missing".into()));
        metrics.set_problem("b", Some("broken".into()));
        metrics.set_problem("a", None);
        assert_eq!(metrics.problems(), BTreeMap::from([("b".to_owned(), "broken".to_owned())]));
    }
}
