//! The decision on the next step for a block, and on the consequence of a failed INSERT. Both are
//! pure functions of the block's state, without access to a disk or a server.

use super::due::Work;
use super::outcome::Class;
use crate::spool::{Cut, PieceState, SealedBlock};

/// Why a block is held whose cut an older release has left unreadable.
const UNREADABLE_CUT: &str = "the block was cut, and its .cut file is damaged; check which of its rows are in the \
                              table; `sluicegate spool requeue --force` sets its rows aside, with the file in damaged/, \
                              and sends its rejected lines";

/// The next step for a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Send this as one INSERT.
    Send(Sent),
    /// All rows are proven. Release the replies that wait for them, and if rejected lines are still
    /// to be sent, note on the disk that the rows are inserted.
    FinishRows,
    /// Everything is proven. Remove the block from the spool.
    Retire,
    /// Hold the block for this reason; only an operator can continue.
    Hold(&'static str),
}

/// The part of a block that one INSERT sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// All rows, into the target table.
    Rows,
    /// The rows of the piece with this index, into the target table.
    Piece(usize),
    /// The rows that ClickHouse refused, into the quarantine table.
    Refused,
    /// The rejected lines, into the quarantine table.
    Rejected,
}

impl Sent {
    /// True for an INSERT into the quarantine table. Its rows are encoded by sluicegate for that
    /// table, so a refusal is never due to a row.
    pub(super) fn is_for_quarantine(self) -> bool {
        matches!(self, Self::Refused | Self::Rejected)
    }
}

/// The state of a block that is recorded on the disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recorded<'a> {
    /// Number of rows; 0 once they are noted as inserted.
    pub(super) rows_waiting: u64,
    /// Number of rejected lines.
    pub(super) rejected: u64,
    /// The cut of the block, if it is cut.
    pub(super) cut: Option<&'a Cut>,
}

impl<'a> From<&'a SealedBlock> for Recorded<'a> {
    fn from(block: &'a SealedBlock) -> Self {
        Self { rows_waiting: block.rows_waiting(), rejected: block.rejected(), cut: block.cut() }
    }
}

/// The steps that this process has done for a block and that are not recorded on the disk. After a
/// crash the next start repeats them, under the same token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Unrecorded {
    /// The INSERT of all rows is proven.
    pub(super) rows_proven: bool,
    /// [`Step::FinishRows`] is done.
    pub(super) rows_finished: bool,
    /// The INSERT of the rejected lines is proven.
    pub(super) rejected_proven: bool,
}

/// Decides on the next step for a block.
pub(super) fn next_step(recorded: Recorded<'_>, progress: Unrecorded) -> Step {
    if recorded.rows_waiting > 0 && !progress.rows_finished {
        return match recorded.cut {
            _ if progress.rows_proven => Step::FinishRows,
            None => Step::Send(Sent::Rows),
            Some(cut) if cut.is_unreadable() => Step::Hold(UNREADABLE_CUT),
            Some(cut) => next_of_cut(cut),
        };
    }
    if recorded.rejected > 0 && !progress.rejected_proven { Step::Send(Sent::Rejected) } else { Step::Retire }
}

fn next_of_cut(cut: &Cut) -> Step {
    let is_undecided = |state: &PieceState| matches!(state, PieceState::Waiting | PieceState::Open);
    match cut.pieces.iter().position(|piece| is_undecided(&piece.state)) {
        Some(index) => Step::Send(Sent::Piece(index)),
        None if cut.refused() > 0 && !cut.refused_are_stored => Step::Send(Sent::Refused),
        None => Step::FinishRows,
    }
}

/// The consequence of a failed INSERT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verdict {
    /// How to continue with the block; [`Class::Cut`] and [`Class::Split`] only if a cut is safe.
    pub(super) class: Class,
    /// ClickHouse certainly has stored none of what was sent, in this attempt and all earlier ones.
    pub(super) is_closed: bool,
    /// The rows should be sent in pieces, but ClickHouse may have stored all of them in an earlier
    /// attempt, so that a cut is not safe.
    pub(super) cut_is_unsafe: bool,
}

/// Decides on the consequence of a failed INSERT of `sent`. `is_repeat` says that an earlier attempt
/// of it may still be open; `answered` that this attempt was answered.
pub(super) fn judge(sent: Sent, is_repeat: bool, class: Class, answered: bool) -> Verdict {
    let is_closed = answered && !is_repeat;
    let wants_cut = matches!(class, Class::Cut | Class::Split);
    let may_cut = wants_cut && is_closed && !sent.is_for_quarantine();
    let class = if wants_cut && !may_cut { Class::Hold } else { class };
    Verdict { class, is_closed, cut_is_unsafe: wants_cut && !may_cut && !sent.is_for_quarantine() }
}

impl Work {
    /// The next step for this block.
    pub(super) fn next_step(&self) -> Step {
        next_step(Recorded::from(&self.block), self.progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Piece;

    fn cut(states: &[PieceState], refused_are_stored: bool) -> Cut {
        let piece = |state: &PieceState| Piece { first: 0, rows: 1, offset: 0, bytes: 1, state: state.clone() };
        let pieces = states.iter().map(piece).collect();
        Cut { pieces, refused_are_sent: refused_are_stored, refused_are_stored }
    }

    #[test]
    fn each_state_of_a_block_has_its_next_step() {
        use PieceState::{Inserted, Open, Refused, Waiting};
        let refused = Refused("because".into());
        let unreadable = cut(&[], false);
        let waiting = cut(&[Inserted, Waiting, Open], false);
        let open = cut(&[Inserted, Open], false);
        let unstored = cut(&[Inserted, refused.clone()], false);
        let stored = cut(&[refused, Inserted], true);
        let all_inserted = cut(&[Inserted, Inserted], false);
        let fresh = Unrecorded::default();
        let proven = Unrecorded { rows_proven: true, ..fresh };
        let finished = Unrecorded { rows_finished: true, ..proven };
        let done = Unrecorded { rejected_proven: true, ..finished };
        let (rows, rejected) = (Step::Send(Sent::Rows), Step::Send(Sent::Rejected));
        let held = Step::Hold(UNREADABLE_CUT);
        for (name, rows_waiting, lines, cut, progress, expected) in [
            ("fresh", 5, 0, None, fresh, rows),
            ("fresh, with rejected lines", 5, 2, None, fresh, rows),
            ("rows proven", 5, 0, None, proven, Step::FinishRows),
            ("rows proven, lines wait", 5, 2, None, proven, Step::FinishRows),
            ("rows finished", 5, 0, None, finished, Step::Retire),
            ("rows finished, lines wait", 5, 2, None, finished, rejected),
            ("all proven", 5, 2, None, done, Step::Retire),
            ("rows noted as inserted before", 0, 2, None, fresh, rejected),
            ("lines alone", 0, 2, None, fresh, rejected),
            ("lines alone, proven", 0, 2, None, Unrecorded { rejected_proven: true, ..fresh }, Step::Retire),
            ("nothing", 0, 0, None, fresh, Step::Retire),
            ("the cut is unreadable", 5, 2, Some(&unreadable), fresh, held),
            ("unreadable, but the rows are in", 0, 2, Some(&unreadable), fresh, rejected),
            ("a piece waits", 5, 0, Some(&waiting), fresh, Step::Send(Sent::Piece(1))),
            ("a piece is open", 5, 0, Some(&open), fresh, Step::Send(Sent::Piece(1))),
            ("refused rows wait", 5, 2, Some(&unstored), fresh, Step::Send(Sent::Refused)),
            ("refused rows are stored", 5, 2, Some(&stored), fresh, Step::FinishRows),
            ("all pieces are inserted", 5, 0, Some(&all_inserted), fresh, Step::FinishRows),
            ("cut and finished", 5, 2, Some(&stored), finished, rejected),
            ("cut and done", 5, 2, Some(&stored), done, Step::Retire),
        ] {
            let recorded = Recorded { rows_waiting, rejected: lines, cut };
            assert_eq!(next_step(recorded, progress), expected, "{name}");
        }
    }

    #[test]
    fn rows_are_cut_only_when_every_attempt_of_them_was_answered() {
        for sent in [Sent::Rows, Sent::Piece(3), Sent::Refused, Sent::Rejected] {
            for (is_repeat, answered) in [(false, false), (false, true), (true, false), (true, true)] {
                let verdict = |class| judge(sent, is_repeat, class, answered);
                let certain = answered && !is_repeat;
                for class in [Class::Retry, Class::Hold] {
                    let expected = Verdict { class, is_closed: certain, cut_is_unsafe: false };
                    assert_eq!(verdict(class), expected, "{sent:?} {is_repeat} {answered}");
                }
                let (may_cut, own) = (certain && !sent.is_for_quarantine(), sent.is_for_quarantine());
                for class in [Class::Cut, Class::Split] {
                    let expected = Verdict {
                        class: if may_cut { class } else { Class::Hold },
                        is_closed: certain,
                        cut_is_unsafe: !may_cut && !own,
                    };
                    assert_eq!(verdict(class), expected, "{sent:?} {is_repeat} {answered}");
                }
            }
        }
    }
}
