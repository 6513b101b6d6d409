//! Encoding and decoding of a frame's header. The payload follows the header: rows, rejected lines,
//! request keys, and event identities; or a block's schema.

use super::ledger::Events;
use crate::batch::identity::{Id, REQUEST_KEY_BYTES};
use crate::batch::{self, Batch, Epoch, Position, SegmentNumber};

/// Size of a header.
pub(super) const HEADER: usize = 76;

pub(super) const MAGIC: &[u8; 4] = b"FRAM";

/// What else the field with the number of request keys says: of which block the frame is, and whether it is
/// the block's schema.
const BLOCK_SHIFT: u32 = 16;
const SCHEMA: u32 = 1 << 31;

/// The header of a frame; its bytes are listed in the parent module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) rows: u32,
    pub(super) rejected: u32,
    pub(super) rows_bytes: u32,
    pub(super) rejected_bytes: u32,
    /// Number of request keys behind the rejected lines.
    pub(super) keys: u32,
    /// The block of the segment that it belongs to.
    pub(super) block: u16,
    /// The payload is the block's schema, in the place of rows, and no event.
    pub(super) is_schema: bool,
    /// Number of event identities behind the request keys.
    pub(super) ids: u32,
    pub(super) checksum: u32,
    pub(super) position: Position,
    pub(super) durable: Position,
    pub(super) epoch: Epoch,
    pub(super) number: SegmentNumber,
    pub(super) offset: u64,
}

impl Header {
    /// The header of an empty payload.
    fn empty(block: u16, position: Position, durable: Position, place: FramePlace) -> Self {
        Self {
            rows: 0,
            rejected: 0,
            rows_bytes: 0,
            rejected_bytes: 0,
            keys: 0,
            block,
            is_schema: false,
            ids: 0,
            checksum: 0,
            position,
            durable,
            epoch: place.epoch,
            number: place.number,
            offset: place.offset,
        }
    }

    /// Creates the header for a closed batch. `None` if the length of a section does not fit into
    /// 32 bits, which the limits of a request rule out.
    pub(super) fn of(
        batch: &Batch,
        block: u16,
        position: Position,
        durable: Position,
        place: FramePlace,
    ) -> Option<Self> {
        Some(Self {
            rows: batch.rows.count,
            rejected: batch.rejected.count,
            rows_bytes: u32::try_from(batch.rows.bytes.len()).ok()?,
            rejected_bytes: u32::try_from(batch.rejected.bytes.len()).ok()?,
            keys: u16::try_from(batch.encoded_keys().len()).ok()?.into(),
            ids: u32::try_from(batch.ids.len()).ok()?,
            checksum: batch.checksum,
            ..Self::empty(block, position, durable, place)
        })
    }

    /// The header of a block's schema.
    pub(super) fn of_schema(
        schema: &[u8],
        block: u16,
        position: Position,
        durable: Position,
        place: FramePlace,
    ) -> Option<Self> {
        Some(Self {
            rows_bytes: u32::try_from(schema.len()).ok()?,
            is_schema: true,
            checksum: batch::checksum(schema, &[], &[], &[]),
            ..Self::empty(block, position, durable, place)
        })
    }

    /// Size of the payload: rows, rejected lines, request keys and event identities.
    pub(super) fn payload(&self) -> u64 {
        let of = |count: u32, bytes: usize| u64::from(count) * bytes as u64;
        let identities = of(self.keys, REQUEST_KEY_BYTES) + of(self.ids, size_of::<Id>());
        u64::from(self.rows_bytes) + u64::from(self.rejected_bytes) + identities
    }

    /// Rows and rejected lines.
    pub(super) fn events(&self) -> Events {
        Events { rows: self.rows.into(), rejected: self.rejected.into() }
    }

    /// True when a whole header stands here, of whatever segment.
    pub(super) fn is_whole(bytes: &[u8]) -> bool {
        get(bytes, 0, HEADER - 4).is_some_and(|fields| get_u32(bytes, HEADER - 4) == Some(crc32c::crc32c(fields)))
    }

    /// Bytes of the whole frame.
    pub(super) fn len(&self) -> u64 {
        HEADER as u64 + self.payload()
    }

    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        let keys = self.keys | u32::from(self.block) << BLOCK_SHIFT | if self.is_schema { SCHEMA } else { 0 };
        let words = [self.rows, self.rejected, self.rows_bytes, self.rejected_bytes, keys, self.ids, self.checksum];
        let longs = [self.position.get(), self.durable.get(), self.epoch.get(), self.number.get(), self.offset];
        let fields = MAGIC
            .iter()
            .copied()
            .chain(words.into_iter().flat_map(u32::to_le_bytes))
            .chain(longs.into_iter().flat_map(u64::to_le_bytes));
        for (place, byte) in header.iter_mut().zip(fields) {
            *place = byte;
        }
        if let Some((fields, checksum)) = header.split_last_chunk_mut::<4>() {
            *checksum = crc32c::crc32c(fields).to_le_bytes();
        }
        header
    }

    /// Decodes the header at `place`. `None` if its checksum is wrong, or if it was written for
    /// another epoch, segment or offset.
    pub(super) fn decode(bytes: &[u8], place: FramePlace) -> Option<Self> {
        let fields = get(bytes, 0, HEADER - 4)?;
        if !fields.starts_with(MAGIC) || get_u32(bytes, HEADER - 4)? != crc32c::crc32c(fields) {
            return None;
        }
        let keys = get_u32(fields, 20)?;
        let header = Self {
            rows: get_u32(fields, 4)?,
            rejected: get_u32(fields, 8)?,
            rows_bytes: get_u32(fields, 12)?,
            rejected_bytes: get_u32(fields, 16)?,
            keys: keys % (1 << BLOCK_SHIFT),
            block: ((keys & !SCHEMA) >> BLOCK_SHIFT) as u16,
            is_schema: keys & SCHEMA != 0,
            ids: get_u32(fields, 24)?,
            checksum: get_u32(fields, 28)?,
            position: Position::new(get_u64(fields, 32)?),
            durable: Position::new(get_u64(fields, 40)?),
            epoch: Epoch::new(get_u64(fields, 48)?),
            number: SegmentNumber::new(get_u64(fields, 56)?),
            offset: get_u64(fields, 64)?,
        };
        let is_here = FramePlace { epoch: header.epoch, number: header.number, offset: header.offset } == place;
        is_here.then_some(header)
    }
}

/// The place of a frame: epoch, segment number and offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FramePlace {
    pub(super) epoch: Epoch,
    pub(super) number: SegmentNumber,
    pub(super) offset: u64,
}

pub(super) fn get(bytes: &[u8], at: usize, len: usize) -> Option<&[u8]> {
    bytes.get(at..at.checked_add(len)?)
}

pub(super) fn get_u32(bytes: &[u8], at: usize) -> Option<u32> {
    get(bytes, at, 4)?.try_into().ok().map(u32::from_le_bytes)
}

pub(super) fn get_u64(bytes: &[u8], at: usize) -> Option<u64> {
    get(bytes, at, 8)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_decoded_only_at_its_own_place() {
        let mut batch = Batch::new(0);
        batch.rows.bytes.extend_from_slice(b"rows");
        batch.rows.count = 2;
        batch.close();
        let place = FramePlace { epoch: Epoch::new(1), number: SegmentNumber::new(2), offset: 3 };
        let header = Header::of(&batch, 7, Position::new(4), Position::new(5), place).unwrap();
        let bytes = header.encode();
        assert_eq!(Header::decode(&bytes, place), Some(header));
        assert_eq!(header.len(), HEADER as u64 + 4);
        for other in [
            FramePlace { epoch: Epoch::new(9), ..place },
            FramePlace { number: SegmentNumber::new(9), ..place },
            FramePlace { offset: 9, ..place },
        ] {
            assert_eq!(Header::decode(&bytes, other), None);
        }
        for at in 0..HEADER {
            let mut bad = bytes;
            bad[at] ^= 0x40;
            assert_eq!(Header::decode(&bad, place), None, "{at}");
            assert_eq!(Header::decode(&bytes[..at], place), None, "{at}");
        }
    }
}
