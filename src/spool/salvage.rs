//! Salvage of a sealed block that turns out to be damaged when it is sent. A copy of its readable
//! frames takes its place, in a file and under a token of its own; the original is kept in `damaged/`.
//!
//! The copy is complete and synced, seal included, before a rename gives it its name. In a segment of
//! several blocks that is a name of its own, and the others go on; a file that was one block's is replaced.
//! The original is linked into `damaged/` before that. A crash therefore leaves either the
//! original, which is salvaged again, or the copy, which is sent. The identities need no copying:
//! they are in the logs since the original was sealed.
//!
//! If the rows are proven and only the rejected lines are left, or if the rows were cut into pieces, the copy
//! has no rows: what the journal knows of the original it does not know of the copy.

use std::io;
use std::sync::Arc;

use super::aside::set_aside;
use super::block::{Identity, Seal, Seals, VERSION};
use super::copying::{CopyMode, Readable, Written, write_copy};
use super::cut::Cut;
use super::file_name::FileKind;
use super::frame::Header;
use super::layout::{Layout, random};
use super::ledger::Events;
use super::scan::{Tail, scan};
use super::sealed::SealedBlock;
use super::segment_file::{Opened, SegmentFile};
use super::storage::{StorageFile, write_all};
use crate::batch::{Epoch, Position};

/// The result of salvaging a damaged block.
#[derive(Debug)]
pub struct Salvaged {
    /// The copy with the readable frames; `None` if no frame was readable.
    pub block: Option<SealedBlock>,
    /// The events that can't be read.
    pub missing: Events,
}

/// What is left of a block that was thought to be damaged.
pub(super) enum Left {
    /// The original, which turned out to be readable.
    Whole,
    /// A copy of the readable frames.
    Part(Box<SealedBlock>),
    /// No readable frame.
    Nothing,
}

/// Salvages a block. After an error the call may be repeated.
pub(super) fn salvage(block: &mut SealedBlock) -> io::Result<Left> {
    let layout = &block.file.layout.clone();
    let number = block.id().number;
    let kind = if block.file.is_shared() { FileKind::Block(number.index) } else { block.file.kind() };
    if let Some(copy) = open(layout, block, kind)?.filter(|found| found.name() != block.name()) {
        // An earlier call put the copy in place.
        layout.sync_folder()?;
        has_been_salvaged(block)?;
        return Ok(Left::Part(Box::new(copy)));
    }
    let file = layout.storage().open(block.path())?;
    let identity = &block.file.identity;
    let start = block.file.place(identity.frames_start(block.file.identity_len));
    let end = end_of(&*file, block)?;
    let mut frames = scan(&*file, start, identity.first_position, end, Tail::Sealed)?.frames;
    frames.retain(|(_, header)| header.block == number.index && !header.is_schema);
    // Of a whole one whose cut can't be read nobody knows which rows were sent.
    let is_unreadable = block.rows_waiting() > 0 && block.cut().is_some_and(Cut::is_unreadable);
    if is_whole(block, &frames) && !is_unreadable {
        return Ok(Left::Whole);
    }
    // The caller decided that the block may be sent again. The decision must survive a crash.
    block.forget_attempt()?;
    // Pieces of a cut are found by the positions of rows, some of which are missing.
    let takes_rows = block.rows_waiting() > 0 && block.cut().is_none();
    let mode = if takes_rows { CopyMode::All } else { CopyMode::AllButRows };
    frames.retain(|(_, header)| takes_rows || header.rejected > 0);
    if frames.is_empty() {
        set_aside(layout, block.path(), block.file.is_shared())?;
        layout.sync_folder()?;
        has_been_salvaged(block)?;
        return Ok(Left::Nothing);
    }
    let identity = Identity {
        version: VERSION,
        node_id: layout.node_id().to_owned(),
        // Another block than the original, which may be of this process.
        epoch: Epoch::new(random()?),
        first_position: Position::new(1),
        frozen: block.schema.encode(),
        ..block.file.identity.clone()
    };
    let copy_path = layout.path(number.segment, kind).with_extension("copy");
    let copy = layout.storage().create(&copy_path)?;
    let from = Readable { file: &*file, frames: &frames, start, end };
    let written = write_copy(&from, &identity, &*copy, mode, |index| index).and_then(|written| {
        let Written { identity_len, headers, .. } = written;
        let mut seal = Seal { sealed_ms: block.sealed_ms(), ..Seal::default() };
        headers.iter().for_each(|header| seal.add(header));
        write_all(&*copy, &seal.encode(identity.epoch, identity.number), identity_len)?;
        copy.sync()
    });
    written.inspect_err(|_| {
        // An unfinished copy only takes disk space.
        let _ = layout.storage().remove(&copy_path);
    })?;
    set_aside(layout, block.path(), true)?;
    layout.storage().rename(&copy_path, &layout.path(number.segment, kind))?;
    layout.sync_folder()?;
    let copy = open(layout, block, kind)?.ok_or_else(|| io::Error::other("the salvaged copy can't be read back"))?;
    has_been_salvaged(block)?;
    Ok(Left::Part(Box::new(copy)))
}

/// Notes that the copy has taken the block's place. A segment that no other block waits in goes: it is in
/// `damaged/`.
fn has_been_salvaged(block: &mut SealedBlock) -> io::Result<()> {
    block.file.found_damage();
    block.has_been_salvaged()?;
    if block.file.has_segment() {
        // What the segment that it was moved out of has of it is not sent either.
        block.note_done()?;
    }
    if block.file.is_shared() && block.file.has_no_more(block.id()) {
        match block.file.layout.storage().remove(block.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The sealed block that is in a file of its own now.
fn open(layout: &Arc<Layout>, block: &SealedBlock, kind: FileKind) -> io::Result<Option<SealedBlock>> {
    match SegmentFile::open(layout, block.id().number.segment, kind) {
        Ok(Opened::Sealed(mut blocks)) => Ok(blocks.pop()),
        Ok(Opened::Misnamed | Opened::Unreadable | Opened::Unsealed { .. }) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Behind the last frame of the file.
fn end_of(file: &dyn StorageFile, block: &SealedBlock) -> io::Result<u64> {
    if !block.file.is_shared() {
        return Ok(block.seal().end);
    }
    let Identity { epoch, number, .. } = block.file.identity;
    let seals = Seals::read(file, block.file.identity_len, epoch, number)?;
    seals.map_or_else(|| file.len(), |seals| Ok(seals.end))
}

/// True if these frames are those that were sealed.
fn is_whole(block: &SealedBlock, frames: &[(u64, Header)]) -> bool {
    let mut found = Seal { end: block.first_place().offset, sealed_ms: block.sealed_ms(), ..Seal::default() };
    frames.iter().for_each(|(_, header)| found.add(header));
    found == *block.seal()
}
