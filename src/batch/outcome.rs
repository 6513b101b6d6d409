//! The outcome of a batch: written by the committer, read by the batch's worker.

use super::identity::Summary;
use super::{Batch, BlockNumber};

/// Why the committer did not store a batch. All requests of the batch are answered 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitRefusal {
    /// The spool holds `--spool-bytes-max`.
    SpoolFull,
    /// The disk has less free space than `--disk-free-min`, or a write failed with ENOSPC.
    DiskFull,
    /// The process may open no more files.
    NoDescriptors,
    /// A write or a preallocation failed with another error.
    WriteFailed,
}

/// How the commit of a batch ended, or of one request of it that has an `Idempotency-Key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitOutcome {
    /// The batch is stored, as durably as `--durability` says.
    Committed {
        /// The block that contains the batch.
        block: BlockNumber,
    },
    /// The batch is stored without the events that had been stored before.
    Deduplicated {
        /// The newest block that contains events of the batch, new or repeated, and is not inserted
        /// yet; `None` when ClickHouse has all of them.
        block: Option<BlockNumber>,
        /// False when an older block that is not inserted yet contains events of the batch as well.
        certain: bool,
    },
    /// The request is a repeat: its key was seen before with the same body. Nothing is stored again.
    Repeated {
        /// The numbers in the reply to the first request.
        summary: Summary,
        /// The block that contains the first request; `None` when ClickHouse has it.
        block: Option<BlockNumber>,
    },
    /// The key of the request was seen before with another body. Nothing is stored.
    KeyReused,
    /// The key of a request that only asks was not seen before. Nothing is stored.
    NoRepeat,
    /// The batch is not stored.
    Refused(CommitRefusal),
}

/// How the outcome of a batch, or of a request with a key, follows from that of the group that is committed
/// together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeRule {
    /// The outcome of the group.
    OfGroup,
    /// This outcome, even if the group is refused: a request with the same key is committed.
    Fixed(CommitOutcome),
    /// This outcome if the group is committed, else the group's refusal.
    IfCommitted(CommitOutcome),
}

impl OutcomeRule {
    /// The outcome, once that of the group is known.
    pub fn outcome(self, group: CommitOutcome) -> CommitOutcome {
        match (self, group) {
            (Self::Fixed(outcome), _) => outcome,
            (Self::OfGroup, group) | (Self::IfCommitted(_), group @ CommitOutcome::Refused(_)) => group,
            (Self::IfCommitted(outcome), _) => outcome,
        }
    }
}

/// A batch that the committer returns to its worker.
#[derive(Debug)]
pub struct Returned {
    /// The batch with its contents; the worker clears it.
    pub batch: Batch,
    /// The outcome of the commit.
    pub outcome: CommitOutcome,
}

impl Returned {
    /// The outcome of the only request in the batch.
    pub fn of_only_request(&self) -> CommitOutcome {
        self.batch.keyed().first().map_or(self.outcome, |request| request.rule.outcome(self.outcome))
    }
}
