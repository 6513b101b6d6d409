//! The schema of a block: which table its rows are for, and how they are encoded. It stands before the
//! block's first frame in the segment, twice: nothing else there says it.
//!
//! ```text
//!   0  8  begun, Unix ms         8  4  length L of the table's name
//!  12  L  name                12+L  …  frozen: columns, types and INSERT settings, opaque to the spool
//! ```

use std::sync::Arc;

use super::frame::{get, get_u32, get_u64};

/// How often a block's schema is written.
pub(super) const COPIES: usize = 2;

/// The longest name of a table that is believed.
const NAME_BYTES_MAX: usize = 4096;

const FIXED: usize = 12;

/// What all rows of a block have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BlockSchema {
    /// Time of the block's first frame, Unix ms.
    pub(super) begun_ms: u64,
    /// The table, by the name that its folder has.
    pub(super) table: String,
    /// Serialized columns, types and INSERT settings.
    pub(super) frozen: Arc<[u8]>,
}

impl BlockSchema {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED + self.table.len() + self.frozen.len());
        bytes.extend_from_slice(&self.begun_ms.to_le_bytes());
        bytes.extend_from_slice(&(self.table.len() as u32).to_le_bytes());
        bytes.extend_from_slice(self.table.as_bytes());
        bytes.extend_from_slice(&self.frozen);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let len = Some(get_u32(bytes, 8)? as usize).filter(|len| *len <= NAME_BYTES_MAX)?;
        Some(Self {
            begun_ms: get_u64(bytes, 0)?,
            table: String::from_utf8(get(bytes, FIXED, len)?.to_vec()).ok()?,
            frozen: bytes.get(FIXED + len..)?.into(),
        })
    }

    /// Bytes of a table's schema with this `frozen`.
    pub(super) fn bytes(table: &str, frozen: &[u8]) -> u64 {
        (FIXED + table.len() + frozen.len()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_comes_back_and_a_shorter_one_does_not() {
        let schema = BlockSchema { begun_ms: 7, table: "web.hits".into(), frozen: b"columns"[..].into() };
        let bytes = schema.encode();
        assert_eq!(bytes.len() as u64, BlockSchema::bytes("web.hits", b"columns"));
        assert_eq!(BlockSchema::decode(&bytes), Some(schema));
        for len in 0..FIXED + "web.hits".len() {
            assert_eq!(BlockSchema::decode(&bytes[..len]), None, "{len}");
        }
    }
}
