//! The requests with an `Idempotency-Key` that were stored recently. A key is remembered for
//! [`SECONDS_MAX`] in which the server runs, or until `--idempotency-keys-max` newer keys were stored.

use std::collections::hash_map::{Entry, HashMap};
use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::log::HourlyLog;
use crate::batch::identity::{BodyHash, BodyHashing, Id, RequestKey, Summary};
use crate::batch::{BlockNumber, CommitOutcome, OutcomeRule};
use crate::spool::layout::Layout;
use crate::spool::metrics::SpoolMetrics;

/// The longest time that a key is remembered, in seconds.
pub const SECONDS_MAX: u64 = 24 * 3600;

/// The remembered request keys, with what each request was answered.
pub(super) struct Requests {
    known: HashMap<Id, StoredRequest>,
    /// The committed keys from the oldest on, each with the second of its commit.
    by_age: VecDeque<(Id, u64)>,
    /// The keys of the group that is being committed.
    pending: HashSet<Id>,
    keys_max: usize,
    metrics: Arc<SpoolMetrics>,
    bodies: Arc<BodyHashing>,
    /// How many of those that are known an older release has hashed.
    former: usize,
}

/// What is remembered of a stored request: the hash of its body, its reply, and its block.
#[derive(Debug, Clone, Copy)]
struct StoredRequest {
    body: BodyHash,
    summary: Summary,
    block: BlockNumber,
}

impl Requests {
    /// Those that the log has, and the log.
    pub(super) fn open(
        layout: &Arc<Layout>,
        metrics: &Arc<SpoolMetrics>,
        keys_max: usize,
    ) -> io::Result<(Self, HourlyLog<RequestKey>)> {
        let folder = layout.keys_dir();
        let (log, found) = HourlyLog::open(layout, metrics, folder, keys_max as u64, SECONDS_MAX)?;
        let (metrics, bodies) = (metrics.clone(), layout.bodies().clone());
        let (known, by_age, pending) = (HashMap::new(), VecDeque::new(), HashSet::new());
        let mut requests = Self { known, by_age, pending, keys_max, metrics, bodies, former: 0 };
        for (block, second, key) in found {
            requests.remember(&key, block, second);
        }
        Ok((requests, log))
    }

    /// When the newest of them came.
    pub(super) fn newest_second(&self) -> Option<u64> {
        self.by_age.iter().map(|(_, second)| *second).max()
    }

    /// The outcome rule of a request with this key.
    pub(super) fn rule(&self, key: &RequestKey) -> OutcomeRule {
        let Some(stored) = self.known.get(&key.id) else { return OutcomeRule::OfGroup };
        let pending = self.pending.contains(&key.id);
        let outcome = if key.body.may_be(&stored.body) {
            let block = (pending || self.metrics.is_waiting(stored.block)).then_some(stored.block);
            CommitOutcome::Repeated { summary: stored.summary, block }
        } else {
            CommitOutcome::KeyReused
        };
        if pending { OutcomeRule::IfCommitted(outcome) } else { OutcomeRule::Fixed(outcome) }
    }

    /// Notes that the request with this key joins the group that is committed to `block`.
    pub(super) fn begin(&mut self, key: &RequestKey, block: BlockNumber) {
        self.known.insert(key.id, StoredRequest { body: key.body, summary: key.summary, block });
        self.pending.insert(key.id);
    }

    /// Notes that the group was committed at the second `now`.
    pub(super) fn committed(&mut self, now: u64) {
        if self.pending.is_empty() {
            return;
        }
        self.by_age.extend(self.pending.drain().map(|id| (id, now)));
        self.forget_old(now);
    }

    /// Forgets the keys of the group, which was not committed.
    pub(super) fn refused(&mut self) {
        for id in self.pending.drain() {
            self.known.remove(&id);
        }
    }

    /// Remembers the keys of a recovered block.
    pub(super) fn recovered(&mut self, block: BlockNumber, keys: &[RequestKey], now: u64) {
        for key in keys {
            self.remember(key, block, now);
        }
        self.forget_old(now);
    }

    fn remember(&mut self, key: &RequestKey, block: BlockNumber, second: u64) {
        if let Entry::Vacant(place) = self.known.entry(key.id) {
            place.insert(StoredRequest { body: key.body, summary: key.summary, block });
            self.by_age.push_back((key.id, second));
            self.former += usize::from(key.body.is_former());
            self.bodies.remember_former(self.former > 0);
        }
    }

    /// Forgets the keys that are too old at the second `now`, and the oldest beyond `keys_max`.
    pub(super) fn forget_old(&mut self, now: u64) {
        let is_old = |second: u64| second.saturating_add(SECONDS_MAX) <= now;
        while let Some((id, second)) = self.by_age.front()
            && (self.by_age.len() > self.keys_max || is_old(*second))
        {
            let forgotten = self.known.remove(id);
            self.by_age.pop_front();
            if forgotten.is_some_and(|stored| stored.body.is_former()) {
                self.former = self.former.saturating_sub(1);
                self.bodies.remember_former(self.former > 0);
            }
        }
        // A full map reaches back only to its oldest key.
        let horizon = self.by_age.front().filter(|_| self.by_age.len() >= self.keys_max);
        let age = horizon.map(|(_, second)| Duration::from_secs(now.saturating_sub(*second)));
        self.metrics.keys(self.by_age.len() as u64, age);
    }
}
