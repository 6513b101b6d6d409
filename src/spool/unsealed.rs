//! A segment that a crash left without its seal, sealed.
//!
//! After a failed sync the page cache may show what the disk does not have. So what is readable is
//! written once more over itself, in place, and synced, before anything is believed or sent. That needs
//! no room on the disk, and gives the token that any copy of the spool gives the same frames. Frames
//! between which others are missing are copied to a new file instead, which takes the old one's place in
//! one rename: never is a frame in none of them, or in both.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;

use super::aside::{book, set_aside, set_aside_unreadable};
use super::block::{Identity, Seal, VERSION, frames_start};
use super::copying::{CopyMode, Written, write_copy};
use super::frame::{FramePlace, HEADER};
use super::journal::{Block, Change, OpenAttempt};
use super::layout::{FileKind, Layout};
use super::ledger::Events;
use super::metrics::SpoolMetrics;
use super::reader::{Sections, read_frame};
use super::repeats::{Identities, IdentityLogs};
use super::scan::{Behind, Scan, Tail, behind, scan};
use super::sealed::{Opened, SealedSegment};
use super::storage::{StorageFile, write_all};
use crate::batch::Position;
use crate::clock::unix_ms;

/// An unsealed segment's file, and what its blocks say.
pub(super) struct Unsealed<'a> {
    pub(super) layout: &'a Arc<Layout>,
    pub(super) metrics: &'a SpoolMetrics,
    pub(super) path: &'a Path,
    pub(super) identity: Identity,
    pub(super) identity_len: u64,
}

impl Unsealed<'_> {
    /// What is readable of it, sealed. Nothing if no frame of it was ever acknowledged.
    pub(super) fn seal(self, logs: &mut IdentityLogs) -> io::Result<Option<SealedSegment>> {
        let file = self.layout.storage().open(self.path)?;
        let scan = self.scan(&*file)?;
        self.say_what_is_behind(&*file, &scan)?;
        if scan.damaged {
            // What is set aside twice is there once.
            set_aside(self.layout, self.path, true)?;
        }
        if scan.frames.is_empty() {
            self.layout.storage().remove(self.path)?;
        } else if scan.damaged {
            self.seal_a_copy(&*file, &scan, logs)?;
        } else {
            self.seal_in_place(&*file, &scan, logs)?;
        }
        if scan.damaged {
            let readable_frames = scan.frames.len();
            let what =
                format!("a segment lacks frames that were on the disk; the {readable_frames} readable ones go in");
            book(self.metrics, self.path, scan.lost, &what);
        }
        if scan.frames.is_empty() { Ok(None) } else { self.sealed().map(Some) }
    }

    /// The same for one that was sent: it had a seal, which is damaged. Its frames say what that said,
    /// and so does its token, unless the last of them are damaged too. So an attempt that is open waits
    /// for an operator; and where frames are missing it may be that no other token is the right one.
    pub(super) fn restore_seal(self, block: &Block) -> io::Result<Option<SealedSegment>> {
        let file = self.layout.storage().open(self.path)?;
        let scan = self.scan(&*file)?;
        let number = self.identity.number;
        if scan.damaged || scan.frames.is_empty() || behind(&*file, self.place(scan.end))? != Behind::Nothing {
            let what = "a segment that was sent has lost its seal and frames";
            set_aside_unreadable(self.layout, self.metrics, self.path, number, what)?;
            return Ok(None);
        }
        let mut seal = Seal { end: self.first_place().offset, sealed_ms: self.identity.created_ms, ..Seal::default() };
        scan.frames.iter().for_each(|(_, header)| seal.add(header));
        // Before the seal: a start that finds one has no doubt.
        if let Some(open) = &block.open {
            let unknown = OpenAttempt::unknown(open.since_ms, open.newest);
            self.layout.journal().write(self.identity.block_id(), Change::Doubtful(unknown))?;
        }
        self.write_seal(&*file, &seal)?;
        tracing::error!(
            path = %self.path.display(), frames = scan.frames.len(),
            "the seal of a segment is damaged; it is written again from the segment's frames"
        );
        self.sealed().map(Some)
    }

    fn first_place(&self) -> FramePlace {
        self.place(frames_start(self.identity_len))
    }

    fn place(&self, offset: u64) -> FramePlace {
        FramePlace { epoch: self.identity.epoch, number: self.identity.number, offset }
    }

    fn scan(&self, file: &dyn StorageFile) -> io::Result<Scan> {
        scan(file, self.first_place(), self.identity.first_position, file.len()?, Tail::MayBeTorn)
    }

    /// A torn tail was never acknowledged; but a last frame that was, and is damaged, looks the same.
    fn say_what_is_behind(&self, file: &dyn StorageFile, scan: &Scan) -> io::Result<()> {
        if let Behind::Frame(events) = behind(file, self.place(scan.end))? {
            let Events { rows, rejected } = events.unwrap_or_default();
            tracing::warn!(
                path = %self.path.display(), offset = scan.end, readable_frames = scan.frames.len(), rows, rejected,
                "a segment's last frame is not whole and is left out: it was never acknowledged, unless the disk has \
                 lost a part of it"
            );
        }
        Ok(())
    }

    fn seal_in_place(&self, file: &dyn StorageFile, scan: &Scan, logs: &mut IdentityLogs) -> io::Result<()> {
        let mut block = vec![0; usize::try_from(self.identity_len).map_err(io::Error::other)?];
        super::storage::read_up_to(file, &mut block, 0)?;
        write_all(file, &block, 0)?;
        let mut totals = Seal { end: self.first_place().offset, ..Seal::default() };
        let (mut payload, mut identities) = (BytesMut::new(), Identities::default());
        for (offset, header) in &scan.frames {
            if read_frame(file, self.place(*offset), file.len()?, &mut payload)? != Some(*header) {
                return Err(io::Error::other("a frame changed while it was read"));
            }
            write_all(file, &header.encode(), *offset)?;
            write_all(file, &payload, *offset + HEADER as u64)?;
            totals.add(header);
            if let Some(sections) = Sections::of(header, &payload) {
                identities.add(sections.key(), sections.ids());
            }
        }
        // What a later look at the file would take for a frame that is missing.
        let left = file.len()?.saturating_sub(totals.end).min(HEADER as u64);
        write_all(file, [0; HEADER].get(..left as usize).unwrap_or_default(), totals.end)?;
        file.sync()?;
        self.log_and_seal(file, totals, identities, logs)
    }

    fn seal_a_copy(&self, file: &dyn StorageFile, scan: &Scan, logs: &mut IdentityLogs) -> io::Result<()> {
        let (layout, number) = (self.layout, self.identity.number);
        let copy_path = layout.path(number, FileKind::Copy);
        // The same number, another epoch: no token can be that of the original.
        let identity = Identity {
            version: VERSION,
            node_id: layout.node_id().to_owned(),
            epoch: layout.epoch(),
            first_position: Position::new(1),
            ..self.identity.clone()
        };
        let copy = layout.storage().create(&copy_path)?;
        let (start, end) = (self.first_place(), file.len()?);
        let written = write_copy(file, &scan.frames, start, end, &identity, &*copy, CopyMode::All).inspect_err(|_| {
            // Half a copy takes room that is wanted. The next start removes what can't be removed now.
            let _ = layout.storage().remove(&copy_path);
        });
        let Written { identity_len, totals, identities } = written?;
        layout.storage().rename(&copy_path, self.path)?;
        layout.sync_table_dir()?;
        let copied = Unsealed { identity, identity_len, ..*self };
        copied.log_and_seal(&*copy, totals, identities, logs)
    }

    /// As when any segment is sealed: the identities once the disk has their events, which the file may
    /// have shown without; and before the seal, behind which nobody looks for them.
    fn log_and_seal(
        &self,
        file: &dyn StorageFile,
        totals: Seal,
        identities: Identities,
        logs: &mut IdentityLogs,
    ) -> io::Result<()> {
        let sealed_ms = unix_ms();
        logs.recovered(self.identity.number, identities)?;
        self.write_seal(file, &Seal { sealed_ms, ..totals })
    }

    fn write_seal(&self, file: &dyn StorageFile, seal: &Seal) -> io::Result<()> {
        write_all(file, &seal.encode(self.identity.epoch, self.identity.number), self.identity_len)?;
        file.sync()
    }

    fn sealed(&self) -> io::Result<SealedSegment> {
        match SealedSegment::open(self.layout, self.identity.number, FileKind::Segment)? {
            Opened::Sealed(segment) => Ok(*segment),
            _ => Err(io::Error::other("what was just written can't be read")),
        }
    }
}
