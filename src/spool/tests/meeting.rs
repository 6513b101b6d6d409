//! Tests of the shelf where committer and keeper meet.

use super::shelf::{Errands, Next, Shelf};
use super::*;
use crate::batch::CommitRefusal;

/// A shelf, columns, and segments for it.
struct Meeting {
    shelf: Shelf,
    frozen: Arc<[u8]>,
    spool: Spool,
    _folder: tempfile::TempDir,
}

impl Meeting {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(config(folder.path())).unwrap();
        let frozen: Arc<[u8]> = b"frozen"[..].into();
        Self { shelf: Shelf::new(frozen.clone()), frozen, spool, _folder: folder }
    }

    fn segment(&self, number: u64) -> OpenSegment {
        write_segment(&self.spool, number, None, &[batch(&["row"], &[])])
    }

    fn take(&self) -> Option<Result<OpenSegment, CommitRefusal>> {
        match self.shelf.take(&self.frozen) {
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
    assert!(make.is_some());
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
    assert!(meeting.shelf.errands().make.is_some());
    meeting.shelf.hand_over(open, Some(CommitRefusal::WriteFailed));
    meeting.shelf.put(meeting.segment(2), None);
    assert!(meeting.take().is_none());
    let Errands { handed_over, failed, .. } = meeting.shelf.errands();
    assert_eq!((handed_over.len(), failed), (2, Some(CommitRefusal::WriteFailed)));
    assert!(!meeting.shelf.sealed());
    meeting.shelf.put(meeting.segment(3), failed);
    assert_eq!(meeting.take().unwrap().unwrap().number(), SegmentNumber::new(3));
}
