//! The pages in front of a segment's frames: identity and seal.

use std::io;

use super::frame::{get, get_u32, get_u64};
use super::journal::BlockId;
use super::storage::{StorageFile, read_up_to};
use crate::batch::{BlockNumber, Epoch, Position, SegmentNumber};

/// What is written on its own begins on a page of its own, so that writing it never touches anything else.
pub(super) const PAGE: usize = 4096;

const IDENTITY_MAGIC: &[u8; 8] = b"SLUICEG1";
/// The format version that is written.
pub(super) const VERSION: u32 = 3;
/// The version before the journal, whose segments are read as well.
pub(super) const VERSION_BEFORE: u32 = 2;
const IDENTITY_FIXED: usize = 60;
/// The longest node id and frozen text that are believed.
pub(super) const IDENTITY_BYTES_MAX: usize = 4 << 20;
const SEAL_MAGIC: &[u8; 8] = b"SEALED 1";

/// The most blocks of a segment.
pub(super) const BLOCKS_MAX: usize = 240;

/// Room for the seals of a segment of several blocks.
const SEALS_BYTES: usize = 4 * PAGE;
const SEALS_MAGIC: &[u8; 8] = b"SEALED 3";
const SEALS_FIXED: usize = 52;
const SEALS_ENTRY: usize = 68;

const _: () = assert!(SEALS_FIXED + BLOCKS_MAX * SEALS_ENTRY + 4 <= SEALS_BYTES);

/// The identity: what is fixed when a segment is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    /// Version of the segment format.
    pub(super) version: u32,
    pub(super) node_id: String,
    pub(super) epoch: Epoch,
    pub(super) number: SegmentNumber,
    pub(super) created_ms: u64,
    /// Position of the segment's first frame.
    pub(super) first_position: Position,
    /// Serialized columns, types and INSERT settings of a file that is one block's; opaque to the spool.
    /// Empty in a segment of several blocks, each of which has a schema of its own among the frames.
    pub(super) frozen: Vec<u8>,
}

impl Identity {
    /// Its bytes, and the same once more behind them: nothing else in the file says how its rows are
    /// encoded. Who does not know of the second takes it for zeros that fill the page.
    pub(super) fn encode(&self) -> Vec<u8> {
        let half = (IDENTITY_FIXED + self.node_id.len() + self.frozen.len()).next_multiple_of(PAGE);
        let copies = if 2 * half <= IDENTITY_BYTES_MAX { 2 } else { 1 };
        let len = copies * half;
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(IDENTITY_MAGIC);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&(len as u32).to_le_bytes());
        for number in [self.epoch.get(), self.number.get(), self.created_ms, self.first_position.get()] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&(self.node_id.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(self.frozen.len() as u32).to_le_bytes());
        let checksum = identity_checksum(&bytes, self.node_id.as_bytes(), &self.frozen);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.extend_from_slice(self.node_id.as_bytes());
        bytes.extend_from_slice(&self.frozen);
        bytes.resize(half, 0);
        bytes.repeat(copies)
    }

    /// The length of the identity that begins with `start`; `None` if `start` is not the
    /// beginning of one.
    pub(super) fn length(start: &[u8]) -> Option<usize> {
        let len = get_u32(start, 12)? as usize;
        let plausible =
            start.starts_with(IDENTITY_MAGIC) && len.is_multiple_of(PAGE) && (PAGE..=IDENTITY_BYTES_MAX).contains(&len);
        plausible.then_some(len)
    }

    /// The name in the journal of the block with this index.
    pub(super) fn block_id(&self, index: u16) -> BlockId {
        BlockId { epoch: self.epoch, number: BlockNumber { segment: self.number, index } }
    }

    /// What the names of all blocks with this id begin with.
    pub(super) fn name(&self, id: BlockId) -> String {
        format!("{}-{:016x}-{}", self.node_id, id.epoch.get(), id.number)
    }

    /// True if the file is one block's, whose columns the identity has.
    pub(super) fn is_of_one_block(&self) -> bool {
        self.version == VERSION_BEFORE || !self.frozen.is_empty()
    }

    /// The offset of the first frame, behind an identity of this length.
    pub(super) fn frames_start(&self, identity_len: u64) -> u64 {
        let seal = if self.is_of_one_block() { 2 * PAGE } else { SEALS_BYTES };
        identity_len + seal as u64
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        Self::length(bytes)?;
        let (node_len, frozen_len) = (get_u32(bytes, 48)? as usize, get_u32(bytes, 52)? as usize);
        let node_id = get(bytes, IDENTITY_FIXED, node_len)?;
        let frozen = get(bytes, IDENTITY_FIXED.checked_add(node_len)?, frozen_len)?;
        if identity_checksum(get(bytes, 0, 56)?, node_id, frozen) != get_u32(bytes, 56)? {
            return None;
        }
        Some(Self {
            version: get_u32(bytes, 8)?,
            node_id: String::from_utf8(node_id.to_vec()).ok()?,
            epoch: Epoch::new(get_u64(bytes, 16)?),
            number: SegmentNumber::new(get_u64(bytes, 24)?),
            created_ms: get_u64(bytes, 32)?,
            first_position: Position::new(get_u64(bytes, 40)?),
            frozen: frozen.to_vec(),
        })
    }
}

fn identity_checksum(fixed: &[u8], node_id: &[u8], frozen: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(fixed), node_id), frozen)
}

/// The seal of a file that is one block's; and the totals of a block's frames, final once written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Seal {
    pub(super) end: u64,
    pub(super) frames: u64,
    pub(super) rows: u64,
    pub(super) rejected: u64,
    pub(super) rows_bytes: u64,
    pub(super) rejected_bytes: u64,
    pub(super) sealed_ms: u64,
    /// CRC-32C over the payload checksums of the frames. Identifies the segment's bytes and reads
    /// only 4 bytes per frame.
    pub(super) checksum: u32,
}

impl Seal {
    pub(super) fn encode(&self, epoch: Epoch, number: SegmentNumber) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PAGE);
        bytes.extend_from_slice(SEAL_MAGIC);
        for value in [
            epoch.get(),
            number.get(),
            self.end,
            self.frames,
            self.rows,
            self.rejected,
            self.rows_bytes,
            self.rejected_bytes,
            self.sealed_ms,
        ] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes.extend_from_slice(&self.checksum.to_le_bytes());
        finish(bytes)
    }

    pub(super) fn decode(bytes: &[u8], epoch: Epoch, number: SegmentNumber) -> Option<Self> {
        let whole = check(bytes, SEAL_MAGIC, 84)?;
        let owned = get_u64(whole, 8)? == epoch.get() && get_u64(whole, 16)? == number.get();
        owned.then_some(Self {
            end: get_u64(whole, 24)?,
            frames: get_u64(whole, 32)?,
            rows: get_u64(whole, 40)?,
            rejected: get_u64(whole, 48)?,
            rows_bytes: get_u64(whole, 56)?,
            rejected_bytes: get_u64(whole, 64)?,
            sealed_ms: get_u64(whole, 72)?,
            checksum: get_u32(whole, 80)?,
        })
    }
}

/// The seals of a segment of several blocks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Seals {
    /// Behind the last frame.
    pub(super) end: u64,
    /// Frames of all blocks, their schemas included.
    pub(super) frames: u64,
    pub(super) sealed_ms: u64,
    pub(super) blocks: Vec<BlockSeal>,
}

/// The seal of one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct BlockSeal {
    /// Offset of the block's schema.
    pub(super) schema: u64,
    /// Offset of its first frame.
    pub(super) first: u64,
    pub(super) totals: Seal,
}

impl Seals {
    pub(super) fn encode(&self, epoch: Epoch, number: SegmentNumber) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SEALS_FIXED + self.blocks.len() * SEALS_ENTRY);
        bytes.extend_from_slice(SEALS_MAGIC);
        for value in [epoch.get(), number.get(), self.end, self.frames, self.sealed_ms] {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes.extend_from_slice(&(self.blocks.len() as u32).to_le_bytes());
        for BlockSeal { schema, first, totals } in &self.blocks {
            let Seal { end, frames, rows, rejected, rows_bytes, rejected_bytes, checksum, .. } = *totals;
            for value in [*schema, *first, end, frames, rows, rejected, rows_bytes, rejected_bytes] {
                bytes.extend_from_slice(&value.to_le_bytes());
            }
            bytes.extend_from_slice(&checksum.to_le_bytes());
        }
        finish(bytes)
    }

    /// The seals that stand behind an identity.
    pub(super) fn read(
        file: &dyn StorageFile,
        identity_len: u64,
        epoch: Epoch,
        number: SegmentNumber,
    ) -> io::Result<Option<Self>> {
        let mut bytes = vec![0; SEALS_BYTES];
        let len = read_up_to(file, &mut bytes, identity_len)?;
        Ok(Self::decode(bytes.get(..len).unwrap_or_default(), epoch, number))
    }

    pub(super) fn decode(bytes: &[u8], epoch: Epoch, number: SegmentNumber) -> Option<Self> {
        let count = get_u32(bytes, 48)? as usize;
        if count > BLOCKS_MAX {
            return None;
        }
        let whole = check(bytes, SEALS_MAGIC, SEALS_FIXED + count * SEALS_ENTRY)?;
        if get_u64(whole, 8)? != epoch.get() || get_u64(whole, 16)? != number.get() {
            return None;
        }
        let sealed_ms = get_u64(whole, 40)?;
        let entry = |at: usize| {
            let value = |index: usize| get_u64(whole, at + 8 * index);
            let totals = Seal {
                end: value(2)?,
                frames: value(3)?,
                rows: value(4)?,
                rejected: value(5)?,
                rows_bytes: value(6)?,
                rejected_bytes: value(7)?,
                sealed_ms,
                checksum: get_u32(whole, at + 64)?,
            };
            Some(BlockSeal { schema: value(0)?, first: value(1)?, totals })
        };
        let blocks = (0..count).map(|index| entry(SEALS_FIXED + index * SEALS_ENTRY)).collect::<Option<_>>()?;
        Some(Self { end: get_u64(whole, 24)?, frames: get_u64(whole, 32)?, sealed_ms, blocks })
    }
}

/// Closes what stands in pages of its own with its checksum.
fn finish(mut bytes: Vec<u8>) -> Vec<u8> {
    let checksum = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
    bytes
}

/// The first `len` bytes, if they begin with `magic` and are followed by their checksum.
pub(super) fn check<'a>(bytes: &'a [u8], magic: &[u8], len: usize) -> Option<&'a [u8]> {
    let whole = get(bytes, 0, len)?;
    (whole.starts_with(magic) && get_u32(bytes, len)? == crc32c::crc32c(whole)).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_in_front_comes_back_and_no_changed_byte_is_believed() {
        let identity = Identity {
            version: VERSION,
            node_id: "node".into(),
            epoch: Epoch::new(5),
            number: SegmentNumber::new(6),
            created_ms: 7,
            first_position: Position::new(8),
            frozen: vec![9; 5000],
        };
        let bytes = identity.encode();
        assert_eq!((bytes.len(), Identity::length(&bytes)), (4 * PAGE, Some(4 * PAGE)));
        assert_eq!(Identity::decode(&bytes), Some(identity.clone()));
        assert_eq!(Identity::decode(&bytes[2 * PAGE..]), Some(identity.clone()));
        for at in (0..IDENTITY_FIXED + 4 + 5000).step_by(7) {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert_eq!(Identity::decode(&bad), None, "{at}");
        }
        let seal = Seal {
            end: 1,
            frames: 2,
            rows: 3,
            rejected: 4,
            rows_bytes: 5,
            rejected_bytes: 6,
            sealed_ms: 7,
            checksum: 8,
        };
        let bytes = seal.encode(Epoch::new(5), SegmentNumber::new(6));
        assert_eq!(Seal::decode(&bytes, Epoch::new(5), SegmentNumber::new(6)), Some(seal));
        assert_eq!(
            (
                Seal::decode(&bytes, Epoch::new(4), SegmentNumber::new(6)),
                Seal::decode(&bytes, Epoch::new(5), SegmentNumber::new(7))
            ),
            (None, None)
        );
        for at in 0..88 {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert_eq!(Seal::decode(&bad, Epoch::new(5), SegmentNumber::new(6)), None, "{at}");
        }
        let blocks = (0..BLOCKS_MAX as u64).map(|schema| BlockSeal {
            schema,
            first: schema + 7,
            totals: Seal { end: schema + 1, ..seal },
        });
        let seals = Seals { end: 1, frames: 2, sealed_ms: 7, blocks: blocks.collect() };
        let bytes = seals.encode(Epoch::new(5), SegmentNumber::new(6));
        assert_eq!(bytes.len(), SEALS_BYTES, "the largest just fits");
        assert_eq!(Seals::decode(&bytes, Epoch::new(5), SegmentNumber::new(6)), Some(seals));
        assert_eq!(Seals::decode(&bytes, Epoch::new(4), SegmentNumber::new(6)), None);
        for at in (0..SEALS_FIXED + BLOCKS_MAX * SEALS_ENTRY + 4).step_by(3) {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert_eq!(Seals::decode(&bad, Epoch::new(5), SegmentNumber::new(6)), None, "{at}");
        }
    }
}
