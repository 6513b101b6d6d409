//! Moving a held block out of its segment, into a file of its own: the segment's room is for others then, however
//! long the block waits.
//!
//! The copy has the block's frames, under the same names, so its token and all that the journal knows stay as they
//! are. It is complete and synced before a rename gives it its name; from then on it is the block, and what the
//! segment has of it does not count.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;

use super::block::{Identity, Seal, VERSION};
use super::copying::{CopyMode, Readable, Written, write_copy};
use super::file_name::FileKind;
use super::reader::read_frame;
use super::sealed::SealedBlock;
use super::segment_file::{Opened, SegmentFile};
use super::storage::write_all;
use crate::batch::Position;

/// Moves a block out of a segment of several, and returns the segment's file; `None` when the block has its file
/// for itself.
///
/// # Errors
///
/// I/O errors, or when a frame can't be read. The block stays where it is then.
pub(super) fn move_out(block: &mut SealedBlock) -> io::Result<Option<Arc<SegmentFile>>> {
    let segment = block.file.clone();
    let (layout, number) = (&segment.layout, block.id().number);
    let from = layout.storage().open(&segment.path)?;
    let Some(offsets) = segment.offsets_of(&*from, block)? else { return Ok(None) };
    let end = block.seal().end;
    let (mut frames, mut payload) = (Vec::with_capacity(offsets.len()), BytesMut::new());
    for offset in offsets.iter().copied() {
        let header = read_frame(&*from, segment.place(offset), end, &mut payload)?;
        frames.push((offset, header.ok_or_else(damaged)?));
    }
    let identity = Identity {
        version: VERSION,
        first_position: Position::new(1),
        frozen: block.schema.encode(),
        ..segment.identity.clone()
    };
    let path = layout.path(number.segment, FileKind::Block(number.index));
    let beside = path.with_extension("copy");
    let copy = layout.storage().create(&beside)?;
    let readable = Readable { file: &*from, frames: &frames, start: block.first_place(), end };
    let written = write_copy(&readable, &identity, &*copy, CopyMode::All, |index| index).and_then(|written| {
        let Written { identity_len, headers, .. } = written;
        let mut seal = Seal { sealed_ms: block.sealed_ms(), ..Seal::default() };
        headers.iter().for_each(|header| seal.add(header));
        if (Seal { end: block.seal().end, ..seal }) != *block.seal() {
            return Err(damaged());
        }
        write_all(&*copy, &seal.encode(identity.epoch, identity.number), identity_len)?;
        copy.sync()
    });
    written.and_then(|()| layout.storage().rename(&beside, &path)).inspect_err(|_| {
        // Half a copy takes room that is wanted.
        let _ = layout.storage().remove(&beside);
    })?;
    layout.sync_folder()?;
    let Opened::Sealed(moved) = SegmentFile::open(layout, number.segment, FileKind::Block(number.index))? else {
        return Err(io::Error::other("what was just written can't be read"));
    };
    for SealedBlock { file, first, seal, .. } in moved {
        (block.file, block.first, block.seal, block.schema_offset) = (file, first, seal, None);
    }
    Ok(Some(segment))
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not all frames of the block can be read")
}
