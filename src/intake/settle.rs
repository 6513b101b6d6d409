//! The effect of a batch's outcome on the replies of its requests, for both engines.

use std::time::Instant;

use crate::api::Shed;
use crate::api::{Fault, KEY_REUSED, OVER_RATE};
use crate::batch::CommitOutcome;
use crate::connection::Committed;
use crate::intake::Shared;
use crate::intake::metrics::WorkerMetrics;
use crate::intake::outbox::Settled;

/// Counts and shows the requests of a settled batch, and gives back what those that stored nothing were charged.
pub(crate) fn count(settled: &mut Settled, shared: &Shared, metrics: &WorkerMetrics) {
    // Before they are counted: what is counted and not shown is left out.
    if !settled.samples.is_empty() {
        shared.live.publish(settled);
    }
    let requests = settled.waiters.len() as u64;
    metrics.request_took(settled.elapsed, requests);
    shared.quotas.settle(&settled.debits, |keyed| settled.outcome_of(keyed));
    // Those of a batch that came back too late were answered, and counted, before.
    let once = requests.min(1);
    for keyed in &settled.keyed {
        match keyed.outcome {
            Some(CommitOutcome::Committed { .. } | CommitOutcome::Deduplicated { .. }) => {
                metrics.reject(settled.table, &keyed.rejected);
            }
            Some(CommitOutcome::Repeated { .. }) => metrics.repeated.add(once),
            Some(CommitOutcome::Refused(refusal)) => metrics.shed(Shed::Commit(refusal), once),
            Some(CommitOutcome::KeyReused | CommitOutcome::NoRepeat) | None => {}
        }
    }
    let others = requests.saturating_sub(settled.keyed.len() as u64);
    match settled.outcome {
        Some(CommitOutcome::Refused(refusal)) => metrics.shed(Shed::Commit(refusal), others),
        Some(_) => {
            let (stored, duplicates) = (u64::from(settled.rows), u64::from(settled.duplicates));
            metrics.accept(settled.table, stored + duplicates, duplicates);
        }
        None => metrics.shed(Shed::CommitTimeout, others),
    }
}

/// Decides on the reply to a request of a settled batch, by its place among those with a key: `Ok` sends it,
/// with `ack=inserted` at `until` at the latest; `Err` replaces it by the error.
pub(crate) fn decide(settled: &Settled, keyed: Option<usize>, until: Instant) -> Result<Committed, Fault> {
    let committed = Committed { block: None, certain: true, until, first: None };
    let request = keyed.and_then(|keyed| settled.keyed.get(keyed));
    match settled.outcome_of(keyed) {
        Some(CommitOutcome::Committed { block }) => Ok(Committed { block: Some(block), ..committed }),
        Some(CommitOutcome::Deduplicated { block, certain }) => Ok(Committed { block, certain, ..committed }),
        Some(CommitOutcome::Repeated { summary: first, block }) => {
            let is_same = request.is_some_and(|request| request.summary == first);
            Ok(Committed { block, first: Some(first).filter(|_| !is_same), ..committed })
        }
        Some(CommitOutcome::KeyReused) => Err(KEY_REUSED),
        Some(CommitOutcome::NoRepeat) => Err(request.and_then(|request| request.over).unwrap_or(OVER_RATE)),
        Some(CommitOutcome::Refused(refusal)) => Err(Shed::Commit(refusal).into()),
        None => Err(Shed::CommitTimeout.into()),
    }
}
