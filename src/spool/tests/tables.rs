//! Tests of several tables in one spool, and of tables whose names are those of its files.

use super::committing::{Bench, rows_of};
use super::faulty::{End, Fault, FaultyDisk};
use super::*;
use crate::batch::identity::{RequestKey, Summary, of_request};
use crate::batch::{CommitOutcome, CommitRefusal, Mark, OutcomeRule};

/// Names in the folder of a spool, or of a table.
const NAMES: [&str; 13] = [
    "keys",
    "state",
    "spare",
    "lock",
    "node-id",
    "node-id.new",
    "log",
    "held",
    "damaged",
    "seen",
    "schema",
    "free",
    "numbers",
];

fn keyed(row: &str) -> Batch {
    let mut batch = batch(&[row], &[]);
    batch.add_keyed(key(row), Mark::default());
    batch.close();
    batch
}

fn key(row: &str) -> RequestKey {
    let summary = Summary { accepted: 1, rejected: 0, refused: false };
    RequestKey::of_tests(of_request("t", row.as_bytes()), b"body", summary)
}

#[test]
fn a_table_with_the_name_of_a_file_of_the_spool_is_one_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let all = || SpoolConfig { tables: NAMES.map(table).into(), node_id: None, ..config(folder.path()) };
    let (spool, _) = Spool::open(all()).unwrap();
    let mut open = write_segment(&spool, 1, None, &[]);
    for (index, label) in (0..).zip(NAMES) {
        let mut batch = keyed(label);
        batch.table = TableIndex::new(index);
        open.append(std::iter::once(&batch), &mut Scratch::default()).unwrap();
    }
    open.sync().unwrap();
    drop((open, spool));
    for _ in 0..2 {
        let (mut spool, recovered) = Spool::open(all()).unwrap();
        assert!(fs::metadata(all().dir.join("spare")).unwrap().is_file());
        let found: Vec<_> = recovered.blocks.iter().map(|block| (block.label(), contents(block).unwrap().0)).collect();
        assert_eq!(found, NAMES.map(|name| (name, name.to_owned())));
        assert!(recovered.blocks.iter().zip(0..).all(|(block, index)| block.table() == TableIndex::new(index)));
        for label in NAMES {
            assert!(matches!(spool.repeats.rule(&key(label)), OutcomeRule::Fixed(_)), "{label}");
            assert!(spool.schema_path(recovered.blocks[0].table()).starts_with(&all().dir));
        }
        spool.repeats.refused();
        assert_eq!(spool.layout.others().unwrap(), []);
        let found = inspect(&all().dir, &NAMES).unwrap();
        assert!(found.len() == NAMES.len() && found.iter().all(|found| matches!(found, Inspected::Sealed(_))));
    }
}

#[test]
fn the_start_of_one_table_notices_that_the_journal_of_another_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let of = |label: &str| SpoolConfig { tables: vec![table(label)], ..config(folder.path()) };
    let (mut spool, _) = Spool::open(of("t")).unwrap();
    let open = write_segment(&spool, 1, None, &[batch(&["row"], &[])]);
    let mut block = open.seal(&mut spool.logs).unwrap_or_else(|_| panic!("it is sealed")).remove(0);
    block.begin_attempt("server", SegmentNumber::new(1)).unwrap();
    drop((spool, block));
    fs::remove_dir_all(of("t").dir.join("state")).unwrap();
    drop(Spool::open(of("another")).unwrap());
    let (_spool, recovered) = Spool::open(of("t")).unwrap();
    assert!(recovered.blocks[0].open_attempt().is_some_and(|open| open.server.is_empty()));
}

/// The settings of these tables.
fn of_tables(dir: &Path, labels: &[&str]) -> SpoolConfig {
    SpoolConfig { tables: labels.iter().map(|label| table(label)).collect(), ..config(dir) }
}

fn row_of(table: u16, row: &str) -> Batch {
    let mut batch = batch(&[row], &[]);
    batch.table = TableIndex::new(table);
    batch
}

#[test]
fn blocks_of_one_segment_leave_one_by_one_and_the_file_goes_with_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let config = || of_tables(folder.path(), &["a", "b", "c"]);
    let (mut spool, _) = Spool::open(config()).unwrap();
    let rows = [(0, "a1"), (1, "b1"), (0, "a2"), (2, "c1"), (1, "b2"), (0, "a3")];
    let open = write_segment(&spool, 1, None, &rows.map(|(table, row)| row_of(table, row)));
    let blocks = open.seal(&mut spool.logs).unwrap_or_else(|_| panic!("it is sealed"));
    let tokens: Vec<String> = blocks.iter().map(SealedBlock::token).collect();
    drop((spool, blocks));
    let name = "00000000000000000001.segment";
    for (leaves, left) in [("b", vec![("a", "a1a2a3"), ("c", "c1")]), ("a", vec![("c", "c1")]), ("c", vec![])] {
        let (spool, recovered) = Spool::open(config()).unwrap();
        for block in &recovered.blocks {
            assert!(tokens.contains(&block.token()), "the token of {} has changed", block.label());
        }
        let leaving = recovered.blocks.iter().find(|block| block.label() == leaves).unwrap();
        spool.pool().retire(leaving).unwrap();
        assert!(spool.metrics().ledger().balances());
        drop((spool, recovered));
        let (spool, recovered) = Spool::open(config()).unwrap();
        let found: Vec<_> = recovered.blocks.iter().map(|block| (block.label(), contents(block).unwrap().0)).collect();
        assert_eq!(found, left.iter().map(|(label, rows)| (*label, (*rows).to_owned())).collect::<Vec<_>>());
        let expected = if left.is_empty() { vec![] } else { vec![name.to_owned()] };
        assert_eq!(files(spool.layout.folder()), expected);
    }
}

/// Two blocks of one segment were sent. One of them is moved out and leaves, and with `both` the other one too,
/// while the `nth` call of all that fails. False once there are not so many calls.
fn leave_with_a_failing_call(nth: u64, both: bool) -> bool {
    let config = of_tables(Path::new("/disk"), &["a", "b"]);
    let mut disk = FaultyDisk::new(nth);
    let (mut spool, _) = Spool::open_on(Arc::new(disk.clone()), config.clone()).unwrap();
    let open = write_segment(&spool, 1, None, &[row_of(0, "a"), row_of(1, "b")]);
    let mut blocks = open.seal(&mut spool.logs).unwrap_or_else(|_| panic!("it is sealed"));
    for block in &mut blocks {
        block.begin_attempt("server", SegmentNumber::new(1)).unwrap();
    }
    disk.plan(nth, Fault::Fails);
    let (mut b, a) = (blocks.remove(1), blocks.remove(0));
    let pool = spool.pool();
    pool.set_apart(&mut b);
    let leaving = if both { vec![&b, &a] } else { vec![&b] };
    let gone: Vec<bool> = leaving.into_iter().map(|block| pool.retire(block).is_ok()).collect();
    let has_failed = !disk.is_planned();
    // What may be forgotten is forgotten then.
    let _ = spool.layout.journal().go_on();
    drop((a, b, pool, spool));
    // Only another boot makes a disk writable again.
    disk.restart(if disk.is_read_only() { End::PowerLost } else { End::Killed });
    let (_spool, recovered) = Spool::open_on(Arc::new(disk.clone()), config).unwrap();
    for block in &recovered.blocks {
        assert!(block.open_attempt().is_some(), "call {nth}, {gone:?}: block {} is as new", block.number());
    }
    has_failed
}

#[test]
fn whichever_call_fails_what_was_sent_is_never_found_as_if_it_had_not_been() {
    for both in [true, false] {
        let calls = (1..).take_while(|nth| leave_with_a_failing_call(*nth, both)).count();
        assert!(calls > 20, "{calls}");
    }
}

#[test]
fn a_block_that_is_set_apart_keeps_its_token_and_leaves_the_segment_to_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let config = || of_tables(folder.path(), &["a", "b"]);
    let (mut spool, _) = Spool::open(config()).unwrap();
    let open = write_segment(&spool, 1, None, &[row_of(0, "a1"), row_of(1, "b1"), row_of(0, "a2")]);
    let mut blocks = open.seal(&mut spool.logs).unwrap_or_else(|_| panic!("it is sealed"));
    blocks.iter().for_each(|block| spool.metrics().recovered(block));
    let (b, mut a) = (blocks.pop().unwrap(), blocks.pop().unwrap());
    a.begin_attempt("a window", SegmentNumber::new(1)).unwrap();
    let token = a.token();
    spool.pool().set_apart(&mut a);
    assert_eq!((a.token(), contents(&a).unwrap().0), (token.clone(), "a1a2".to_owned()));
    let own = "00000000000000000001.0.segment".to_owned();
    assert_eq!(files(spool.layout.folder()), [own.clone(), "00000000000000000001.segment".to_owned()]);
    drop((spool, blocks, a, b));
    let (spool, recovered) = Spool::open(config()).unwrap();
    let found: Vec<_> = recovered.blocks.iter().map(|block| (block.label(), contents(block).unwrap().0)).collect();
    assert_eq!(found, [("a", "a1a2".to_owned()), ("b", "b1".to_owned())], "each of them once");
    let a = &recovered.blocks[0];
    assert_eq!((a.token(), a.open_attempt().is_some()), (token, true));
    spool.pool().retire(&recovered.blocks[1]).unwrap();
    assert_eq!(files(spool.layout.folder()), [own]);
    spool.pool().retire(a).unwrap();
    drop((spool, recovered));
    let (spool, recovered) = Spool::open(config()).unwrap();
    assert!(recovered.blocks.is_empty() && files(spool.layout.folder()).is_empty());
}

#[test]
fn a_block_that_went_in_from_a_file_of_its_own_is_not_sent_again_while_its_segment_waits_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let config = || of_tables(folder.path(), &["a", "b"]);
    let (mut spool, _) = Spool::open(config()).unwrap();
    let open = write_segment(&spool, 1, None, &[row_of(0, "a1"), row_of(1, "b1")]);
    let mut blocks = open.seal(&mut spool.logs).unwrap_or_else(|_| panic!("it is sealed"));
    spool.pool().set_apart(&mut blocks[0]);
    spool.pool().retire(&blocks[0]).unwrap();
    // The journal goes on in its other file, without what is forgotten.
    spool.layout.journal().begin().unwrap();
    drop((spool, blocks));
    for _ in 0..2 {
        let (spool, recovered) = Spool::open(config()).unwrap();
        let found: Vec<_> = recovered.blocks.iter().map(SealedBlock::label).collect();
        assert_eq!(found, ["b"]);
        spool.layout.journal().begin().unwrap();
    }
}

#[test]
fn what_is_damaged_in_one_block_is_missing_in_no_other_of_its_segment() {
    let folder = tempfile::tempdir().unwrap();
    let config = || of_tables(folder.path(), &["a", "b"]);
    let (mut spool, _) = Spool::open(config()).unwrap();
    let open = write_segment(&spool, 1, None, &[row_of(0, "a1"), row_of(1, "b1"), row_of(0, "a2"), row_of(1, "b2")]);
    let blocks = open.seal(&mut spool.logs).unwrap_or_else(|_| panic!("it is sealed"));
    let path = blocks[0].path().to_owned();
    drop((spool, blocks));
    let whole = fs::read(&path).unwrap();
    let hit = memchr::memmem::find(&whole, b"a1").unwrap();
    let header = hit - frame::HEADER;
    for at in [hit, header + 5, header + 30] {
        let _ = fs::remove_dir_all(folder.path().join("spool"));
        drop(Spool::open(config()).unwrap());
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let (spool, mut recovered) = Spool::open(config()).unwrap();
        let (b, mut a) = (recovered.blocks.remove(1), recovered.blocks.remove(0));
        assert_eq!(contents(&b).unwrap().0, "b1b2", "byte {at}");
        assert_eq!(contents(&a).unwrap_err().kind(), io::ErrorKind::InvalidData, "byte {at}");
        let salvaged = spool.pool().salvage(&mut a).unwrap().unwrap();
        let left = salvaged.block.unwrap();
        assert_eq!((contents(&left).unwrap().0.as_str(), salvaged.missing.rows), ("a2", 1));
        assert_eq!(contents(&b).unwrap().0, "b1b2");
        drop((spool, a, b, left));
        let (_spool, recovered) = Spool::open(config()).unwrap();
        let found: Vec<_> = recovered.blocks.iter().map(|block| contents(block).unwrap().0).collect();
        assert_eq!(found, ["a2", "b1b2"], "byte {at}");
    }
}

#[test]
fn a_recovered_block_has_its_schema_twice_again_and_survives_the_next_damage_of_it() {
    for (table, first, second) in (0..8).map(|bits| (bits >> 2 & 1, bits >> 1 & 1, bits & 1)) {
        let folder = tempfile::tempdir().unwrap();
        let config = || of_tables(folder.path(), &["a", "b"]);
        let (spool, _) = Spool::open(config()).unwrap();
        drop(write_segment(&spool, 1, None, &[row_of(0, "a1"), row_of(1, "b1"), row_of(0, "a2")]));
        let path = spool.layout.path(SegmentNumber::new(1), FileKind::Segment);
        drop(spool);
        let schema = [&1u32.to_le_bytes()[..], [&b"a"[..], b"b"][table], b"frozen"].concat();
        for copy in [first, second] {
            let mut bytes = fs::read(&path).unwrap();
            let places: Vec<usize> = memchr::memmem::find_iter(&bytes, &schema).collect();
            assert_eq!(places.len(), schema::COPIES, "copies of the schema of table {table}");
            bytes[places[copy]] ^= 1;
            fs::write(&path, &bytes).unwrap();
            let (_spool, recovered) = Spool::open(config()).unwrap();
            let found: Vec<_> = recovered.blocks.iter().map(|block| contents(block).unwrap().0).collect();
            assert_eq!(found, ["a1a2", "b1"], "table {table}, copies {first} and {second}");
        }
    }
}

#[test]
fn a_table_takes_no_more_of_the_spool_than_its_share_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = of_tables(folder.path(), &["a", "b"]);
    config.tables[0].bytes_max = Some(100);
    let mut bench = Bench::start(config, 1);
    let row = "x".repeat(40);
    let commit = |bench: &mut Bench, table| bench.commit_batch(row_of(table, &row));
    assert!(matches!(commit(&mut bench, 0), CommitOutcome::Committed { .. }));
    assert!(matches!(commit(&mut bench, 0), CommitOutcome::Committed { .. }));
    assert_eq!(commit(&mut bench, 0), CommitOutcome::Refused(CommitRefusal::SpoolFull));
    assert!(matches!(commit(&mut bench, 1), CommitOutcome::Committed { .. }));
    assert_eq!(bench.metrics.refusal(), None, "the server takes events");
    assert_eq!(rows_of(&bench.finish()), [row.repeat(2), row.clone()]);
}
