//! Salvage of a sealed segment that turns out to be damaged when it is sent. A copy of its readable
//! frames takes its place, under a token of its own; the original is kept in `damaged/`.
//!
//! The copy is complete and synced, seal included, before a rename gives it the name of the
//! original. The original is linked into `damaged/` before that. A crash therefore leaves either the
//! original, which is salvaged again, or the copy, which is sent. The identities need no copying:
//! they are in the logs since the original was sealed.
//!
//! If the rows are proven and only the rejected lines are left, or if the rows were cut into pieces, the copy
//! has no rows: what the journal knows of the original it does not know of the copy.

use std::io;
use std::sync::Arc;

use super::aside::set_aside;
use super::block::{Identity, Seal, VERSION};
use super::copying::{CopyMode, Written, write_copy};
use super::cut::Cut;
use super::frame::Header;
use super::layout::{FileKind, Layout, random};
use super::ledger::Events;
use super::scan::{Tail, scan};
use super::sealed::{Opened, SealedSegment};
use super::storage::write_all;
use crate::batch::{Epoch, Position};

/// The result of salvaging a damaged segment.
#[derive(Debug)]
pub struct Salvaged {
    /// The copy with the readable frames; `None` if no frame was readable.
    pub segment: Option<SealedSegment>,
    /// The events that can't be read.
    pub missing: Events,
}

/// What is left of a segment that was thought to be damaged.
pub(super) enum Left {
    /// The original, which turned out to be readable.
    Whole,
    /// A copy of the readable frames.
    Part(Box<SealedSegment>),
    /// No readable frame.
    Nothing,
}

/// Salvages a segment. After an error the call may be repeated.
pub(super) fn salvage(layout: &Arc<Layout>, segment: &mut SealedSegment) -> io::Result<Left> {
    if let Some(copy) = open(layout, segment)?.filter(|found| found.name() != segment.name()) {
        // An earlier call put the copy in place.
        layout.sync_table_dir()?;
        segment.has_been_salvaged()?;
        return Ok(Left::Part(copy));
    }
    let file = layout.storage().open(segment.path())?;
    let (start, end) = (segment.first_place(), segment.seal().end);
    let mut frames = scan(&*file, start, segment.identity().first_position, end, Tail::Sealed)?.frames;
    // Of a whole one whose cut can't be read nobody knows which rows were sent.
    let is_unreadable = segment.rows_waiting() > 0 && segment.cut().is_some_and(Cut::is_unreadable);
    if is_whole(segment, &frames) && !is_unreadable {
        return Ok(Left::Whole);
    }
    // The caller decided that the segment may be sent again. The decision must survive a crash.
    segment.forget_attempt()?;
    // Pieces of a cut are found by the positions of rows, some of which are missing.
    let takes_rows = segment.rows_waiting() > 0 && segment.cut().is_none();
    let mode = if takes_rows { CopyMode::All } else { CopyMode::AllButRows };
    if mode == CopyMode::AllButRows {
        frames.retain(|(_, header)| header.rejected > 0);
    }
    if frames.is_empty() {
        set_aside(layout, segment.path(), false)?;
        layout.sync_table_dir()?;
        segment.has_been_salvaged()?;
        return Ok(Left::Nothing);
    }
    let number = segment.number();
    let identity = Identity {
        version: VERSION,
        node_id: layout.node_id().to_owned(),
        // Another block than the original, which may be of this process.
        epoch: Epoch::new(random()?),
        first_position: Position::new(1),
        ..segment.identity().clone()
    };
    let copy_path = layout.path(number, FileKind::Copy);
    let copy = layout.storage().create(&copy_path)?;
    let written = write_copy(&*file, &frames, start, end, &identity, &*copy, mode).and_then(|written| {
        let Written { identity_len, totals, .. } = written;
        let seal = Seal { sealed_ms: segment.sealed_ms(), ..totals };
        write_all(&*copy, &seal.encode(identity.epoch, number), identity_len)?;
        copy.sync()
    });
    written.inspect_err(|_| {
        // An unfinished copy only takes disk space.
        let _ = layout.storage().remove(&copy_path);
    })?;
    set_aside(layout, segment.path(), true)?;
    layout.storage().rename(&copy_path, segment.path())?;
    layout.sync_table_dir()?;
    segment.has_been_salvaged()?;
    let copy = open(layout, segment)?;
    copy.map(Left::Part).ok_or_else(|| io::Error::other("the salvaged copy can't be read back"))
}

/// The sealed segment that is in the segment's file now.
fn open(layout: &Arc<Layout>, segment: &SealedSegment) -> io::Result<Option<Box<SealedSegment>>> {
    Ok(match SealedSegment::open(layout, segment.number(), FileKind::Segment)? {
        Opened::Sealed(found) => Some(found),
        Opened::Misnamed | Opened::Unreadable | Opened::Unsealed { .. } => None,
    })
}

/// True if these frames are those that were sealed.
fn is_whole(segment: &SealedSegment, frames: &[(u64, Header)]) -> bool {
    let mut found = Seal { end: segment.first_place().offset, sealed_ms: segment.sealed_ms(), ..Seal::default() };
    frames.iter().for_each(|(_, header)| found.add(header));
    found == *segment.seal()
}
