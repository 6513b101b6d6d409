//! Tests of the shelf where committer and keeper meet.

use super::chance::Chance;
use super::committing::{Bench, keyed, rows_of};
use super::faulty::FaultyDisk;
use super::shelf::{Errands, Next, Shelf};
use super::*;
use crate::batch::{CommitOutcome, CommitRefusal};

/// A shelf, and segments for it.
struct Meeting {
    shelf: Shelf,
    spool: Spool,
    _folder: tempfile::TempDir,
}

impl Meeting {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(config(folder.path())).unwrap();
        Self { shelf: Shelf::new(), spool, _folder: folder }
    }

    fn segment(&self, number: u64) -> OpenSegment {
        write_segment(&self.spool, number, None, &[batch(&["row"], &[])])
    }

    fn take(&self) -> Option<Result<OpenSegment, CommitRefusal>> {
        match self.shelf.take() {
            Next::Segment(open, _) => Some(Ok(*open)),
            Next::Refused(refusal) => Some(Err(refusal)),
            Next::NotYet => None,
        }
    }
}

#[test]
fn an_answer_that_nobody_waits_for_is_not_that_to_the_next_question() {
    let meeting = Meeting::new();
    assert!(meeting.take().is_none());
    // In one turn the keeper makes the next segment and fails to seal another.
    let Errands { make, .. } = meeting.shelf.errands();
    assert!(make);
    meeting.shelf.put(meeting.segment(1), None);
    assert!(!meeting.shelf.refuse(CommitRefusal::DiskFull), "events are taken");
    let open = meeting.take().unwrap().unwrap();
    meeting.shelf.hand_over(open, None);
    assert!(meeting.take().is_none(), "it is found out again");
    meeting.shelf.errands();
    assert!(meeting.shelf.refuse(CommitRefusal::DiskFull));
    assert_eq!(meeting.take().unwrap().err(), Some(CommitRefusal::DiskFull));
}

#[test]
fn a_segment_that_was_being_made_when_a_write_failed_is_not_used() {
    let meeting = Meeting::new();
    meeting.shelf.put(meeting.segment(1), None);
    let open = meeting.take().unwrap().unwrap();
    assert!(meeting.shelf.errands().make);
    meeting.shelf.hand_over(open, Some(CommitRefusal::WriteFailed));
    meeting.shelf.put(meeting.segment(2), None);
    assert!(meeting.take().is_none());
    let Errands { handed_over, failed, .. } = meeting.shelf.errands();
    assert_eq!((handed_over.len(), failed), (2, Some(CommitRefusal::WriteFailed)));
    assert!(!meeting.shelf.sealed());
    meeting.shelf.put(meeting.segment(3), failed);
    assert_eq!(meeting.take().unwrap().unwrap().number(), SegmentNumber::new(3));
}

#[test]
fn whatever_disk_and_table_do_every_batch_is_answered_and_what_is_committed_is_sealed_in_order() {
    let mut refused = 0;
    for seed in 0..30 {
        let (disk, mut chance) = (FaultyDisk::new(seed), Chance::new(seed));
        let durability = *chance.pick(&[Durability::Sync, Durability::Written]);
        let dir = "/disk/spool".into();
        let config = with(SpoolConfig { dir, durability, ..config(Path::new("/")) }, |table| {
            table.batch_rows = 3;
            table.batch_bytes = 4096;
        });
        let mut bench = Bench::start_on(Arc::new(disk.clone()), config, 1);
        let (mut expected, mut frozen): (_, &[u8]) = (String::new(), b"frozen");
        for count in 0..60 {
            disk.fill(chance.one_in(3));
            if chance.one_in(5) {
                frozen = *chance.pick(&[&b"frozen"[..], b"other"]);
            }
            let row = format!("{count},");
            // The log of keys needs room, and so does a row that is longer than the rest of the file.
            let row = if chance.one_in(8) { row.repeat(2000) } else { row };
            let mut batch = keyed(row.as_bytes(), b"body", &[&row]);
            batch.frozen = frozen.into();
            match bench.commit_batch(batch) {
                CommitOutcome::Committed { .. } => expected += &row,
                CommitOutcome::Refused(_) => refused += 1,
                outcome => panic!("seed {seed}: {outcome:?}"),
            }
        }
        disk.fill(false);
        assert_eq!(rows_of(&bench.finish()).concat(), expected, "seed {seed}");
    }
    assert!(refused > 0);
}
