//! What a worker hands to the committer at once: the rows of the requests of one turn, and the
//! lines of theirs that were refused. A request with an `Idempotency-Key` is a batch of its own.
//!
//! A batch is a pooled object. It travels worker → committer → worker and keeps its memory, so
//! that in steady state no event costs an allocation.

use crate::identity::{REQUEST_KEY_BYTES, RequestKey};
use crate::limits;

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
        debug_assert!(mark.0 <= self.bytes.len() && mark.1 <= self.count);
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
    /// Counts the batches of that worker from 1 without a gap; pairs an outcome with the requests
    /// that wait for it.
    pub sequence: u64,
    /// Rows for the target table.
    pub rows: Section,
    /// Rows for the quarantine table, see [`crate::ndjson::quarantine`].
    pub rejected: Section,
    /// Of the one request in it, where that came with an `Idempotency-Key`.
    pub key: Option<RequestKey>,
    /// CRC-32C over what the frame holds, see [`checksum`]; set by [`Batch::close`].
    pub checksum: u32,
}

/// A place in a batch to come back to, see [`Batch::roll_back`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    rows: (usize, u32),
    rejected: (usize, u32),
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
        }
    }

    /// Takes back everything that was appended since `mark`: a refused request leaves no trace.
    pub fn roll_back(&mut self, mark: Mark) {
        self.rows.cut(mark.rows);
        self.rejected.cut(mark.rejected);
    }

    /// Encoded bytes of rows and rejected lines.
    pub fn len(&self) -> usize {
        self.rows.bytes.len() + self.rejected.bytes.len()
    }

    /// Bytes of what follows a frame's header.
    pub fn frame_payload(&self) -> u64 {
        let key = if self.key.is_some() { REQUEST_KEY_BYTES } else { 0 };
        (self.len() + key) as u64
    }

    /// True when there is nothing to store.
    pub fn is_empty(&self) -> bool {
        self.rows.count == 0 && self.rejected.count == 0 && self.key.is_none()
    }

    /// Fixes the checksum; nothing is appended afterwards until [`Batch::clear`]. It is computed
    /// here, on the worker, because there are many workers and one committer.
    pub fn close(&mut self, sequence: u64) {
        self.sequence = sequence;
        self.checksum = checksum(&self.rows.bytes, &self.rejected.bytes, self.encoded_key().as_ref());
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
        self.checksum = 0;
    }
}

/// The checksum of a frame's payload: CRC-32C over the rows, the rejected lines, and the key.
pub fn checksum(rows: &[u8], rejected: &[u8], key: Option<&[u8; REQUEST_KEY_BYTES]>) -> u32 {
    let checksum = crc32c::crc32c_append(crc32c::crc32c(rows), rejected);
    key.map_or(checksum, |key| crc32c::crc32c_append(checksum, key))
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
        assert_eq!(checksum(b"ab", b"c", None), crc32c::crc32c(b"abc"));
        assert_ne!(checksum(b"ab", b"c", None), checksum(b"c", b"ab", None));
        assert_eq!(checksum(b"ab", b"c", Some(&key)), crc32c::crc32c(&[b"abc", &key[..]].concat()));
    }

    #[test]
    fn a_large_batch_gives_its_memory_back() {
        let mut batch = Batch::new(0);
        batch.rows.bytes.resize(limits::BATCH_BYTES_KEPT * 4, 0);
        batch.clear();
        assert!(batch.rows.bytes.capacity() <= limits::BATCH_BYTES_KEPT * 2);
        assert!(batch.is_empty());
    }
}
