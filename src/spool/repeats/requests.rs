//! The requests with an `Idempotency-Key` that were taken lately: for [`SECONDS_MAX`], or until
//! `--idempotency-keys-max` newer ones were.

use std::collections::hash_map::{Entry, HashMap};
use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;

use super::fate::Fate;
use super::log::HourlyLog;
use crate::batch::identity::{Id, RequestKey, Summary};
use crate::batch::{CommitOutcome, SegmentNumber};
use crate::spool::layout::Layout;
use crate::spool::metrics::SpoolMetrics;
use crate::spool::storage::SealError;

/// How long a key is remembered.
pub const SECONDS_MAX: u64 = 24 * 3600;

/// See the module.
pub(super) struct Requests {
    known: HashMap<Id, Taken>,
    /// The committed ones by age, with the second in which they came.
    by_age: VecDeque<(Id, u64)>,
    /// Those of the group that is being committed.
    pending: HashSet<Id>,
    keys_max: usize,
    log: HourlyLog<RequestKey>,
    metrics: Arc<SpoolMetrics>,
}

/// A request that was taken.
#[derive(Debug, Clone, Copy)]
struct Taken {
    body: [u8; 8],
    metrics: Summary,
    segment: SegmentNumber,
}

impl Requests {
    /// Those that the logs have, at the second `now`.
    pub(super) fn open(
        layout: &Arc<Layout>,
        metrics: &Arc<SpoolMetrics>,
        keys_max: usize,
        now: u64,
    ) -> io::Result<Self> {
        let folder = layout.keys_dir();
        let (log, found) = HourlyLog::open(layout, metrics, folder, keys_max as u64, SECONDS_MAX)?;
        let metrics = metrics.clone();
        let (known, by_age, pending) = (HashMap::new(), VecDeque::new(), HashSet::new());
        let mut requests = Self { known, by_age, pending, keys_max, log, metrics };
        for (segment, second, key) in found {
            requests.remember(&key, segment, second);
        }
        requests.forget_old(now);
        Ok(requests)
    }

    /// What becomes of a batch that has this key.
    pub(super) fn fate(&self, key: &RequestKey) -> Fate {
        let Some(taken) = self.known.get(&key.id) else { return Fate::Shared };
        let pending = self.pending.contains(&key.id);
        let outcome = if taken.body == key.body {
            let segment = (pending || self.metrics.is_waiting(taken.segment)).then_some(taken.segment);
            CommitOutcome::Repeated { summary: taken.metrics, segment }
        } else {
            CommitOutcome::KeyReused
        };
        if pending { Fate::Echo(outcome) } else { Fate::Settled(outcome) }
    }

    /// The request of this key is about to be committed to a segment.
    pub(super) fn begin(&mut self, key: &RequestKey, segment: SegmentNumber) {
        self.known.insert(key.id, Taken { body: key.body, metrics: key.summary, segment });
        self.pending.insert(key.id);
    }

    /// The commit of all that was begun is done, at the second `now`.
    pub(super) fn committed(&mut self, now: u64) {
        if self.pending.is_empty() {
            return;
        }
        self.by_age.extend(self.pending.drain().map(|id| (id, now)));
        self.forget_old(now);
    }

    /// The commit of all that was begun has failed: it was never there.
    pub(super) fn refused(&mut self) {
        for id in self.pending.drain() {
            self.known.remove(&id);
        }
    }

    /// Logs the keys of a segment, durably: it may be sealed then.
    pub(super) fn log(&mut self, segment: SegmentNumber, keys: &[RequestKey], now: u64) -> Result<(), SealError> {
        if keys.is_empty() { Ok(()) } else { self.log.append(segment, keys, now) }
    }

    /// Remembers the keys of a segment that a former run left.
    pub(super) fn recovered(&mut self, segment: SegmentNumber, keys: &[RequestKey], now: u64) {
        for key in keys {
            self.remember(key, segment, now);
        }
        self.forget_old(now);
    }

    fn remember(&mut self, key: &RequestKey, segment: SegmentNumber, second: u64) {
        if let Entry::Vacant(place) = self.known.entry(key.id) {
            place.insert(Taken { body: key.body, metrics: key.summary, segment });
            self.by_age.push_back((key.id, second));
        }
    }

    /// Forgets what is too old at the second `now`, or one too many.
    pub(super) fn forget_old(&mut self, now: u64) {
        let is_old = |second: u64| second.saturating_add(SECONDS_MAX) <= now;
        while let Some((id, second)) = self.by_age.front()
            && (self.by_age.len() > self.keys_max || is_old(*second))
        {
            self.known.remove(id);
            self.by_age.pop_front();
        }
        // The map is full: what it reaches back to is less than the whole time.
        let horizon = self.by_age.front().filter(|_| self.by_age.len() >= self.keys_max);
        self.metrics.keys(self.by_age.len() as u64, horizon.map(|(_, second)| *second));
    }
}
