//! The time series of the last 15 minutes in `/stats`, one value per second.
//!
//! A thread of the admin address samples the counters once a second. It also checks that the ledger
//! balances, and asks how much of the disk is free.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Admin;
use super::snapshot::{quantile, request_times};
use crate::clock::unix_ms;
use crate::intake::metrics::{Counter, REQUEST_SECONDS, WorkerMetrics};
use crate::spool;

/// Number of steps that are kept, 200 bytes each.
const STEPS: usize = 900;

/// Time from one sample to the next.
const STEP: Duration = Duration::from_secs(1);

/// Pause between two log messages that the ledger does not balance.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// The disk has not said how much of it is free.
const UNKNOWN: u64 = u64::MAX;

/// The samples of the last 15 minutes.
#[derive(Debug)]
pub struct Series {
    samples: Mutex<VecDeque<Sample>>,
    /// Free bytes of the spool's disk, or [`UNKNOWN`].
    disk_free: AtomicU64,
}

impl Default for Series {
    fn default() -> Self {
        Self { samples: Mutex::default(), disk_free: AtomicU64::new(UNKNOWN) }
    }
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
    connections: u64,
    /// Requests with events by their time, see [`REQUEST_SECONDS`].
    request_times: [u64; REQUEST_SECONDS.len() + 1],
}

/// The time series, each with one value per step, the newest last: the increase of a counter during
/// the step, or the value of a gauge at its end.
#[derive(Debug, Default, PartialEq, Serialize)]
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
    connections: Vec<u64>,
    /// Quantiles of the time of the step's requests with events, in seconds; `None` without any.
    request_p50_seconds: Vec<Option<f64>>,
    request_p99_seconds: Vec<Option<f64>>,
}

impl Series {
    /// Takes a sample every second until the process ends.
    pub(super) fn run(&self, admin: &Admin) {
        let mut next = Instant::now();
        let mut logged: Option<Instant> = None;
        loop {
            self.add(Sample::of(admin));
            self.disk_free.store(spool::free_bytes(&admin.spool_limits.dir).unwrap_or(UNKNOWN), Relaxed);
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

    /// Free bytes of the spool's disk a moment ago; `None` where the system does not say.
    pub(super) fn disk_free(&self) -> Option<u64> {
        Some(self.disk_free.load(Relaxed)).filter(|free| *free != UNKNOWN)
    }

    /// The steps between the samples so far that ended after `since`, Unix ms.
    pub(super) fn steps(&self, since: u64) -> Steps {
        let samples = self.samples();
        let mut steps = Steps::default();
        let pairs = samples.iter().zip(samples.iter().skip(1));
        for (before, after) in pairs.filter(|(_, after)| after.unix_ms > since) {
            let added = |of: fn(&Sample) -> u64| of(after).saturating_sub(of(before));
            steps.unix_ms.push(after.unix_ms);
            steps.requests.push(added(|sample| sample.requests));
            steps.events_accepted.push(added(|sample| sample.accepted));
            steps.events_rejected.push(added(|sample| sample.rejected));
            steps.events_inserted.push(added(|sample| sample.inserted));
            steps.shed.push(added(|sample| sample.shed));
            steps.events_spooled.push(after.spooled);
            steps.spool_bytes.push(after.spool_bytes);
            steps.connections.push(after.connections);
            let counts = after.request_times.iter().zip(before.request_times);
            let added = REQUEST_SECONDS.into_iter().chain([f64::INFINITY]);
            let buckets = added.zip(counts.map(|(after, before)| after.saturating_sub(before)));
            steps.request_p50_seconds.push(quantile(buckets.clone(), 0.5));
            steps.request_p99_seconds.push(quantile(buckets, 0.99));
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
            connections: total(&|worker| worker.connections.get()),
            request_times: request_times(&admin.workers).0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_the_difference_of_two_samples_and_fifteen_minutes_are_kept() {
        let series = Series::default();
        assert_eq!(series.steps(0), Steps::default());
        let mut request_times = [0; REQUEST_SECONDS.len() + 1];
        request_times[2] = 7;
        let first = Sample { unix_ms: 1000, accepted: 5, spooled: 9, request_times, ..Sample::default() };
        series.add(first);
        assert_eq!(series.steps(0), Steps::default());
        for second in 2..=1000 {
            request_times[1] += 10;
            let (unix_ms, accepted, spooled) = (second * 1000, 5 + second, second);
            series.add(Sample { unix_ms, accepted, spooled, request_times, ..Sample::default() });
        }
        let steps = series.steps(0);
        assert_eq!((steps.unix_ms.len(), steps.requests.len()), (STEPS, STEPS));
        assert_eq!((steps.unix_ms.first(), steps.unix_ms.last()), (Some(&101_000), Some(&1_000_000)));
        assert!(steps.events_accepted.iter().all(|added| *added == 1), "{steps:?}");
        assert_eq!(steps.events_spooled.last(), Some(&1000));
        let median = (REQUEST_SECONDS[0] + REQUEST_SECONDS[1]) / 2.0;
        assert!(steps.request_p50_seconds.iter().all(|found| (found.unwrap() - median).abs() < 1e-9), "{steps:?}");
        assert_eq!(series.steps(998_000).unix_ms, [999_000, 1_000_000]);
        assert_eq!(series.steps(1_000_000), Steps::default());
        series.add(Sample { unix_ms: 1_001_000, request_times, ..Sample::default() });
        assert_eq!(series.steps(1_000_000).request_p99_seconds, [None], "no request came in this step");
    }
}
