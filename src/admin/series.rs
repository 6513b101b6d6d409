//! The time series of the last minute in `/stats`, one value per second.
//!
//! A thread of the admin address samples the counters once a second. It also checks that the ledger
//! balances.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Admin;
use crate::clock::unix_ms;
use crate::intake::metrics::{Counter, WorkerMetrics};

/// Number of steps that are kept.
const STEPS: usize = 60;

/// Time from one sample to the next.
const STEP: Duration = Duration::from_secs(1);

/// Pause between two log messages that the ledger does not balance.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// The samples of the last minute.
#[derive(Debug, Default)]
pub struct Series {
    samples: Mutex<VecDeque<Sample>>,
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

/// The time series, each with one value per step, the newest last: the increase of a counter during
/// the step, or the value of a gauge at its end.
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
    /// Takes a sample every second until the process ends.
    pub(super) fn run(&self, admin: &Admin) {
        let mut next = Instant::now();
        let mut logged: Option<Instant> = None;
        loop {
            self.add(Sample::of(admin));
            let ledger = admin.spool.ledger();
            if !ledger.balances() && logged.is_none_or(|logged| logged.elapsed() >= LOG_PAUSE) {
                tracing::error!(?ledger, "the ledger does not balance: this is a bug of sluicegate, please report it");
                logged = Some(Instant::now());
            }
            // Samples that were missed while the machine slept are not made up for.
            next = (next + STEP).max(Instant::now());
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    /// The steps between the samples so far.
    pub(super) fn steps(&self) -> Steps {
        let samples = self.samples();
        let mut steps = Steps::default();
        for (before, after) in samples.iter().zip(samples.iter().skip(1)) {
            let added = |of: fn(&Sample) -> u64| of(after).saturating_sub(of(before));
            steps.unix_ms.push(after.unix_ms);
            steps.requests.push(added(|sample| sample.requests));
            steps.events_accepted.push(added(|sample| sample.accepted));
            steps.events_rejected.push(added(|sample| sample.rejected));
            steps.events_inserted.push(added(|sample| sample.inserted));
            steps.shed.push(added(|sample| sample.shed));
            steps.events_spooled.push(after.spooled);
            steps.spool_bytes.push(after.spool_bytes);
        }
        steps
    }

    fn add(&self, sample: Sample) {
        let mut samples = self.samples();
        // A step lies between two samples, so one sample more than steps is kept.
        if samples.len() > STEPS {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    fn samples(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
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
            inserted: admin.inserts.rows(false),
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
    fn a_step_is_the_difference_of_two_samples_and_a_minute_is_kept() {
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
