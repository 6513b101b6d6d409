//! The sealed block, which waits for its insert: the frames of one table in a segment.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::block::Seal;
use super::cut::{Cut, Piece};
use super::frame::FramePlace;
use super::journal::{Block, BlockId, Change, OpenAttempt};
use super::reader::{BlockReader, Part};
use super::schema::BlockSchema;
use super::segment_file::SegmentFile;
use crate::batch::{BlockNumber, SegmentNumber, TableIndex};
use crate::clock::unix_ms;

/// A block that waits for its insert. Its frames and its seal never change (invariant 3).
#[derive(Debug)]
pub struct SealedBlock {
    pub(super) file: Arc<SegmentFile>,
    pub(super) number: BlockNumber,
    pub(super) id: BlockId,
    pub(super) table: TableIndex,
    pub(super) schema: BlockSchema,
    pub(super) state: Block,
    /// Offset of the schema, in a segment of several blocks.
    pub(super) schema_offset: Option<u64>,
    /// Offset of the first frame.
    pub(super) first: u64,
    pub(super) seal: Seal,
}

impl SealedBlock {
    /// The name of the block in the journal.
    pub(super) fn id(&self) -> BlockId {
        self.id
    }

    /// What became of the block.
    pub(super) fn block(&self) -> &Block {
        &self.state
    }

    /// True if nothing of it is to be sent any more from this file.
    pub(super) fn is_over(&self) -> bool {
        // What was salvaged and is found in another file than the damaged one was put there by an operator.
        self.state.is_done || self.state.is_salvaged && self.file.is_shared() && self.file.is_damaged()
    }

    /// Writes a change to the journal, durably. It counts only if that succeeds.
    fn change(&mut self, change: Change) -> io::Result<()> {
        self.file.layout.journal().write(self.id(), change.clone())?;
        self.state.apply(&change);
        Ok(())
    }

    /// Time of sealing, Unix ms.
    pub fn sealed_ms(&self) -> u64 {
        self.seal.sealed_ms
    }

    /// The number of the block.
    pub fn number(&self) -> BlockNumber {
        self.number
    }

    /// The table that the rows are for, by the name that its folder has.
    pub fn label(&self) -> &str {
        &self.schema.table
    }

    /// The table among those that the spool was opened for.
    pub fn table(&self) -> TableIndex {
        self.table
    }

    /// Time of the first frame, Unix ms.
    pub fn created_ms(&self) -> u64 {
        self.schema.begun_ms
    }

    /// The serialized columns, types and INSERT settings, which are those of all its rows.
    pub fn frozen(&self) -> &[u8] {
        &self.schema.frozen
    }

    /// Number of rows for the target table.
    pub fn rows(&self) -> u64 {
        self.seal.rows
    }

    /// Number of rows for the target table; 0 once all of them are proven.
    pub fn rows_waiting(&self) -> u64 {
        if self.state.rows_inserted { 0 } else { self.seal.rows }
    }

    /// Number of rows on this block's account in the ledger: those that are neither proven in the
    /// target table, nor refused and proven in the quarantine table.
    pub(super) fn rows_undecided(&self) -> u64 {
        self.rows_waiting() - self.state.cut.as_ref().map_or(0, Cut::decided).min(self.rows_waiting())
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

    /// True if any part of the block was ever sent.
    pub fn was_sent(&self) -> bool {
        self.state.was_sent
    }

    /// The first attempt without an answer; `None` if every attempt was answered.
    pub fn open_attempt(&self) -> Option<&OpenAttempt> {
        self.state.open.as_ref()
    }

    /// True if the rows are proven and only the rejected lines are not.
    pub fn rows_are_inserted(&self) -> bool {
        self.state.rows_inserted
    }

    /// The cut of the block, if it is cut.
    pub fn cut(&self) -> Option<&Cut> {
        self.state.cut.as_ref()
    }

    /// Notes durably that the rows are sent in these pieces. The block is never sent whole again
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

    /// The token under which the block is sent: its name, and the number of used-up tokens if
    /// there are any.
    pub fn token(&self) -> String {
        match self.state.generation {
            0 => self.name(),
            generation => format!("{}-g{generation}", self.name()),
        }
    }

    /// A name that no other bytes have: node id, epoch, number, rows and checksum.
    pub fn name(&self) -> String {
        let Seal { rows, checksum, .. } = &self.seal;
        format!("{}-{rows}-{checksum:08x}", self.file.identity.name(self.id))
    }

    /// Notes durably that ClickHouse may have the block from now on. Must be called before the first
    /// byte is sent, so that a crash does not forget the attempt.
    ///
    /// `server` is the caller's note about the server; `newest` is the number of the newest segment.
    ///
    /// # Errors
    ///
    /// I/O errors; nothing may be sent then.
    pub fn begin_attempt(&mut self, server: &str, newest: SegmentNumber) -> io::Result<()> {
        if self.state.open.is_some() {
            // It is on the disk, but something may stand behind it that does not count.
            return self.file.layout.journal().flush();
        }
        let attempt = OpenAttempt { since_ms: unix_ms(), newest, server: server.to_owned() };
        self.change(Change::Attempt { table: self.file.layout.table().to_owned(), attempt })
    }

    /// Notes that ClickHouse has answered the only open attempt. Not synced: if a loss of power takes the
    /// note, the attempt counts as open, which is safe.
    pub fn attempt_answered(&mut self) {
        self.file.layout.journal().write_unsynced(self.id(), Change::Answered);
        self.state.apply(&Change::Answered);
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
        if self.state.suspect { Ok(()) } else { self.change(Change::Suspect) }
    }

    /// True if ClickHouse may have the token of the open attempt without its rows.
    pub fn is_suspect(&self) -> bool {
        self.state.suspect
    }

    /// Notes, durably, that an operator wants it sent though ClickHouse may have it.
    ///
    /// # Errors
    ///
    /// I/O errors.
    pub fn force(&mut self) -> io::Result<()> {
        self.change(Change::Forced)
    }

    /// True if an operator ordered to send the block although ClickHouse may have it.
    pub fn is_forced(&self) -> bool {
        self.state.forced
    }

    /// Notes durably that ClickHouse has nothing of the block, despite an open attempt.
    ///
    /// # Errors
    ///
    /// I/O errors.
    pub(super) fn forget_attempt(&mut self) -> io::Result<()> {
        self.change(Change::Answered)
    }

    /// Notes durably that a copy has taken the block's place, and what is readable of it.
    pub(super) fn has_been_salvaged(&mut self) -> io::Result<()> {
        self.change(Change::Salvaged)
    }

    /// Notes durably that nothing of it is to be sent any more, from whatever file.
    pub(super) fn note_done(&mut self) -> io::Result<()> {
        self.change(Change::Proven)
    }

    /// Notes durably that the rows are inserted.
    pub(super) fn mark_rows_inserted(&mut self) -> io::Result<()> {
        self.change(Change::RowsInserted)
    }

    /// Opens a stream of one part of the block.
    ///
    /// # Errors
    ///
    /// If the file can't be opened.
    pub fn read(&self, part: Part) -> io::Result<BlockReader> {
        let file = self.file.layout.storage().open(&self.file.path)?;
        let offsets = self.file.offsets_of(&*file, self)?;
        Ok(BlockReader::new(file, part, self.first_place(), self.seal, self.id.number.index, offsets))
    }

    /// The place of the first frame.
    pub(super) fn first_place(&self) -> FramePlace {
        self.file.place(self.first)
    }

    pub(super) fn seal(&self) -> &Seal {
        &self.seal
    }

    pub(super) fn path(&self) -> &Path {
        &self.file.path
    }
}
