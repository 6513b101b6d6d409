//! Tests of the journal: whatever is read of it is what was written, or less where that is safe.

use super::super::tests::chance::Chance;
use super::super::tests::faulty::{End, Fault, FaultyDisk};
use super::*;
use crate::batch::{BlockNumber, Epoch, SegmentNumber};
use crate::spool::cut::{Cut, Piece, PieceState};

type States = BTreeMap<BlockId, Block>;

fn id(number: u64) -> BlockId {
    BlockId { epoch: Epoch::new(number * 3), number: BlockNumber::first(SegmentNumber::new(number)) }
}

fn attempt(since_ms: u64) -> OpenAttempt {
    OpenAttempt { since_ms, newest: SegmentNumber::new(since_ms + 1), server: format!("server\n{since_ms}") }
}

fn piece(first: u64, state: PieceState) -> Piece {
    Piece { first, rows: 5, offset: first * 9, bytes: 45, state }
}

fn any_change(chance: &mut Chance) -> Change {
    let state = |chance: &mut Chance| match chance.below(4) {
        0 => PieceState::Waiting,
        1 => PieceState::Open,
        2 => PieceState::Inserted,
        _ => PieceState::Refused("a reason, \"quoted\"".into()),
    };
    let pieces = |chance: &mut Chance| (0..1 + chance.below(3)).map(|at| piece(at * 5, state(chance))).collect();
    match chance.below(14) {
        0 => Change::State(Block { table: "t".into(), suspect: true, generation: 3, ..Block::default() }),
        1 | 2 => Change::Attempt { table: "t".into(), attempt: attempt(chance.below(100)) },
        3 => Change::Answered,
        4 => Change::Doubtful(OpenAttempt::unknown(7, SegmentNumber::new(8))),
        5 => Change::Suspect,
        6 => Change::Forced,
        7 => Change::UsedUp,
        8 => Change::Cut(pieces(chance)),
        9 => Change::Pieces(chance.below(3), pieces(chance)),
        10 => Change::RefusedSent,
        11 => Change::RefusedStored,
        12 => Change::RowsInserted,
        _ => chance.pick(&[Change::Proven, Change::Salvaged]).clone(),
    }
}

fn load(disk: &FaultyDisk) -> Journal {
    Journal::load(Arc::new(disk.clone()), Path::new("/s/state"), vec!["/s/t".into()]).unwrap()
}

/// A journal that was begun on a new disk.
fn begun(seed: u64) -> (FaultyDisk, Journal) {
    let disk = FaultyDisk::new(seed);
    for folder in ["/s/state", "/s/t"] {
        disk.make_folder(Path::new(folder)).unwrap();
    }
    let journal = load(&disk);
    assert!(journal.is_new());
    journal.begin().unwrap();
    (disk, journal)
}

/// The states that differ from that of a block that the journal does not know.
fn states(journal: &Journal) -> States {
    let blocks = journal.writer().blocks.clone();
    blocks.into_iter().filter(|(_, block)| !block.is_fresh()).collect()
}

#[test]
fn records_are_decoded_as_encoded_and_no_part_of_one_is() {
    let mut chance = Chance::new(1);
    for _ in 0..300 {
        let change = any_change(&mut chance);
        let mut bytes = Vec::new();
        record::encode(id(4), &change, &mut bytes);
        assert_eq!(record::decode(&bytes), Some((id(4), change.clone(), bytes.len())));
        for len in 0..bytes.len() {
            assert_eq!(record::decode(&bytes[..len]), None, "{len} bytes of {change:?}");
        }
    }
    let cut = Cut { pieces: vec![piece(0, PieceState::Open)], refused_are_sent: true, refused_are_stored: true };
    let whole = Block {
        table: "t".into(),
        was_sent: true,
        is_done: true,
        is_salvaged: true,
        rows_inserted: true,
        forced: true,
        suspect: true,
        generation: 9,
        open: Some(attempt(5)),
        cut: Some(cut),
    };
    let mut bytes = Vec::new();
    record::encode(id(1), &Change::State(whole.clone()), &mut bytes);
    assert_eq!(record::decode(&bytes).unwrap().1, Change::State(whole));
}

#[test]
fn checkpoint_and_records_give_what_all_records_give_at_every_split() {
    for seed in 0..20 {
        let (disk, journal) = begun(seed);
        let (mut chance, mut expected, mut generations) = (Chance::new(seed), States::new(), 0);
        for _ in 0..150 {
            let (id, change) = (id(1 + chance.below(5)), any_change(&mut chance));
            journal.write(id, change.clone()).unwrap();
            expected.entry(id).or_default().apply(&change);
            let known: States = expected
                .iter()
                .filter(|(_, block)| !block.is_fresh())
                .map(|(id, block)| (*id, block.clone()))
                .collect();
            assert_eq!(states(&load(&disk)), known, "seed {seed}");
            generations = load(&disk).writer().name.generation;
        }
        assert!(generations > 4, "seed {seed}: {generations}");
    }
}

#[test]
fn a_flipped_bit_changes_nothing_and_two_of_one_record_are_noticed() {
    let (disk, journal) = begun(1);
    for number in 1..4 {
        journal.write(id(number), Change::Attempt { table: "t".into(), attempt: attempt(number) }).unwrap();
    }
    let expected = states(&journal);
    let path = Path::new("/s/state/1");
    let bytes = disk.files_in(Path::new("/s/state")).remove(1).1;
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    for byte in 0..=used {
        disk.flip(path, byte, 2);
        let journal = load(&disk);
        assert_eq!((states(&journal), journal.is_doubtful()), (expected.clone(), false), "byte {byte}");
        disk.flip(path, byte, 2);
    }
    // The checkpoint has two sectors, and so has each record.
    for (group, is_noticed) in [(0, true), (1, true), (2, true), (3, false)] {
        let copies = [0, 1].map(|copy| (2 * group + copy) * generation::SECTOR as u64 + 40);
        copies.iter().for_each(|byte| disk.flip(path, *byte, 0));
        assert_eq!(load(&disk).is_doubtful(), is_noticed, "group {group}; nothing was synced behind the last");
        copies.iter().for_each(|byte| disk.flip(path, *byte, 0));
    }
}

fn place(sequence: u64) -> Place {
    Place { sequence, synced: sequence }
}

#[test]
fn a_group_that_a_client_wrote_into_a_reason_is_not_believed() {
    let (disk, journal) = begun(1);
    let name = journal.writer().name;
    let mut forged = Vec::new();
    record::encode(id(9), &Change::Proven, &mut forged);
    let forged = generation::encode(Name { salt: name.salt ^ 1, ..name }, place(7), &forged, 1);
    let inside = generation::encode(name, place(8), &forged[..600], 0);
    for bytes in [&forged, &inside] {
        // At each offset of a sector, to hit the start of one.
        for offset in 0..generation::SECTOR {
            let mut records = vec![0; offset];
            records.extend_from_slice(bytes);
            let group = generation::encode(name, place(1), &records, 0);
            let whole = [generation::encode(name, place(0), &[], 0), group].concat();
            let found = generation::parse(&whole);
            assert!(found.records.is_empty() && !found.is_damaged, "offset {offset}");
        }
    }
    assert_eq!(states(&load(&disk)), States::new());
}

#[test]
fn whatever_fails_what_was_written_is_known_and_nothing_else_has_happened() {
    for fault in Fault::ALL {
        for nth in 1..200 {
            let (mut disk, mut journal) = begun(nth);
            let (mut chance, mut expected) = (Chance::new(nth), States::new());
            disk.plan(nth, fault);
            for _ in 0..40 {
                let (id, change) = (id(1 + chance.below(3)), any_change(&mut chance));
                let written = journal.write(id, change.clone());
                let mut after = expected.clone();
                after.entry(id).or_default().apply(&change);
                after.retain(|_, block| !block.is_fresh());
                if written.is_ok() {
                    expected = after;
                } else if disk.ended().is_some() || journal.is_broken() || disk.is_read_only() {
                    let any = *chance.pick(&[End::Killed, End::PowerLost]);
                    let end = disk.ended().unwrap_or(if disk.is_read_only() { End::PowerLost } else { any });
                    disk.restart(end);
                    journal = load(&disk);
                    let found = states(&journal);
                    assert!(found == expected || found == after, "{fault:?} at call {nth}");
                    expected = found;
                    journal.begin().unwrap();
                }
                assert_eq!(states(&journal), expected, "{fault:?} at call {nth}");
                assert!(!journal.is_doubtful(), "{fault:?} at call {nth}");
            }
            disk.heal();
            journal.flush().unwrap();
            disk.restart(End::PowerLost);
            assert_eq!(states(&load(&disk)), expected, "{fault:?} at call {nth}");
        }
    }
}

#[test]
fn those_who_wait_share_a_sync() {
    let (_, journal) = begun(1);
    let before = journal.syncs();
    let write = |number| journal.write(id(number), Change::Forced);
    std::thread::scope(|scope| {
        let locked = journal.writer();
        let writers: Vec<_> = (0..8).map(|number| scope.spawn(move || write(number))).collect();
        while journal.queue().waiting.len() < writers.len() {
            std::thread::yield_now();
        }
        drop(locked);
        writers.into_iter().for_each(|writer| writer.join().unwrap().unwrap());
    });
    assert_eq!(journal.syncs() - before, 1);
    assert_eq!(states(&journal).len(), 8);
}

#[test]
fn an_unsynced_record_survives_a_kill_and_what_a_loss_of_power_takes_is_no_damage() {
    let is_open = |journal: &Journal| journal.find(id(1)).unwrap().open.is_some();
    let mut lost = 0;
    for seed in 0..60 {
        let (mut disk, journal) = begun(seed);
        journal.write(id(1), Change::Attempt { table: "t".into(), attempt: attempt(1) }).unwrap();
        let before = journal.syncs();
        journal.write_unsynced(id(1), Change::Answered);
        assert_eq!((journal.syncs() - before, is_open(&load(&disk))), (0, false), "seed {seed}");
        journal.write_unsynced(id(2), Change::Forced);
        disk.restart(End::PowerLost);
        let found = load(&disk);
        assert!(!found.is_doubtful(), "seed {seed}");
        lost += u64::from(is_open(&found));
    }
    assert!((1..60).contains(&lost), "{lost}");
}

#[test]
fn an_unsynced_record_that_can_not_be_written_is_written_with_the_next() {
    let (mut disk, journal) = begun(1);
    journal.write(id(1), Change::Attempt { table: "t".into(), attempt: attempt(1) }).unwrap();
    disk.plan(1, Fault::Fails);
    journal.write_unsynced(id(1), Change::Answered);
    assert!(load(&disk).find(id(1)).unwrap().open.is_some());
    journal.write(id(2), Change::Forced).unwrap();
    disk.restart(End::PowerLost);
    let found = load(&disk);
    assert!(found.find(id(1)).unwrap().open.is_none() && found.find(id(2)).unwrap().forced);
}
