//! A segment that a crash left without its seal, sealed.
//!
//! After a failed sync the page cache may show what the disk does not have. So what is readable is
//! written once more over itself, in place, and synced, before anything is believed or sent. That needs
//! no room on the disk, and gives the token that any copy of the spool gives the same frames. Frames
//! between which others are missing are copied to a new file instead, which takes the old one's place in
//! one rename: never is a frame in none of them, or in both.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use bytes::BytesMut;

use super::aside::{book, set_aside, set_aside_unreadable};
use super::block::{BlockSeal, Identity, Seal, Seals, VERSION};
use super::copying::{CopyMode, Readable, Written, write_copy};
use super::file_name::FileKind;
use super::frame::{FramePlace, HEADER, Header};
use super::journal::{Block, BlockId, Change, OpenAttempt};
use super::layout::Layout;
use super::ledger::Events;
use super::metrics::SpoolMetrics;
use super::reader::{Sections, read_frame};
use super::repeats::{Identities, IdentityLogs};
use super::scan::{Behind, Scan, Tail, behind, scan};
use super::schema::{self, BlockSchema};
use super::sealed::SealedBlock;
use super::segment_file::{Opened, SegmentFile};
use super::storage::{StorageFile, read_up_to, write_all};
use crate::batch::Position;
use crate::clock::unix_ms;

/// An unsealed segment's file.
pub(super) struct Unsealed<'a> {
    pub(super) metrics: &'a SpoolMetrics,
    pub(super) file: Box<SegmentFile>,
}

impl Unsealed<'_> {
    /// What is readable of it, sealed. Nothing if no frame of it was ever acknowledged.
    pub(super) fn seal(self, logs: &mut IdentityLogs) -> io::Result<Vec<SealedBlock>> {
        let path = self.file.path.clone();
        let file = self.layout().storage().open(&path)?;
        let scan = self.scan(&*file)?;
        self.say_what_is_behind(&*file, &scan)?;
        if scan.damaged {
            // What is set aside twice is there once.
            set_aside(self.layout(), &path, true)?;
        }
        if scan.frames.is_empty() {
            self.layout().storage().remove(&path)?;
        } else if scan.damaged {
            self.seal_a_copy(&*file, &scan, logs)?;
        } else {
            self.seal_in_place(&*file, &scan, logs)?;
        }
        if scan.damaged {
            let readable_frames = scan.frames.len();
            let what =
                format!("a segment lacks frames that were on the disk; the {readable_frames} readable ones go in");
            let mut lost = scan.lost;
            if self.file.is_shared() {
                let known = with_schema(&scan.frames);
                let without = scan.frames.iter().filter(|(_, header)| !known.contains(&header.block));
                without.for_each(|(_, header)| lost.add(header.events()));
            }
            book(self.metrics, &path, lost, &what);
        }
        if scan.frames.is_empty() { Ok(Vec::new()) } else { self.sealed() }
    }

    /// The same for one that was sent: it had a seal, which is damaged. Its frames say what that said,
    /// and so does its token, unless the last of them are damaged too. So an attempt that is open waits
    /// for an operator; and where frames are missing it may be that no other token is the right one.
    pub(super) fn restore_seal(self, states: &[(BlockId, Block)]) -> io::Result<Vec<SealedBlock>> {
        let file = self.layout().storage().open(&self.file.path)?;
        let scan = self.scan(&*file)?;
        let number = self.file.identity.number;
        if scan.damaged || scan.frames.is_empty() || behind(&*file, self.file.place(scan.end))? != Behind::Nothing {
            let what = "a segment that was sent has lost its seal and frames";
            set_aside_unreadable(self.layout(), self.metrics, &self.file.path, number, what)?;
            return Ok(Vec::new());
        }
        // Before the seal: a start that finds one has no doubt.
        for (id, state) in states {
            if let Some(open) = &state.open {
                let unknown = OpenAttempt::unknown(open.since_ms, open.newest);
                self.layout().journal().write(*id, Change::Doubtful(unknown))?;
            }
        }
        let headers: Vec<Header> = scan.frames.iter().map(|(_, header)| *header).collect();
        write_seals(&*file, &self.file.identity, self.file.identity_len, &headers, self.file.identity.created_ms)?;
        tracing::error!(
            path = %self.file.path.display(), frames = scan.frames.len(),
            "the seal of a segment is damaged; it is written again from the segment's frames"
        );
        self.sealed()
    }

    fn layout(&self) -> &Arc<Layout> {
        &self.file.layout
    }

    fn scan(&self, file: &dyn StorageFile) -> io::Result<Scan> {
        let identity = &self.file.identity;
        let start = self.file.place(identity.frames_start(self.file.identity_len));
        scan(file, start, identity.first_position, file.len()?, Tail::MayBeTorn)
    }

    /// A torn tail was never acknowledged; but a last frame that was, and is damaged, looks the same.
    fn say_what_is_behind(&self, file: &dyn StorageFile, scan: &Scan) -> io::Result<()> {
        if let Behind::Frame(events) = behind(file, self.file.place(scan.end))? {
            let Events { rows, rejected } = events.unwrap_or_default();
            tracing::warn!(
                path = %self.file.path.display(), offset = scan.end, readable_frames = scan.frames.len(), rows, rejected,
                "a segment's last frame is not whole and is left out: it was never acknowledged, unless the disk has \
                 lost a part of it"
            );
        }
        Ok(())
    }

    fn seal_in_place(&self, file: &dyn StorageFile, scan: &Scan, logs: &mut IdentityLogs) -> io::Result<()> {
        let SegmentFile { identity, identity_len, .. } = &*self.file;
        let mut block = vec![0; usize::try_from(*identity_len).map_err(io::Error::other)?];
        read_up_to(file, &mut block, 0)?;
        write_all(file, &block, 0)?;
        let (mut payload, mut identities) = (BytesMut::new(), BTreeMap::<u16, Identities>::new());
        for (offset, header) in &scan.frames {
            if read_frame(file, self.file.place(*offset), file.len()?, &mut payload)? != Some(*header) {
                return Err(io::Error::other("a frame changed while it was read"));
            }
            write_all(file, &header.encode(), *offset)?;
            write_all(file, &payload, *offset + HEADER as u64)?;
            if let Some(sections) = Sections::of(header, &payload) {
                identities.entry(header.block).or_default().add(sections.keys(), sections.ids());
            }
        }
        // What a later look at the file would take for a frame that is missing.
        let left = file.len()?.saturating_sub(scan.end).min(HEADER as u64);
        write_all(file, [0; HEADER].get(..left as usize).unwrap_or_default(), scan.end)?;
        file.sync()?;
        let headers: Vec<Header> = scan.frames.iter().map(|(_, header)| *header).collect();
        self.log(file, identity, &headers, identities, logs)?;
        write_seals(file, identity, *identity_len, &headers, unix_ms())
    }

    fn seal_a_copy(&self, file: &dyn StorageFile, scan: &Scan, logs: &mut IdentityLogs) -> io::Result<()> {
        let (layout, number) = (self.layout(), self.file.identity.number);
        let copy_path = layout.path(number, FileKind::Copy);
        let is_shared = self.file.is_shared();
        // The same number, another epoch: no token can be that of the original.
        let identity = Identity {
            version: VERSION,
            node_id: layout.node_id().to_owned(),
            epoch: layout.epoch(),
            first_position: Position::new(1),
            frozen: self.file.own_schema().map_or(Vec::new(), |schema| schema.encode()),
            ..self.file.identity.clone()
        };
        // Nobody knows what the rows of a block without its schema are.
        let known = with_schema(&scan.frames);
        let frames = if is_shared { with_both_schemas(&scan.frames, &known) } else { scan.frames.clone() };
        let index_of = |index: u16| if is_shared { known.range(..index).count() as u16 } else { index };
        let copy = layout.storage().create(&copy_path)?;
        let from = Readable { file, frames: &frames, start: self.file.place(0), end: file.len()? };
        let written = write_copy(&from, &identity, &*copy, CopyMode::All, index_of).inspect_err(|_| {
            // Half a copy takes room that is wanted. The next start removes what can't be removed now.
            let _ = layout.storage().remove(&copy_path);
        });
        let Written { identity_len, headers, identities } = written?;
        layout.storage().rename(&copy_path, &self.file.path)?;
        layout.sync_folder()?;
        self.log(&*copy, &identity, &headers, identities, logs)?;
        write_seals(&*copy, &identity, identity_len, &headers, unix_ms())
    }

    /// Logs the identities, as when any segment is sealed: once the disk has their events, which the file may
    /// have shown without; and before the seal, behind which nobody looks for them.
    fn log(
        &self,
        file: &dyn StorageFile,
        identity: &Identity,
        headers: &[Header],
        identities: BTreeMap<u16, Identities>,
        logs: &mut IdentityLogs,
    ) -> io::Result<()> {
        for (index, found) in identities {
            let schema = match self.file.own_schema() {
                Some(schema) => Some(schema),
                None => schema_of(file, identity, headers, index)?,
            };
            let table = schema.map(|schema| self.layout().index_of(&schema.table)).unwrap_or_default();
            logs.recovered(self.layout().number_of(identity.block_id(index).number), table, found)?;
        }
        Ok(())
    }

    fn sealed(&self) -> io::Result<Vec<SealedBlock>> {
        match SegmentFile::open(self.layout(), self.file.identity.number, self.file.kind())? {
            Opened::Sealed(blocks) => Ok(blocks),
            _ => Err(io::Error::other("what was just written can't be read")),
        }
    }
}

/// The blocks whose schema is among these frames.
fn with_schema(frames: &[(u64, Header)]) -> BTreeSet<u16> {
    frames.iter().filter(|(_, header)| header.is_schema).map(|(_, header)| header.block).collect()
}

/// The frames of these blocks, with the schema of each as often as it is written, of which damage may have left one:
/// the copy would be lost with the next.
fn with_both_schemas(frames: &[(u64, Header)], blocks: &BTreeSet<u16>) -> Vec<(u64, Header)> {
    let mut seen = BTreeSet::new();
    let times = |(offset, header): &(u64, Header)| {
        let times = match header.is_schema {
            true if seen.insert(header.block) => schema::COPIES,
            true => 0,
            false => usize::from(blocks.contains(&header.block)),
        };
        std::iter::repeat_n((*offset, *header), times)
    };
    frames.iter().flat_map(times).collect()
}

/// The schema of a block, by its first frame.
fn schema_of(
    file: &dyn StorageFile,
    identity: &Identity,
    headers: &[Header],
    index: u16,
) -> io::Result<Option<BlockSchema>> {
    let mut payload = BytesMut::new();
    for header in headers.iter().filter(|header| header.is_schema && header.block == index) {
        let place = FramePlace { epoch: identity.epoch, number: identity.number, offset: header.offset };
        if read_frame(file, place, header.offset + header.len(), &mut payload)? == Some(*header)
            && let Some(schema) = BlockSchema::decode(&payload)
        {
            return Ok(Some(schema));
        }
    }
    Ok(None)
}

/// Writes what seals these frames, and syncs it.
fn write_seals(
    file: &dyn StorageFile,
    identity: &Identity,
    identity_len: u64,
    headers: &[Header],
    sealed_ms: u64,
) -> io::Result<()> {
    let bytes = if identity.is_of_one_block() {
        let mut seal = Seal { sealed_ms, ..Seal::default() };
        headers.iter().for_each(|header| seal.add(header));
        seal.encode(identity.epoch, identity.number)
    } else {
        seals_of(headers, sealed_ms).encode(identity.epoch, identity.number)
    };
    write_all(file, &bytes, identity_len)?;
    file.sync()
}

/// The seals of frames of several blocks.
fn seals_of(headers: &[Header], sealed_ms: u64) -> Seals {
    let end = headers.last().map_or(0, |header| header.offset + header.len());
    let mut seals = Seals { end, frames: headers.len() as u64, sealed_ms, blocks: Vec::new() };
    for header in headers {
        let index = usize::from(header.block);
        if index == seals.blocks.len() {
            let totals = Seal { sealed_ms, ..Seal::default() };
            seals.blocks.push(BlockSeal { schema: header.offset, first: 0, totals });
        }
        if let Some(block) = seals.blocks.get_mut(index).filter(|_| !header.is_schema) {
            if block.totals.frames == 0 {
                block.first = header.offset;
            }
            block.totals.add(header);
        }
    }
    seals
}
