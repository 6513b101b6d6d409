//! Tests of what a start recovers after a crash.

use super::*;
use crate::batch::identity::{RequestKey, Summary, of_event, of_request};
use crate::batch::{BlockNumber, Epoch, Mark, OutcomeRule, Position, SegmentNumber};
use crate::spool::frame::{FramePlace, HEADER, Header};

const FIGURES: Summary = Summary { accepted: 1, rejected: 0, refused: false };

const NAME: &str = "00000000000000000001.segment";
const CONTENTS: [(&str, &str); 4] = [("", ""), ("one", ""), ("onetwodeux", "bad"), ("onetwodeux", "badworse")];

#[test]
fn a_segment_cut_at_every_byte_gives_its_whole_frames() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, ends) = three_frames(folder.path());
    let frames = ends[0] - HEADER - 3;
    // Between the identity and the frames there are only zeros.
    for cut in (0..80).chain(frames..=ends[2]) {
        // The truncated part either reads as zeros, as in a preallocated file, or is missing.
        for padded in [true, false] {
            let mut torn = bytes[..cut].to_vec();
            if padded {
                torn.resize(bytes.len(), 0);
            }
            let (_folder, spool, blocks) = recover(&torn, NAME);
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let found: Vec<_> = blocks.iter().map(|block| contents(block).unwrap()).collect();
            let expected: Vec<_> = (whole > 0).then(|| CONTENTS[whole]).into_iter().collect();
            let found: Vec<_> = found.iter().map(|(rows, rejected)| (rows.as_str(), rejected.as_str())).collect();
            assert_eq!(found, expected, "cut at {cut}, padded: {padded}");
            assert_eq!(spool.metrics().spooled_rows(), blocks.iter().map(SealedBlock::rows).sum::<u64>());
        }
    }
}

#[test]
fn a_changed_byte_never_gives_other_rows() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, ends) = three_frames(folder.path());
    for at in (0..64).chain(ends[0] - HEADER - 3..ends[2]) {
        let mut changed = bytes.clone();
        changed[at] ^= 0x20;
        let (_folder, _spool, blocks) = recover(&changed, NAME);
        for block in &blocks {
            let (rows, rejected) = contents(block).unwrap();
            for (found, written) in [(rows, ["one", "twodeux", ""]), (rejected, ["", "bad", "worse"])] {
                let rest = written.iter().fold(found.as_str(), |rest, part| rest.strip_prefix(part).unwrap_or(rest));
                assert_eq!(rest, "", "{found:?} was never written; byte {at}");
            }
        }
    }
}

#[test]
fn a_bad_frame_below_a_durable_mark_is_damage_and_above_it_a_torn_tail() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, ends) = three_frames(folder.path());
    // The third frame was written when the second was durable: the second is damaged.
    let mut damaged = bytes.clone();
    damaged[ends[0] + HEADER] ^= 1;
    let (_folder, spool, blocks) = recover(&damaged, NAME);
    assert_eq!(contents(&blocks[0]).unwrap(), ("one".into(), "worse".into()));
    assert_eq!(files(&spool.layout.damaged_dir()), [NAME]);
    // The same without a durable mark that covers the second frame.
    let mut torn = damaged.clone();
    let place =
        FramePlace { epoch: Epoch::new(spool_epoch(&bytes)), number: SegmentNumber::new(1), offset: ends[1] as u64 };
    let third = Header { durable: Position::new(1), ..Header::decode(&bytes[ends[1]..], place).unwrap() };
    torn[ends[1]..ends[1] + HEADER].copy_from_slice(&third.encode());
    let (_folder, spool, blocks) = recover(&torn, NAME);
    assert_eq!(contents(&blocks[0]).unwrap(), ("one".into(), String::new()));
    assert!(files(&spool.layout.damaged_dir()).is_empty());
}

#[test]
fn a_frame_is_damaged_when_the_durable_mark_of_any_later_frame_covers_it() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(config(folder.path())).unwrap();
    let path = spool.layout.path(SegmentNumber::new(1), FileKind::Segment);
    let mut open = OpenSegment::create(&spool.layout, SegmentNumber::new(1), 4096, None).unwrap();
    let (second, third) = (batch(&["second"], &[]), batch(&["third"], &[]));
    open.append(std::iter::once(&batch(&["first"], &[])), &mut Scratch::default()).unwrap();
    open.sync().unwrap();
    let begins = open.end as usize;
    // One group: the third frame was written before the second was on the disk.
    open.append([&second, &third].into_iter(), &mut Scratch::default()).unwrap();
    open.sync().unwrap();
    open.append(std::iter::once(&batch(&["fourth"], &[])), &mut Scratch::default()).unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[begins + HEADER] ^= 1;
    let (_folder, spool, blocks) = recover(&bytes, NAME);
    assert_eq!(contents(&blocks[0]).unwrap().0, "firstthirdfourth");
    assert_eq!(files(&spool.layout.damaged_dir()), [NAME]);
}

fn spool_epoch(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[16..24].try_into().unwrap())
}

#[test]
fn frames_of_the_segment_that_a_recycled_file_held_before_do_not_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(config(folder.path())).unwrap();
    let old = [batch(&["old1"], &[]), batch(&["old2"], &[]), batch(&["old3"], &[])];
    write_segment(&spool, 1, None, &old).seal(&mut spool.logs).map_err(|_| ()).unwrap().remove(0);
    let path = spool.layout.path(SegmentNumber::new(1), FileKind::Segment);
    let len = fs::metadata(&path).unwrap().len();
    // As long as the old first frame, so that the old second one follows without a seam.
    write_segment(&spool, 2, Some((&path, len)), &[batch(&["new1"], &[])]);
    drop(spool);
    let (_spool, recovered) = Spool::open(config(folder.path())).unwrap();
    let found: Vec<_> = recovered.blocks.iter().map(|block| contents(block).unwrap().0).collect();
    assert_eq!(found, ["new1"]);
}

#[test]
fn sealed_blocks_keep_their_token_and_what_is_known_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(config(folder.path())).unwrap();
    let open = write_segment(&spool, 7, None, &[batch(&["a"], &["b"])]);
    let mut sealed = open.seal(&mut spool.logs).map_err(|_| ()).unwrap().remove(0);
    let token = sealed.token();
    sealed.begin_attempt("a window", SegmentNumber::new(9)).unwrap();
    drop((spool, sealed));
    let (spool, mut recovered) = Spool::open(config(folder.path())).unwrap();
    assert_eq!(recovered.next_number, SegmentNumber::new(10), "number 9 was used, and is gone");
    let mut block = recovered.blocks.remove(0);
    assert_eq!((block.token(), block.frozen()), (token.clone(), &b"frozen"[..]));
    assert!(block.was_sent() && !block.rows_are_inserted());
    let open = block.open_attempt().unwrap();
    assert_eq!((open.server.as_str(), open.newest.get()), ("a window", 9));
    assert_eq!((spool.metrics().spooled_rows(), spool.metrics().spooled_rejected()), (1, 1));
    block.mark_rows_inserted().unwrap();
    drop((spool, block));
    let (spool, mut recovered) = Spool::open(config(folder.path())).unwrap();
    let block = recovered.blocks.remove(0);
    assert!(block.rows_are_inserted() && block.token() == token);
    assert_eq!((spool.metrics().spooled_rows(), spool.metrics().spooled_rejected()), (0, 1));
    assert_eq!(contents(&block).unwrap(), ("a".into(), "b".into()));
    spool.pool().retire(&block).unwrap();
    assert_eq!((spool.metrics().spooled_rows(), spool.metrics().spooled_rejected()), (0, 0));
    assert!(files(spool.layout.folder()).is_empty());
}

#[test]
fn a_recovered_block_has_the_token_that_every_copy_of_it_has_and_is_found_again_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, _) = three_frames(folder.path());
    let (folder, spool, blocks) = recover(&bytes, NAME);
    let token = blocks[0].token();
    assert!(token.contains(&format!("{:016x}", spool_epoch(&bytes))), "{token}");
    let (_folder, _spool, copy) = recover(&bytes, NAME);
    assert_eq!(copy[0].token(), token, "another server with a copy of the spool would double it");
    drop((spool, blocks));
    let (_spool, again) = Spool::open(config(folder.path())).unwrap();
    assert_eq!(again.blocks[0].token(), token);
    assert_eq!(contents(&again.blocks[0]).unwrap(), ("onetwodeux".into(), "badworse".into()));
}

#[test]
fn an_interrupted_recovery_doubles_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, _) = three_frames(folder.path());
    let (folder, spool, blocks) = recover(&bytes, NAME);
    drop((spool, blocks));
    let table_dir = folder.path().join("spool/log");
    // The copy was complete, and had not yet taken the original's place.
    fs::rename(table_dir.join(NAME), table_dir.join("00000000000000000001.copy")).unwrap();
    fs::write(table_dir.join(NAME), &bytes).unwrap();
    let (_spool, recovered) = Spool::open(config(folder.path())).unwrap();
    assert_eq!(recovered.blocks.len(), 1);
    assert_eq!(contents(&recovered.blocks[0]).unwrap(), ("onetwodeux".into(), "badworse".into()));
}

#[test]
fn a_sealed_block_that_changed_is_not_streamed() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(config(folder.path())).unwrap();
    let open = write_segment(&spool, 1, None, &[batch(&["first"], &[]), batch(&["second"], &[])]);
    let end = open.end as usize;
    let sealed = open.seal(&mut spool.logs).map_err(|_| ()).unwrap().remove(0);
    let path = spool.layout.path(SegmentNumber::new(1), FileKind::Segment);
    let bytes = fs::read(&path).unwrap();
    let second = end - HEADER - 6;
    for at in second..end {
        let mut changed = bytes.clone();
        changed[at] ^= 4;
        fs::write(&path, &changed).unwrap();
        let mut reader = sealed.read(Part::Rows).unwrap();
        assert_eq!(reader.next_rows().unwrap().as_deref(), Some(&b"first"[..]));
        assert_eq!(reader.next_rows().unwrap_err().kind(), io::ErrorKind::InvalidData, "{at}");
    }
}

#[test]
fn a_file_that_can_not_be_read_is_kept_as_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, _) = three_frames(folder.path());
    let mut zeros = bytes.clone();
    zeros[..2 * block::PAGE].fill(0);
    // Of what has lost its identity and the copy, the frames say how many events there are.
    for (name, bytes, events) in [(NAME, &zeros[..], (3, 2)), (NAME, &[][..], (0, 0))] {
        let (_folder, spool, blocks) = recover(bytes, name);
        assert!(blocks.is_empty());
        assert_eq!(files(&spool.layout.damaged_dir()), [NAME]);
        assert_eq!(spool.next_number, SegmentNumber::new(2));
        assert_eq!(spool.metrics().damaged(), 1);
        let ledger = spool.metrics().ledger();
        assert!(ledger.balances(), "{ledger:?}");
        assert_eq!((ledger.rows.set_aside, ledger.rejected.set_aside), events);
    }
}

#[test]
fn whatever_byte_of_an_identity_has_changed_nothing_is_lost() {
    let (bytes, _) = three_frames(tempfile::tempdir().unwrap().path());
    let mut without = bytes.clone();
    without[..block::PAGE].fill(0);
    let flipped = (0..64).map(|at| {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        flipped
    });
    for changed in flipped.chain([without]) {
        let (folder, spool, blocks) = recover(&changed, NAME);
        assert_eq!(contents(&blocks[0]).unwrap(), ("onetwodeux".into(), "badworse".into()));
        assert!(files(&spool.layout.damaged_dir()).is_empty());
        let written = fs::read(folder.path().join("spool/log").join(NAME)).unwrap();
        assert_eq!(written[..2 * block::PAGE], bytes[..2 * block::PAGE], "it is whole again");
    }
}

#[test]
fn a_renamed_segment_gets_its_name_back_and_a_second_one_of_its_number_is_set_aside() {
    let (bytes, _) = three_frames(tempfile::tempdir().unwrap().path());
    for name in ["00000000000000000009.segment", "1.segment", "old.segment", "99999999999999999999.segment"] {
        let (folder, spool, blocks) = recover(&bytes, name);
        assert_eq!(contents(&blocks[0]).unwrap(), ("onetwodeux".into(), "badworse".into()), "{name}");
        assert_eq!(blocks[0].number(), BlockNumber::first(SegmentNumber::new(1)));
        let token = blocks[0].token();
        drop((spool, blocks));
        let table_dir = folder.path().join("spool/log");
        fs::copy(table_dir.join(NAME), table_dir.join(name)).unwrap();
        let (spool, recovered) = Spool::open(config(folder.path())).unwrap();
        let tokens: Vec<_> = recovered.blocks.iter().map(SealedBlock::token).collect();
        assert_eq!(tokens, [token], "{name}");
        assert_eq!(files(&spool.layout.damaged_dir()), [name]);
    }
}

#[test]
fn folders_and_links_with_the_names_of_segments_do_not_stop_a_start() {
    let names = ["segment", "sent", "copy", "new", "cut"].map(|ending| format!("00000000000000000003.{ending}"));
    let folder = tempfile::tempdir().unwrap();
    let (bytes, _) = three_frames(tempfile::tempdir().unwrap().path());
    let table_dir = folder.path().join("spool/log");
    fs::create_dir_all(table_dir.join("recycled/00000000000000000001.free")).unwrap();
    fs::create_dir_all(folder.path().join("spool/t/seen/2026-11-24T21.log")).unwrap();
    fs::write(table_dir.join(NAME), &bytes).unwrap();
    for name in &names {
        fs::create_dir_all(table_dir.join(name).join("below")).unwrap();
    }
    std::os::unix::fs::symlink("/nowhere", table_dir.join("00000000000000000004.segment")).unwrap();
    for damaged in [6, 6] {
        let (spool, recovered) = Spool::open(config(folder.path())).unwrap();
        assert_eq!(contents(&recovered.blocks[0]).unwrap(), ("onetwodeux".into(), "badworse".into()));
        assert_eq!(spool.metrics().damaged(), damaged);
        assert_eq!(files(spool.layout.folder()), [NAME]);
    }
}

#[test]
fn a_seal_that_is_damaged_after_something_was_sent_is_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let (mut spool, _) = Spool::open(config(folder.path())).unwrap();
    let batches = [batch(&["a"], &["b"]), batch(&["c"], &[])];
    let mut sealed = write_segment(&spool, 1, None, &batches).seal(&mut spool.logs).map_err(|_| ()).unwrap().remove(0);
    let token = sealed.token();
    sealed.begin_attempt("a window", SegmentNumber::new(1)).unwrap();
    let path = sealed.path().to_owned();
    let bytes = fs::read(&path).unwrap();
    let seal = block::Identity::length(&bytes).unwrap();
    let last = sealed.seal().end as usize - 1;
    drop((spool, sealed));
    let mut changed = bytes.clone();
    changed[seal + 30] ^= 1;
    fs::write(&path, &changed).unwrap();
    let (spool, recovered) = Spool::open(config(folder.path())).unwrap();
    let [block] = &recovered.blocks[..] else { panic!("{recovered:?}") };
    assert_eq!((contents(block).unwrap(), block.token()), (("ac".into(), "b".into()), token));
    assert!(block.open_attempt().unwrap().is_unknown(), "an operator looks whether it is there");
    drop((spool, recovered));
    // With a damaged frame nobody knows any more what was sent.
    changed[last] ^= 1;
    fs::write(&path, &changed).unwrap();
    let (spool, recovered) = Spool::open(config(folder.path())).unwrap();
    assert!(recovered.blocks.is_empty());
    assert_eq!(files(&spool.layout.damaged_dir()), [NAME]);
    assert_eq!(spool.metrics().ledger().rows.set_aside, 1);
}

#[test]
fn what_was_begun_behind_the_last_frame_is_noticed_and_what_an_older_segment_left_is_not() {
    use crate::spool::scan::{Behind, behind};
    let folder = tempfile::tempdir().unwrap();
    let (bytes, ends) = three_frames(folder.path());
    let path = folder.path().join("file");
    let look = |bytes: &[u8], offset: usize, epoch: u64| {
        fs::write(&path, bytes).unwrap();
        let place = FramePlace { epoch: Epoch::new(epoch), number: SegmentNumber::new(1), offset: offset as u64 };
        behind(&*Disk.open(&path).unwrap(), place).unwrap()
    };
    let epoch = spool_epoch(&bytes);
    assert_eq!(look(&bytes, ends[2], epoch), Behind::Nothing);
    assert_eq!(look(&bytes, ends[1], epoch + 1), Behind::Nothing, "a frame of the file's former life");
    let worse = Behind::Frame(Some(super::ledger::Events { rows: 0, rejected: 1 }));
    assert_eq!(look(&bytes, ends[1], epoch), worse, "its payload may be anything");
    for at in ends[1]..ends[1] + HEADER {
        let mut torn = bytes.clone();
        torn[at] ^= 1;
        assert_eq!(look(&torn, ends[1], epoch), Behind::Frame(None), "byte {at}");
    }
    assert_eq!(look(&bytes[..ends[1] + 20], ends[1], epoch), Behind::Frame(None), "cut off");
}

#[test]
fn identities_in_an_unsealed_segment_are_known_after_a_crash_and_those_that_were_cut_are_not() {
    let key = |name: &[u8]| RequestKey::of_tests(of_request("t", name), b"body", FIGURES);
    let id = |name: &str| of_event("column", name.as_bytes());
    let keyed = |name: &str| {
        let mut batch = batch(&[name], &[]);
        batch.add_keyed(key(name.as_bytes()), Mark::default());
        batch.identify(id(name), 0..name.len());
        batch.close();
        batch
    };
    let folder = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(config(folder.path())).unwrap();
    let open = write_segment(&spool, 1, None, &[keyed("one"), batch(&["plain"], &[]), keyed("two")]);
    let end = open.end as usize;
    let bytes = fs::read(spool.layout.path(SegmentNumber::new(1), FileKind::Segment)).unwrap();
    drop(spool);
    for (len, known) in [(end, [true, true]), (end - 1, [true, false])] {
        let (folder, mut spool, blocks) = recover(&bytes[..len], NAME);
        let knows = |spool: &mut Spool| {
            let requests = ["one", "two"].map(|name| spool.repeats.rule(&key(name.as_bytes())) != OutcomeRule::OfGroup);
            let events = ["one", "two"].map(|name| {
                let mut batch = batch(&[name], &[]);
                batch.identify(id(name), 0..name.len());
                spool.repeats.begin(&mut batch, BlockNumber::first(SegmentNumber::new(9))) != OutcomeRule::OfGroup
            });
            spool.repeats.refused();
            assert_eq!(requests, events);
            requests
        };
        assert_eq!(knows(&mut spool), known);
        // A start reads no frames of a sealed block: the identities come from the log.
        assert_eq!(blocks.len(), 1);
        drop((spool, blocks));
        let (mut spool, recovered) = Spool::open(config(folder.path())).unwrap();
        assert_eq!((knows(&mut spool), recovered.blocks.len()), (known, 1));
        let texts = ["oneplaintwo", "oneplain"];
        assert_eq!(contents(&recovered.blocks[0]).unwrap().0, texts[usize::from(!known[1])]);
    }
}

#[test]
fn a_segment_of_another_version_stops_the_start_and_stays_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (bytes, _) = three_frames(folder.path());
    let mut identity = block::Identity::decode(&bytes).unwrap();
    identity.version = 1;
    let older = [identity.encode(), bytes[block::PAGE..].to_vec()].concat();
    let folder = tempfile::tempdir().unwrap();
    let table_dir = folder.path().join("spool/log");
    fs::create_dir_all(&table_dir).unwrap();
    fs::write(table_dir.join(NAME), &older).unwrap();
    let error = Spool::open(config(folder.path())).err().unwrap().to_string();
    assert!(error.contains(NAME) && error.contains("version 1"), "{error}");
    assert_eq!(files(&table_dir), [NAME]);
}

#[test]
fn two_segments_that_have_each_others_names_are_both_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(config(folder.path())).unwrap();
    let path = |number| spool.layout.path(SegmentNumber::new(number), FileKind::Segment);
    for (number, row) in [(1, "one"), (2, "two")] {
        write_segment(&spool, number, None, &[batch(&[row], &[])]);
    }
    let (first, second) = (path(1), path(2));
    fs::rename(&first, first.with_extension("swap")).unwrap();
    fs::rename(&second, &first).unwrap();
    fs::rename(first.with_extension("swap"), &second).unwrap();
    drop(spool);
    let (spool, recovered) = Spool::open(config(folder.path())).unwrap();
    let rows: Vec<_> = recovered.blocks.iter().map(|block| contents(block).unwrap().0).collect();
    assert_eq!(rows, ["one"]);
    assert_eq!(files(&spool.layout.damaged_dir()), [NAME]);
    let set_aside = fs::read(spool.layout.damaged_dir().join(NAME)).unwrap();
    assert!(set_aside.windows(3).any(|bytes| bytes == b"two"));
}
