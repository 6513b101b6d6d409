//! Room for another segment: whether there is any, and how it comes back.

use std::io;
use std::time::Instant;

use super::super::recovery::is_want_of_room;
use super::{Committer, LOOK, SyncFailed};
use crate::batch::{CommitRefusal, Exchange};
use crate::limits;

impl<E: Exchange> Committer<E> {
    /// Bytes of a fresh segment's file: what seals it, and its blocks.
    pub(super) fn capacity(&self) -> u64 {
        self.spool.config.batch_bytes + self.frozen.len() as u64 + limits::SEGMENT_BLOCKS_BYTES
    }

    /// May another file be made?
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

    /// Without a segment, nobody would find out that there is room again, or none any more.
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

    /// Room says nothing about a disk that refuses writes: only a write does. At most once in
    /// [`LOOK`].
    fn write_again(&mut self) -> Result<(), CommitRefusal> {
        if self.tried_writing.elapsed() < LOOK {
            return Err(CommitRefusal::WriteFailed);
        }
        self.tried_writing = Instant::now();
        self.open_segment()
    }

    /// Recovers what a former run left and the start had no room for: older events first, and no
    /// new ones before. Copies at most once in [`LOOK`].
    pub(super) fn recover_postponed(&mut self) -> Result<(), CommitRefusal> {
        if self.spool.postponed() == 0 {
            return Ok(());
        }
        if self.tried_postponed.elapsed() < LOOK {
            return Err(CommitRefusal::DiskFull);
        }
        self.tried_postponed = Instant::now();
        loop {
            match self.spool.recover_postponed() {
                Ok(None) => return Ok(()),
                Ok(Some(segment)) => {
                    tracing::info!(segment = segment.number().get(), events = segment.rows(), "recovered");
                    // As in `seal`.
                    let _ = self.sealed.send(segment);
                }
                Err(error) => {
                    tracing::debug!(%error, "what a former run left can't be recovered yet");
                    return Err(refusal_of(&error));
                }
            }
        }
    }
}

pub(super) fn refusal_of(error: &io::Error) -> CommitRefusal {
    if is_want_of_room(error) { CommitRefusal::DiskFull } else { CommitRefusal::WriteFailed }
}
