//! A sealed segment that turned out to be damaged when it was sent: what is readable of it takes its
//! place, under a token of its own, and the original is kept in `damaged/`.
//!
//! The copy is whole and on the disk, seal and all, before it takes the original's name in one
//! rename; the original has its second name before that. So a crash leaves the one or the other, and
//! whoever comes next begins again with the one or sends the other. The identities of its events are
//! in the logs since the original was sealed.
//!
//! Where the rows are proven and only the rejected lines are left, the copy has no rows at all: a
//! note that they are inserted could be lost in its turn, and the copy's token is not the one that
//! ClickHouse knows.

use std::io;
use std::sync::Arc;

use super::block::{Identity, Progress, Seal};
use super::frame::Header;
use super::layout::{FileKind, Layout};
use super::ledger::Events;
use super::recovery::{CopyMode, Tail, Written, scan, set_aside, write_copy};
use super::sealed::{Opened, SealedSegment};
use super::storage::write_all;
use crate::batch::Position;

/// What has become of a damaged segment.
#[derive(Debug)]
pub struct Salvaged {
    /// What was readable of it; nothing, if nothing was.
    pub segment: Option<SealedSegment>,
    /// Events that can't be read any more.
    pub missing: Events,
}

/// What is there now.
pub(super) enum Left {
    /// The original, which can be read whole after all.
    Whole,
    /// What is readable.
    Part(Box<SealedSegment>),
    Nothing,
}

/// See the module. What fails may be called again.
pub(super) fn salvage(layout: &Arc<Layout>, segment: &mut SealedSegment) -> io::Result<Left> {
    if let Some(copy) = open(layout, segment)?.filter(|found| found.name() != segment.name()) {
        // A former call came so far.
        layout.sync_table_dir()?;
        return Ok(Left::Part(copy));
    }
    segment.may_be_replaced(false);
    let file = layout.storage().open(segment.path())?;
    let (start, end) = (segment.first_place(), segment.seal().end);
    let mut frames = scan(&*file, start, segment.identity().first_position, end, Tail::Sealed)?.frames;
    if is_whole(segment, &frames) {
        return Ok(Left::Whole);
    }
    // A crash must not make anybody believe that ClickHouse may have it: this was decided before.
    segment.forget_attempt()?;
    let kept = if segment.rows_waiting() > 0 { CopyMode::All } else { CopyMode::AllButRows };
    if kept == CopyMode::AllButRows {
        frames.retain(|(_, header)| header.rejected > 0);
    }
    if frames.is_empty() {
        set_aside(layout, segment.path(), false)?;
        layout.sync_table_dir()?;
        return Ok(Left::Nothing);
    }
    let number = segment.number();
    let identity = Identity {
        node_id: layout.node_id().to_owned(),
        epoch: layout.epoch(),
        first_position: Position::new(1),
        ..segment.identity().clone()
    };
    let copy_path = layout.path(number, FileKind::Copy);
    let copy = layout.storage().create(&copy_path)?;
    let written = write_copy(&*file, &frames, start, end, &identity, &*copy, kept).and_then(|written| {
        let Written { identity_len, totals, .. } = written;
        let seal = Seal { sealed_ms: segment.sealed_ms(), ..totals };
        let blocks = [seal.encode(identity.epoch, number), Progress::default().encode(identity.epoch, number)];
        write_all(&*copy, &blocks.concat(), identity_len)?;
        copy.sync()
    });
    written.inspect_err(|_| {
        // As in recovery: half a copy takes room that is wanted.
        let _ = layout.storage().remove(&copy_path);
    })?;
    set_aside(layout, segment.path(), true)?;
    segment.may_be_replaced(true);
    layout.storage().rename(&copy_path, segment.path())?;
    layout.sync_table_dir()?;
    let copy = open(layout, segment)?;
    copy.map(Left::Part).ok_or_else(|| io::Error::other("what was just written can't be read"))
}

/// What the segment's file is now.
fn open(layout: &Arc<Layout>, segment: &SealedSegment) -> io::Result<Option<Box<SealedSegment>>> {
    Ok(match SealedSegment::open(layout, segment.number(), segment.kind())? {
        Opened::Sealed(found) => Some(found),
        Opened::Empty | Opened::Unreadable | Opened::Unsealed { .. } => None,
    })
}

/// True when these are the frames that were sealed.
fn is_whole(segment: &SealedSegment, frames: &[(u64, Header)]) -> bool {
    let mut found = Seal { end: segment.first_place().offset, sealed_ms: segment.sealed_ms(), ..Seal::default() };
    frames.iter().for_each(|(_, header)| found.add(header));
    found == *segment.seal()
}
