//! The bytes of a record. All integers are little-endian; a text is its length (4 bytes) and its bytes.
//!
//! ```text
//! 0  1  kind                  1  8  epoch               9  8  number of the block, packed
//! and by kind:
//!  1  state: text table, 4 flags (1 = sent, 2 = rows inserted, 4 = forced, 8 = suspect, 16 = done,
//!     32 = an attempt is open, 64 = cut, 128 = refused rows are sent, 256 = refused rows are stored,
//!     512 = salvaged), 4 used-up tokens; then the open attempt as in kind 2, and the pieces as in kind 7
//!  2  attempt: text table, 8 since (Unix ms), 8 newest segment, text note about the server
//!  3  answered   4  doubtful: as kind 2, without table   5  suspect   6  forced
//!  7  cut: 4 number of pieces, and of each 8 first row, 8 rows, 8 offset, 8 bytes, 1 state (0 = waiting,
//!     1 = open, 2 = inserted, 3 = refused, with a text that says why)
//!  8  pieces: 8 index of the piece that is replaced, then as kind 7
//!  9  refused rows are sent      10  refused rows are stored      11  rows inserted
//! 12  proven   13  token used up   14  salvaged
//! ```

use super::super::cut::{Cut, Piece, PieceState};
use super::super::frame::{get, get_u32, get_u64};
use super::block::{Block, BlockId, Change, OpenAttempt};
use crate::batch::{BlockNumber, Epoch, SegmentNumber};

const RECORD_FIXED: usize = 17;
/// A longer note about a server is cut off.
const NOTE_BYTES_MAX: usize = 1024;

/// Appends a record.
pub(super) fn encode(id: BlockId, change: &Change, out: &mut Vec<u8>) {
    let kind = match change {
        Change::State(_) => 1,
        Change::Attempt { .. } => 2,
        Change::Answered => 3,
        Change::Doubtful(_) => 4,
        Change::Suspect => 5,
        Change::Forced => 6,
        Change::Cut(_) => 7,
        Change::Pieces(..) => 8,
        Change::RefusedSent => 9,
        Change::RefusedStored => 10,
        Change::RowsInserted => 11,
        Change::Proven => 12,
        Change::UsedUp => 13,
        Change::Salvaged => 14,
    };
    out.push(kind);
    put_u64(out, id.epoch.get());
    put_u64(out, id.number.packed());
    match change {
        Change::State(block) => put_block(out, block),
        Change::Attempt { table, attempt } => {
            put_text(out, table);
            put_attempt(out, attempt);
        }
        Change::Doubtful(attempt) => put_attempt(out, attempt),
        Change::Cut(pieces) => put_pieces(out, pieces),
        Change::Pieces(index, pieces) => {
            put_u64(out, *index);
            put_pieces(out, pieces);
        }
        _ => {}
    }
}

fn put_block(out: &mut Vec<u8>, block: &Block) {
    let flags = [
        block.was_sent,
        block.rows_inserted,
        block.forced,
        block.suspect,
        block.is_done,
        block.open.is_some(),
        block.cut.is_some(),
        block.cut.as_ref().is_some_and(|cut| cut.refused_are_sent),
        block.cut.as_ref().is_some_and(|cut| cut.refused_are_stored),
        block.is_salvaged,
    ];
    put_text(out, &block.table);
    put_u32(out, flags.iter().zip(0..).map(|(flag, bit)| u32::from(*flag) << bit).sum());
    put_u32(out, block.generation);
    if let Some(attempt) = &block.open {
        put_attempt(out, attempt);
    }
    if let Some(cut) = &block.cut {
        put_pieces(out, &cut.pieces);
    }
}

fn put_attempt(out: &mut Vec<u8>, attempt: &OpenAttempt) {
    put_u64(out, attempt.since_ms);
    put_u64(out, attempt.newest.get());
    let note = attempt.server.as_str();
    put_text(out, note.get(..note.floor_char_boundary(NOTE_BYTES_MAX)).unwrap_or_default());
}

fn put_pieces(out: &mut Vec<u8>, pieces: &[Piece]) {
    put_u32(out, pieces.len() as u32);
    for piece in pieces {
        for number in [piece.first, piece.rows, piece.offset, piece.bytes] {
            put_u64(out, number);
        }
        match &piece.state {
            PieceState::Waiting => out.push(0),
            PieceState::Open => out.push(1),
            PieceState::Inserted => out.push(2),
            PieceState::Refused(reason) => {
                out.push(3);
                put_text(out, reason);
            }
        }
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_u32(out, text.len() as u32);
    out.extend_from_slice(text.as_bytes());
}

fn put_u32(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

/// Decodes the record that `bytes` begin with, and returns its length with it; `None` if there is none.
pub(super) fn decode(bytes: &[u8]) -> Option<(BlockId, Change, usize)> {
    let kind = *bytes.first()?;
    let id = BlockId { epoch: Epoch::new(get_u64(bytes, 1)?), number: BlockNumber::unpacked(get_u64(bytes, 9)?) };
    let mut rest = Rest { bytes, at: RECORD_FIXED };
    let change = match kind {
        1 => Change::State(rest.block()?),
        2 => Change::Attempt { table: rest.text()?, attempt: rest.attempt()? },
        3 => Change::Answered,
        4 => Change::Doubtful(rest.attempt()?),
        5 => Change::Suspect,
        6 => Change::Forced,
        7 => Change::Cut(rest.pieces()?),
        8 => Change::Pieces(rest.u64()?, rest.pieces()?),
        9 => Change::RefusedSent,
        10 => Change::RefusedStored,
        11 => Change::RowsInserted,
        12 => Change::Proven,
        13 => Change::UsedUp,
        14 => Change::Salvaged,
        _ => return None,
    };
    Some((id, change, rest.at))
}

/// What is left of a record.
struct Rest<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Rest<'_> {
    fn u8(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn u32(&mut self) -> Option<u32> {
        let number = get_u32(self.bytes, self.at)?;
        self.at += 4;
        Some(number)
    }

    fn u64(&mut self) -> Option<u64> {
        let number = get_u64(self.bytes, self.at)?;
        self.at += 8;
        Some(number)
    }

    fn text(&mut self) -> Option<String> {
        let len = self.u32()? as usize;
        let text = get(self.bytes, self.at, len)?;
        self.at += len;
        String::from_utf8(text.to_vec()).ok()
    }

    fn block(&mut self) -> Option<Block> {
        let table = self.text()?;
        let flags = self.u32()?;
        let generation = self.u32()?;
        let has = |bit: u32| flags & 1 << bit != 0;
        let open = if has(5) { Some(self.attempt()?) } else { None };
        let pieces = if has(6) { Some(self.pieces()?) } else { None };
        let cut = pieces.map(|pieces| Cut { pieces, refused_are_sent: has(7), refused_are_stored: has(8) });
        Some(Block {
            table,
            was_sent: has(0),
            rows_inserted: has(1),
            forced: has(2),
            suspect: has(3),
            is_done: has(4),
            is_salvaged: has(9),
            generation,
            open,
            cut,
        })
    }

    fn attempt(&mut self) -> Option<OpenAttempt> {
        Some(OpenAttempt { since_ms: self.u64()?, newest: SegmentNumber::new(self.u64()?), server: self.text()? })
    }

    fn pieces(&mut self) -> Option<Vec<Piece>> {
        let count = self.u32()?;
        // Not reserved: the number is only believed as far as the bytes go.
        let mut pieces = Vec::new();
        for _ in 0..count {
            let (first, rows, offset, bytes) = (self.u64()?, self.u64()?, self.u64()?, self.u64()?);
            let state = match self.u8()? {
                0 => PieceState::Waiting,
                1 => PieceState::Open,
                2 => PieceState::Inserted,
                3 => PieceState::Refused(self.text()?),
                _ => return None,
            };
            pieces.push(Piece { first, rows, offset, bytes, state });
        }
        Some(pieces)
    }
}
