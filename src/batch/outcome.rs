//! What became of a batch: written by the committer, read by the worker that it returns to.

use super::identity::Summary;
use super::{Batch, SegmentNumber};

/// Why the committer did not store a batch. Nothing of it was promised; all of its requests get 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitRefusal {
    /// The spool holds `--spool-bytes-max`.
    SpoolFull,
    /// The disk has less than `--disk-free-min` left, or said that it is full.
    DiskFull,
    /// A write or a preallocation failed for another reason.
    WriteFailed,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitOutcome {
    /// Stored as durably as `--durability` says, in this segment.
    Committed {
        /// The number of the segment that holds it.
        segment: SegmentNumber,
    },
    /// Stored but for the events that were stored before.
    Deduplicated {
        /// The newest segment that holds events of it, while any is not inserted.
        segment: Option<SegmentNumber>,
        /// False when there is another one that is not inserted either.
        certain: bool,
    },
    /// Its request's key came before, with the same body: nothing is stored again.
    Repeated {
        /// What the first one was answered.
        summary: Summary,
        /// The segment that holds it, while that is not inserted.
        segment: Option<SegmentNumber>,
    },
    /// Its request's key came before, with another body: nothing is stored.
    KeyReused,
    /// Not stored.
    Refused(CommitRefusal),
}

/// A batch on its way home.
#[derive(Debug)]
pub struct Returned {
    /// The batch, still with its contents; the worker clears it.
    pub batch: Batch,
    /// What became of it.
    pub outcome: CommitOutcome,
}
