//! A pool of the files of inserted segments, which new segments overwrite.
//!
//! A recycled file has its disk blocks allocated and written already, so a sync of new frames in it
//! writes no file system metadata. Inserters put files into the pool, the committer takes them out;
//! neither waits for the other.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crossbeam::queue::ArrayQueue;

use super::file_name::FileKind;
use super::journal::{BlockId, Change};
use super::layout::Layout;
use super::ledger::Events;
use super::metrics::SpoolMetrics;
use super::moving;
use super::salvage::{self, Left, Salvaged};
use super::sealed::SealedBlock;
use super::segment_file::SegmentFile;
use crate::batch::SegmentNumber;
use crate::limits;

/// The pool of free segment files, and the way out of the spool for inserted blocks.
#[derive(Debug)]
pub struct SegmentPool {
    free: ArrayQueue<(PathBuf, u64)>,
    /// Files of sealed segments that wait at their whole length, to be reused.
    whole: Mutex<Vec<Weak<SegmentFile>>>,
    names: AtomicU64,
    layout: Arc<Layout>,
    metrics: Arc<SpoolMetrics>,
    /// A file that grew far beyond a usual segment is not kept, nor one that was trimmed.
    bytes_max: u64,
    bytes_min: u64,
}

impl SegmentPool {
    pub(super) fn new(layout: Arc<Layout>, metrics: Arc<SpoolMetrics>, batch_bytes: u64) -> Self {
        Self {
            free: ArrayQueue::new(limits::FREE_SEGMENTS_MAX),
            whole: Mutex::default(),
            names: AtomicU64::new(0),
            layout,
            metrics,
            bytes_max: batch_bytes.saturating_mul(2),
            bytes_min: batch_bytes,
        }
    }

    /// Takes a file to overwrite, with its length.
    pub(super) fn take(&self) -> Option<(PathBuf, u64)> {
        self.free.pop()
    }

    /// Blocks begin to wait for their inserts. Beyond as many files as can be reused, each is made as short as its
    /// frames allow: many small blocks would else fill the spool with room that nobody has written to. What fails
    /// costs only room.
    pub(super) fn begin_waiting(&self, blocks: &[SealedBlock]) {
        // Those of one segment stand beside each other, and share its file.
        for block in blocks.chunk_by(|one, next| Arc::ptr_eq(&one.file, &next.file)).filter_map(<[_]>::first) {
            if let Err(error) = self.keep_or_trim(&block.file) {
                tracing::debug!(block = %block.number(), %error, "the file of a segment can't be made shorter");
            }
        }
    }

    fn keep_or_trim(&self, file: &Arc<SegmentFile>) -> io::Result<()> {
        let mut whole = self.whole();
        whole.retain(|known| known.strong_count() > 0);
        if whole.iter().any(|known| known.as_ptr() == Arc::as_ptr(file)) || file.is_damaged() {
            return Ok(());
        }
        if whole.len() < limits::FREE_SEGMENTS_MAX {
            whole.push(Arc::downgrade(file));
            return Ok(());
        }
        drop(whole);
        self.metrics.release(file.trim()?);
        Ok(())
    }

    fn whole(&self) -> MutexGuard<'_, Vec<Weak<SegmentFile>>> {
        // A panic inside the lock ends the process.
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a file that was taken for segment `number` after opening the segment failed. Its
    /// bytes count as occupied until each of the names that the file may have is gone.
    pub(super) fn give_up(&self, number: SegmentNumber, path: &Path, len: u64) {
        let segment = self.layout.path(number, FileKind::Segment);
        let names = [path.to_owned(), segment.with_extension("new"), segment];
        let remove = |name: &PathBuf| self.layout.storage().remove(name);
        let failed = |error: &io::Error| error.kind() != io::ErrorKind::NotFound;
        let left = names.iter().filter_map(|name| remove(name).err()).any(|error| failed(&error));
        if !left {
            self.metrics.release(len);
        }
    }

    /// A block is held, it may be for long, and a thousand others with it: it gets a file of its own, so that it
    /// keeps no room but what it needs. What fails costs only room.
    pub fn set_apart(&self, block: &mut SealedBlock) {
        if let Err(error) = self.try_to_set_apart(block) {
            tracing::debug!(block = %block.number(), %error, "a held block can't be moved to a file of its own");
        }
    }

    fn try_to_set_apart(&self, block: &mut SealedBlock) -> io::Result<()> {
        let Some(segment) = moving::move_out(block)? else {
            self.metrics.release(block.file.trim()?);
            self.whole().retain(|known| known.as_ptr() != Arc::as_ptr(&block.file));
            return Ok(());
        };
        self.metrics.occupy(block.file.len()?);
        if segment.has_no_more(block.id()) {
            let len = segment.len()?;
            self.take_away(&segment, len)?;
        }
        Ok(())
    }

    /// Takes a block whose insert is proven out of the spool (invariant 4), and its file with the last block
    /// in it. The proof is durable before the file goes, so no start sends it again.
    ///
    /// # Errors
    ///
    /// I/O errors. The call may be repeated; the next start finds the block again.
    pub fn retire(&self, block: &SealedBlock) -> io::Result<()> {
        let journal = self.layout.journal();
        if !journal.find(block.id()).is_some_and(|state| state.is_done) {
            journal.write(block.id(), Change::Proven)?;
        }
        if block.file.has_no_more(block.id()) {
            match block.file.len() {
                Ok(len) => self.take_away(&block.file, len)?,
                // An earlier call has removed the file.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            if block.file.is_shared() {
                let id = block.id();
                for (id, state) in journal.of_segment(id.epoch, id.number.segment) {
                    // The file of one that was moved out may be there yet, because another inserter is just removing
                    // it, or could not.
                    if state.is_done && self.has_no_file(id) {
                        journal.forget(id);
                    }
                }
            }
        }
        // The segment that it was moved out of has it too, as long as that is there.
        if !block.file.is_shared() && !block.file.has_segment() {
            journal.forget(block.id());
        }
        self.metrics.inserted(block.number(), block.rows_undecided(), block.rejected());
        self.metrics.retired(block.number());
        Ok(())
    }

    /// True if a block of a segment has no file of its own.
    fn has_no_file(&self, id: BlockId) -> bool {
        self.layout.is_gone(&self.layout.path(id.number.segment, FileKind::Block(id.number.index)))
    }

    /// Notes durably that a block's rows are proven and its rejected lines are not. The rejected
    /// lines may have to wait for a missing table longer than ClickHouse remembers the token of the
    /// rows.
    ///
    /// # Errors
    ///
    /// I/O errors.
    pub fn rows_are_inserted(&self, block: &mut SealedBlock) -> io::Result<()> {
        let rows = block.rows_undecided();
        block.mark_rows_inserted()?;
        self.metrics.inserted(block.number(), rows, 0);
        Ok(())
    }

    /// Replaces a damaged block by a copy of its readable frames, and books the other events as
    /// set aside. Returns `None` if the block turns out to be readable.
    ///
    /// The caller must know that ClickHouse has nothing of the block, or that an operator forced
    /// it.
    ///
    /// # Errors
    ///
    /// I/O errors. The call may be repeated; nothing is lost in between.
    pub fn salvage(&self, block: &mut SealedBlock) -> io::Result<Option<Salvaged>> {
        let left = match salvage::salvage(block)? {
            Left::Whole => return Ok(None),
            Left::Part(copy) => Some(*copy),
            Left::Nothing => None,
        };
        // Nothing below can fail, so the events are booked only once.
        let (rows, rejected) = left.as_ref().map_or((0, 0), |left| (left.rows(), left.rejected()));
        let missing = Events {
            rows: block.rows_undecided().saturating_sub(rows),
            rejected: block.rejected().saturating_sub(rejected),
        };
        self.metrics.lost_to_damage(block.number(), missing);
        match &left {
            // The original still occupies its bytes, in `damaged/`.
            Some(left) => self.metrics.occupy(left.seal().end),
            None => self.metrics.retired(block.number()),
        }
        if let Ok(files) = self.layout.storage().list(&self.layout.damaged_dir()) {
            self.metrics.set_damaged(files.len() as u64);
        }
        Ok(Some(Salvaged { block: left, missing }))
    }

    /// Writes what the journal still has to write: at a stop.
    ///
    /// # Errors
    ///
    /// I/O errors; the next start finds attempts open then that were answered.
    pub fn flush(&self) -> io::Result<()> {
        self.layout.journal().flush()
    }

    fn take_away(&self, file: &SegmentFile, len: u64) -> io::Result<()> {
        // What is in `damaged/` too is not written to.
        let is_ours = file.is_shared() && !file.is_damaged();
        let usual = is_ours && (self.bytes_min..=self.bytes_max).contains(&len) && len > limits::FREE_SEGMENT_BYTES_MIN;
        if usual && !self.free.is_full() {
            let path = self.layout.free_dir().join(format!("{:020}.free", self.names.fetch_add(1, Relaxed)));
            self.layout.storage().rename(&file.path, &path)?;
            if let Err((path, len)) = self.free.push((path, len)) {
                self.remove(&path, len)?;
            }
        } else if file.is_damaged() {
            // `damaged/` has it too.
            self.layout.storage().remove(&file.path)?;
        } else {
            self.remove(&file.path, len)?;
        }
        Ok(())
    }

    fn remove(&self, path: &Path, len: u64) -> io::Result<()> {
        self.layout.storage().remove(path)?;
        self.metrics.release(len);
        Ok(())
    }
}
