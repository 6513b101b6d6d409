//! Disk space for another segment: the check, and the return to normal once there is space again.

use std::io;
use std::time::Instant;

use super::super::recovery::is_out_of_space;
use super::{Committer, RETRY_PAUSE, SyncFailed};
use crate::batch::{CommitRefusal, Exchange};
use crate::limits;

impl<E: Exchange> Committer<E> {
    /// Size of a new segment file: `--batch-bytes` and the blocks.
    pub(super) fn capacity(&self) -> u64 {
        self.spool.config.batch_bytes + 2 * self.frozen.len() as u64 + limits::SEGMENT_BLOCKS_BYTES
    }

    /// Checks that the spool's limit and the free disk space permit another segment file.
    pub(super) fn room(&self) -> Result<(), CommitRefusal> {
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
    pub(super) fn look_for_room(&mut self) -> Result<(), SyncFailed> {
        if self.must_seal {
            self.seal()?;
        }
        if self.open.is_none() && !self.must_seal {
            let room = match self.spool.metrics.refusal() {
                Some(CommitRefusal::WriteFailed) => self.write_again(),
                _ => self.recover_postponed().and_then(|()| self.room()),
            };
            self.spool.metrics.refuse(room.err());
        }
        Ok(())
    }

    /// Opens a segment to test a disk that refused a write: only a write shows that writes work
    /// again. Tried at most once per [`RETRY_PAUSE`].
    fn write_again(&mut self) -> Result<(), CommitRefusal> {
        if self.tried_writing.elapsed() < RETRY_PAUSE {
            return Err(CommitRefusal::WriteFailed);
        }
        self.tried_writing = Instant::now();
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
    if is_out_of_space(error) { CommitRefusal::DiskFull } else { CommitRefusal::WriteFailed }
}
