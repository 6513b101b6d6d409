//! The batch: what a worker hands to the committer at once. It holds the rows and the rejected lines
//! of the requests of one turn, and the keys of those that have an `Idempotency-Key`.
//!
//! Batches are pooled. A batch goes from its worker to the committer and back, and keeps its memory,
//! so that in steady state no event costs an allocation.

mod exchange;
pub mod identity;
mod keyed;
mod number;
mod outcome;

use std::ops::Range;
use std::sync::Arc;

pub use exchange::Exchange;
pub use keyed::KeyedRequest;
pub use number::{BlockNumber, Epoch, Position, SegmentNumber, Sequence, TableIndex};
pub use outcome::{CommitOutcome, CommitRefusal, OutcomeRule, Returned};

use crate::limits;
use identity::{Id, REQUEST_KEY_BYTES};

/// Rows in RowBinary, without a header, and their number.
#[derive(Debug, Default)]
pub struct Section {
    /// The concatenated rows, their columns in the order of the table.
    pub bytes: Vec<u8>,
    /// The number of rows in `bytes`.
    pub count: u32,
}

impl Section {
    fn cut(&mut self, mark: (usize, u32)) {
        // Once a rejected request: cut to more than there is, a batch would store rows that nobody sent.
        assert!(mark.0 <= self.bytes.len() && mark.1 <= self.count, "a batch is rolled back to a place behind its end");
        self.bytes.truncate(mark.0);
        self.count = mark.1;
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
        if self.bytes.capacity() > limits::BATCH_BYTES_KEPT {
            self.bytes.shrink_to(limits::BATCH_BYTES_KEPT);
        }
    }
}

/// The rows and rejected lines of a worker's turn; the committer stores a batch as one frame.
#[derive(Debug, Default)]
pub struct Batch {
    /// The worker that owns the batch, and that the committer returns it to.
    pub worker: usize,
    /// Pairs the outcome with the requests that wait for it; set when the batch is opened.
    pub sequence: Sequence,
    /// The table that the rows are for.
    pub table: TableIndex,
    /// The serialized columns, types and INSERT settings of `rows`; batches with different ones never
    /// share a block. A worker sets it when the schema has changed, not for each batch.
    pub frozen: Arc<[u8]>,
    /// Rows for the table.
    pub rows: Section,
    /// Rows for the quarantine table, see [`crate::quarantine`].
    pub rejected: Section,
    /// The requests with an `Idempotency-Key`.
    keyed: Vec<KeyedRequest>,
    /// The keys of those of them that are stored, encoded; set by [`Batch::close`].
    keys: Vec<[u8; REQUEST_KEY_BYTES]>,
    /// The identities of the events that have one (`--dedup-field`).
    pub ids: Vec<Id>,
    /// The range of `rows.bytes` of each event of `ids`, ascending.
    id_rows: Vec<Range<usize>>,
    /// Events that [`Batch::remove_repeats`] removed.
    pub duplicates: u32,
    /// CRC-32C over the payload of the frame, see [`checksum`]; set by [`Batch::close`].
    pub checksum: u32,
}

/// A length of a batch that [`Batch::roll_back`] can restore; of an empty one by default.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    rows: (usize, u32),
    rejected: (usize, u32),
    ids: usize,
    keyed: usize,
}

impl Batch {
    /// An empty batch of `worker`.
    pub fn new(worker: usize) -> Self {
        Self { worker, ..Self::default() }
    }

    /// The current end of the batch.
    pub fn mark(&self) -> Mark {
        Mark {
            rows: (self.rows.bytes.len(), self.rows.count),
            rejected: (self.rejected.bytes.len(), self.rejected.count),
            ids: self.ids.len(),
            keyed: self.keyed.len(),
        }
    }

    /// Removes everything that was appended since `mark`, so that nothing of a refused request is
    /// stored.
    pub fn roll_back(&mut self, mark: Mark) {
        self.rows.cut(mark.rows);
        self.rejected.cut(mark.rejected);
        self.ids.truncate(mark.ids);
        self.id_rows.truncate(mark.ids);
        self.keyed.truncate(mark.keyed);
    }

    /// Bytes of the encoded rows and rejected lines.
    pub fn len(&self) -> usize {
        self.rows.bytes.len() + self.rejected.bytes.len()
    }

    /// Bytes of memory that it holds, filled or not.
    pub fn memory(&self) -> usize {
        self.rows.bytes.capacity()
            + self.rejected.bytes.capacity()
            + self.ids.capacity() * size_of::<Id>()
            + self.id_rows.capacity() * size_of::<Range<usize>>()
            + self.keyed.capacity() * (size_of::<KeyedRequest>() + REQUEST_KEY_BYTES)
    }

    /// Gives back all memory that it does not use.
    pub fn shrink(&mut self) {
        self.rows.bytes.shrink_to_fit();
        self.rejected.bytes.shrink_to_fit();
        self.ids.shrink_to_fit();
        self.id_rows.shrink_to_fit();
        self.keyed.shrink_to_fit();
        self.keys.shrink_to_fit();
    }

    /// Bytes of the frame's payload: everything after its header.
    pub fn frame_payload(&self) -> u64 {
        (self.len() + self.keys.as_flattened().len() + self.ids.as_flattened().len()) as u64
    }

    /// True when the batch has nothing to store: no row, no rejected line and no key.
    pub fn is_empty(&self) -> bool {
        self.rows.count == 0 && self.rejected.count == 0 && !self.stores_a_key()
    }

    /// Closes the batch: nothing is appended until [`Batch::clear`]. The checksum is computed here, on
    /// the worker, because there are many workers and only one committer.
    pub fn close(&mut self) {
        self.encode_keys();
        self.compute_checksum();
    }

    /// Adds the identity of an event and the range of its row in `rows.bytes`. Calls come in the order
    /// of the rows.
    pub fn identify(&mut self, id: Id, row: Range<usize>) {
        self.ids.push(id);
        self.id_rows.push(row);
    }

    /// Removes the rows of the events whose identity was seen before, as `is_repeat` tells. The batch
    /// is closed; its checksum is computed again.
    pub fn remove_repeats(&mut self, mut is_repeat: impl FnMut(&Id) -> bool) {
        let (ids, mut left) = (&mut self.ids, 0);
        let repeats = self.id_rows.iter().enumerate().filter_map(|(index, row)| {
            let id = *ids.get(index)?;
            let is_repeat = is_repeat(&id);
            if !is_repeat {
                ids.swap(left, index);
                left += 1;
            }
            is_repeat.then(|| row.clone())
        });
        remove_ranges(&mut self.rows.bytes, repeats);
        let removed = self.ids.len() - left;
        if removed > 0 {
            self.rows.count = self.rows.count.saturating_sub(removed as u32);
            self.duplicates += removed as u32;
            self.ids.truncate(left);
            self.id_rows.clear();
            self.compute_checksum();
        }
    }

    fn compute_checksum(&mut self) {
        let (keys, ids) = (self.keys.as_flattened(), self.ids.as_flattened());
        self.checksum = checksum(&self.rows.bytes, &self.rejected.bytes, keys, ids);
    }

    /// The keys as they are stored in a frame.
    pub fn encoded_keys(&self) -> &[[u8; REQUEST_KEY_BYTES]] {
        &self.keys
    }

    /// Empties the batch for its next use, and releases memory above
    /// [`limits::BATCH_BYTES_KEPT`] and [`limits::BATCH_IDS_KEPT`].
    pub fn clear(&mut self) {
        self.rows.clear();
        self.rejected.clear();
        self.keyed.clear();
        self.keys.clear();
        self.ids.clear();
        self.ids.shrink_to(limits::BATCH_IDS_KEPT);
        self.id_rows.clear();
        self.id_rows.shrink_to(limits::BATCH_IDS_KEPT);
        self.duplicates = 0;
        self.checksum = 0;
    }
}

/// The checksum of a frame's payload: CRC-32C over the rows, the rejected lines, the keys and the
/// identities of events.
pub fn checksum(rows: &[u8], rejected: &[u8], keys: &[u8], ids: &[u8]) -> u32 {
    [rejected, keys, ids].into_iter().fold(crc32c::crc32c(rows), crc32c::crc32c_append)
}

/// Removes these ranges, which ascend, in one pass.
fn remove_ranges<T: Copy>(items: &mut Vec<T>, ranges: impl Iterator<Item = Range<usize>>) {
    let (mut kept, mut from) = (0, 0);
    for range in ranges {
        items.copy_within(from..range.start, kept);
        kept += range.start - from;
        from = range.end;
    }
    if from > kept {
        let len = items.len();
        items.copy_within(from.., kept);
        items.truncate(kept + len - from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rolling_back_restores_the_marked_length() {
        let mut batch = Batch::new(0);
        batch.rows.bytes.extend_from_slice(b"abc");
        batch.rows.count = 1;
        let mark = batch.mark();
        batch.rows.bytes.extend_from_slice(b"def");
        batch.rows.count = 2;
        batch.rejected.bytes.extend_from_slice(b"x");
        batch.rejected.count = 1;
        batch.roll_back(mark);
        assert_eq!(batch.rows.bytes, b"abc");
        assert_eq!((batch.rows.count, batch.rejected.count), (1, 0));
        assert!(batch.rejected.bytes.is_empty());
    }

    #[test]
    fn the_checksum_covers_every_part_in_order() {
        assert_eq!(checksum(b"ab", b"c", b"", b"i"), crc32c::crc32c(b"abci"));
        assert_ne!(checksum(b"ab", b"c", b"", b""), checksum(b"c", b"ab", b"", b""));
        assert_eq!(checksum(b"ab", b"c", b"key", b"i"), crc32c::crc32c(b"abckeyi"));
    }

    #[test]
    fn repeats_are_removed_at_any_position() {
        // Rows of different lengths. A row that begins with a capital letter has an identity.
        let rows = ["A1", "b", "C22", "D", "e5", "F"];
        for repeats in 0..16u8 {
            let mut batch = Batch::new(0);
            let mut ids = Vec::new();
            for row in rows {
                let start = batch.rows.bytes.len();
                batch.rows.bytes.extend_from_slice(row.as_bytes());
                batch.rows.count += 1;
                if row.as_bytes()[0].is_ascii_uppercase() {
                    ids.push([row.as_bytes()[0]; 16]);
                    batch.identify(*ids.last().unwrap(), start..start + row.len());
                }
            }
            batch.close();
            let is_repeat = |id: &Id| repeats >> ids.iter().position(|known| known == id).unwrap() & 1 == 1;
            batch.remove_repeats(is_repeat);
            let stays = |row: &&str| !row.as_bytes()[0].is_ascii_uppercase() || !is_repeat(&[row.as_bytes()[0]; 16]);
            let left: Vec<&str> = rows.iter().copied().filter(stays).collect();
            assert_eq!(batch.rows.bytes, left.concat().as_bytes(), "{repeats:b}");
            assert_eq!((batch.rows.count, batch.duplicates), (left.len() as u32, repeats.count_ones()));
            let kept: Vec<Id> = ids.iter().copied().filter(|id| !is_repeat(id)).collect();
            assert_eq!(batch.ids, kept);
            assert_eq!(batch.checksum, checksum(left.concat().as_bytes(), b"", b"", kept.as_flattened()));
        }
    }

    #[test]
    fn a_large_batch_releases_its_memory() {
        let mut batch = Batch::new(0);
        batch.rows.bytes.resize(limits::BATCH_BYTES_KEPT * 4, 0);
        for row in 0..limits::BATCH_IDS_KEPT * 4 {
            batch.identify(Id::default(), row..row + 1);
        }
        batch.clear();
        assert!(batch.rows.bytes.capacity() <= limits::BATCH_BYTES_KEPT * 2);
        assert!(batch.ids.capacity() <= limits::BATCH_IDS_KEPT * 2);
        assert!(batch.id_rows.capacity() <= limits::BATCH_IDS_KEPT * 2);
        assert!(batch.is_empty());
    }
}
