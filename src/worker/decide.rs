//! What became of a batch, as the replies of its requests take it; with either engine.

use std::time::Instant;

use crate::api::{Fault, KEY_REUSED};
use crate::connection::Kept;
use crate::figures::{Shed, WorkerFigures};
use crate::handoff::CommitOutcome;
use crate::outbox::Settled;

/// Counts the requests of a settled batch, and says what they are answered: as they are, with a
/// reply that waits for ClickHouse waiting until `until`, or with this fault.
pub(crate) fn decide(settled: &Settled, figures: &WorkerFigures, until: Instant) -> Result<Kept, Fault> {
    let requests = settled.waiters.len() as u64;
    figures.request_took(settled.elapsed, requests);
    let shed = |reason: Shed| {
        figures.shed(reason, requests);
        Err(Fault::from(reason))
    };
    let kept = Kept { segment: None, certain: true, until, first: None };
    match settled.outcome {
        Some(CommitOutcome::Committed { segment }) => {
            figures.reject(&settled.rejected);
            figures.accepted.add(u64::from(settled.rows));
            Ok(Kept { segment: Some(segment), ..kept })
        }
        Some(CommitOutcome::Deduplicated { segment, certain }) => {
            figures.reject(&settled.rejected);
            figures.accepted.add(u64::from(settled.rows) + u64::from(settled.duplicates));
            figures.duplicates.add(settled.duplicates.into());
            Ok(Kept { segment, certain, ..kept })
        }
        Some(CommitOutcome::Repeated { figures: first, segment }) => {
            figures.repeated.add(requests);
            Ok(Kept { segment, first: Some(first).filter(|_| settled.keyed != Some(first)), ..kept })
        }
        Some(CommitOutcome::KeyReused) => Err(KEY_REUSED),
        Some(CommitOutcome::Refused(refusal)) => shed(refusal.into()),
        None => shed(Shed::CommitTimeout),
    }
}
