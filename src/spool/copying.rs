//! What is readable of a damaged segment, in a file of its own.

use std::io;

use bytes::BytesMut;

use super::block::{BLOCK, Identity, Seal, frames_start};
use super::frame::{FramePlace, HEADER, Header};
use super::reader::{Sections, read_frame};
use super::repeats::Identities;
use super::storage::{StorageFile, write_all};
use crate::batch::Position;

/// What a copy holds: all but its seal.
pub(super) struct Written {
    pub(super) identity_len: u64,
    pub(super) totals: Seal,
    pub(super) identities: Identities,
}

/// What a copy takes over of each frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyMode {
    All,
    /// Its rows are inserted: none of them may go out under the copy's token.
    AllButRows,
}

/// Writes the frames to a new segment, and syncs it.
pub(super) fn write_copy(
    from: &dyn StorageFile,
    frames: &[(u64, Header)],
    start: FramePlace,
    end: u64,
    identity: &Identity,
    to: &dyn StorageFile,
    kept: CopyMode,
) -> io::Result<Written> {
    to.set_len(0)?;
    let block = identity.encode();
    write_all(to, &block, 0)?;
    let identity_len = block.len() as u64;
    // The blocks that follow get their room now: it is on a full disk that they will be wanted.
    write_all(to, &[0; 2 * BLOCK], identity_len)?;
    let mut totals = Seal { end: frames_start(identity_len), ..Seal::default() };
    let (mut payload, mut identities) = (BytesMut::new(), Identities::default());
    for ((offset, header), position) in frames.iter().zip((1..).map(Position::new)) {
        let found = read_frame(from, FramePlace { offset: *offset, ..start }, end, &mut payload)?;
        if found != Some(*header) {
            return Err(io::Error::other("a frame changed while it was read"));
        }
        let (header, payload) = match kept {
            CopyMode::All => (*header, &payload[..]),
            CopyMode::AllButRows => without_rows(header, &payload),
        };
        let header = Header {
            position,
            // It is read only after all of it was synced.
            durable: Position::new(frames.len() as u64),
            epoch: identity.epoch,
            number: identity.number,
            offset: totals.end,
            ..header
        };
        write_all(to, &header.encode(), totals.end)?;
        write_all(to, payload, totals.end + HEADER as u64)?;
        totals.add(&header);
        if let Some(sections) = Sections::of(&header, payload) {
            identities.add(sections.key(), sections.ids());
        }
    }
    to.sync()?;
    Ok(Written { identity_len, totals, identities })
}

/// A frame as it is when it has no rows.
fn without_rows<'a>(header: &Header, payload: &'a [u8]) -> (Header, &'a [u8]) {
    let rest = payload.get(header.rows_bytes as usize..).unwrap_or_default();
    let header = Header { rows: 0, rows_bytes: 0, ..*header };
    let checksum = Sections::of(&header, rest).map_or(0, |sections| sections.checksum());
    (Header { checksum, ..header }, rest)
}
