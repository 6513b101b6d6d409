//! Tests of the maps and their logs, in a real folder.

use crate::batch::{BlockNumber, SegmentNumber};
use std::path::Path;

use super::*;
use crate::batch::identity::{Summary, of_event, of_request};
use crate::batch::{Batch, CommitOutcome, Mark};
use crate::spool::storage::Disk;

const FIGURES: Summary = Summary { accepted: 3, rejected: 1, refused: false };

fn key(name: &str, body: &str) -> RequestKey {
    RequestKey::of_tests(of_request("events", name.as_bytes()), body.as_bytes(), FIGURES)
}

struct Bench {
    keys: Requests,
    log: HourlyLog<RequestKey>,
    metrics: Arc<SpoolMetrics>,
}

impl Bench {
    fn open(dir: &Path, keys_max: usize, now: u64) -> Self {
        let layout = Arc::new(Layout::open(Arc::new(Disk), dir, vec!["t".into()], Some("node")).unwrap());
        let metrics = Arc::new(SpoolMetrics::default());
        let (mut keys, log) = Requests::open(&layout, &metrics, keys_max).unwrap();
        keys.forget_old(now);
        Self { keys, log, metrics }
    }

    /// Commits requests and seals their block.
    fn take(&mut self, block: u64, keys: &[RequestKey], now: u64) {
        for key in keys {
            self.keys.begin(key, BlockNumber::first(SegmentNumber::new(block)));
        }
        self.keys.committed(now);
        assert!(self.log.append(BlockNumber::first(SegmentNumber::new(block)), keys, now).is_ok());
    }

    fn knows(&self, name: &str) -> bool {
        self.keys.rule(&key(name, "body")) != OutcomeRule::OfGroup
    }
}

fn repeated(block: Option<u64>) -> CommitOutcome {
    CommitOutcome::Repeated { summary: FIGURES, block: block.map(SegmentNumber::new).map(BlockNumber::first) }
}

fn logs(dir: &Path) -> Vec<String> {
    crate::spool::tests::files(&dir.join("keys"))
}

const HOUR: u64 = 3600;

#[test]
fn a_key_is_new_once_and_a_failed_commit_leaves_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(folder.path(), 10, 0);
    let (first, other_body) = (key("a", "body"), key("a", "another"));
    assert_eq!(bench.keys.rule(&first), OutcomeRule::OfGroup);
    bench.keys.begin(&first, BlockNumber::first(SegmentNumber::new(7)));
    assert_eq!(bench.keys.rule(&first), OutcomeRule::IfCommitted(repeated(Some(7))));
    assert_eq!(bench.keys.rule(&other_body), OutcomeRule::IfCommitted(CommitOutcome::KeyReused));
    bench.keys.refused();
    assert_eq!(bench.keys.rule(&first), OutcomeRule::OfGroup);
    bench.keys.begin(&first, BlockNumber::first(SegmentNumber::new(8)));
    bench.keys.committed(1);
    assert_eq!(bench.keys.rule(&first), OutcomeRule::Fixed(repeated(None)), "block 8 does not wait");
    bench.metrics.opened(BlockNumber::first(SegmentNumber::new(8)), TableIndex::default(), 1);
    assert_eq!(bench.keys.rule(&first), OutcomeRule::Fixed(repeated(Some(8))));
    assert_eq!(bench.keys.rule(&other_body), OutcomeRule::Fixed(CommitOutcome::KeyReused));
    assert_eq!(bench.keys.rule(&key("b", "body")), OutcomeRule::OfGroup);
}

#[test]
fn a_key_is_forgotten_after_a_day_or_when_enough_newer_ones_came() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(folder.path(), 3, 0);
    bench.take(1, &[key("a", "body")], 100);
    bench.take(2, &[key("b", "body")], 200);
    assert_eq!(bench.metrics.request_keys(), (2, SECONDS_MAX));
    bench.take(3, &[key("c", "body")], 300);
    let (count, horizon) = bench.metrics.request_keys();
    assert!(count == 3 && (200..1000).contains(&horizon), "full, since the oldest: {horizon} s");
    bench.take(4, &[key("d", "body")], 400);
    assert_eq!(["a", "b", "c", "d"].map(|name| bench.knows(name)), [false, true, true, true]);
    bench.take(5, &[key("e", "body")], 300 + SECONDS_MAX);
    assert_eq!(["b", "c", "d", "e"].map(|name| bench.knows(name)), [false, false, true, true]);
}

#[test]
fn a_key_is_forgotten_after_a_day_without_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(folder.path(), 3, 0);
    bench.take(1, &[key("a", "body")], 100);
    bench.keys.forget_old(99 + SECONDS_MAX);
    assert!(bench.knows("a"));
    bench.keys.forget_old(100 + SECONDS_MAX);
    assert!(!bench.knows("a"));
    assert_eq!(bench.metrics.request_keys(), (0, SECONDS_MAX));
}

#[test]
fn a_body_that_an_older_release_has_hashed_is_compared_as_long_as_its_key_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let id = of_request("events", b"old");
    Bench::open(folder.path(), 10, 0).take(1, &[RequestKey::of_older_release(id, b"body", FIGURES)], 100);
    let layout = Arc::new(Layout::open(Arc::new(Disk), folder.path(), vec!["t".into()], Some("node")).unwrap());
    let (mut requests, _) = Requests::open(&layout, &Arc::default(), 10).unwrap();
    let rule = |requests: &Requests, body: &[u8]| {
        requests.rule(&RequestKey { id, body: layout.bodies().hash(body), summary: Summary::default() })
    };
    assert_eq!(rule(&requests, b"body"), OutcomeRule::Fixed(repeated(None)));
    assert_eq!(rule(&requests, b"another"), OutcomeRule::Fixed(CommitOutcome::KeyReused));
    requests.forget_old(100 + SECONDS_MAX);
    assert_eq!(rule(&requests, b"another"), OutcomeRule::OfGroup);
    let stored = RequestKey::of_older_release(id, b"body", FIGURES).body;
    assert!(layout.bodies().hash(b"another").may_be(&stored), "both hashes are made for nobody any more");
}

#[test]
fn the_newest_keys_of_a_block_with_too_many_are_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["a", "b", "c", "d", "e"];
    let newest = [false, false, false, true, true];
    let mut bench = Bench::open(folder.path(), 2, 0);
    for name in names {
        bench.keys.begin(&key(name, "body"), BlockNumber::first(SegmentNumber::new(1)));
        bench.keys.committed(5);
    }
    assert_eq!(names.map(|name| bench.knows(name)), newest);
    assert!(
        bench.log.append(BlockNumber::first(SegmentNumber::new(1)), &names.map(|name| key(name, "body")), 6).is_ok()
    );
    assert_eq!(names.map(|name| bench.knows(name)), newest, "after the seal");
    drop(bench);
    let bench = Bench::open(folder.path(), 2, 7);
    assert_eq!(names.map(|name| bench.knows(name)), newest, "after a restart");
    drop(bench);

    let (mut seen, mut log, _) = open_events(folder.path(), 2);
    begin(&mut seen, &names, 1);
    seen.committed();
    assert!(log.append(BlockNumber::first(SegmentNumber::new(1)), &names.map(id), 6).is_ok());
    assert_eq!(begin(&mut seen, &["d", "e", "a"], 2).0, "a", "after the seal");
    seen.refused();
    drop((seen, log));
    let (mut seen, _, _) = open_events(folder.path(), 2);
    assert_eq!(begin(&mut seen, &["d", "e", "a"], 2).0, "a", "after a restart");
}

#[test]
fn what_was_logged_is_known_after_a_restart_but_for_a_chunk_that_is_torn_or_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(folder.path(), 100, 0);
    bench.take(1, &[key("a", "body"), key("b", "body")], HOUR);
    bench.take(2, &[key("c", "body")], HOUR + 1);
    bench.take(3, &[key("d", "body")], 2 * HOUR);
    assert_eq!(logs(folder.path()), ["1970-01-01T01.log", "1970-01-01T02.log"]);
    drop(bench);
    let path = folder.path().join("keys/1970-01-01T01.log");
    let whole = std::fs::read(&path).unwrap();
    let second_chunk = whole.len() - 28 - 36;
    for cut in 0..=whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let bench = Bench::open(folder.path(), 100, 2 * HOUR);
        let known = ["a", "b", "c", "d"].map(|name| bench.knows(name));
        assert_eq!(known, [cut >= second_chunk, cut >= second_chunk, cut == whole.len(), true], "{cut}");
    }
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 2;
        std::fs::write(&path, &bad).unwrap();
        let bench = Bench::open(folder.path(), 100, 2 * HOUR);
        let known = ["a", "b", "c"].map(|name| bench.knows(name));
        assert_eq!(known, [at >= second_chunk, at >= second_chunk, at < second_chunk], "{at}");
    }
}

#[test]
fn damage_costs_only_the_damaged_chunks_also_when_the_file_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(folder.path(), 10_000, 0);
    bench.take(1, &[key("a", "body")], HOUR);
    let first = 28 + 36;
    // Longer than the search window, so that the next chunk begins in a later window.
    let many: Vec<RequestKey> = (0..4000).map(|number| key(&number.to_string(), "body")).collect();
    bench.take(2, &many, HOUR + 1);
    bench.take(3, &[key("b", "body")], HOUR + 2);
    bench.take(4, &[key("c", "body")], HOUR + 3);
    drop(bench);
    let path = folder.path().join("keys/1970-01-01T01.log");
    let mut bytes = std::fs::read(&path).unwrap();
    let third = first + 28 + 4000 * 36;
    let known = |bench: &Bench| ["a", "0", "3999", "b", "c", "d"].map(|name| bench.knows(name));
    // The middle of the long chunk, the header of the chunk behind it, and the magic of a chunk that
    // is none.
    bytes[first + 1000] ^= 1;
    bytes[third + 4] ^= 1;
    bytes[first + 2000..first + 2004].copy_from_slice(b"KEYS");
    std::fs::write(&path, &bytes).unwrap();
    let mut bench = Bench::open(folder.path(), 10_000, HOUR);
    assert_eq!(known(&bench), [true, false, false, false, true, false]);
    bench.take(5, &[key("d", "body")], HOUR + 4);
    drop(bench);
    let bench = Bench::open(folder.path(), 10_000, HOUR);
    assert_eq!(known(&bench), [true, false, false, false, true, true]);
}

#[test]
fn a_chunk_is_found_wherever_damage_ends() {
    let folder = tempfile::tempdir().unwrap();
    Bench::open(folder.path(), 10, 0).take(1, &[key("a", "body")], HOUR);
    let path = folder.path().join("keys/1970-01-01T01.log");
    let chunk = std::fs::read(&path).unwrap();
    // Around the end of the first window.
    for damage in (0..100).chain((64 << 10) - 80..(64 << 10) + 80) {
        let mut bytes = vec![b'K'; damage];
        bytes.extend_from_slice(&chunk);
        std::fs::write(&path, &bytes).unwrap();
        assert!(Bench::open(folder.path(), 10, HOUR).knows("a"), "{damage}");
    }
}

#[test]
fn a_file_of_a_previous_run_is_replaced_by_one_with_its_valid_chunks() {
    let folder = tempfile::tempdir().unwrap();
    Bench::open(folder.path(), 100, 0).take(1, &[key("a", "body")], HOUR);
    let path = folder.path().join("keys/1970-01-01T01.log");
    let mut torn = std::fs::read(&path).unwrap();
    torn.extend_from_slice(b"KEYS\x05");
    std::fs::write(&path, &torn).unwrap();
    let mut bench = Bench::open(folder.path(), 100, HOUR);
    bench.take(2, &[key("b", "body")], HOUR + 5);
    bench.take(3, &[key("c", "body")], HOUR + 6);
    drop(bench);
    let bench = Bench::open(folder.path(), 100, HOUR);
    assert_eq!(["a", "b", "c"].map(|name| bench.knows(name)), [true; 3]);
    assert_eq!(logs(folder.path()), ["1970-01-01T01.log"]);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 3 * (28 + 36));
}

#[test]
fn old_logs_are_removed_once_all_in_them_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::open(folder.path(), 4, 0);
    bench.metrics.occupy(1000);
    for hour in 1..=6 {
        let names = [format!("{hour}a"), format!("{hour}b")];
        bench.take(hour, &names.map(|name| key(&name, "body")), hour * HOUR);
    }
    assert_eq!(logs(folder.path()), ["1970-01-01T05.log", "1970-01-01T06.log"]);
    assert_eq!(bench.metrics.spool_bytes(), 1000 + 2 * (28 + 2 * 36));
    bench.take(7, &[key("late", "body")], 6 * HOUR + SECONDS_MAX + HOUR);
    assert_eq!(logs(folder.path()), ["1970-01-02T07.log"]);
}

#[test]
fn a_log_keeps_little_more_than_the_remembered_records() {
    let folder = tempfile::tempdir().unwrap();
    let (records_max, chunk) = (5000, 1000);
    let id = |number: u64| of_event("column", &number.to_le_bytes());
    let path = folder.path().join("t/seen/1970-01-01T01.log");
    let len = || std::fs::metadata(&path).unwrap().len();
    let log_all = |log: &mut HourlyLog<Id>, numbers: std::ops::Range<u64>| {
        for block in numbers.step_by(chunk) {
            let ids: Vec<Id> = (block..block + chunk as u64).map(id).collect();
            assert!(log.append(BlockNumber::first(SegmentNumber::new(block)), &ids, HOUR).is_ok());
        }
    };
    let knows = |numbers: std::ops::Range<u64>| {
        let (seen, _, _) = open_events(folder.path(), records_max);
        numbers.filter(|number| seen.knows(&id(*number))).count()
    };
    let (_seen, mut log, metrics) = open_events(folder.path(), records_max);
    let mut largest = 0;
    for from in (0..200_000).step_by(10_000) {
        log_all(&mut log, from..from + 10_000);
        largest = largest.max(len());
        assert_eq!(metrics.spool_bytes(), len());
    }
    assert!(largest < 3 << 20, "{largest}");
    drop((_seen, log));
    assert_eq!((knows(195_000..200_000), knows(0..195_000)), (5000, 0));
    // A later run replaces the file by one without the obsolete chunks.
    let (_seen, mut log, _) = open_events(folder.path(), records_max);
    log_all(&mut log, 200_000..201_000);
    assert!(len() < 7 * (28 + chunk as u64 * 16), "{}", len());
    drop((_seen, log));
    assert_eq!((knows(196_000..201_000), knows(0..196_000)), (5000, 0));
}

fn id(name: &str) -> Id {
    of_event("column", name.as_bytes())
}

/// A batch of events with these identities; each row is the name.
fn events(names: &[&str]) -> Batch {
    let mut batch = Batch::new(0);
    for name in names {
        let start = batch.rows.bytes.len();
        batch.rows.bytes.extend_from_slice(name.as_bytes());
        batch.rows.count += 1;
        batch.identify(id(name), start..start + name.len());
    }
    batch.close();
    batch
}

fn open_events(dir: &Path, values_max: usize) -> (SeenEvents, HourlyLog<Id>, Arc<SpoolMetrics>) {
    let layout = Arc::new(Layout::open(Arc::new(Disk), dir, vec!["t".into()], Some("node")).unwrap());
    let metrics = Arc::new(SpoolMetrics::default());
    let (seen, mut logs) = SeenEvents::open(&layout, &metrics, values_max, &[TableIndex::default()]).unwrap();
    (seen, logs.remove(&TableIndex::default()).unwrap(), metrics)
}

/// The events that are left of a batch, and its outcome rule.
fn begin(seen: &mut SeenEvents, names: &[&str], block: u64) -> (String, OutcomeRule) {
    let mut batch = events(names);
    let fate = seen.begin(&mut batch, BlockNumber::first(SegmentNumber::new(block)));
    (String::from_utf8(batch.rows.bytes).unwrap(), fate)
}

fn deduplicated(block: Option<u64>, certain: bool) -> OutcomeRule {
    OutcomeRule::IfCommitted(CommitOutcome::Deduplicated {
        block: block.map(SegmentNumber::new).map(BlockNumber::first),
        certain,
    })
}

#[test]
fn an_event_is_stored_once_and_a_failed_commit_leaves_no_trace_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut seen, _, metrics) = open_events(folder.path(), 100);
    assert_eq!(begin(&mut seen, &["a", "b"], 7), ("ab".into(), OutcomeRule::OfGroup));
    assert_eq!(begin(&mut seen, &["b", "c", "c"], 7), ("c".into(), deduplicated(Some(7), true)));
    seen.refused();
    assert_eq!(begin(&mut seen, &["c", "a"], 8), ("ca".into(), OutcomeRule::OfGroup));
    assert_eq!(begin(&mut seen, &["a"], 8), (String::new(), deduplicated(Some(8), true)), "with that commit");
    seen.committed();
    // Block 8 is inserted, as far as the metrics know.
    assert_eq!(begin(&mut seen, &["a"], 9), (String::new(), deduplicated(None, true)));
    assert_eq!(begin(&mut seen, &["a", "d"], 9), ("d".into(), deduplicated(Some(9), true)));
    metrics.opened(BlockNumber::first(SegmentNumber::new(8)), TableIndex::default(), 1);
    assert_eq!(begin(&mut seen, &["a"], 10), (String::new(), deduplicated(Some(8), true)));
    assert_eq!(begin(&mut seen, &["a", "e"], 10), ("e".into(), deduplicated(Some(10), false)));
}

#[test]
fn the_newest_values_are_remembered_across_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut seen, mut log, _) = open_events(folder.path(), 3);
    for (name, hour) in [("a", 1), ("b", 2), ("c", 3), ("d", 30)] {
        begin(&mut seen, &[name], hour);
        seen.committed();
        assert!(log.append(BlockNumber::first(SegmentNumber::new(hour)), &[id(name)], hour * HOUR).is_ok());
    }
    let left = |seen: &mut SeenEvents| {
        let (left, _) = begin(seen, &["b", "c", "d", "a"], 9);
        seen.refused();
        left
    };
    assert_eq!(left(&mut seen), "a");
    drop((seen, log));
    let logs = crate::spool::tests::files(&folder.path().join("t/seen"));
    assert_eq!(logs, ["1970-01-01T02.log", "1970-01-01T03.log", "1970-01-02T06.log"]);
    let (mut seen, _, _) = open_events(folder.path(), 3);
    assert_eq!(left(&mut seen), "a");
}

#[test]
fn no_step_of_the_clock_forgets_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let ahead = crate::clock::unix_ms() / 1000 + 25 * HOUR;
    let mut bench = Bench::open(folder.path(), 10, 0);
    bench.take(1, &[key("now", "body")], ahead - 25 * HOUR);
    bench.take(2, &[key("ahead", "body")], ahead);
    drop(bench);
    // The clock was wrong for a while, and is right again at the next start.
    let layout = Arc::new(Layout::open(Arc::new(Disk), folder.path(), vec!["t".into()], Some("node")).unwrap());
    let (mut repeats, _) = Repeats::open(&layout, &Arc::default(), 10, 10, &[]).unwrap();
    let mut fresh = Batch::new(0);
    fresh.add_keyed(key("fresh", "body"), Mark::default());
    repeats.begin(&mut fresh, BlockNumber::first(SegmentNumber::new(3)));
    repeats.committed();
    repeats.forget_old();
    let knows = |name| repeats.requests.rule(&key(name, "body")) != OutcomeRule::OfGroup;
    assert!(knows("ahead") && knows("fresh"), "time went back, and then on: neither is a day old");
    assert!(repeats.clock.seconds() >= ahead);
    // Or it is wrong from now on: by a day and an hour, and nothing was taken since.
    drop((fresh, repeats));
    let folder = tempfile::tempdir().unwrap();
    Bench::open(folder.path(), 10, 0).take(1, &[key("now", "body")], ahead - 50 * HOUR);
    let layout = Arc::new(Layout::open(Arc::new(Disk), folder.path(), vec!["t".into()], Some("node")).unwrap());
    let (repeats, _) = Repeats::open(&layout, &Arc::default(), 10, 10, &[]).unwrap();
    assert!(repeats.requests.rule(&key("now", "body")) != OutcomeRule::OfGroup, "time does not pass without a server");
}
