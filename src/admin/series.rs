//! The last minute, a second at a time: what `/stats` and the dashboard draw.
//!
//! A thread of the admin side reads the counters once a second; nobody else has anything to do with
//! it. It also looks whether the ledger balances.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Admin;
use crate::clock::unix_ms;
use crate::intake::metrics::{Counter, WorkerMetrics};

/// Steps that are kept.
const STEPS: usize = 60;

/// From one look to the next.
const STEP: Duration = Duration::from_secs(1);

/// How often the log says that the ledger does not balance.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub struct Series {
    looks: Mutex<VecDeque<Sample>>,
}

/// The counters and gauges at one moment.
#[derive(Debug, Clone, Copy, Default)]
struct Sample {
    unix_ms: u64,
    requests: u64,
    accepted: u64,
    rejected: u64,
    inserted: u64,
    shed: u64,
    spooled: u64,
    spool_bytes: u64,
}

/// A list for each figure, the newest last: of counters what each step added, of gauges what its
/// end showed.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Steps {
    /// The end of each step, Unix ms.
    unix_ms: Vec<u64>,
    requests: Vec<u64>,
    events_accepted: Vec<u64>,
    events_rejected: Vec<u64>,
    events_inserted: Vec<u64>,
    shed: Vec<u64>,
    events_spooled: Vec<u64>,
    spool_bytes: Vec<u64>,
}

impl Series {
    /// Looks once a second, as long as the process lives.
    pub(super) fn run(&self, admin: &Admin) {
        let mut next = Instant::now();
        let mut said: Option<Instant> = None;
        loop {
            self.add(Sample::of(admin));
            let ledger = admin.spool.ledger();
            if !ledger.balances() && said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
                tracing::error!(?ledger, "the ledger does not balance: this is a bug of sluicegate, please report it");
                said = Some(Instant::now());
            }
            // A machine that slept is not made up for by a burst of looks.
            next = (next + STEP).max(Instant::now());
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    /// The steps that are known.
    pub(super) fn steps(&self) -> Steps {
        let looks = self.looks();
        let mut steps = Steps::default();
        for (before, after) in looks.iter().zip(looks.iter().skip(1)) {
            let added = |of: fn(&Sample) -> u64| of(after).saturating_sub(of(before));
            steps.unix_ms.push(after.unix_ms);
            steps.requests.push(added(|look| look.requests));
            steps.events_accepted.push(added(|look| look.accepted));
            steps.events_rejected.push(added(|look| look.rejected));
            steps.events_inserted.push(added(|look| look.inserted));
            steps.shed.push(added(|look| look.shed));
            steps.events_spooled.push(after.spooled);
            steps.spool_bytes.push(after.spool_bytes);
        }
        steps
    }

    fn add(&self, look: Sample) {
        let mut looks = self.looks();
        // One look more than steps: a step is what lies between two.
        if looks.len() > STEPS {
            looks.pop_front();
        }
        looks.push_back(look);
    }

    fn looks(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sample {
    fn of(admin: &Admin) -> Self {
        let total = |of: &dyn Fn(&WorkerMetrics) -> u64| -> u64 { admin.workers.iter().map(|worker| of(worker)).sum() };
        let all = |counters: &[Counter]| -> u64 { counters.iter().map(Counter::get).sum() };
        Self {
            unix_ms: unix_ms(),
            requests: total(&|worker| worker.replies.sent().map(|(_, count)| count).sum()),
            accepted: total(&|worker| worker.accepted.get()),
            rejected: total(&|worker| all(&worker.rejected)),
            inserted: admin.inserts.table.rows(),
            shed: total(&|worker| all(&worker.shed)),
            spooled: admin.spool.spooled_rows(),
            spool_bytes: admin.spool.spool_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_what_lies_between_two_looks_and_a_minute_is_kept() {
        let series = Series::default();
        assert_eq!(series.steps(), Steps::default());
        series.add(Sample { unix_ms: 1000, accepted: 5, spooled: 9, ..Sample::default() });
        assert_eq!(series.steps(), Steps::default());
        for second in 2..=100 {
            series.add(Sample { unix_ms: second * 1000, accepted: 5 + second, spooled: second, ..Sample::default() });
        }
        let steps = series.steps();
        assert_eq!((steps.unix_ms.len(), steps.requests.len()), (STEPS, STEPS));
        assert_eq!((steps.unix_ms.first(), steps.unix_ms.last()), (Some(&41_000), Some(&100_000)));
        assert!(steps.events_accepted.iter().all(|added| *added == 1), "{steps:?}");
        assert_eq!(steps.events_spooled.last(), Some(&100));
    }
}
