//! The files of inserted segments, kept to be overwritten.
//!
//! A recycled file's blocks are already written, so a sync of frames in it has no metadata to
//! commit. Inserters put files in, the committer takes them out; neither waits for the other.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crossbeam::queue::ArrayQueue;

use super::layout::{FileKind, Layout};
use super::ledger::Events;
use super::metrics::SpoolMetrics;
use super::salvage::{self, Left, Salvaged};
use super::sealed::SealedSegment;
use crate::batch::SegmentNumber;
use crate::limits;

/// See the module.
#[derive(Debug)]
pub struct SegmentPool {
    free: ArrayQueue<(PathBuf, u64)>,
    names: AtomicU64,
    layout: Arc<Layout>,
    metrics: Arc<SpoolMetrics>,
    /// A file that grew far beyond a usual segment is not kept.
    bytes_max: u64,
}

impl SegmentPool {
    pub(super) fn new(layout: Arc<Layout>, metrics: Arc<SpoolMetrics>, batch_bytes: u64) -> Self {
        Self {
            free: ArrayQueue::new(limits::FREE_SEGMENTS_MAX),
            names: AtomicU64::new(0),
            layout,
            metrics,
            bytes_max: batch_bytes.saturating_mul(2),
        }
    }

    /// A file to overwrite, and its length.
    pub(super) fn take(&self) -> Option<(PathBuf, u64)> {
        self.free.pop()
    }

    /// Removes a file that was taken for segment `number`, when that could not be opened in it. It
    /// counts until it is gone under each of the names that it may have.
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

    /// Takes a segment whose insert is proven out of the spool (invariant 4).
    ///
    /// # Errors
    ///
    /// Those of the file system; it may be called again, and the next start finds the segment again.
    pub fn retire(&self, segment: &SealedSegment) -> io::Result<()> {
        match segment.file_len() {
            Ok(len) => self.take_away(segment, len)?,
            // A former call came so far.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if segment.cut().is_some() {
            // Not before the segment is gone: without its cut it would be sent whole.
            self.layout.sync_table_dir()?;
            self.layout.storage().remove(&self.layout.cut_path(segment.number()))?;
        }
        self.metrics.inserted(segment.number(), segment.rows_undecided(), segment.rejected());
        self.metrics.retired(segment.number());
        Ok(())
    }

    /// Notes, durably, that a segment's rows are proven and its rejected lines are not: those may
    /// wait long for a missing table, longer than ClickHouse remembers the rows' token.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn rows_are_inserted(&self, segment: &mut SealedSegment) -> io::Result<()> {
        let rows = segment.rows_undecided();
        segment.mark_rows_inserted()?;
        self.metrics.inserted(segment.number(), rows, 0);
        Ok(())
    }

    /// Puts what is readable of a segment that can't be read whole in its place, and books the rest
    /// as set aside. `None` when it can be read whole after all. The caller knows that ClickHouse has
    /// nothing of it, or that a person wants it sent in any case.
    ///
    /// # Errors
    ///
    /// Those of the file system; it may be called again, and until then nothing is lost.
    pub fn salvage(&self, segment: &mut SealedSegment) -> io::Result<Option<Salvaged>> {
        let left = match salvage::salvage(&self.layout, segment)? {
            Left::Whole => return Ok(None),
            Left::Part(copy) => Some(*copy),
            Left::Nothing => None,
        };
        // Nothing fails any more: this is booked once.
        let (rows, rejected) = left.as_ref().map_or((0, 0), |left| (left.rows(), left.rejected()));
        let missing = Events {
            rows: segment.rows_undecided().saturating_sub(rows),
            rejected: segment.rejected().saturating_sub(rejected),
        };
        self.metrics.lost_to_damage(segment.number(), missing);
        match &left {
            // The original goes on counting, in `damaged/`.
            Some(left) => self.metrics.occupy(left.seal().end),
            None => self.metrics.retired(segment.number()),
        }
        if let Ok(files) = self.layout.storage().list(&self.layout.damaged_dir()) {
            self.metrics.found_damaged(files.len() as u64);
        }
        Ok(Some(Salvaged { segment: left, missing }))
    }

    fn take_away(&self, segment: &SealedSegment, len: u64) -> io::Result<()> {
        let usual = len <= self.bytes_max && len > limits::FREE_SEGMENT_BYTES_MIN;
        if usual && !self.free.is_full() {
            let path = self.layout.free_dir().join(format!("{:020}.free", self.names.fetch_add(1, Relaxed)));
            self.layout.storage().rename(segment.path(), &path)?;
            if let Err((path, len)) = self.free.push((path, len)) {
                self.remove(&path, len)?;
            }
        } else {
            self.remove(segment.path(), len)?;
        }
        Ok(())
    }

    fn remove(&self, path: &Path, len: u64) -> io::Result<()> {
        self.layout.storage().remove(path)?;
        self.metrics.release(len);
        Ok(())
    }
}
