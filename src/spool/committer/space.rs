//! Disk space for another segment: the check, and the return to normal once there is space again.

use std::io;
use std::time::Instant;

use super::super::storage::is_out_of_space;
use super::{Committer, RETRY_PAUSE, SyncFailed};
use crate::batch::{CommitRefusal, Exchange};
use crate::limits;

impl<E: Exchange> Committer<E> {
    /// Size of a new segment file: `--batch-bytes` and the blocks.
    pub(super) fn capacity(&self) -> u64 {
        self.spool.config.batch_bytes + 2 * self.frozen.len() as u64 + limits::SEGMENT_BLOCKS_BYTES
    }

    /// Checks that the spool's limit and the free disk space permit another segment file.
    pub(super) fn check_space(&self) -> Result<(), CommitRefusal> {
        let capacity = self.capacity();
        if self.spool.metrics.spool_bytes() + capacity > self.spool.config.spool_bytes_max {
            return Err(CommitRefusal::SpoolFull);
        }
        match self.spool.layout.storage().free_bytes(self.spool.layout.table_dir()) {
            Ok(free) if free < self.spool.config.disk_free_min.saturating_add(capacity) => Err(CommitRefusal::DiskFull),
            Ok(_) => Ok(()),
            Err(_) => Err(CommitRefusal::WriteFailed),
        }
    }

    /// Updates the refusal that is reported while no segment is open. Without open segment and
    /// without requests, nothing else would notice that space ran out or came back.
    pub(super) fn update_refusal(&mut self) -> Result<(), SyncFailed> {
        if self.must_seal {
            self.seal()?;
        }
        if self.open.is_none() && !self.must_seal {
            let space = self.recover_postponed().and_then(|()| self.check_space());
            let space = match self.refused {
                Some(refused) => space.and_then(|()| self.write_again(refused)),
                None => space,
            };
            if space.is_ok()
                && let Err(error) = self.spool.layout.keep_spare()
            {
                tracing::debug!(%error, "there is no disk space for the spare file");
            }
            self.spool.metrics.refuse(space.err());
        }
        Ok(())
    }

    /// Opens a segment after a write was refused. Free space says nothing about a disk that refuses writes,
    /// has no inodes, or a quota: only a write does. Tried at most once per [`RETRY_PAUSE`].
    fn write_again(&mut self, refused: CommitRefusal) -> Result<(), CommitRefusal> {
        if self.tried_writing.elapsed() < RETRY_PAUSE {
            return Err(refused);
        }
        self.open_segment()
    }

    /// Recovers the segments that the start postponed for lack of disk space. Events are refused
    /// until all of them are recovered, so older events go first. Tried at most once per
    /// [`RETRY_PAUSE`].
    pub(super) fn recover_postponed(&mut self) -> Result<(), CommitRefusal> {
        if self.spool.postponed() == 0 {
            return Ok(());
        }
        if self.tried_postponed.elapsed() < RETRY_PAUSE {
            return Err(CommitRefusal::DiskFull);
        }
        self.tried_postponed = Instant::now();
        loop {
            match self.spool.recover_postponed() {
                Ok(None) => return Ok(()),
                Ok(Some(segment)) => {
                    tracing::info!(
                        segment = segment.number().get(),
                        events = segment.rows(),
                        "recovered a segment of a previous run"
                    );
                    // Without inserters the segment stays on the disk, as in `seal`.
                    let _ = self.sealed.send(segment);
                }
                Err(error) => {
                    tracing::debug!(%error, "a segment of a previous run can't be recovered yet");
                    return Err(refusal_of(&error));
                }
            }
        }
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
