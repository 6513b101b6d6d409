//! The sealed segment, which waits for its insert.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::adoption;
use super::block::{BLOCK, IDENTITY_BYTES_MAX, Identity, Seal, VERSION, VERSION_BEFORE, frames_start};
use super::cut::{Cut, Piece};
use super::frame::FramePlace;
use super::journal::{Block, BlockId, Change, OpenAttempt};
use super::layout::{FileKind, Layout};
use super::reader::{Part, SegmentReader};
use super::storage::{StorageFile, read_up_to};
use crate::batch::SegmentNumber;
use crate::clock::unix_ms;

/// A segment that waits for its insert. Its frames and its seal never change (invariant 3).
#[derive(Debug)]
pub struct SealedSegment {
    layout: Arc<Layout>,
    path: PathBuf,
    block: Block,
    identity: Identity,
    identity_len: u64,
    seal: Seal,
}

impl SealedSegment {
    /// Creates the value for a segment that was just sealed.
    pub(super) fn new(layout: Arc<Layout>, identity: Identity, identity_len: u64, seal: Seal) -> Self {
        let path = layout.path(identity.number, FileKind::Segment);
        Self { layout, path, block: Block::default(), identity, identity_len, seal }
    }

    /// Reads the blocks of a segment, and its state from the journal.
    pub(super) fn open(layout: &Arc<Layout>, number: SegmentNumber, kind: FileKind) -> io::Result<Opened> {
        let path = layout.path(number, kind);
        let file = layout.storage().open(&path)?;
        let Some(FoundIdentity { identity, len: identity_len, .. }) = read_identity(&*file)? else {
            return Ok(Opened::Unreadable);
        };
        if identity.number != number {
            return Ok(Opened::Misnamed);
        }
        if !(VERSION_BEFORE..=VERSION).contains(&identity.version) {
            let (path, version) = (path.display(), identity.version);
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "{path} has format version {version}, not {VERSION}: drain the spool with the release that wrote it"
                ),
            ));
        }
        let mut blocks = vec![0; 2 * BLOCK];
        let len = read_up_to(&*file, &mut blocks, identity_len)?;
        let blocks = blocks.get(..len).unwrap_or_default();
        let (seal, rest) = blocks.split_at_checked(BLOCK).unwrap_or((blocks, &[]));
        let known = layout.journal().find(identity.block_id());
        let is_adopted = known.is_none() && identity.version == VERSION_BEFORE;
        let mut block = match known {
            Some(block) => block,
            None => adoption::read(layout, &identity, kind, rest)?,
        };
        let Some(seal) = Seal::decode(seal, identity.epoch, number) else {
            if is_adopted && block.was_sent {
                let start = identity.name() + "-";
                block.cut = adoption::cut(layout, number, |name| name.starts_with(&start))?;
            }
            return Ok(Opened::Unsealed { identity, identity_len, block });
        };
        let mut segment = Self { layout: layout.clone(), path, block, identity, identity_len, seal };
        if is_adopted {
            let whole = segment.name();
            segment.block.cut = adoption::cut(layout, number, |name| name == whole)?;
        }
        Ok(Opened::Sealed(Box::new(segment)))
    }

    /// The name of the segment's block in the journal.
    pub(super) fn id(&self) -> BlockId {
        self.identity.block_id()
    }

    /// What became of the segment.
    pub(super) fn block(&self) -> &Block {
        &self.block
    }

    /// Writes a change to the journal, durably. It counts only if that succeeds.
    fn change(&mut self, change: Change) -> io::Result<()> {
        self.layout.journal().write(self.id(), change.clone())?;
        self.block.apply(&change);
        Ok(())
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
        if self.block.rows_inserted { 0 } else { self.seal.rows }
    }

    /// Number of rows on this segment's account in the ledger: those that are neither proven in the
    /// target table, nor refused and proven in the quarantine table.
    pub(super) fn rows_undecided(&self) -> u64 {
        self.rows_waiting() - self.block.cut.as_ref().map_or(0, Cut::decided).min(self.rows_waiting())
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
        self.block.was_sent
    }

    /// The first attempt without an answer; `None` if every attempt was answered.
    pub fn open_attempt(&self) -> Option<&OpenAttempt> {
        self.block.open.as_ref()
    }

    /// True if the rows are proven and only the rejected lines are not.
    pub fn rows_are_inserted(&self) -> bool {
        self.block.rows_inserted
    }

    /// The cut of the segment, if it is cut.
    pub fn cut(&self) -> Option<&Cut> {
        self.block.cut.as_ref()
    }

    /// Notes durably that the rows are sent in these pieces. The segment is never sent whole again
    /// (invariant 3).
    ///
    /// # Errors
    ///
    /// I/O errors; no piece may be sent then.
    pub fn cut_into(&mut self, pieces: Vec<Piece>) -> io::Result<()> {
        self.change(Change::Cut(pieces))
    }

    /// Replaces a piece by others, or by itself in another state, durably.
    ///
    /// # Errors
    ///
    /// I/O errors; the cut is as before then.
    pub fn replace_piece(&mut self, index: usize, pieces: Vec<Piece>) -> io::Result<()> {
        self.change(Change::Pieces(index as u64, pieces))
    }

    /// Notes durably that the quarantine table may have the refused rows from now on.
    ///
    /// # Errors
    ///
    /// I/O errors.
    pub fn refused_are_sent(&mut self) -> io::Result<()> {
        self.change(Change::RefusedSent)
    }

    /// Notes durably that the refused rows are in the quarantine table.
    ///
    /// # Errors
    ///
    /// I/O errors.
    pub fn refused_are_stored(&mut self) -> io::Result<()> {
        self.change(Change::RefusedStored)
    }

    /// The token under which the segment is sent: its name, and the number of used-up tokens if
    /// there are any.
    pub fn token(&self) -> String {
        match self.block.generation {
            0 => self.name(),
            generation => format!("{}-g{generation}", self.name()),
        }
    }

    /// A name that no other bytes have: node id, epoch, segment number, rows and checksum.
    pub fn name(&self) -> String {
        let Seal { rows, checksum, .. } = &self.seal;
        format!("{}-{rows}-{checksum:08x}", self.identity.name())
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
        if self.block.open.is_some() {
            // It is on the disk, but something may stand behind it that does not count.
            return self.layout.journal().flush();
        }
        let attempt = OpenAttempt { since_ms: unix_ms(), newest, server: server.to_owned() };
        self.change(Change::Attempt { table: self.layout.table().to_owned(), attempt })
    }

    /// Notes that ClickHouse has answered the only open attempt. Not synced: if a loss of power takes the
    /// note, the attempt counts as open, which is safe.
    pub fn attempt_answered(&mut self) {
        self.layout.journal().write_unsynced(self.id(), Change::Answered);
        self.block.apply(&Change::Answered);
    }

    /// Notes durably that ClickHouse knows the token and does not have the rows, and moves on to the
    /// next token. The old token, and the tokens of pieces derived from it, are never sent again. No
    /// attempt is open afterwards.
    ///
    /// # Errors
    ///
    /// I/O errors; the old token remains in use then.
    pub fn use_up_token(&mut self) -> io::Result<()> {
        self.change(Change::UsedUp)
    }

    /// Notes durably that ClickHouse may have the token of the open attempt without its rows, so that the
    /// success of a repeat is no proof.
    ///
    /// # Errors
    ///
    /// I/O errors.
    pub fn suspect_attempt(&mut self) -> io::Result<()> {
        if self.block.suspect { Ok(()) } else { self.change(Change::Suspect) }
    }

    /// True if ClickHouse may have the token of the open attempt without its rows.
    pub fn is_suspect(&self) -> bool {
        self.block.suspect
    }

    /// Notes, durably, that an operator wants it sent though ClickHouse may have it.
    ///
    /// # Errors
    ///
    /// I/O errors.
    pub fn force(&mut self) -> io::Result<()> {
        self.change(Change::Forced)
    }

    /// True if an operator ordered to send the segment although ClickHouse may have it.
    pub fn is_forced(&self) -> bool {
        self.block.forced
    }

    /// Notes durably that ClickHouse has nothing of the segment, despite an open attempt.
    ///
    /// # Errors
    ///
    /// I/O errors.
    pub(super) fn forget_attempt(&mut self) -> io::Result<()> {
        self.change(Change::Answered)
    }

    /// Notes durably that another segment has taken this one's place, and what is readable of it.
    pub(super) fn has_been_salvaged(&mut self) -> io::Result<()> {
        self.change(Change::Salvaged)
    }

    /// Notes durably that the rows are inserted.
    pub(super) fn mark_rows_inserted(&mut self) -> io::Result<()> {
        self.change(Change::RowsInserted)
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
        block: Block,
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
