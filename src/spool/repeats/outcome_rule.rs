//! How the outcome of a batch follows from that of its group.

use crate::batch::CommitOutcome;

/// The rule that gives a batch its outcome when its group has been committed or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::spool) enum OutcomeRule {
    /// The outcome of the group.
    OfGroup,
    /// This outcome, even if the group is refused: a request with the same key is committed.
    Fixed(CommitOutcome),
    /// This outcome if the group is committed, else the group's refusal.
    IfCommitted(CommitOutcome),
}
