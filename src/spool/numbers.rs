//! Numbers of segments that may have been used: no later segment has one of them.
//!
//! The files of a folder do not say it: inserted segments are gone. What counts the INSERTs that may
//! have followed an open attempt counts numbers, over restarts as well, so a number that fell back
//! would let a segment be sent again after ClickHouse has forgotten its token.
//!
//! ```text
//! two pages of 4096 bytes, overwritten in turn
//!   0  8  "NUMBERS1"            8  8  turn              16  8  a number that no segment had yet
//!  24  4  checksum of bytes 0..24
//! ```
//!
//! Numbers are noted [`AHEAD`] at a time, before the first of them is used, and exactly at a stop. So
//! a crash skips a few numbers, which looks like as many INSERTs more, and repeats none.

use std::io;
use std::path::PathBuf;

use super::block::PAGE;
use super::frame::{get, get_u32, get_u64};
use super::layout::Layout;
use super::storage::{read_up_to, write_all};
use crate::batch::SegmentNumber;

/// The file's name, in the folder of the segments.
pub(super) const NAME: &str = "numbers";

/// Numbers that one note permits: a sync for so many segments, and as many numbers lost in a crash.
const AHEAD: u64 = 16;

const MAGIC: &[u8; 8] = b"NUMBERS1";

/// The note, and what it permits.
pub(super) struct Numbers {
    path: PathBuf,
    /// The file is there, with its room.
    is_made: bool,
    turn: u64,
    /// Numbers below this one may be used.
    noted: SegmentNumber,
}

impl Numbers {
    /// Reads the note, and returns it with the first number that no segment had by it.
    pub(super) fn open(layout: &Layout) -> io::Result<(Self, SegmentNumber)> {
        let path = layout.folder().join(NAME);
        let mut numbers = Self { path, is_made: false, turn: 0, noted: SegmentNumber::default() };
        let file = match layout.storage().open(&numbers.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((numbers, SegmentNumber::new(1))),
            Err(error) => return Err(error),
        };
        let mut bytes = [0; 2 * PAGE];
        let len = read_up_to(&*file, &mut bytes, 0)?;
        let (first, second) = bytes.get(..len).unwrap_or_default().split_at(len.min(PAGE));
        let newest = [first, second].into_iter().filter_map(decode).max();
        if newest.is_none() {
            tracing::error!(path = %numbers.path.display(), "the note of used segment numbers can't be read");
        }
        let (turn, next) = newest.unwrap_or((0, 1));
        numbers.turn = turn;
        Ok((numbers, SegmentNumber::new(next.max(1))))
    }

    /// Notes, durably, that this number and a few behind it may be used, where that is not noted.
    pub(super) fn allow(&mut self, layout: &Layout, number: SegmentNumber) -> io::Result<()> {
        if number < self.noted {
            return Ok(());
        }
        self.note(layout, number.plus(AHEAD))
    }

    /// Notes, durably, that every number below `next` may have been used, and none from there on.
    pub(super) fn note(&mut self, layout: &Layout, next: SegmentNumber) -> io::Result<()> {
        // What a failed write leaves behind is unknown.
        self.noted = SegmentNumber::default();
        // Open for no longer than this: a disk with a file that is open for writing can't become read-only.
        let file = layout.storage().create(&self.path)?;
        if !self.is_made {
            file.reserve(2 * PAGE as u64)?;
            file.sync()?;
            layout.sync_folder()?;
            self.is_made = true;
        }
        self.turn += 1;
        write_all(&*file, &encode(self.turn, next), self.turn % 2 * PAGE as u64)?;
        file.sync()?;
        self.noted = next;
        Ok(())
    }
}

fn encode(turn: u64, next: SegmentNumber) -> Vec<u8> {
    let mut page = Vec::with_capacity(PAGE);
    page.extend_from_slice(MAGIC);
    page.extend_from_slice(&turn.to_le_bytes());
    page.extend_from_slice(&next.get().to_le_bytes());
    let checksum = crc32c::crc32c(&page);
    page.extend_from_slice(&checksum.to_le_bytes());
    page.resize(PAGE, 0);
    page
}

/// Turn and number of a whole page.
fn decode(page: &[u8]) -> Option<(u64, u64)> {
    let fields = get(page, 0, 24)?;
    let whole = fields.starts_with(MAGIC) && get_u32(page, 24)? == crc32c::crc32c(fields);
    if whole { Some((get_u64(fields, 8)?, get_u64(fields, 16)?)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::storage::Disk;
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    fn layout(dir: &Path) -> Layout {
        Layout::open(Arc::new(Disk), dir, vec!["t".into()], None).unwrap()
    }

    #[test]
    fn numbers_go_forward_over_stops_and_crashes() {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout(folder.path());
        let number = SegmentNumber::new;
        let next = || Numbers::open(&layout).unwrap().1;
        assert_eq!(next(), number(1));
        let (mut numbers, _) = Numbers::open(&layout).unwrap();
        for used in 1..=20 {
            numbers.allow(&layout, number(used)).unwrap();
            assert!(next() > number(used), "after a crash number {used} would come again");
        }
        numbers.note(&layout, number(21)).unwrap();
        assert_eq!(next(), number(21), "a stop skips none");
    }

    #[test]
    fn a_torn_note_leaves_the_one_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let layout = layout(folder.path());
        let (mut numbers, _) = Numbers::open(&layout).unwrap();
        for next in [5, 9] {
            numbers.note(&layout, SegmentNumber::new(next)).unwrap();
        }
        let path = layout.folder().join(NAME);
        let bytes = fs::read(&path).unwrap();
        for (at, expected) in [(PAGE + 16, 9), (16, 5)] {
            let mut torn = bytes.clone();
            torn[at] ^= 1;
            fs::write(&path, torn).unwrap();
            assert_eq!(Numbers::open(&layout).unwrap().1, SegmentNumber::new(expected));
        }
    }
}
