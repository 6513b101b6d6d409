//! The sealed segment, which waits for its insert.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::block::{BLOCK, IDENTITY_BYTES_MAX, Identity, OpenAttempt, Progress, Seal, VERSION, frames_start};
use super::cut::{Cut, PieceState};
use super::frame::FramePlace;
use super::layout::{FileKind, Layout};
use super::reader::{Part, SegmentReader};
use super::storage::{StorageFile, read_up_to, write_all};
use crate::batch::SegmentNumber;
use crate::clock::unix_ms;

/// A segment that waits for its insert. Its frames and its seal never change (invariant 3).
#[derive(Debug)]
pub struct SealedSegment {
    layout: Arc<Layout>,
    path: PathBuf,
    sent: bool,
    /// This process has synced the seal, the progress and the file name. What an earlier process
    /// wrote may be in the page cache only.
    noted: bool,
    /// The file may by now be the salvaged copy, which must not be overwritten with these blocks.
    replaced: bool,
    progress: Progress,
    cut: Option<Cut>,
    identity: Identity,
    identity_len: u64,
    seal: Seal,
}

impl SealedSegment {
    /// Creates the value for a segment that was just sealed.
    pub(super) fn new(layout: Arc<Layout>, identity: Identity, identity_len: u64, seal: Seal) -> Self {
        let path = layout.path(identity.number, FileKind::Segment);
        Self {
            layout,
            path,
            sent: false,
            noted: false,
            replaced: false,
            progress: Progress::default(),
            cut: None,
            identity,
            identity_len,
            seal,
        }
    }

    /// Reads the blocks of a segment.
    pub(super) fn open(layout: &Arc<Layout>, number: SegmentNumber, kind: FileKind) -> io::Result<Opened> {
        let path = layout.path(number, kind);
        let file = layout.storage().open(&path)?;
        let Some(FoundIdentity { identity, len: identity_len, .. }) = read_identity(&*file)? else {
            return Ok(Opened::Unreadable);
        };
        if identity.number != number {
            return Ok(Opened::Misnamed);
        }
        if identity.version != VERSION {
            let version = identity.version;
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "the segment has format version {version}, not {VERSION}: drain the spool with the release that \
                     wrote it"
                ),
            ));
        }
        let mut blocks = vec![0; 2 * BLOCK];
        let len = read_up_to(&*file, &mut blocks, identity_len)?;
        let blocks = blocks.get(..len).unwrap_or_default();
        let (seal, progress) = blocks.split_at_checked(BLOCK).unwrap_or((blocks, &[]));
        let epoch = identity.epoch;
        let sent = kind == FileKind::Sent;
        // Without a valid progress block, the segment may have been sent to any server.
        let unknown = OpenAttempt::unknown(identity.created_ms, number);
        let progress = Progress::decode(progress, epoch, number)
            .unwrap_or_else(|| Progress { open: sent.then_some(unknown), ..Progress::default() });
        let Some(seal) = Seal::decode(seal, epoch, number) else {
            return Ok(Opened::Unsealed { identity, identity_len, progress });
        };
        let mut segment = Self {
            layout: layout.clone(),
            path,
            sent,
            noted: false,
            replaced: false,
            progress,
            cut: None,
            identity,
            identity_len,
            seal,
        };
        segment.cut = Cut::load(layout, number, &segment.name())?;
        Ok(Opened::Sealed(Box::new(segment)))
    }

    /// Time of sealing, Unix ms.
    pub fn sealed_ms(&self) -> u64 {
        self.seal.sealed_ms
    }

    /// The number of the segment.
    pub fn number(&self) -> SegmentNumber {
        self.identity.number
    }

    /// Time of opening, Unix ms.
    pub fn created_ms(&self) -> u64 {
        self.identity.created_ms
    }

    /// The serialized columns, types and INSERT settings, fixed when the segment was opened.
    pub fn frozen(&self) -> &[u8] {
        &self.identity.frozen
    }

    /// Number of rows for the target table.
    pub fn rows(&self) -> u64 {
        self.seal.rows
    }

    /// Number of rows for the target table; 0 once all of them are proven.
    pub fn rows_waiting(&self) -> u64 {
        if self.progress.rows_inserted { 0 } else { self.seal.rows }
    }

    /// Number of rows on this segment's account in the ledger: those that are neither proven in the
    /// target table, nor refused and proven in the quarantine table.
    pub(super) fn rows_undecided(&self) -> u64 {
        self.rows_waiting() - self.cut.as_ref().map_or(0, Cut::decided).min(self.rows_waiting())
    }

    /// Number of rejected lines, for the quarantine table.
    pub fn rejected(&self) -> u64 {
        self.seal.rejected
    }

    /// Bytes of the rows.
    pub fn rows_bytes(&self) -> u64 {
        self.seal.rows_bytes
    }

    /// Bytes of the rejected lines, as rows of the quarantine table.
    pub fn rejected_bytes(&self) -> u64 {
        self.seal.rejected_bytes
    }

    /// True if any part of the segment was ever sent.
    pub fn was_sent(&self) -> bool {
        self.sent
    }

    /// The first attempt without an answer; `None` if every attempt was answered.
    pub fn open_attempt(&self) -> Option<&OpenAttempt> {
        self.progress.open.as_ref()
    }

    /// True if the rows are proven and only the rejected lines are not.
    pub fn rows_are_inserted(&self) -> bool {
        self.progress.rows_inserted
    }

    /// The cut of the segment, if it is cut.
    pub fn cut(&self) -> Option<&Cut> {
        self.cut.as_ref()
    }

    /// Writes the cut and syncs it. The segment is never sent whole again (invariant 3). That holds
    /// after an error too, because the cut may be on the disk.
    ///
    /// # Errors
    ///
    /// I/O errors; no piece of the cut may be sent then.
    pub fn save_cut(&mut self, cut: Cut) -> io::Result<()> {
        let number = self.number();
        self.cut.insert(cut).save(&self.layout, number)
    }

    /// The token under which the segment is sent: its name, and the number of used-up tokens if
    /// there are any.
    pub fn token(&self) -> String {
        match self.progress.generation {
            0 => self.name(),
            generation => format!("{}-g{generation}", self.name()),
        }
    }

    /// A name that no other bytes have: node id, epoch, segment number, rows and checksum.
    pub fn name(&self) -> String {
        let Identity { node_id, epoch, number, .. } = &self.identity;
        let Seal { rows, checksum, .. } = &self.seal;
        format!("{node_id}-{:016x}-{number}-{rows}-{checksum:08x}", epoch.get())
    }

    /// Notes durably that ClickHouse may have the segment from now on. Must be called before the first
    /// byte is sent, so that a crash does not forget the attempt.
    ///
    /// `server` is the caller's note about the server; `newest` is the number of the newest segment.
    ///
    /// # Errors
    ///
    /// I/O errors; nothing may be sent then.
    pub fn begin_attempt(&mut self, server: &str, newest: SegmentNumber) -> io::Result<()> {
        if self.progress.open.is_none() || !self.noted {
            let began = || OpenAttempt { since_ms: unix_ms(), newest, server: server.to_owned() };
            let open = self.progress.open.clone().unwrap_or_else(began);
            self.write_progress(Progress { open: Some(open), ..self.progress.clone() }, true)?;
        }
        if !self.sent {
            let sent = self.layout.path(self.identity.number, FileKind::Sent);
            self.layout.storage().rename(&self.path, &sent)?;
            self.path = sent;
            self.sent = true;
        }
        if !self.noted {
            self.layout.sync_table_dir()?;
            self.noted = true;
        }
        Ok(())
    }

    /// Notes that ClickHouse has answered the only open attempt. Not synced: if a crash loses the
    /// note, the attempt counts as open, which is safe.
    ///
    /// # Errors
    ///
    /// I/O errors.
    pub fn attempt_answered(&mut self) -> io::Result<()> {
        self.write_progress(Progress { open: None, suspect: false, ..self.progress.clone() }, false)
    }

    /// Notes durably that ClickHouse knows the token and does not have the rows, and moves on to the
    /// next token. The old token, and the tokens of pieces derived from it, are never sent again. No
    /// attempt is open afterwards.
    ///
    /// # Errors
    ///
    /// I/O errors; the old token remains in use then.
    pub fn use_up_token(&mut self) -> io::Result<()> {
        let generation = self.progress.generation.saturating_add(1);
        self.write_progress(
            Progress { generation, forced: false, suspect: false, open: None, ..self.progress.clone() },
            true,
        )?;
        let Some(cut) = &self.cut else { return Ok(()) };
        let mut cut = cut.clone();
        for piece in cut.pieces.iter_mut().filter(|piece| piece.state == PieceState::Open) {
            piece.state = PieceState::Waiting;
        }
        self.save_cut(cut)
    }

    /// Notes durably that ClickHouse may have the token of the open attempt without its rows, so that the
    /// success of a repeat is no proof.
    ///
    /// # Errors
    ///
    /// I/O errors.
    pub fn suspect_attempt(&mut self) -> io::Result<()> {
        if self.progress.suspect {
            return Ok(());
        }
        self.write_progress(Progress { suspect: true, ..self.progress.clone() }, true)
    }

    /// True if ClickHouse may have the token of the open attempt without its rows.
    pub fn is_suspect(&self) -> bool {
        self.progress.suspect
    }

    /// Notes, durably, that an operator wants it sent though ClickHouse may have it.
    ///
    /// # Errors
    ///
    /// I/O errors.
    pub fn force(&mut self) -> io::Result<()> {
        self.write_progress(Progress { forced: true, ..self.progress.clone() }, true)
    }

    /// True if an operator ordered to send the segment although ClickHouse may have it.
    pub fn is_forced(&self) -> bool {
        self.progress.forced
    }

    /// Notes durably that ClickHouse has nothing of the segment, despite an open attempt.
    ///
    /// # Errors
    ///
    /// I/O errors.
    pub(super) fn forget_attempt(&mut self) -> io::Result<()> {
        self.write_progress(Progress { open: None, ..self.progress.clone() }, true)
    }

    /// Notes whether the file may be the salvaged copy instead of this segment. While it may,
    /// writing to it fails with an error of kind `InvalidData`; [`super::salvage`] finds out which
    /// of the two it is.
    pub(super) fn may_be_replaced(&mut self, replaced: bool) {
        self.replaced = replaced;
    }

    /// Notes durably that the rows are inserted. The rejected lines are sent after the rows, so no
    /// attempt of theirs is open, unless the open attempt is unknown.
    pub(super) fn mark_rows_inserted(&mut self) -> io::Result<()> {
        let open = self.progress.open.clone().filter(OpenAttempt::is_unknown);
        self.write_progress(Progress { rows_inserted: true, open, ..self.progress.clone() }, true)
    }

    /// Writes the progress block, and the seal once more. The first write of the seal may not be on
    /// the disk after a failed sync, and a segment that was sent must keep its seal, which the token
    /// is made of.
    fn write_progress(&mut self, progress: Progress, durably: bool) -> io::Result<()> {
        if self.replaced {
            let number = self.number();
            let sentence = format!("segment {number} is damaged, and its file may be its salvaged copy");
            return Err(io::Error::new(io::ErrorKind::InvalidData, sentence));
        }
        // After a failure the contents of the file are unknown, so the next attempt writes it again.
        let noted = std::mem::take(&mut self.noted);
        let file = self.layout.storage().open(&self.path)?;
        let Identity { epoch, number, .. } = self.identity;
        let blocks = [self.seal.encode(epoch, number), progress.encode(epoch, number)].concat();
        write_all(&*file, &blocks, self.identity_len)?;
        if durably {
            file.sync()?;
        }
        self.progress = progress;
        self.noted = noted;
        Ok(())
    }

    /// Opens a stream of one part of the segment.
    ///
    /// # Errors
    ///
    /// If the file can't be opened.
    pub fn read(&self, part: Part) -> io::Result<SegmentReader> {
        Ok(SegmentReader::new(self.layout.storage().open(&self.path)?, part, self.first_place(), self.seal))
    }

    /// The place of the first frame.
    pub(super) fn first_place(&self) -> FramePlace {
        FramePlace { epoch: self.identity.epoch, number: self.identity.number, offset: frames_start(self.identity_len) }
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn seal(&self) -> &Seal {
        &self.seal
    }

    /// The kind of the segment's file.
    pub(super) fn kind(&self) -> FileKind {
        if self.sent { FileKind::Sent } else { FileKind::Segment }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the segment's file.
    pub(super) fn file_len(&self) -> io::Result<u64> {
        self.layout.storage().open(&self.path)?.len()
    }
}

/// The state of a segment according to its blocks.
pub(super) enum Opened {
    /// It is another segment, by what its identity says.
    Misnamed,
    /// Its identity can't be read, nor the copy of that.
    Unreadable,
    Sealed(Box<SealedSegment>),
    Unsealed {
        identity: Identity,
        identity_len: u64,
        progress: Progress,
    },
}

/// The identity of a segment's file.
pub(super) struct FoundIdentity {
    pub(super) identity: Identity,
    /// Of the block, with its copy.
    pub(super) len: u64,
    /// The whole block, where what stands in front of the file is not what was written.
    pub(super) restored: Option<Vec<u8>>,
}

/// Reads the identity in front of a file, or else the copy behind it. `None` when neither is whole.
pub(super) fn read_identity(file: &dyn StorageFile) -> io::Result<Option<FoundIdentity>> {
    if let Some((block, len)) = identity_block(file, 0)?
        && let Some(identity) = Identity::decode(&block)
    {
        return Ok(Some(FoundIdentity { identity, len: len as u64, restored: None }));
    }
    for half in (BLOCK..=IDENTITY_BYTES_MAX / 2).step_by(BLOCK) {
        if let Some((mut block, len)) = identity_block(file, half as u64)?.filter(|(_, len)| *len == 2 * half)
            && let Some(identity) = Identity::decode(&block)
        {
            block.truncate(half);
            return Ok(Some(FoundIdentity { identity, len: len as u64, restored: Some(block.repeat(2)) }));
        }
    }
    Ok(None)
}

/// What looks like an identity at this offset, and the length that it says.
fn identity_block(file: &dyn StorageFile, offset: u64) -> io::Result<Option<(Vec<u8>, usize)>> {
    let mut start = [0; 16];
    let read = read_up_to(file, &mut start, offset)?;
    let Some(len) = Identity::length(start.get(..read).unwrap_or_default()) else { return Ok(None) };
    let mut block = vec![0; len];
    let read = read_up_to(file, &mut block, offset)?;
    block.truncate(read);
    Ok(Some((block, len)))
}
