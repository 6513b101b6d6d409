//! The cut of a block whose rows are inserted in pieces: which rows ClickHouse has taken, which it
//! refuses, and which are still to be tried.
//!
//! It is kept in the journal, durably before any of the pieces is sent, so that no piece is ever sent as
//! part of another piece.

use serde::Deserialize;

/// The pieces of one block's rows, in order and without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The pieces in the order of their rows.
    pub pieces: Vec<Piece>,
    /// True if the quarantine table may have the refused rows.
    pub refused_are_sent: bool,
    /// True if the refused rows are proven in the quarantine table.
    pub refused_are_stored: bool,
}

/// Consecutive rows of a block that are sent as one INSERT.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Piece {
    /// Index of the piece's first row in the block.
    pub first: u64,
    /// Number of rows.
    pub rows: u64,
    /// Offset of the first row in the bytes of the block's rows.
    pub offset: u64,
    /// Bytes of the piece's rows.
    pub bytes: u64,
    /// The state of the piece.
    pub state: PieceState,
}

/// The state of a piece.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub enum PieceState {
    /// Every attempt was answered, and ClickHouse has none of the rows.
    Waiting,
    /// ClickHouse may have the rows; until it answers, the piece is only repeated unchanged.
    Open,
    /// The rows are proven in the target table.
    Inserted,
    /// A single row that ClickHouse refuses, with the reason.
    Refused(String),
}

impl Cut {
    /// True if an older release left a cut that can't be read.
    pub fn is_unreadable(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Number of rows that ClickHouse refuses.
    pub fn refused(&self) -> u64 {
        self.pieces.iter().filter(|piece| matches!(piece.state, PieceState::Refused(_))).map(|piece| piece.rows).sum()
    }

    /// Number of rows that are proven: in the target table, or refused and in the quarantine table.
    pub(super) fn decided(&self) -> u64 {
        let inserted = self.pieces.iter().filter(|piece| piece.state == PieceState::Inserted).map(|piece| piece.rows);
        inserted.sum::<u64>() + if self.refused_are_stored { self.refused() } else { 0 }
    }
}
