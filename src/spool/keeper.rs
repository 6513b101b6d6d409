//! The keeper, which does all that a commit must not wait for: it has the next segment ready, and seals
//! those that the committer has handed over.
//!
//! A segment is made, named and synced before the committer gets it, and what the committer writes to it
//! needs no more than a sync of that file. Afterwards the keeper syncs the frames, logs the identities,
//! writes the seals, and hands the blocks to the inserters.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;

use super::file_name::FileKind;
use super::layout::Layout;
use super::metrics::SpoolMetrics;
use super::numbers::Numbers;
use super::pool::SegmentPool;
use super::recovery::{self, Postponed};
use super::repeats::IdentityLogs;
use super::sealed::SealedBlock;
use super::segment::OpenSegment;
use super::shelf::{Errands, Shelf};
use super::storage::{SealError, SyncFailed, end_after_failed_sync, is_out_of_space};
use super::{SpoolConfig, adoption};
use crate::batch::{CommitRefusal, SegmentNumber};

/// The longest sleep of the idle keeper: without traffic nothing else would notice that space ran out or
/// came back.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Pause between two attempts to write to a disk that failed or is full.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// The state of the keeper thread.
pub struct Keeper {
    pub(super) shelf: Arc<Shelf>,
    pub(super) layout: Arc<Layout>,
    pub(super) config: SpoolConfig,
    pub(super) metrics: Arc<SpoolMetrics>,
    pub(super) pool: Arc<SegmentPool>,
    pub(super) logs: IdentityLogs,
    pub(super) numbers: Numbers,
    pub(super) next_number: SegmentNumber,
    pub(super) postponed: Vec<Postponed>,
    pub(super) sealed: Sender<SealedBlock>,
    /// Handed over by the committer, the oldest first.
    pub(super) unsealed: VecDeque<OpenSegment>,
    /// What the disk said when it last refused a write, unless one has succeeded since; and when.
    pub(super) refused: Option<(CommitRefusal, Instant)>,
    /// The last seal has failed.
    pub(super) cannot_seal: bool,
}

impl Keeper {
    /// Works until the committer has ended and everything is sealed that can be.
    pub fn run(mut self) {
        loop {
            match self.turn() {
                Ok(true) => return,
                Ok(false) => self.shelf.wait_for_errands(SLEEP_MAX),
                Err(SyncFailed(error)) => end_after_failed_sync(&error),
            }
        }
    }

    /// Does what there is to do. True once the committer has ended.
    pub(super) fn turn(&mut self) -> Result<bool, SyncFailed> {
        let Errands { handed_over, make, failed, is_finished } = self.shelf.errands();
        for open in handed_over {
            if open.is_empty() { self.abandon(&open) } else { self.unsealed.push_back(open) }
        }
        // The committer may be waiting for the next segment; but not for one behind a write that failed.
        if make && failed.is_none() {
            self.make(None);
        }
        self.seal_all()?;
        if let Some(failed) = failed {
            let (_, since) = *self.refused.get_or_insert_with(|| (failed, Instant::now()));
            if make && self.unsealed.is_empty() && since.elapsed() >= RETRY_PAUSE {
                self.make(Some(failed));
            } else {
                self.refuse(failed);
            }
        }
        if is_finished {
            self.end();
        }
        Ok(is_finished)
    }

    fn end(&mut self) {
        if let Some(unused) = self.shelf.clear() {
            if unused.number().next() == self.next_number {
                self.next_number = unused.number();
            }
            self.abandon(&unused);
        }
        if let Err(error) = self.numbers.note(&self.layout, self.next_number) {
            tracing::debug!(%error, "the next start skips a few segment numbers");
        }
    }

    /// Makes the next segment, after a write that `failed`, or says why not.
    fn make(&mut self, failed: Option<CommitRefusal>) {
        match self.try_to_make() {
            Ok(open) => {
                self.refused = None;
                self.metrics.refuse(None);
                if let Err(error) = self.layout.keep_spare() {
                    tracing::debug!(%error, "there is no disk space for the spare file");
                }
                self.shelf.put(open, failed);
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    fn refuse(&self, refusal: CommitRefusal) {
        if self.shelf.refuse(refusal) {
            self.metrics.refuse(Some(refusal));
        }
    }

    fn try_to_make(&mut self) -> Result<OpenSegment, CommitRefusal> {
        if let Some((refusal, since)) = self.refused
            && since.elapsed() < RETRY_PAUSE
        {
            return Err(refusal);
        }
        self.begin_journal()?;
        self.recover_postponed()?;
        let capacity = self.config.segment_bytes();
        let recycled = match self.check_space(capacity) {
            Ok(()) => self.pool.take(),
            // A recycled file occupies its disk space already.
            Err(refusal) => Some(self.pool.take().ok_or(refusal)?),
        };
        let number = self.next_number;
        let from = recycled.as_ref().map(|(path, len)| (path.as_path(), *len));
        let created = self.numbers.allow(&self.layout, number).and_then(|()| {
            self.next_number = number.next();
            OpenSegment::create(&self.layout, number, capacity, from)
        });
        match created {
            Ok(open) => {
                if recycled.is_none() {
                    self.metrics.occupy(capacity);
                }
                Ok(open)
            }
            Err(error) => {
                if let Some((path, len)) = &recycled {
                    self.pool.give_up(number, path, *len);
                }
                Err(self.failed(&error, "a new segment can't be made; requests are answered with 503"))
            }
        }
    }

    /// A start on a full disk could not.
    fn begin_journal(&mut self) -> Result<(), CommitRefusal> {
        if self.layout.journal().has_begun() {
            return Ok(());
        }
        let begun = adoption::begin(&self.layout);
        begun.map_err(|error| self.failed(&error, "the journal can't be begun; requests are answered with 503"))
    }

    /// Said when it begins, not for each request that meets it: the log may be on the same disk.
    fn failed(&mut self, error: &io::Error, what: &str) -> CommitRefusal {
        if self.refused.is_none() {
            tracing::error!(%error, "{what}");
        } else {
            tracing::debug!(%error, "{what}");
        }
        let refusal = refusal_of(error);
        self.refused = Some((refusal, Instant::now()));
        refusal
    }

    /// Checks that the spool's limit and the free disk space permit another segment file.
    fn check_space(&self, capacity: u64) -> Result<(), CommitRefusal> {
        self.metrics.keep(self.layout.kept_bytes());
        if self.metrics.spool_bytes().saturating_add(capacity) > self.config.spool_bytes_max {
            return Err(CommitRefusal::SpoolFull);
        }
        match self.layout.storage().free_bytes(self.layout.folder()) {
            Ok(free) if free < self.config.disk_free_min.saturating_add(capacity) => Err(CommitRefusal::DiskFull),
            Ok(_) => Ok(()),
            Err(_) => Err(CommitRefusal::WriteFailed),
        }
    }

    /// Recovers the segments that the start postponed for lack of disk space. Events are refused until all
    /// of them are recovered, so older events go first.
    fn recover_postponed(&mut self) -> Result<(), CommitRefusal> {
        loop {
            let recovered = recovery::recover_postponed(&self.metrics, &mut self.postponed, &mut self.logs);
            self.shelf.recovered(self.logs.take_recovered());
            match recovered {
                Ok(blocks) if blocks.is_empty() => return Ok(()),
                Ok(blocks) => {
                    let events: u64 = blocks.iter().map(SealedBlock::rows).sum();
                    tracing::info!(blocks = blocks.len(), events, "recovered a segment of a previous run");
                    self.pool.begin_waiting(&blocks);
                    // Without inserters they stay on the disk until the next start.
                    blocks.into_iter().for_each(|block| drop(self.sealed.send(block)));
                }
                Err(error) => {
                    tracing::debug!(%error, "a segment of a previous run can't be recovered yet");
                    let refusal = refusal_of(&error);
                    self.refused = Some((refusal, Instant::now()));
                    return Err(refusal);
                }
            }
        }
    }

    /// Seals what was handed over, in order, until that fails.
    fn seal_all(&mut self) -> Result<(), SyncFailed> {
        while let Some(open) = self.unsealed.pop_front() {
            match open.seal(&mut self.logs) {
                Ok(blocks) => {
                    let had_failed = std::mem::take(&mut self.cannot_seal);
                    if self.shelf.sealed() && had_failed {
                        self.metrics.refuse(None);
                    }
                    self.pool.begin_waiting(&blocks);
                    blocks.into_iter().for_each(|block| drop(self.sealed.send(block)));
                }
                Err(failure) => match *failure {
                    (open, SealError::Write(error)) => {
                        self.unsealed.push_front(open);
                        if !std::mem::replace(&mut self.cannot_seal, true) {
                            tracing::error!(%error, "a segment can't be sealed; sealing is retried");
                        }
                        self.refuse(refusal_of(&error));
                        return Ok(());
                    }
                    (_, SealError::Sync(error)) => return Err(SyncFailed(error)),
                },
            }
        }
        Ok(())
    }

    /// Removes a segment that got no frame.
    fn abandon(&self, open: &OpenSegment) {
        let path = self.layout.path(open.number(), FileKind::Segment);
        if let Err(error) = self.layout.storage().remove(&path) {
            tracing::warn!(%error, path = %path.display(), "an unused segment can't be removed");
        }
        self.metrics.release(open.capacity);
    }
}

pub(super) fn refusal_of(error: &io::Error) -> CommitRefusal {
    const NO_DESCRIPTORS: [rustix::io::Errno; 2] = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    match error.raw_os_error() {
        _ if is_out_of_space(error) => CommitRefusal::DiskFull,
        Some(code) if NO_DESCRIPTORS.iter().any(|errno| errno.raw_os_error() == code) => CommitRefusal::NoDescriptors,
        _ => CommitRefusal::WriteFailed,
    }
}
