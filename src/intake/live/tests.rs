//! Tests of what is copied, and of who is shown it.

use std::time::Duration;

use super::*;
use crate::batch::identity::Summary;
use crate::batch::{BlockNumber, CommitRefusal, Sequence};
use crate::intake::outbox::Keyed;
use crate::ndjson::LineError;

const TABLE: TableIndex = TableIndex::new(1);
const COMMITTED: CommitOutcome =
    CommitOutcome::Committed { block: BlockNumber::first(crate::batch::SegmentNumber::new(1)) };

/// A report of a body whose lines with these numbers were rejected.
fn report(rejected: impl IntoIterator<Item = u32>) -> Report {
    let error = |line| LineError { line, column: None, code: LineCode::InvalidJson, message: format!("bad {line}") };
    let mut report = Report { errors: rejected.into_iter().map(error).collect(), ..Report::default() };
    report.rejected = report.errors.len() as u32;
    report
}

fn sample(live: &Live, body: &[u8], report: &Report) -> Vec<LiveLine> {
    let form = AddressForm::Truncated;
    let client_ip = Some([8, 8, 8, 8].into());
    live.sample(&Shown { table: TABLE, body, report, client_ip, server_time_unix_ns: 7, form: &form })
}

/// A batch with these lines whose requests came to this.
fn settled(samples: Vec<LiveLine>, outcome: Option<CommitOutcome>, keyed: &[CommitOutcome]) -> Settled {
    Settled {
        sequence: Sequence::default(),
        table: TABLE,
        outcome,
        rows: 1,
        duplicates: 0,
        keyed: keyed.iter().map(|outcome| Keyed { outcome: Some(*outcome), ..Keyed::default() }).collect(),
        waiters: Vec::new(),
        debits: Vec::new(),
        samples,
        elapsed: Duration::ZERO,
    }
}

fn texts(lines: impl IntoIterator<Item = Arc<LiveLine>>) -> Vec<String> {
    lines.into_iter().map(|line| String::from_utf8(line.line.to_vec()).unwrap()).collect()
}

/// A place to watch whose rate has been unused for long.
fn live() -> Arc<Live> {
    let mut live = Live::new(2);
    Arc::get_mut(&mut live).unwrap().started = Instant::now() - Duration::from_secs(60);
    live
}

#[test]
fn lines_are_told_apart_by_the_errors_of_their_numbers() {
    let live = live();
    assert!(!live.is_watched() && sample(&live, b"{}", &report([])).is_empty());
    let (accepted, rejected) = (live.watch(TABLE, Watched::Accepted), live.watch(TABLE, Watched::Rejected));
    let (accepted, rejected) = (accepted.unwrap(), rejected.unwrap());
    let other = live.watch(TableIndex::new(0), Watched::Accepted).unwrap();
    assert!(live.watch(TableIndex::new(2), Watched::Accepted).is_none());
    let lines = sample(&live, b"{\"a\":1}\r\n\nbad\n{\"b\":2}\nworse", &report([3, 5]));
    assert_eq!(lines.len(), 4);
    live.publish(&mut settled(lines, Some(COMMITTED), &[]));
    let shown = accepted.take();
    assert_eq!((shown[0].ip.as_str(), shown[0].server_time_unix_ns), ("8.8.8.0", 7));
    assert_eq!(texts(shown), ["{\"a\":1}", "{\"b\":2}"]);
    let shown = rejected.take();
    assert_eq!(shown[0].rejection.as_ref().unwrap().message, "bad 3");
    assert_eq!(texts(shown), ["bad", "worse"]);
    assert!(other.take().is_empty() && accepted.take().is_empty());
    // Of what comes behind the last listed error nothing is known when there are more.
    let unlisted = Report { rejected: 3, ..report([1, 2]) };
    assert_eq!(sample(&live, b"x\ny\n{}\nz", &unlisted).len(), 2);
    let too_many = Report { rejected: limits::BAD_LINES_MAX + 1, ..report([1]) };
    assert!(sample(&live, b"x\n{}", &too_many).is_empty(), "nothing of it is stored");
    drop((accepted, rejected, other));
    assert!(!live.is_watched() && sample(&live, b"{}", &report([])).is_empty());
}

#[test]
fn only_what_is_committed_is_shown() {
    let live = live();
    let watcher = live.watch(TABLE, Watched::Accepted).unwrap();
    let lines = |keyed| {
        let lines = sample(&live, b"{\"a\":1}", &report([]));
        lines.into_iter().map(|line| line.of_keyed(keyed)).collect::<Vec<_>>()
    };
    let shows = |keyed, outcome, of_keyed: &[CommitOutcome]| {
        live.publish(&mut settled(lines(keyed), outcome, of_keyed));
        !watcher.take().is_empty()
    };
    let refused = CommitOutcome::Refused(CommitRefusal::DiskFull);
    let repeated = CommitOutcome::Repeated { summary: Summary::default(), block: None };
    assert!(shows(None, Some(COMMITTED), &[]));
    assert!(shows(None, Some(CommitOutcome::Deduplicated { block: None, certain: true }), &[]));
    assert!(!shows(None, Some(refused), &[]));
    assert!(!shows(None, None, &[]));
    assert!(!shows(Some(1), Some(COMMITTED), &[COMMITTED, repeated]));
    assert!(shows(Some(0), Some(COMMITTED), &[COMMITTED, repeated]));
    assert_eq!(live.bytes.load(Relaxed), 0, "what is not shown is given back");
}

#[test]
fn a_hundred_lines_a_second_are_copied_and_no_more_than_the_memory_for_them() {
    let live = live();
    let watcher = live.watch(TABLE, Watched::Accepted).unwrap();
    let body = "{\"a\":1}\n".repeat(500);
    let lines = sample(&live, body.as_bytes(), &report([]));
    assert!((100..=101).contains(&lines.len()), "{}", lines.len());
    assert!(sample(&live, body.as_bytes(), &report([])).len() <= 2, "the second is used up");
    let now = live.started.elapsed().as_micros() as u64;
    let permitted = (0..1000).filter(|_| live.permits(TABLE, Watched::Accepted, now + 250_000)).count();
    assert!((23..=26).contains(&permitted), "a quarter of a second later: {permitted}");
    drop(lines);
    // A long line is cut, and many are no more than they may be.
    let live = self::live();
    let watcher_of_long = live.watch(TABLE, Watched::Rejected).unwrap();
    let long = [vec![b'x'; limits::LIVE_LINE_BYTES_MAX + 1], vec![b'\n']].concat().repeat(200);
    let lines = sample(&live, &long, &report(1..=100));
    assert!(lines.iter().all(|line| line.is_cut && line.line.len() == limits::LIVE_LINE_BYTES_MAX));
    assert_eq!(lines.len(), 100);
    for _ in 0..3 {
        live.tap(TABLE, Watched::Rejected).unwrap().used_until.store(0, Relaxed);
        std::mem::forget(sample(&live, &long, &report(1..=100)));
    }
    assert!(live.bytes.load(Relaxed) <= limits::LIVE_BYTES_MAX);
    drop((watcher, watcher_of_long));
}

#[test]
fn who_does_not_look_keeps_a_bounded_number_of_lines_and_the_others_see_all() {
    let live = live();
    let (slow, fast) = (live.watch(TABLE, Watched::Accepted).unwrap(), live.watch(TABLE, Watched::Accepted).unwrap());
    let mut seen = 0;
    for _ in 0..20 {
        live.tap(TABLE, Watched::Accepted).unwrap().used_until.store(0, Relaxed);
        let lines = sample(&live, "{\"a\":1}\n".repeat(90).as_bytes(), &report([]));
        live.publish(&mut settled(lines, Some(COMMITTED), &[]));
        seen += fast.take().len();
    }
    assert_eq!((seen, slow.take().len()), (20 * 90, QUEUE_LINES));
    // Nobody looks: the queue is full, and the rest is dropped.
    for _ in 0..20 {
        live.tap(TABLE, Watched::Accepted).unwrap().used_until.store(0, Relaxed);
        let lines = sample(&live, "{\"a\":1}\n".repeat(90).as_bytes(), &report([]));
        live.publish(&mut settled(lines, Some(COMMITTED), &[]));
    }
    assert_eq!(live.queue.len(), QUEUE_LINES);
    drop((slow, fast));
    assert_eq!((live.queue.len(), live.bytes.load(Relaxed)), (0, 0), "nothing is kept for nobody");
    let all: Vec<_> = (0..limits::LIVE_WATCHERS_MAX).map(|_| live.watch(TABLE, Watched::Accepted).unwrap()).collect();
    assert!(live.watch(TABLE, Watched::Accepted).is_none());
    drop(all);
    assert!(live.watch(TABLE, Watched::Accepted).is_some());
}
