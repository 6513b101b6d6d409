//! The cut of a segment whose rows are inserted in pieces: which rows ClickHouse has taken, which it
//! refuses, and which are still to be tried.
//!
//! The cut is kept in `<number>.cut` beside the segment. The file is replaced atomically and synced
//! before any of the pieces is sent, so that no piece is ever sent as part of another piece.
//!
//! The first line of the file is JSON, the second is the CRC-32C of the first as 8 hex digits.
//! Without the checksum a changed digit of an offset would go unnoticed.

use std::io;

use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::storage::{self, read_up_to};
use crate::batch::SegmentNumber;

/// The longest file that is read. A cut of some thousand pieces with their reasons is far shorter.
const FILE_BYTES_MAX: usize = 64 << 20;

/// The pieces of one segment's rows, in order and without a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cut {
    /// The segment's first token, which identifies the segment.
    pub token: String,
    /// The pieces in the order of their rows.
    pub pieces: Vec<Piece>,
    /// True if the quarantine table may have the refused rows.
    pub refused_are_sent: bool,
    /// True if the refused rows are proven in the quarantine table.
    pub refused_are_stored: bool,
}

/// Consecutive rows of a segment that are sent as one INSERT.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Index of the piece's first row in the segment.
    pub first: u64,
    /// Number of rows.
    pub rows: u64,
    /// Offset of the first row in the bytes of the segment's rows.
    pub offset: u64,
    /// Bytes of the piece's rows.
    pub bytes: u64,
    /// The state of the piece.
    pub state: PieceState,
}

/// The state of a piece.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Loads the cut of the segment with this number and name; `None` if the segment is not cut.
    ///
    /// If the file is damaged the cut is unreadable ([`Cut::is_unreadable`]), and the segment may be
    /// sent neither whole nor in pieces.
    ///
    /// # Errors
    ///
    /// I/O errors.
    pub(super) fn load(layout: &Layout, number: SegmentNumber, name: &str) -> io::Result<Option<Self>> {
        let file = match layout.storage().open(&layout.cut_path(number)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = vec![0; usize::try_from(file.len()?).unwrap_or(FILE_BYTES_MAX).min(FILE_BYTES_MAX)];
        let len = read_up_to(&*file, &mut text, 0)?;
        let json = checked(text.get(..len).unwrap_or_default());
        let cut = json.and_then(|json| sonic_rs::from_slice::<Self>(json).ok());
        match cut.filter(|cut| cut.token == name) {
            Some(cut) => Ok(Some(cut)),
            None => Ok(Some(Self {
                token: String::new(),
                pieces: Vec::new(),
                refused_are_sent: false,
                refused_are_stored: false,
            })),
        }
    }

    /// True if the file of the cut is damaged.
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

    pub(super) fn save(&self, layout: &Layout, number: SegmentNumber) -> io::Result<()> {
        let mut text = sonic_rs::to_vec(self).map_err(io::Error::other)?;
        let check = check_line(&text);
        text.extend_from_slice(check.as_bytes());
        layout.with_spare(|| storage::replace(layout.storage(), &layout.cut_path(number), &text))?;
        layout.sync_table_dir()
    }
}

/// The end of the first line, and the line with the checksum.
fn check_line(json: &[u8]) -> String {
    format!("\n{:08x}\n", crc32c::crc32c(json))
}

/// The JSON of a file; `None` if its checksum is wrong.
fn checked(text: &[u8]) -> Option<&[u8]> {
    let (json, check) = text.split_at_checked(text.len().checked_sub(check_line(&[]).len())?)?;
    (check == check_line(json).as_bytes()).then_some(json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::storage::Disk;
    use std::fs;
    use std::sync::Arc;

    #[test]
    fn a_cut_is_loaded_as_saved_and_a_changed_or_shortened_file_is_unreadable() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::open(Arc::new(Disk), folder.path(), "t", None).unwrap();
        let piece = |first, state| Piece { first, rows: 10, offset: first * 100, bytes: 1000, state };
        let pieces = vec![piece(0, PieceState::Inserted), piece(10, PieceState::Refused("\"so\"\nit is".to_owned()))];
        let cut = Cut { token: "token".into(), pieces, refused_are_sent: true, refused_are_stored: false };
        let load = || Cut::load(&layout, SegmentNumber::new(7), "token").unwrap().unwrap();
        cut.save(&layout, SegmentNumber::new(7)).unwrap();
        assert_eq!(load(), cut);
        let bytes = fs::read(layout.cut_path(SegmentNumber::new(7))).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                fs::write(layout.cut_path(SegmentNumber::new(7)), &changed).unwrap();
                assert!(load().is_unreadable(), "bit {bit} of byte {at}");
            }
            fs::write(layout.cut_path(SegmentNumber::new(7)), &bytes[..at]).unwrap();
            assert!(load().is_unreadable(), "cut off at {at}");
        }
        fs::write(layout.cut_path(SegmentNumber::new(7)), &bytes).unwrap();
        assert!(Cut::load(&layout, SegmentNumber::new(7), "another").unwrap().unwrap().is_unreadable());
        assert_eq!(load(), cut);
    }
}
