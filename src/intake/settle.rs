//! The effect of a batch's outcome on the replies of its requests, for both engines.

use std::time::Instant;

use crate::api::Shed;
use crate::api::{Fault, KEY_REUSED, OVER_RATE};
use crate::batch::CommitOutcome;
use crate::connection::Committed;
use crate::intake::Shared;
use crate::intake::metrics::WorkerMetrics;
use crate::intake::outbox::Settled;

/// Counts the requests of a settled batch, and decides on their replies: `Ok` sends them, those with
/// `ack=inserted` at `until` at the latest; `Err` replaces them by the error.
pub(crate) fn decide(
    settled: &Settled,
    shared: &Shared,
    metrics: &WorkerMetrics,
    until: Instant,
) -> Result<Committed, Fault> {
    let requests = settled.waiters.len() as u64;
    metrics.request_took(settled.elapsed, requests);
    shared.quotas.settle(&settled.debits, settled.outcome);
    let shed = |reason: Shed| {
        metrics.shed(reason, requests);
        Err(Fault::from(reason))
    };
    let committed = Committed { block: None, certain: true, until, first: None };
    match settled.outcome {
        Some(CommitOutcome::Committed { block }) => {
            metrics.reject(&settled.rejected);
            metrics.accept(settled.table, settled.rows.into());
            Ok(Committed { block: Some(block), ..committed })
        }
        Some(CommitOutcome::Deduplicated { block, certain }) => {
            metrics.reject(&settled.rejected);
            metrics.accept(settled.table, u64::from(settled.rows) + u64::from(settled.duplicates));
            metrics.duplicates.add(settled.duplicates.into());
            Ok(Committed { block, certain, ..committed })
        }
        Some(CommitOutcome::Repeated { summary: first, block }) => {
            metrics.repeated.add(requests);
            Ok(Committed { block, first: Some(first).filter(|_| settled.keyed != Some(first)), ..committed })
        }
        Some(CommitOutcome::KeyReused) => Err(KEY_REUSED),
        Some(CommitOutcome::NoRepeat) => Err(settled.over.unwrap_or(OVER_RATE)),
        Some(CommitOutcome::Refused(refusal)) => shed(Shed::Commit(refusal)),
        None => shed(Shed::CommitTimeout),
    }
}
