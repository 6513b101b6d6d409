//! What becomes of a batch that may be a repeat.

use crate::batch::CommitOutcome;

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::spool) enum Fate {
    /// What becomes of its group.
    Shared,
    /// This, whatever becomes of its group.
    Settled(CommitOutcome),
    /// This, if its group is committed.
    Echo(CommitOutcome),
}
