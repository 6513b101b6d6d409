//! Tests of the committer with an [`Exchange`].

use std::thread;

use crossbeam::channel::{Receiver, unbounded};

use super::exchange::TestExchange;
use super::faulty::FaultyDisk;
use super::*;
use crate::batch::identity::{RequestKey, Summary, of_request};
use crate::batch::{Batch, CommitOutcome, CommitRefusal, Mark, Returned, Sequence};

/// A worker's side: submits batches and waits for their outcomes.
pub(super) struct Bench {
    exchange: Arc<TestExchange>,
    pub(super) sealed: Receiver<SealedBlock>,
    pub(super) pool: Arc<SegmentPool>,
    pub(super) metrics: Arc<SpoolMetrics>,
    thread: thread::JoinHandle<()>,
    sequence: Sequence,
}

impl Bench {
    pub(super) fn start(config: SpoolConfig, inserters: usize) -> Self {
        Self::start_on(Arc::new(Disk), config, inserters)
    }

    pub(super) fn start_on(storage: Arc<dyn Storage>, config: SpoolConfig, inserters: usize) -> Self {
        let exchange = Arc::new(TestExchange::default());
        let (sender, sealed) = unbounded();
        let (spool, recovered) = Spool::open_on(storage, config).unwrap();
        for block in recovered.blocks {
            sender.send(block).unwrap();
        }
        let (pool, metrics) = (spool.pool(), spool.metrics());
        let (committer, keeper) = Committer::new(spool, exchange.clone(), sender, inserters);
        let thread = thread::spawn(|| run(committer, keeper));
        Self { exchange, sealed, pool, metrics, thread, sequence: Sequence::default() }
    }

    pub(super) fn commit(&mut self, rows: &[&str]) -> CommitOutcome {
        self.commit_as(b"frozen", rows)
    }

    /// Commits rows of a schema.
    fn commit_as(&mut self, frozen: &[u8], rows: &[&str]) -> CommitOutcome {
        let mut batch = batch(rows, &[]);
        batch.frozen = frozen.into();
        self.commit_batch(batch)
    }

    pub(super) fn commit_batch(&mut self, mut batch: Batch) -> CommitOutcome {
        self.sequence = self.sequence.next();
        batch.sequence = self.sequence;
        batch.close();
        self.exchange.submit(batch);
        let returned = self.exchange.wait_for_return();
        assert_eq!(returned.batch.sequence, self.sequence);
        returned.of_only_request()
    }

    pub(super) fn next_sealed(&self) -> SealedBlock {
        self.sealed.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    pub(super) fn finish(self) -> Vec<SealedBlock> {
        self.exchange.finish();
        self.thread.join().unwrap();
        self.sealed.try_iter().collect()
    }
}

/// Runs both to their end.
fn run(committer: Committer<TestExchange>, keeper: Keeper) {
    thread::scope(|scope| {
        scope.spawn(|| keeper.run());
        committer.run();
    });
}

pub(super) fn rows_of(blocks: &[SealedBlock]) -> Vec<String> {
    blocks.iter().map(|block| contents(block).unwrap().0).collect()
}

#[test]
fn a_full_spool_refuses_until_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    // Space for two files, and what is always there.
    let files = 2 * (64 << 10) + 2 * crate::limits::SEGMENT_BLOCKS_BYTES + 100;
    let bytes_max = files + kept_bytes(2 * files);
    let mut bench = Bench::start(
        with(SpoolConfig { spool_bytes_max: bytes_max, ..config(folder.path()) }, |table| table.batch_rows = 1),
        1,
    );
    assert!(matches!(bench.commit(&["a"]), CommitOutcome::Committed { .. }));
    assert!(matches!(bench.commit(&["b"]), CommitOutcome::Committed { .. }));
    assert_eq!(bench.commit(&["c"]), CommitOutcome::Refused(CommitRefusal::SpoolFull));
    assert_eq!(bench.metrics.refusal(), Some(CommitRefusal::SpoolFull));
    let first = bench.next_sealed();
    assert_eq!(contents(&first).unwrap().0, "a");
    bench.pool.retire(&first).unwrap();
    // The file of the inserted segment is recycled.
    assert!(matches!(bench.commit(&["d"]), CommitOutcome::Committed { .. }));
    assert!(bench.metrics.spool_bytes() <= bytes_max);
    assert_eq!(rows_of(&bench.finish()), ["b", "d"]);
}

#[test]
fn numbers_go_on_after_a_stop_whatever_was_inserted_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    for (first, starts) in [(1, 0), (3, 1), (5, 2)] {
        let config = with(config(folder.path()), |table| table.batch_rows = 1);
        let mut bench = Bench::start(config, 1);
        assert_eq!(bench.metrics.newest().get(), 2 * starts, "what counts is what was ever opened");
        for (row, number) in ["a", "b"].iter().zip(first..) {
            let block = super::number(number);
            assert_eq!(bench.commit(&[row]), CommitOutcome::Committed { block });
        }
        let pool = bench.pool.clone();
        for block in bench.finish() {
            pool.retire(&block).unwrap();
        }
        fs::remove_dir_all(folder.path().join("spool/t/free")).unwrap();
    }
}

#[test]
fn a_disk_without_room_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(SpoolConfig { disk_free_min: u64::MAX, ..config(folder.path()) }, 1);
    assert_eq!(bench.commit(&["a"]), CommitOutcome::Refused(CommitRefusal::DiskFull));
    assert!(bench.finish().is_empty());
}

#[test]
fn a_committed_and_unsealed_batch_is_recovered_at_the_next_start() {
    for durability in [Durability::Sync, Durability::Written] {
        let folder = tempfile::tempdir().unwrap();
        let config = SpoolConfig { durability, ..config(folder.path()) };
        let mut bench = Bench::start(config.clone(), 1);
        bench.commit(&["a"]);
        bench.commit(&["b"]);
        // Leave the segment unsealed, as a crash does.
        let copy = folder.path().join("crashed");
        fs::create_dir_all(copy.join("log")).unwrap();
        let name = "00000000000000000001.segment";
        fs::copy(config.dir.join("log").join(name), copy.join("log").join(name)).unwrap();
        bench.finish();
        let again = Bench::start(SpoolConfig { dir: copy, ..config }, 1);
        assert_eq!(again.metrics.spooled_rows(), 2);
        assert_eq!(rows_of(&again.finish()), ["ab"]);
    }
}

#[test]
fn positions_and_figures_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(config(folder.path()), 1);
    for _ in 0..10 {
        bench.commit(&["a", "b"]);
    }
    assert_eq!((bench.metrics.durable_position().get(), bench.metrics.spooled_rows()), (10, 20));
    let (commits, seconds) = bench.metrics.commits();
    assert!(commits.iter().sum::<u64>() == 10 && seconds > 0.0);
    assert!(bench.metrics.heartbeat_ms() > 0 && bench.metrics.oldest_unix_ms() > 0);
    let (pool, metrics) = (bench.pool.clone(), bench.metrics.clone());
    for block in bench.finish() {
        pool.retire(&block).unwrap();
    }
    assert_eq!(
        (metrics.spooled_rows(), metrics.outstanding(TableIndex::default()), metrics.oldest_unix_ms()),
        (0, 0, 0)
    );
}

/// Commits batches that are all queued when the committer begins, and returns the outcome of each.
fn commit_at_once(config: SpoolConfig, batches: Vec<Batch>) -> Vec<CommitOutcome> {
    commit_all(config, batches).iter().map(Returned::of_only_request).collect()
}

pub(super) fn commit_all(config: SpoolConfig, batches: Vec<Batch>) -> Vec<Returned> {
    let exchange = Arc::new(TestExchange::default());
    let (sender, _sealed) = unbounded();
    let (spool, _) = Spool::open(config).unwrap();
    let count = batches.len();
    for (mut batch, sequence) in batches.into_iter().zip(1..) {
        batch.sequence = Sequence::new(sequence);
        batch.close();
        exchange.submit(batch);
    }
    exchange.finish();
    let (committer, keeper) = Committer::new(spool, exchange.clone(), sender, 1);
    run(committer, keeper);
    let returned: Vec<_> = std::iter::from_fn(|| exchange.take()).collect();
    let order: Vec<u64> = returned.iter().map(|returned| returned.batch.sequence.get()).collect();
    assert_eq!(order, (1..=count as u64).collect::<Vec<_>>(), "a worker's batches return in their order");
    returned
}

pub(super) fn keyed(key: &[u8], body: &[u8], rows: &[&str]) -> Batch {
    let summary = Summary { accepted: rows.len() as u32, rejected: 0, refused: false };
    let mut batch = batch(rows, &[]);
    batch.add_keyed(RequestKey::of_tests(of_request("t", key), body, summary), Mark::default());
    batch
}

#[test]
fn a_disk_that_is_full_at_a_seal_is_said_to_be_full() {
    let disk = FaultyDisk::new(1);
    let config =
        with(SpoolConfig { dir: "/disk/spool".into(), ..config(Path::new("/")) }, |table| table.batch_rows = 2);
    let mut bench = Bench::start_on(Arc::new(disk.clone()), config, 1);
    let with_key = |key: &[u8], row| {
        let mut batch = keyed(key, b"body", &[row]);
        batch.frozen = b"frozen"[..].into();
        batch
    };
    assert!(matches!(bench.commit_batch(with_key(b"a", "a")), CommitOutcome::Committed { .. }));
    // The next segment is made while the first is written.
    let made = |(name, _): &(String, Vec<u8>)| name == "00000000000000000002.segment";
    while !disk.files_in(Path::new("/disk/spool/log")).iter().any(made) {
        thread::yield_now();
    }
    disk.fill(true);
    // The disk space of the segment is allocated; that of the key log, which the seal needs, is not.
    assert!(matches!(bench.commit_batch(with_key(b"b", "b")), CommitOutcome::Committed { .. }));
    for key in [&b"c"[..], b"d"] {
        assert!(matches!(bench.commit_batch(with_key(key, "c")), CommitOutcome::Committed { .. }));
    }
    for key in [&b"e"[..], b"f"] {
        let refused = bench.commit_batch(with_key(key, "refused"));
        assert_eq!(refused, CommitOutcome::Refused(CommitRefusal::DiskFull));
        assert_eq!(bench.metrics.refusal(), Some(CommitRefusal::DiskFull));
    }
    disk.fill(false);
    assert!(matches!(bench.commit_batch(with_key(b"e", "e")), CommitOutcome::Committed { .. }));
    assert_eq!(rows_of(&bench.finish()), ["ab", "cc", "e"]);
}

#[test]
fn a_seal_that_succeeds_after_a_failure_says_that_events_are_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let config = with(config(folder.path()), |table| table.batch_rows = 1);
    let keys = config.dir.join("keys");
    let mut bench = Bench::start(config, 1);
    bench.commit(&["first"]);
    assert_eq!(contents(&bench.next_sealed()).unwrap().0, "first");
    fs::remove_dir_all(&keys).unwrap();
    fs::write(&keys, b"no folder").unwrap();
    for (key, row) in [(b"a", "a"), (b"b", "b")] {
        assert!(matches!(bench.commit_batch(keyed(key, b"body", &[row])), CommitOutcome::Committed { .. }));
    }
    let refused = CommitOutcome::Refused(CommitRefusal::WriteFailed);
    assert_eq!(bench.commit_batch(keyed(b"c", b"body", &["c"])), refused, "two segments are not sealed");
    assert_eq!(bench.metrics.refusal(), Some(CommitRefusal::WriteFailed));
    fs::remove_file(&keys).unwrap();
    fs::create_dir(&keys).unwrap();
    // Nobody sends anything while /readyz is 503.
    assert_eq!(contents(&bench.next_sealed()).unwrap().0, "a");
    assert_eq!(bench.metrics.refusal(), None);
    assert_eq!(rows_of(&bench.finish()), ["b"]);
}

#[test]
fn a_batch_that_only_asks_learns_whether_its_key_is_known_and_leaves_nothing_behind() {
    let mut bench = Bench::start_on(Arc::new(FaultyDisk::new(1)), config(Path::new("/disk")), 1);
    let with_key = |key: &[u8], body: &[u8], only_if_repeat, rows: &[&str]| {
        let mut batch = keyed(key, body, rows);
        batch.frozen = b"frozen"[..].into();
        if only_if_repeat {
            batch.only_ask(Mark::default());
        }
        batch
    };
    assert_eq!(bench.commit_batch(with_key(b"k", b"body", true, &[])), CommitOutcome::NoRepeat);
    let first = bench.commit_batch(with_key(b"k", b"body", false, &["a"]));
    assert!(matches!(first, CommitOutcome::Committed { .. }), "{first:?}");
    let repeat = bench.commit_batch(with_key(b"k", b"body", true, &[]));
    assert!(matches!(repeat, CommitOutcome::Repeated { summary, .. } if summary.accepted == 1), "{repeat:?}");
    assert_eq!(bench.commit_batch(with_key(b"k", b"other", true, &[])), CommitOutcome::KeyReused);
    assert_eq!(bench.commit_batch(with_key(b"l", b"body", true, &[])), CommitOutcome::NoRepeat);
    assert_eq!(rows_of(&bench.finish()), ["a"]);
}

#[test]
fn a_repeat_within_a_group_shares_the_outcome_of_the_original() {
    let folder = tempfile::tempdir().unwrap();
    let batches = || {
        vec![
            keyed(b"k", b"body", &["a"]),
            batch(&["plain"], &[]),
            keyed(b"k", b"body", &["a"]),
            keyed(b"k", b"other", &["b"]),
            keyed(b"l", b"", &[]),
            keyed(b"l", b"", &[]),
        ]
    };
    let refused = CommitOutcome::Refused(CommitRefusal::SpoolFull);
    let full = SpoolConfig { spool_bytes_max: 0, ..config(folder.path()) };
    assert_eq!(commit_at_once(full, batches()), [refused; 6]);
    let stored = CommitOutcome::Committed { block: number(1) };
    let repeated = |accepted| CommitOutcome::Repeated {
        summary: Summary { accepted, rejected: 0, refused: false },
        block: Some(number(1)),
    };
    let expected = [stored, stored, repeated(1), CommitOutcome::KeyReused, stored, repeated(0)];
    assert_eq!(commit_at_once(config(folder.path()), batches()), expected);
    // The committer has sealed the segment at its end, so the key now comes from the log.
    let expected = [repeated(1), CommitOutcome::Committed { block: number(2) }, repeated(1)];
    assert_eq!(commit_at_once(config(folder.path()), batches())[..3], expected);
    let (_spool, recovered) = Spool::open(config(folder.path())).unwrap();
    let rows: Vec<String> = recovered.blocks.iter().map(|block| contents(block).unwrap().0).collect();
    assert_eq!(rows, ["aplain", "plain"]);
}

/// The frozen text and the rows of each block.
fn schemas_of(blocks: &[SealedBlock]) -> Vec<(String, String)> {
    let frozen = |block: &SealedBlock| String::from_utf8(block.frozen().to_vec()).unwrap();
    blocks.iter().map(|block| (frozen(block), contents(block).unwrap().0)).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|&(frozen, rows)| (frozen.to_owned(), rows.to_owned())).collect()
}

#[test]
fn batches_of_two_schemas_are_never_in_one_block() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(config(folder.path()), 1);
    // The second is longer, and a copy of equal text is the same schema.
    let (old, new) = (b"frozen".to_vec(), vec![b'n'; 5000]);
    for (frozen, row) in [(&old, "a"), (&old.clone(), "b"), (&new, "c"), (&old, "d"), (&new, "e"), (&new, "f")] {
        assert!(matches!(bench.commit_as(frozen, &[row]), CommitOutcome::Committed { .. }));
    }
    let new = String::from_utf8(new).unwrap();
    let expected = [("frozen", "ab"), (&new, "c"), ("frozen", "d"), (&new, "ef")];
    assert_eq!(schemas_of(&bench.finish()), pairs(&expected));
    // A start reads the same.
    let (_, recovered) = Spool::open(config(folder.path())).unwrap();
    assert_eq!(schemas_of(&recovered.blocks), pairs(&expected));
}

#[test]
fn a_group_ends_where_the_schema_changes() {
    let folder = tempfile::tempdir().unwrap();
    let exchange = Arc::new(TestExchange::default());
    let (sender, sealed) = unbounded();
    let (spool, _) = Spool::open(config(folder.path())).unwrap();
    let (committer, keeper) = Committer::new(spool, exchange.clone(), sender, 1);
    // All batches are queued at once: with one schema they would be one group.
    let all = [("1", "a"), ("1", "b"), ("2", "c"), ("2", "d"), ("1", "e"), ("2", "f"), ("2", "g")];
    for (sequence, (frozen, row)) in (1..).zip(all) {
        let mut batch = batch(&[row], &[]);
        batch.frozen = frozen.as_bytes().into();
        batch.sequence = Sequence::new(sequence);
        batch.close();
        exchange.submit(batch);
    }
    exchange.finish();
    run(committer, keeper);
    let blocks: Vec<_> = sealed.try_iter().collect();
    assert_eq!(schemas_of(&blocks), pairs(&[("1", "ab"), ("2", "cd"), ("1", "e"), ("2", "fg")]));
    // The batches returned in their order, each with the block that really holds it.
    let returned: Vec<_> = std::iter::from_fn(|| exchange.take()).collect();
    assert_eq!(returned.iter().map(|home| home.batch.sequence.get()).collect::<Vec<_>>(), (1..=7).collect::<Vec<_>>());
    // A segment that was ready for other columns leaves its number unused.
    let outcomes = [0, 0, 1, 1, 2, 3, 3].map(|index| CommitOutcome::Committed { block: blocks[index].number() });
    assert_eq!(returned.iter().map(|home| home.outcome).collect::<Vec<_>>(), outcomes);
}

/// Seals what was committed, and holds it.
fn commit_and_hold(bench: &mut Bench, frozen: &[u8], row: &str, cause: Cause) {
    bench.commit_as(frozen, &[row]);
    let sealed = bench.next_sealed();
    assert_eq!(contents(&sealed).unwrap().0, row);
    bench.metrics.held.hold(sealed.number(), sealed.table(), "a reason", cause);
}

#[test]
fn while_the_table_takes_nothing_age_seals_two_blocks_and_no_more() {
    for inserters in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let config = with(config(folder.path()), |table| table.batch_age = Duration::from_millis(20));
        let mut bench = Bench::start(config, inserters);
        commit_and_hold(&mut bench, b"frozen", "a", Cause::Table);
        commit_and_hold(&mut bench, b"frozen", "b", Cause::Table);
        bench.commit(&["c"]);
        assert!(bench.sealed.recv_timeout(Duration::from_millis(300)).is_err(), "sealed while nothing gets through");
        bench.commit(&["d"]);
        bench.metrics.held.got_through(TableIndex::default());
        assert_eq!(contents(&bench.next_sealed()).unwrap().0, "cd");
    }
}

#[test]
fn a_thousand_blocks_that_are_held_leave_the_next_one_its_age_and_little_of_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let config = with(config(folder.path()), |table| table.batch_age = Duration::from_millis(1));
    let bytes = 1001 * (config.tables[0].batch_bytes + crate::limits::SEGMENT_BLOCKS_BYTES);
    let mut bench = Bench::start(SpoolConfig { spool_bytes_max: bytes / 2, ..config }, 1);
    for index in 0..1000 {
        bench.commit(&["a"]);
        let mut sealed = bench.next_sealed();
        match index % 2 {
            0 => drop(bench.metrics.held.hold(sealed.number(), sealed.table(), "a reason", Cause::Own)),
            _ => bench.metrics.held.retry(sealed.number(), sealed.table(), Cause::Own),
        }
        bench.pool.set_apart(&mut sealed);
    }
    assert!(matches!(bench.commit(&["b"]), CommitOutcome::Committed { .. }));
    assert_eq!(contents(&bench.next_sealed()).unwrap().0, "b");
}

#[test]
fn held_blocks_of_older_columns_do_not_keep_younger_events_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let config = with(config(folder.path()), |table| table.batch_age = Duration::from_millis(20));
    let mut bench = Bench::start(config, 1);
    for row in ["a", "b"] {
        commit_and_hold(&mut bench, b"old", row, Cause::Table);
    }
    // Of the same columns: it would be held as well, and is better kept growing.
    bench.commit_as(b"old", &["c"]);
    assert!(bench.sealed.recv_timeout(Duration::from_millis(300)).is_err(), "sealed though its like is held");
    bench.commit_as(b"new", &["d"]);
    let flipped = bench.next_sealed();
    assert_eq!(contents(&flipped).unwrap().0, "c");
    bench.metrics.held.hold(flipped.number(), flipped.table(), "a reason", Cause::Table);
    assert_eq!(contents(&bench.next_sealed()).unwrap().0, "d");
    assert_eq!(bench.metrics.outstanding(TableIndex::default()), 4);
}
