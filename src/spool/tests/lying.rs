//! Two faults in a row: the page cache shows the next process bytes that are not on the disk.

use super::faulty::{End, Fault, FaultyDisk};
use super::*;
use crate::batch::identity::{RequestKey, Summary, of_request};
use crate::batch::{Mark, OutcomeRule, SegmentNumber};
use crate::spool::storage::{SealError, Storage};

fn open(disk: &FaultyDisk) -> Option<(Spool, Vec<SealedBlock>)> {
    let config = SpoolConfig { dir: "/disk/spool".into(), ..config(Path::new("/")) };
    Spool::open_on(Arc::new(disk.clone()), config).ok().map(|(spool, recovered)| (spool, recovered.blocks))
}

#[test]
fn a_key_is_never_known_without_its_events() {
    let summary = Summary { accepted: 1, rejected: 0, refused: false };
    let key = RequestKey::of_tests(of_request("t", b"key"), b"body", summary);
    let mut keyed = batch(&["keyed"], &[]);
    keyed.add_keyed(key, Mark::default());
    keyed.close();
    let mut known = 0;
    for seed in 0..40 {
        for nth in 1..50 {
            let mut disk = FaultyDisk::new(seed * 100 + nth);
            let (spool, _) = open(&disk).unwrap();
            // Killed before the sync.
            write_segment(&spool, 1, None, std::slice::from_ref(&keyed));
            drop(spool);
            disk.restart(End::Killed);
            disk.plan(nth, Fault::PowerLoss);
            drop(open(&disk));
            disk.restart(End::PowerLost);
            disk.heal();
            let (spool, blocks) = open(&disk).unwrap();
            if spool.repeats.rule(&key) != OutcomeRule::OfGroup {
                known += 1;
                assert_eq!(blocks.len(), 1, "seed {seed}: a repeat would be answered and is lost, at call {nth}");
            }
        }
    }
    assert!(known > 0, "it never got so far");
}

#[test]
fn a_frame_of_a_refused_batch_is_not_found_by_the_next_process() {
    let mut failed = 0;
    for seed in 0..300 {
        let mut disk = FaultyDisk::new(seed);
        let (spool, _) = open(&disk).unwrap();
        let mut segment = write_segment(&spool, 1, None, &[batch(&["stored"], &[])]);
        let refused = [batch(&["refused"], &[]), batch(&["as well"], &[])];
        disk.plan(1, Fault::ShortThenFails);
        if segment.append(refused.iter(), &mut Scratch::default()).is_ok() {
            continue;
        }
        failed += 1;
        drop((segment, spool));
        disk.restart(End::Killed);
        let (_spool, blocks) = open(&disk).unwrap();
        assert_eq!(contents(&blocks[0]).unwrap().0, "stored", "seed {seed}");
    }
    assert!(failed > 200, "{failed}");
}

#[test]
fn an_attempt_after_a_record_that_could_not_be_written_is_known_to_the_next_process() {
    for seed in 0..100 {
        let mut disk = FaultyDisk::new(seed);
        let (mut spool, _) = open(&disk).unwrap();
        let segment = write_segment(&spool, 1, None, &[batch(&["row"], &[])]);
        let mut block = segment.seal(&mut spool.logs).map_err(|_| ()).unwrap().remove(0);
        block.begin_attempt("window", SegmentNumber::new(1)).unwrap();
        // A part of the record is written, which may be all that matters of it.
        disk.plan(1, Fault::ShortThenFails);
        block.use_up_token().unwrap_err();
        if spool.layout.journal().is_broken() {
            continue;
        }
        let token = block.token();
        block.begin_attempt("window", SegmentNumber::new(1)).unwrap();
        drop((block, spool));
        disk.restart(if seed % 2 == 0 { End::Killed } else { End::PowerLost });
        let (_spool, blocks) = open(&disk).unwrap();
        assert_eq!(blocks[0].token(), token, "seed {seed}: it was sent under this token");
        assert!(blocks[0].open_attempt().is_some(), "seed {seed}");
    }
}

#[test]
fn a_cut_that_could_not_be_written_is_unknown_to_whoever_sends_the_block() {
    for seed in 0..80 {
        let nth = 1 + seed % 3;
        let mut disk = FaultyDisk::new(seed);
        let (mut spool, _) = open(&disk).unwrap();
        let segment = write_segment(&spool, 1, None, &[batch(&["row"], &[])]);
        let mut block = segment.seal(&mut spool.logs).map_err(|_| ()).unwrap().remove(0);
        let piece = Piece { first: 0, rows: 1, offset: 0, bytes: 3, state: PieceState::Waiting };
        disk.plan(nth, Fault::Fails);
        let is_cut = block.cut_into(vec![piece]).is_ok();
        assert_eq!(block.cut().is_some(), is_cut);
        let is_sent = block.begin_attempt("window", SegmentNumber::new(1)).is_ok();
        drop((block, spool));
        disk.restart(if disk.is_read_only() { End::PowerLost } else { End::Killed });
        disk.heal();
        let (_spool, blocks) = open(&disk).unwrap();
        assert!(!is_sent || blocks[0].cut().is_some() == is_cut, "seed {seed}");
    }
}

#[test]
fn what_is_sent_under_a_token_has_its_seal_on_the_disk() {
    let mut seals = 0;
    for seed in 0..40 {
        for nth in 1..6 {
            let mut disk = FaultyDisk::new(seed);
            let (mut spool, _) = open(&disk).unwrap();
            let mut segment = write_segment(&spool, 1, None, &[batch(&["row"], &[])]);
            segment.sync().unwrap();
            disk.plan(nth, Fault::Fails);
            let Err(failure) = segment.seal(&mut spool.logs) else { continue };
            let (segment, SealError::Sync(_)) = *failure else { continue };
            drop((segment, spool));
            disk.restart(End::Killed);
            let (spool, mut blocks) = open(&disk).unwrap();
            let token = blocks[0].token();
            blocks[0].begin_attempt("window", SegmentNumber::new(1)).unwrap();
            drop((spool, blocks));
            disk.restart(End::PowerLost);
            let (_spool, blocks) = open(&disk).unwrap();
            assert_eq!(blocks.iter().map(SealedBlock::token).collect::<Vec<_>>(), [token], "seed {seed}");
            seals += 1;
        }
    }
    assert!(seals > 0, "no sync failed");
}

/// Whichever call fails while a recycled file becomes a segment, and whether or not the file can be
/// removed afterwards: its bytes count as long as it exists.
#[test]
fn a_recycled_file_counts_until_it_is_gone() {
    let mut left = [0, 0];
    for seed in 0..40 {
        for nth in 1..12 {
            let disk = FaultyDisk::new(seed);
            let (spool, _) = open(&disk).unwrap();
            let (free, len) = (spool.layout.free_dir().join("1.free"), 4096);
            disk.create(&free).unwrap().reserve(len).unwrap();
            spool.metrics.occupy(len);
            disk.plan(nth, Fault::Fails);
            if OpenSegment::create(&spool.layout, SegmentNumber::new(1), 4096, Some((&free, len))).is_ok() {
                continue;
            }
            spool.pool.give_up(SegmentNumber::new(1), &free, len);
            let names = [spool.layout.folder().to_owned(), spool.layout.free_dir()];
            let files = names
                .iter()
                .flat_map(|folder| disk.files_in(folder))
                .filter(|(name, _)| name == "1.free" || name.starts_with("00000000000000000001"));
            let files = files.count();
            assert_eq!(
                spool.metrics.spool_bytes() - spool.layout.kept_bytes(),
                files as u64 * len,
                "seed {seed}, call {nth}"
            );
            left[files] += 1;
        }
    }
    assert!(left[0] > 0 && left[1] > 0, "{left:?}");
}
