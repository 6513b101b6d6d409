//! What a worker hands to the committer at once: the rows of the requests of one turn, and the
//! lines of theirs that were refused. A request with an `Idempotency-Key` is a batch of its own.
//!
//! A batch is a pooled object. It travels worker → committer → worker and keeps its memory, so
//! that in steady state no event costs an allocation.

mod exchange;
pub mod identity;
mod number;
mod outcome;

use std::ops::Range;
use std::sync::Arc;

pub use exchange::Exchange;
pub use number::{Epoch, Position, SegmentNumber, Sequence};
pub use outcome::{CommitOutcome, CommitRefusal, Returned};

use crate::limits;
use identity::{Id, REQUEST_KEY_BYTES, RequestKey};

/// Rows in RowBinary, without a header, and how many there are.
#[derive(Debug, Default)]
pub struct Section {
    /// The rows one behind the other, columns in the table's order.
    pub bytes: Vec<u8>,
    /// How many rows `bytes` holds.
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

/// A worker's batch: what will be one frame.
#[derive(Debug, Default)]
pub struct Batch {
    /// Which worker it belongs to, and returns to.
    pub worker: usize,
    /// Pairs an outcome with the requests that wait for it; set when the batch begins to fill.
    pub sequence: Sequence,
    /// What its segment is to say about the columns of `rows`: never rows of two schemas in one
    /// segment. A worker sets it when the schema has changed, not for each batch.
    pub frozen: Arc<[u8]>,
    /// Rows for the target table.
    pub rows: Section,
    /// Rows for the quarantine table, see [`crate::quarantine`].
    pub rejected: Section,
    /// Of the one request in it, where that came with an `Idempotency-Key`.
    pub key: Option<RequestKey>,
    /// Identities of its events, where they have any.
    pub ids: Vec<Id>,
    /// The row of each of `ids` in `rows.bytes`, in order.
    id_rows: Vec<Range<usize>>,
    /// Events that were taken out as repeats.
    pub duplicates: u32,
    /// CRC-32C over what the frame holds, see [`checksum`]; set by [`Batch::close`].
    pub checksum: u32,
}

/// A place in a batch to come back to, see [`Batch::roll_back`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    rows: (usize, u32),
    rejected: (usize, u32),
    ids: usize,
}

impl Batch {
    /// An empty batch of `worker`.
    pub fn new(worker: usize) -> Self {
        Self { worker, ..Self::default() }
    }

    /// Where the batch ends now.
    pub fn mark(&self) -> Mark {
        Mark {
            rows: (self.rows.bytes.len(), self.rows.count),
            rejected: (self.rejected.bytes.len(), self.rejected.count),
            ids: self.ids.len(),
        }
    }

    /// Takes back everything that was appended since `mark`: a refused request leaves no trace.
    pub fn roll_back(&mut self, mark: Mark) {
        self.rows.cut(mark.rows);
        self.rejected.cut(mark.rejected);
        self.ids.truncate(mark.ids);
        self.id_rows.truncate(mark.ids);
    }

    /// Encoded bytes of rows and rejected lines.
    pub fn len(&self) -> usize {
        self.rows.bytes.len() + self.rejected.bytes.len()
    }

    /// Bytes of what follows a frame's header.
    pub fn frame_payload(&self) -> u64 {
        let key = if self.key.is_some() { REQUEST_KEY_BYTES } else { 0 };
        (self.len() + key + self.ids.as_flattened().len()) as u64
    }

    /// True when there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.rows.count == 0 && self.rejected.count == 0 && self.key.is_none()
    }

    /// Fixes the checksum; nothing is appended afterwards until [`Batch::clear`]. It is computed
    /// here, on the worker, because there are many workers and one committer.
    pub fn close(&mut self) {
        self.compute_checksum();
    }

    /// Notes the identity of an event, and which of the rows' bytes are its row; rows come in order.
    pub fn identify(&mut self, id: Id, row: Range<usize>) {
        self.ids.push(id);
        self.id_rows.push(row);
    }

    /// Takes out the rows of events whose identity `is_repeat` says was there before, in a closed
    /// batch.
    pub fn remove_repeats(&mut self, mut is_repeat: impl FnMut(&Id) -> bool) {
        let bytes = &mut self.rows.bytes;
        let (mut kept, mut from, mut left) = (0, 0, 0);
        for index in 0..self.ids.len() {
            let (Some(id), Some(row)) = (self.ids.get(index).copied(), self.id_rows.get(index).cloned()) else { break };
            if is_repeat(&id) {
                bytes.copy_within(from..row.start, kept);
                kept += row.start - from;
                from = row.end;
            } else {
                self.ids.swap(left, index);
                left += 1;
            }
        }
        let removed = self.ids.len() - left;
        if removed > 0 {
            let len = bytes.len();
            bytes.copy_within(from.., kept);
            bytes.truncate(kept + len - from);
            self.rows.count = self.rows.count.saturating_sub(removed as u32);
            self.duplicates += removed as u32;
            self.ids.truncate(left);
            self.id_rows.clear();
            self.compute_checksum();
        }
    }

    fn compute_checksum(&mut self) {
        let key = self.encoded_key();
        self.checksum = checksum(&self.rows.bytes, &self.rejected.bytes, key.as_ref(), self.ids.as_flattened());
    }

    /// The key as it stands in a frame.
    pub fn encoded_key(&self) -> Option<[u8; REQUEST_KEY_BYTES]> {
        self.key.as_ref().map(RequestKey::encode)
    }

    /// Makes it empty for its next use, and gives back the memory of an unusually large one.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.rejected.clear();
        self.key = None;
        self.ids.clear();
        self.ids.shrink_to(limits::BATCH_IDS_KEPT);
        self.id_rows.clear();
        self.id_rows.shrink_to(limits::BATCH_IDS_KEPT);
        self.duplicates = 0;
        self.checksum = 0;
    }
}

/// The checksum of a frame's payload: CRC-32C over the rows, the rejected lines, the key and the
/// identities of events.
pub fn checksum(rows: &[u8], rejected: &[u8], key: Option<&[u8; REQUEST_KEY_BYTES]>, ids: &[u8]) -> u32 {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(rows), rejected);
    let checksum = key.map_or(checksum, |key| crc32c::crc32c_append(checksum, key));
    crc32c::crc32c_append(checksum, ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rolling_back_leaves_exactly_what_was_there() {
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
    fn the_checksum_covers_everything_in_order() {
        let key = [b'k'; REQUEST_KEY_BYTES];
        assert_eq!(checksum(b"ab", b"c", None, b"i"), crc32c::crc32c(b"abci"));
        assert_ne!(checksum(b"ab", b"c", None, b""), checksum(b"c", b"ab", None, b""));
        assert_eq!(checksum(b"ab", b"c", Some(&key), b"i"), crc32c::crc32c(&[b"abc", &key[..], b"i"].concat()));
    }

    #[test]
    fn repeats_are_taken_out_wherever_they_stand() {
        // Rows of different lengths; those in capitals have an identity.
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
            assert_eq!(batch.checksum, checksum(left.concat().as_bytes(), b"", None, kept.as_flattened()));
        }
    }

    #[test]
    fn a_large_batch_gives_its_memory_back() {
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
