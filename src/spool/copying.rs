//! What is readable of a damaged segment, in a file of its own.

use std::collections::BTreeMap;
use std::io;

use bytes::BytesMut;

use super::block::Identity;
use super::frame::{FramePlace, HEADER, Header};
use super::reader::{Sections, read_frame};
use super::repeats::Identities;
use super::storage::{StorageFile, write_all};
use crate::batch::Position;

/// What a copy holds: all but its seals.
pub(super) struct Written {
    pub(super) identity_len: u64,
    /// The frames, in the copy.
    pub(super) headers: Vec<Header>,
    /// The identities in the frames of each block.
    pub(super) identities: BTreeMap<u16, Identities>,
}

/// What is readable of a segment.
pub(super) struct Readable<'a> {
    pub(super) file: &'a dyn StorageFile,
    pub(super) frames: &'a [(u64, Header)],
    /// Any place in the file.
    pub(super) start: FramePlace,
    pub(super) end: u64,
}

/// What a copy takes over of each frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyMode {
    All,
    /// Its rows are inserted: none of them may go out under the copy's token.
    AllButRows,
}

/// Writes the frames to a new segment, and syncs it. `index_of` gives a block its index there.
pub(super) fn write_copy(
    from: &Readable<'_>,
    identity: &Identity,
    to: &dyn StorageFile,
    kept: CopyMode,
    index_of: impl Fn(u16) -> u16,
) -> io::Result<Written> {
    to.set_len(0)?;
    let block = identity.encode();
    write_all(to, &block, 0)?;
    let identity_len = block.len() as u64;
    // What follows gets its room now: it is on a full disk that it will be wanted.
    let mut offset = identity.frames_start(identity_len);
    write_all(to, &vec![0; usize::try_from(offset - identity_len).unwrap_or(0)], identity_len)?;
    let mut written = Written { identity_len, headers: Vec::new(), identities: BTreeMap::new() };
    let mut payload = BytesMut::new();
    let Readable { file, frames, start, end } = *from;
    for ((place, header), position) in frames.iter().zip((1..).map(Position::new)) {
        let found = read_frame(file, FramePlace { offset: *place, ..start }, end, &mut payload)?;
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
            block: index_of(header.block),
            offset,
            ..header
        };
        write_all(to, &header.encode(), offset)?;
        write_all(to, payload, offset + HEADER as u64)?;
        offset += header.len();
        written.headers.push(header);
        if let Some(sections) = Sections::of(&header, payload) {
            written.identities.entry(header.block).or_default().add(sections.keys(), sections.ids());
        }
    }
    to.sync()?;
    Ok(written)
}

/// A frame as it is when it has no rows.
fn without_rows<'a>(header: &Header, payload: &'a [u8]) -> (Header, &'a [u8]) {
    let rest = payload.get(header.rows_bytes as usize..).unwrap_or_default();
    let header = Header { rows: 0, rows_bytes: 0, ..*header };
    let checksum = Sections::of(&header, rest).map_or(0, |sections| sections.checksum());
    (Header { checksum, ..header }, rest)
}
