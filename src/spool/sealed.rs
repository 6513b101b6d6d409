//! A sealed segment: what waits for its insert.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::block::{BLOCK, Identity, OpenAttempt, Progress, Seal, VERSION, frames_start};
use super::cut::{Cut, PieceState};
use super::frame::FramePlace;
use super::layout::{FileKind, Layout};
use super::reader::{Part, SegmentReader};
use super::storage::{read_up_to, write_all};
use crate::batch::SegmentNumber;
use crate::clock::unix_ms;

/// A segment that waits for its insert. Nothing in it changes any more (invariant 3).
#[derive(Debug)]
pub struct SealedSegment {
    layout: Arc<Layout>,
    path: PathBuf,
    sent: bool,
    /// Seal, progress and name were synced by this process: of what a former one left the page cache
    /// may lie.
    noted: bool,
    /// Under its name there may be another by now, which nothing of this one may be written into.
    replaced: bool,
    progress: Progress,
    cut: Option<Cut>,
    identity: Identity,
    identity_len: u64,
    seal: Seal,
}

impl SealedSegment {
    /// One that was just sealed.
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

    /// Reads a segment's blocks. `None` for the seal when it has none.
    pub(super) fn open(layout: &Arc<Layout>, number: SegmentNumber, kind: FileKind) -> io::Result<Opened> {
        let path = layout.path(number, kind);
        let file = layout.storage().open(&path)?;
        let mut start = vec![0; BLOCK];
        let len = read_up_to(&*file, &mut start, 0)?;
        start.truncate(len);
        if start.iter().all(|byte| *byte == 0) {
            return Ok(Opened::Empty);
        }
        let Some(identity_len) = Identity::length(&start) else {
            return Ok(Opened::Unreadable);
        };
        let mut blocks = vec![0; identity_len + 2 * BLOCK];
        let len = read_up_to(&*file, &mut blocks, 0)?;
        blocks.truncate(len);
        let Some(identity) = Identity::decode(&blocks) else {
            return Ok(Opened::Unreadable);
        };
        if identity.number != number {
            return Ok(Opened::Empty);
        }
        if identity.version != VERSION {
            let version = identity.version;
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "it has version {version} of the format, not {VERSION}: drain it with the release that wrote it"
                ),
            ));
        }
        let rest = blocks.get(identity_len..).unwrap_or_default();
        let (seal, progress) = rest.split_at_checked(BLOCK).unwrap_or((rest, &[]));
        let (epoch, identity_len) = (identity.epoch, identity_len as u64);
        let Some(seal) = Seal::decode(seal, epoch, number) else {
            return Ok(Opened::Unsealed { identity, frames_start: frames_start(identity_len) });
        };
        let sent = kind == FileKind::Sent;
        // Without a word about it, what was sent may have been stored anywhere.
        let unknown = OpenAttempt::unknown(identity.created_ms, number);
        let progress = Progress::decode(progress, epoch, number)
            .unwrap_or_else(|| Progress { open: sent.then_some(unknown), ..Progress::default() });
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

    /// When it was sealed, Unix ms.
    pub fn sealed_ms(&self) -> u64 {
        self.seal.sealed_ms
    }

    /// Its number.
    pub fn number(&self) -> SegmentNumber {
        self.identity.number
    }

    /// When it was opened, Unix ms.
    pub fn created_ms(&self) -> u64 {
        self.identity.created_ms
    }

    /// What the caller fixed for the insert when it was opened.
    pub fn frozen(&self) -> &[u8] {
        &self.identity.frozen
    }

    /// Rows for the target table.
    pub fn rows(&self) -> u64 {
        self.seal.rows
    }

    /// Rows that are not proven to be inserted.
    pub fn rows_waiting(&self) -> u64 {
        if self.progress.rows_inserted { 0 } else { self.seal.rows }
    }

    /// Rows that the ledger still has on this segment's account: neither proven in the target table,
    /// whole or as a piece, nor refused and proven in the quarantine table.
    pub(super) fn rows_undecided(&self) -> u64 {
        self.rows_waiting() - self.cut.as_ref().map_or(0, Cut::decided).min(self.rows_waiting())
    }

    /// Rows for the quarantine table.
    pub fn rejected(&self) -> u64 {
        self.seal.rejected
    }

    /// Bytes of the rows.
    pub fn rows_bytes(&self) -> u64 {
        self.seal.rows_bytes
    }

    /// Bytes of the rejected lines' rows.
    pub fn rejected_bytes(&self) -> u64 {
        self.seal.rejected_bytes
    }

    /// True when something of it was sent at some time.
    pub fn was_sent(&self) -> bool {
        self.sent
    }

    /// The first attempt that ClickHouse may have stored; `None` while every one was answered.
    pub fn open_attempt(&self) -> Option<&OpenAttempt> {
        self.progress.open.as_ref()
    }

    /// True when its rows are proven to be inserted and only the rejected lines are not.
    pub fn rows_are_inserted(&self) -> bool {
        self.progress.rows_inserted
    }

    /// Its pieces, once it is cut.
    pub fn cut(&self) -> Option<&Cut> {
        self.cut.as_ref()
    }

    /// Writes down how it is cut, durably. From then on it is never sent whole again (invariant 3),
    /// not even after a failure: the next start may find the cut.
    ///
    /// # Errors
    ///
    /// Those of the file system; nothing of the cut may be sent then.
    pub fn save_cut(&mut self, cut: Cut) -> io::Result<()> {
        let number = self.number();
        self.cut.insert(cut).save(&self.layout, number)
    }

    /// The token under which it is sent: its name, and how many tokens before this one are used up.
    pub fn token(&self) -> String {
        match self.progress.generation {
            0 => self.name(),
            generation => format!("{}-g{generation}", self.name()),
        }
    }

    /// Names these bytes and no others: who wrote them, when, and what they are.
    pub fn name(&self) -> String {
        let Identity { node_id, epoch, number, .. } = &self.identity;
        let Seal { rows, checksum, .. } = &self.seal;
        format!("{node_id}-{:016x}-{number}-{rows}-{checksum:08x}", epoch.get())
    }

    /// Notes, durably and before the first byte is sent, that ClickHouse may have it: a crash must
    /// not forget it. `server` is what the caller wants to know again of the server; `newest` is the
    /// newest segment's number.
    ///
    /// # Errors
    ///
    /// Those of the file system; nothing may be sent then.
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

    /// Notes that no attempt is open any more: ClickHouse has answered the only one. Not synced: what
    /// a crash forgets of it makes the segment only more careful.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn attempt_answered(&mut self) -> io::Result<()> {
        self.write_progress(Progress { open: None, suspect: false, ..self.progress.clone() }, false)
    }

    /// Notes, durably, that ClickHouse knows its token and has no rows of it: the token, and those
    /// that are made of it, are never sent again, and nothing is sent under the next one before this
    /// is on the disk. No attempt is open any more.
    ///
    /// # Errors
    ///
    /// Those of the file system; the token is the old one then.
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

    /// Notes, durably, that the open attempt was answered in a way that may leave its token without its
    /// rows: the success of a repeat proves nothing then.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn suspect_attempt(&mut self) -> io::Result<()> {
        if self.progress.suspect {
            return Ok(());
        }
        self.write_progress(Progress { suspect: true, ..self.progress.clone() }, true)
    }

    /// True when the open attempt may have left its token without its rows.
    pub fn is_suspect(&self) -> bool {
        self.progress.suspect
    }

    /// Notes, durably, that a person wants it sent though ClickHouse may have it.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn force(&mut self) -> io::Result<()> {
        self.write_progress(Progress { forced: true, ..self.progress.clone() }, true)
    }

    /// True when a person wants it sent though ClickHouse may have it.
    pub fn is_forced(&self) -> bool {
        self.progress.forced
    }

    /// Notes, durably, that ClickHouse has nothing of it, whatever was attempted.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub(super) fn forget_attempt(&mut self) -> io::Result<()> {
        self.write_progress(Progress { open: None, ..self.progress.clone() }, true)
    }

    /// From now on its file may be another's: whatever would be written into it is an error of kind
    /// `InvalidData`, until [`super::salvage`] has looked which it is.
    pub(super) fn may_be_replaced(&mut self, replaced: bool) {
        self.replaced = replaced;
    }

    /// Notes, durably, that the rows are inserted. The rejected lines were not sent before; but where
    /// nothing says what was, they may have been as well.
    pub(super) fn mark_rows_inserted(&mut self) -> io::Result<()> {
        let open = self.progress.open.clone().filter(OpenAttempt::is_unknown);
        self.write_progress(Progress { rows_inserted: true, open, ..self.progress.clone() }, true)
    }

    /// Writes the progress, and the seal once more: a failed sync may have kept it from the disk,
    /// and once something is sent under its token there must be no other.
    fn write_progress(&mut self, progress: Progress, durably: bool) -> io::Result<()> {
        if self.replaced {
            let number = self.number();
            let sentence = format!("segment {number} was damaged, and its file may be what is readable of it");
            return Err(io::Error::new(io::ErrorKind::InvalidData, sentence));
        }
        // What the file says after a failure is unknown: then the next attempt writes it again.
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

    /// Streams one part of it.
    ///
    /// # Errors
    ///
    /// When the file can't be opened.
    pub fn read(&self, part: Part) -> io::Result<SegmentReader> {
        Ok(SegmentReader::new(self.layout.storage().open(&self.path)?, part, self.first_place(), self.seal))
    }

    /// Where its first frame is.
    pub(super) fn first_place(&self) -> FramePlace {
        FramePlace { epoch: self.identity.epoch, number: self.identity.number, offset: frames_start(self.identity_len) }
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn seal(&self) -> &Seal {
        &self.seal
    }

    /// By its file's name.
    pub(super) fn kind(&self) -> FileKind {
        if self.sent { FileKind::Sent } else { FileKind::Segment }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What its file occupies.
    pub(super) fn file_len(&self) -> io::Result<u64> {
        self.layout.storage().open(&self.path)?.len()
    }
}

/// What a segment's blocks say.
pub(super) enum Opened {
    /// No frame in it was ever acknowledged under this name.
    Empty,
    /// Its first block is not what was written.
    Unreadable,
    Sealed(Box<SealedSegment>),
    Unsealed {
        identity: Identity,
        frames_start: u64,
    },
}
