//! Tests of sealed blocks that turn out to be damaged.

use super::faulty::{End, Fault, FaultyDisk};
use super::*;
use crate::batch::Batch;
use crate::batch::{BlockNumber, SegmentNumber};
use crate::spool::frame::HEADER;
use crate::spool::ledger::Events;

const NAME: &str = "00000000000000000001.segment";
const COPY: &str = "00000000000000000001.0.segment";

/// The contents of the frames: rows and rejected lines.
const FRAMES: [(&[&str], &[&str]); 4] =
    [(&["one", "uno"], &["bad"]), (&["two"], &[]), (&[], &["worse", "worst"]), (&["three", "drei", "trois"], &["no"])];

/// The start offsets of the frames, and the end offset of the last one.
fn places(bytes: &[u8]) -> Vec<usize> {
    let len = |(rows, rejected): &(&[&str], &[&str])| {
        HEADER + rows.iter().chain(*rejected).map(|text| text.len()).sum::<usize>()
    };
    let schema = HEADER + schema::BlockSchema::bytes("t", b"frozen") as usize;
    let begin = block::Identity::length(bytes).unwrap() + 4 * block::PAGE + schema::COPIES * schema;
    let ends = FRAMES.iter().scan(begin, |at, frame| {
        *at += len(frame);
        Some(*at)
    });
    std::iter::once(begin).chain(ends).collect()
}

/// The contents of all frames but one.
fn without(lost: usize) -> (String, String) {
    let rest = FRAMES.iter().enumerate().filter(|(index, _)| *index != lost);
    rest.fold(Default::default(), |(rows, rejected), (_, frame)| {
        (rows + &frame.0.concat(), rejected + &frame.1.concat())
    })
}

fn events(frames: &[(&[&str], &[&str])]) -> Events {
    let count = |of: fn(&(&[&str], &[&str])) -> usize| frames.iter().map(of).sum::<usize>() as u64;
    Events { rows: count(|frame| frame.0.len()), rejected: count(|frame| frame.1.len()) }
}

/// Opens a segment and appends these batches as one group: no frame has a durable mark for another,
/// only the seal proves that they were synced.
fn one_group(spool: &Spool, batches: &[Batch]) -> OpenSegment {
    let mut open = OpenSegment::create(&spool.layout, SegmentNumber::new(1), 4096, None).unwrap();
    open.append(batches.iter(), &mut Scratch::default()).unwrap();
    open
}

/// Makes a folder with a sealed segment of these frames, and returns the segment's bytes.
fn sealed(frames: &[(&[&str], &[&str])]) -> (tempfile::TempDir, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(config(folder.path())).unwrap();
    let batches: Vec<Batch> = frames.iter().map(|(rows, rejected)| batch(rows, rejected)).collect();
    one_group(&spool, &batches).seal(&mut spool.logs).map_err(|_| ()).unwrap().remove(0);
    let bytes = fs::read(spool.layout.path(SegmentNumber::new(1), FileKind::Segment)).unwrap();
    (folder, bytes)
}

/// Overwrites the segment with these bytes, and recovers the folder.
fn start_with(folder: &Path, bytes: &[u8]) -> (Spool, SealedBlock) {
    let _ = fs::remove_file(folder.join("spool/damaged").join(NAME));
    let _ = fs::remove_file(folder.join("spool/log").join(COPY));
    // With the journal of before anything was sent.
    for name in ["0", "1"] {
        let (journal, kept) = (folder.join("spool/state").join(name), folder.join(name));
        let (from, to) = if kept.exists() { (kept, journal) } else { (journal, kept) };
        fs::copy(from, to).unwrap();
    }
    fs::write(folder.join("spool/log").join(NAME), bytes).unwrap();
    let (spool, mut recovered) = Spool::open(config(folder)).unwrap();
    (spool, recovered.blocks.remove(0))
}

/// The steps of an inserter after the first attempt breaks off.
fn attempted(block: &mut SealedBlock) {
    block.begin_attempt("window", SegmentNumber::new(1)).unwrap();
    assert_eq!(contents(block).unwrap_err().kind(), io::ErrorKind::InvalidData);
    block.attempt_answered();
}

#[test]
fn whichever_byte_has_changed_only_its_frame_is_missing() {
    let (folder, bytes) = sealed(&FRAMES);
    let places = places(&bytes);
    // The header's and the payload's first, middle and last byte.
    let spots = places.windows(2).map(|frame| {
        let (header, payload, end) = (frame[0], frame[0] + HEADER, frame[1]);
        [header, header + HEADER / 2, payload - 1, payload, (payload + end) / 2, end - 1]
    });
    for (lost, at) in spots.enumerate().flat_map(|(lost, spots)| spots.map(|at| (lost, at))) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x20;
        let (spool, mut block) = start_with(folder.path(), &changed);
        let token = block.token();
        attempted(&mut block);
        let salvaged = spool.pool().salvage(&mut block).unwrap().unwrap();
        assert_eq!(salvaged.missing, events(&FRAMES[lost..=lost]), "byte {at}");
        let left = salvaged.block.unwrap();
        assert_eq!(contents(&left).unwrap(), without(lost), "byte {at}");
        assert!(
            left.token() != token
                && left.open_attempt().is_none()
                && left.number() == BlockNumber::first(SegmentNumber::new(1))
        );
        let metrics = spool.metrics();
        let ledger = metrics.ledger();
        assert!(
            ledger.balances() && metrics.damaged() == 1 && metrics.outstanding(TableIndex::default()) == 1,
            "{ledger:?}"
        );
        assert_eq!(
            (ledger.rows.set_aside, ledger.rejected.set_aside),
            (salvaged.missing.rows, salvaged.missing.rejected)
        );
        let folders = [spool.layout.folder().to_owned(), spool.layout.damaged_dir()];
        let bytes_there = folders.iter().flat_map(|dir| files(dir).into_iter().map(|name| dir.join(name)));
        let bytes_there: u64 = bytes_there.map(|path| fs::metadata(path).unwrap().len()).sum();
        assert_eq!(metrics.spool_bytes() - spool.layout.kept_bytes(), bytes_there);
        assert_eq!(fs::read(spool.layout.damaged_dir().join(NAME)).unwrap(), changed);
        let token = left.token();
        drop((spool, block, left));
        // Two starts recover the same.
        for _ in 0..2 {
            let (spool, recovered) = Spool::open(config(folder.path())).unwrap();
            let [left] = &recovered.blocks[..] else { panic!("{recovered:?}") };
            assert_eq!((left.token(), contents(left).unwrap()), (token.clone(), without(lost)));
            assert_eq!(files(spool.layout.folder()), [COPY]);
            assert_eq!(files(&spool.layout.damaged_dir()), [NAME]);
        }
    }
}

#[test]
fn several_damaged_frames_and_what_lies_between_them() {
    let (folder, bytes) = sealed(&FRAMES);
    let places = places(&bytes);
    let mut changed = bytes.clone();
    // The second frame's header, the third's payload, and the last but one byte of the file.
    for at in [places[1] + 12, places[2] + HEADER, places[4] - 2] {
        changed[at] ^= 1;
    }
    let (spool, mut block) = start_with(folder.path(), &changed);
    attempted(&mut block);
    let salvaged = spool.pool().salvage(&mut block).unwrap().unwrap();
    assert_eq!(contents(&salvaged.block.unwrap()).unwrap(), ("oneuno".into(), "bad".into()));
    assert_eq!(salvaged.missing, events(&FRAMES[1..]));
    drop((spool, block));
    // A file that was cut off is damaged too.
    let (spool, mut block) = start_with(folder.path(), &bytes[..places[1] + 3]);
    attempted(&mut block);
    let salvaged = spool.pool().salvage(&mut block).unwrap().unwrap();
    assert_eq!(contents(&salvaged.block.unwrap()).unwrap(), ("oneuno".into(), "bad".into()));
}

#[test]
fn a_block_without_a_readable_frame_leaves_only_its_original() {
    let (folder, mut bytes) = sealed(&FRAMES[..1]);
    let at = places(&bytes)[0] + HEADER;
    bytes[at] ^= 1;
    let (spool, mut block) = start_with(folder.path(), &bytes);
    attempted(&mut block);
    let salvaged = spool.pool().salvage(&mut block).unwrap().unwrap();
    assert!(salvaged.block.is_none());
    let ledger = spool.metrics().ledger();
    assert!(ledger.balances(), "{ledger:?}");
    assert_eq!((ledger.rows.set_aside, ledger.rejected.set_aside, ledger.rows.spooled), (2, 1, 0));
    assert_eq!((spool.metrics().outstanding(TableIndex::default()), spool.metrics().damaged()), (0, 1));
    assert_eq!((files(spool.layout.folder()), files(&spool.layout.damaged_dir())), (vec![], vec![NAME.to_owned()]));
    drop((spool, block));
    let (spool, recovered) = Spool::open(config(folder.path())).unwrap();
    assert!(recovered.blocks.is_empty() && spool.next_number == SegmentNumber::new(2));
}

#[test]
fn a_backup_that_is_put_back_for_a_salvaged_block_goes_in_under_its_token() {
    for (damaged, keeps_one_set_aside) in [(1..2, true), (0..4, false)] {
        let (folder, bytes) = sealed(&FRAMES);
        let mut bad = bytes.clone();
        for frame in damaged {
            bad[places(&bytes)[frame]] ^= 1;
        }
        let (spool, mut block) = start_with(folder.path(), &bad);
        block.begin_attempt("server", SegmentNumber::new(1)).unwrap();
        block.use_up_token().unwrap();
        let token = block.token();
        if let Some(left) = spool.pool().salvage(&mut block).unwrap().unwrap().block {
            spool.pool().retire(&left).unwrap();
        }
        drop((spool, block));
        if !keeps_one_set_aside {
            fs::remove_file(folder.path().join("spool/damaged").join(NAME)).unwrap();
        }
        fs::write(folder.path().join("spool/log").join(NAME), &bytes).unwrap();
        let (_spool, recovered) = Spool::open(config(folder.path())).unwrap();
        assert_eq!(contents(&recovered.blocks[0]).unwrap(), without(FRAMES.len()));
        assert_eq!(recovered.blocks[0].token(), token);
    }
}

#[test]
fn a_backup_that_is_put_back_for_an_unreadable_segment_goes_in_under_its_token() {
    let (folder, bytes) = sealed(&FRAMES);
    let (spool, mut block) = start_with(folder.path(), &bytes);
    block.begin_attempt("server", SegmentNumber::new(1)).unwrap();
    block.use_up_token().unwrap();
    let token = block.token();
    drop((spool, block));
    let path = folder.path().join("spool/log").join(NAME);
    fs::write(&path, [&[0; 2 * block::PAGE], &bytes[2 * block::PAGE..]].concat()).unwrap();
    for _ in 0..2 {
        let (spool, recovered) = Spool::open(config(folder.path())).unwrap();
        assert!(recovered.blocks.is_empty());
        assert_eq!(files(&spool.layout.damaged_dir()), [NAME]);
        // The next generation of the journal.
        spool.layout.journal().begin().unwrap();
    }
    fs::write(&path, &bytes).unwrap();
    let (_spool, recovered) = Spool::open(config(folder.path())).unwrap();
    assert_eq!(recovered.blocks[0].token(), token);
}

#[test]
fn inserted_rows_are_not_in_the_salvaged_copy() {
    let (folder, bytes) = sealed(&FRAMES);
    let places = places(&bytes);
    let mut changed = bytes.clone();
    changed[places[3] + HEADER] ^= 1;
    let (spool, mut block) = start_with(folder.path(), &changed);
    block.begin_attempt("window", SegmentNumber::new(1)).unwrap();
    spool.pool().rows_are_inserted(&mut block).unwrap();
    let salvaged = spool.pool().salvage(&mut block).unwrap().unwrap();
    assert_eq!(salvaged.missing, Events { rows: 0, rejected: 1 });
    let left = salvaged.block.unwrap();
    assert_eq!(contents(&left).unwrap(), (String::new(), "badworseworst".into()));
    assert_eq!((left.rows(), left.rows_waiting(), left.rejected()), (0, 0, 3));
    spool.pool().retire(&left).unwrap();
    let ledger = spool.metrics().ledger();
    assert!(ledger.balances(), "{ledger:?}");
    assert_eq!((ledger.rows.inserted, ledger.rows.set_aside), (events(&FRAMES).rows, 0));
    assert_eq!((ledger.rejected.inserted, ledger.rejected.set_aside), (3, 1));
    drop((spool, left, block));
    // Not even if the journal is lost.
    let (spool, mut block) = start_with(folder.path(), &changed);
    spool.pool().rows_are_inserted(&mut block).unwrap();
    block.begin_attempt("window", SegmentNumber::new(1)).unwrap();
    spool.pool().salvage(&mut block).unwrap().unwrap();
    drop((spool, block));
    fs::remove_dir_all(folder.path().join("spool/state")).unwrap();
    let (_spool, recovered) = Spool::open(config(folder.path())).unwrap();
    assert_eq!(recovered.blocks[0].rows_waiting(), 0);
}

#[test]
fn rows_whose_cut_can_not_be_read_are_set_aside_and_the_lines_go_in() {
    let (folder, bytes) = sealed(&FRAMES);
    let (spool, mut block) = start_with(folder.path(), &bytes);
    block.cut_into(Vec::new()).unwrap();
    assert!(block.cut().unwrap().is_unreadable());
    let salvaged = spool.pool().salvage(&mut block).unwrap().unwrap();
    assert_eq!(salvaged.missing, Events { rows: events(&FRAMES).rows, rejected: 0 });
    let left = salvaged.block.unwrap();
    assert_eq!((left.rows(), left.rejected()), (0, events(&FRAMES).rejected));
    assert_eq!(
        (files(&spool.layout.damaged_dir()), spool.metrics().ledger().balances()),
        (vec![NAME.to_owned()], true)
    );
}

#[test]
fn a_block_that_turns_out_to_be_readable_stays_as_it_is() {
    let (folder, bytes) = sealed(&FRAMES);
    let (spool, mut block) = start_with(folder.path(), &bytes);
    let token = block.token();
    assert!(spool.pool().salvage(&mut block).unwrap().is_none());
    assert_eq!((block.token(), files(&spool.layout.damaged_dir())), (token, vec![]));
    assert!(spool.metrics().ledger().balances());
}

/// Whichever call fails or ends the process, in the end the readable frames are there once and the
/// original is kept.
#[test]
fn a_crash_at_any_call_loses_and_doubles_nothing_readable() {
    let config = SpoolConfig { dir: "/disk/spool".into(), ..config(Path::new("/")) };
    let start = |disk: &FaultyDisk| {
        let (spool, recovered) = Spool::open_on(Arc::new(disk.clone()), config.clone()).unwrap();
        (spool, recovered.blocks)
    };
    for lost in [0, 1, 3] {
        for fault in [Fault::Fails, Fault::Kill, Fault::PowerLoss] {
            for nth in 1.. {
                let mut disk = FaultyDisk::new(nth);
                let (mut spool, _) = start(&disk);
                let batches: Vec<Batch> = FRAMES.iter().map(|(rows, rejected)| batch(rows, rejected)).collect();
                let sealed = one_group(&spool, &batches).seal(&mut spool.logs);
                let mut block = sealed.map_err(|_| ()).unwrap().remove(0);
                block.begin_attempt("window", SegmentNumber::new(1)).unwrap();
                if lost > 0 {
                    block.attempt_answered();
                }
                spool.metrics().sealed([TableIndex::default()]);
                let in_folder = disk.files_in(spool.layout.folder());
                let (_, bytes) = in_folder.into_iter().find(|(name, _)| name == NAME).unwrap();
                disk.flip(
                    &spool.layout.path(SegmentNumber::new(1), FileKind::Segment),
                    places(&bytes)[lost] as u64 + 5,
                    3,
                );
                disk.plan(nth, fault);
                let mut outcome = spool.pool().salvage(&mut block);
                let failed = disk.has_failed() || disk.ended().is_some();
                let has_ended = disk.is_read_only() || spool.layout.journal().is_broken();
                if fault == Fault::Fails && outcome.is_err() && !has_ended {
                    // Unless the machine lost power, the same process sends the block once more.
                    let sent = block.begin_attempt("window", SegmentNumber::new(1)).and_then(|()| contents(&block));
                    assert_eq!(sent.unwrap_err().kind(), io::ErrorKind::InvalidData, "{fault:?} at call {nth}");
                    block.attempt_answered();
                    outcome = spool.pool().salvage(&mut block);
                    assert!(outcome.is_ok(), "{fault:?} at call {nth}: {outcome:?}");
                }
                drop((spool, block, outcome));
                let end = disk.ended().unwrap_or(if disk.is_read_only() { End::PowerLost } else { End::Killed });
                disk.restart(end);
                disk.heal();
                for _ in 0..2 {
                    let (spool, mut blocks) = start(&disk);
                    let [block] = &mut blocks[..] else { panic!("{fault:?} at call {nth}: {blocks:?}") };
                    let kept = disk.files_in(&spool.layout.damaged_dir());
                    let is_decided = !kept.is_empty() || contents(block).is_ok();
                    assert!(!is_decided || block.open_attempt().is_none(), "{fault:?} at call {nth}");
                    if contents(block).is_err() {
                        spool.pool().salvage(block).unwrap().unwrap();
                    } else {
                        assert_eq!(contents(block).unwrap(), without(lost), "{fault:?} at call {nth}");
                    }
                    let kept = disk.files_in(&spool.layout.damaged_dir());
                    assert_eq!(kept.len(), 1, "{fault:?} at call {nth}");
                }
                if !failed {
                    assert!(nth > 20, "it has more calls than that");
                    break;
                }
            }
        }
    }
}

/// An unknown attempt may have sent the rejected lines too. Rows that turn out to be inserted don't
/// prove the rejected lines.
#[test]
fn an_unknown_attempt_stays_open_when_the_rows_are_there() {
    let (folder, bytes) = sealed(&FRAMES);
    let (spool, mut block) = start_with(folder.path(), &bytes);
    block.begin_attempt("window", SegmentNumber::new(1)).unwrap();
    spool.pool().rows_are_inserted(&mut block).unwrap();
    assert!(block.open_attempt().is_none());
    drop((spool, block));
    fs::remove_dir_all(folder.path().join("spool/state")).unwrap();
    let (spool, mut recovered) = Spool::open(config(folder.path())).unwrap();
    let block = &mut recovered.blocks[0];
    assert!(block.open_attempt().unwrap().is_unknown());
    spool.pool().rows_are_inserted(block).unwrap();
    assert!(block.rows_are_inserted() && block.open_attempt().unwrap().is_unknown());
}

#[test]
fn what_the_log_holds_of_a_table_that_is_no_longer_configured_is_recovered_with_the_rest() {
    let (folder, _) = sealed(&FRAMES);
    let (spool, recovered) = Spool::open(SpoolConfig { tables: vec![table("u")], ..config(folder.path()) }).unwrap();
    let [block] = &recovered.blocks[..] else { panic!("{recovered:?}") };
    assert_eq!((block.label(), block.table()), ("t", TableIndex::OTHER));
    assert_eq!(contents(block).unwrap(), without(FRAMES.len()));
    assert_eq!(spool.metrics().others(), []);
}
