//! Tests of when a block is full, and of what it takes on the disk while it waits.

use super::committing::{Bench, rows_of};
use super::*;
use crate::batch::CommitOutcome;
use crate::limits;

#[test]
fn rows_seal_a_block_before_they_are_too_many() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(with(config(folder.path()), |table| table.batch_rows = 3), 1);
    for rows in [&["a", "b"][..], &["c", "d"], &["e"], &["f", "g", "h", "i"], &["j"]] {
        assert!(matches!(bench.commit(rows), CommitOutcome::Committed { .. }));
    }
    assert_eq!(rows_of(&bench.finish()), ["ab", "cde", "fghi", "j"]);
}

#[test]
fn bytes_seal_a_block_and_a_large_batch_has_one_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(with(config(folder.path()), |table| table.batch_bytes = 4096), 1);
    let (large, small) = ("x".repeat(100_000), "y".repeat(3000));
    for row in [&small, &large, &small] {
        assert!(matches!(bench.commit(&[row]), CommitOutcome::Committed { .. }));
    }
    let bytes = bench.metrics.spool_bytes();
    assert!(bytes > 100_000, "{bytes}");
    let blocks = bench.finish();
    assert!(blocks.len() >= 2, "{}", blocks.len());
    assert_eq!(rows_of(&blocks).concat(), format!("{small}{large}{small}"));
}

#[test]
fn small_blocks_that_wait_take_little_more_room_than_their_rows() {
    let folder = tempfile::tempdir().unwrap();
    let config = with(config(folder.path()), |table| (table.batch_rows, table.batch_bytes) = (1, 1 << 20));
    let whole = config.segment_bytes();
    let mut bench = Bench::start(config.clone(), 0);
    for row in 0..40 {
        assert!(matches!(bench.commit(&[&row.to_string()]), CommitOutcome::Committed { .. }));
    }
    let metrics = bench.metrics.clone();
    let blocks = bench.finish();
    assert_eq!(blocks.len(), 40);
    let on_disk = || {
        let log = folder.path().join("spool/log");
        files(&log).iter().map(|name| fs::metadata(log.join(name)).unwrap().len()).sum::<u64>()
    };
    let most = (limits::FREE_SEGMENTS_MAX as u64 + 2) * whole + 40 * (64 << 10);
    assert!(on_disk() < most && metrics.spool_bytes() < most, "{} {}", on_disk(), metrics.spool_bytes());
    drop(blocks);
    // Those that an earlier release left at their whole length are cut off at a start.
    let log = folder.path().join("spool/log");
    for name in files(&log) {
        fs::OpenOptions::new().write(true).open(log.join(name)).unwrap().set_len(whole).unwrap();
    }
    assert!(on_disk() >= 40 * whole);
    let bench = Bench::start(config, 0);
    assert!(on_disk() < most && bench.metrics.spool_bytes() < most, "{} {}", on_disk(), bench.metrics.spool_bytes());
    let blocks = bench.finish();
    assert_eq!(rows_of(&blocks), (0..40).map(|row: u32| row.to_string()).collect::<Vec<_>>());
}

#[test]
fn age_seals_only_while_an_inserter_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(with(config(folder.path()), |table| table.batch_age = Duration::from_millis(20)), 1);
    bench.commit(&["a"]);
    let first = bench.next_sealed();
    bench.commit(&["b"]);
    bench.commit(&["c"]);
    assert!(bench.sealed.recv_timeout(Duration::from_millis(300)).is_err(), "sealed without a free inserter");
    assert_eq!(bench.metrics.outstanding(TableIndex::default()), 1);
    bench.pool.retire(&first).unwrap();
    assert_eq!(contents(&bench.next_sealed()).unwrap().0, "bc");
}

#[test]
fn a_silent_insert_leaves_its_place_to_one_more_block_and_a_silent_spare_to_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut bench = Bench::start(with(config(folder.path()), |table| table.batch_age = Duration::from_millis(20)), 1);
    bench.commit(&["a"]);
    bench.metrics.held.fall_silent(bench.next_sealed().number(), TableIndex::default());
    bench.commit(&["b"]);
    let second = bench.next_sealed();
    bench.metrics.held.fall_silent(second.number(), TableIndex::default());
    bench.commit(&["c"]);
    assert!(bench.sealed.recv_timeout(Duration::from_millis(300)).is_err(), "sealed for nobody");
    bench.metrics.held.end_silence(second.number());
    bench.pool.retire(&second).unwrap();
    assert_eq!(contents(&bench.next_sealed()).unwrap().0, "c");
}
