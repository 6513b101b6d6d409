//! What became of a block: a pure function of the records about it.

use super::super::cut::{Cut, Piece, PieceState};
use crate::batch::{BlockNumber, Epoch, SegmentNumber};

/// Names a block: the epoch of the process that opened its segment, and its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::spool) struct BlockId {
    pub(in crate::spool) epoch: Epoch,
    pub(in crate::spool) number: BlockNumber,
}

/// An attempt without an answer: ClickHouse may have stored the rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenAttempt {
    /// Start of the attempt, Unix ms.
    pub since_ms: u64,
    /// The newest segment number when the attempt began; bounds the number of later INSERTs.
    pub newest: SegmentNumber,
    /// The caller's note about the server of the attempt; empty if unknown.
    pub server: String,
}

impl OpenAttempt {
    /// The attempt that is assumed when the disk does not say what was sent, or to which server.
    pub(in crate::spool) fn unknown(since_ms: u64, newest: SegmentNumber) -> Self {
        Self { since_ms, newest, server: String::new() }
    }

    pub(in crate::spool) fn is_unknown(&self) -> bool {
        self.server.is_empty()
    }
}

/// The state of a block. The default is that of one that was never sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(in crate::spool) struct Block {
    /// The table that the block belongs to; empty while there is no record about it.
    pub(in crate::spool) table: String,
    /// Some part of it was sent.
    pub(in crate::spool) was_sent: bool,
    /// Nothing of it is to be sent any more; only its file is still to be removed.
    pub(in crate::spool) is_done: bool,
    /// It was damaged, and another block holds what was readable. A file of it that is found again was put
    /// there by an operator.
    pub(in crate::spool) is_salvaged: bool,
    /// The rows are proven, the rejected lines are not.
    pub(in crate::spool) rows_inserted: bool,
    /// An operator ordered to send it although ClickHouse may have it.
    pub(in crate::spool) forced: bool,
    /// ClickHouse may have the token of the open attempt without its rows.
    pub(in crate::spool) suspect: bool,
    /// Number of used-up tokens.
    pub(in crate::spool) generation: u32,
    /// The first attempt whose outcome is unknown.
    pub(in crate::spool) open: Option<OpenAttempt>,
    /// How the rows are cut into pieces.
    pub(in crate::spool) cut: Option<Cut>,
}

/// What a record says of its block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::spool) enum Change {
    /// Its whole state: in a checkpoint, and of a block that an older release left.
    State(Block),
    /// ClickHouse may have a part of it from now on. Does not replace an attempt that is open.
    Attempt { table: String, attempt: OpenAttempt },
    /// Every attempt was answered: none of them is open.
    Answered,
    /// What was tried is unknown: the token or the server of the open attempt may be any other.
    Doubtful(OpenAttempt),
    /// ClickHouse may have the token of the open attempt without its rows.
    Suspect,
    /// An operator ordered to send it although ClickHouse may have it.
    Forced,
    /// ClickHouse knows the token and does not have the rows: the next token is in use.
    UsedUp,
    /// The rows are cut into these pieces.
    Cut(Vec<Piece>),
    /// The piece with this index is replaced by these.
    Pieces(u64, Vec<Piece>),
    /// The quarantine table may have the refused rows.
    RefusedSent,
    /// The refused rows are proven in the quarantine table.
    RefusedStored,
    /// The rows are proven, the rejected lines are not.
    RowsInserted,
    /// All of it is proven.
    Proven,
    /// It was damaged, and another block holds what was readable.
    Salvaged,
}

impl Block {
    /// True for a block that the journal need not remember.
    pub(super) fn is_fresh(&self) -> bool {
        *self == Self { table: self.table.clone(), ..Self::default() }
    }

    /// The state after a record.
    pub(in crate::spool) fn apply(&mut self, change: &Change) {
        match change {
            Change::State(state) => *self = state.clone(),
            Change::Attempt { table, attempt } => {
                self.table.clone_from(table);
                self.was_sent = true;
                self.open.get_or_insert_with(|| attempt.clone());
            }
            Change::Answered => (self.open, self.suspect) = (None, false),
            Change::Doubtful(attempt) => self.open = Some(attempt.clone()),
            Change::Suspect => self.suspect = true,
            Change::Forced => self.forced = true,
            Change::UsedUp => {
                self.generation = self.generation.saturating_add(1);
                (self.forced, self.suspect, self.open) = (false, false, None);
                // Tokens of pieces derive from that of the block.
                let pieces = self.cut.iter_mut().flat_map(|cut| &mut cut.pieces);
                for piece in pieces.filter(|piece| piece.state == PieceState::Open) {
                    piece.state = PieceState::Waiting;
                }
            }
            Change::Cut(pieces) => {
                self.cut = Some(Cut { pieces: pieces.clone(), refused_are_sent: false, refused_are_stored: false });
            }
            Change::Pieces(index, pieces) => {
                let index = usize::try_from(*index).unwrap_or(usize::MAX);
                if let Some(cut) = self.cut.as_mut().filter(|cut| index < cut.pieces.len()) {
                    cut.pieces.splice(index..=index, pieces.iter().cloned());
                }
            }
            Change::RefusedSent => self.cut.iter_mut().for_each(|cut| cut.refused_are_sent = true),
            Change::RefusedStored => self.cut.iter_mut().for_each(|cut| cut.refused_are_stored = true),
            Change::RowsInserted => {
                self.rows_inserted = true;
                // The rejected lines are sent after the rows, so no attempt of theirs is open, unless the open
                // attempt is unknown.
                self.open = self.open.take().filter(OpenAttempt::is_unknown);
            }
            Change::Proven => self.is_done = true,
            Change::Salvaged => self.is_salvaged = true,
        }
    }
}
