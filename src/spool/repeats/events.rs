//! The identities of the events that were stored recently: the newest `--dedup-values-max` values
//! of the `--dedup-field`.

use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use super::log::HourlyLog;
use super::outcome_rule::OutcomeRule;
use crate::batch::identity::Id;
use crate::batch::{Batch, CommitOutcome, SegmentNumber};
use crate::spool::layout::Layout;
use crate::spool::metrics::SpoolMetrics;

/// The remembered event identities.
pub(super) struct SeenEvents {
    /// Each identity with the segment that holds the event.
    known: HashMap<Id, SegmentNumber>,
    /// The committed identities from the oldest on.
    by_age: VecDeque<Id>,
    /// The identities of the group that is being committed.
    pending: Vec<Id>,
    values_max: usize,
    metrics: Arc<SpoolMetrics>,
}

impl SeenEvents {
    /// Those that the log has, and the log.
    pub(super) fn open(
        layout: &Arc<Layout>,
        metrics: &Arc<SpoolMetrics>,
        values_max: usize,
    ) -> io::Result<(Self, HourlyLog<Id>)> {
        let folder = layout.seen_dir();
        let (log, found) = HourlyLog::open(layout, metrics, folder, values_max as u64, u64::MAX)?;
        let metrics = metrics.clone();
        let (known, by_age, pending) = (HashMap::new(), VecDeque::new(), Vec::new());
        let mut events = Self { known, by_age, pending, values_max, metrics };
        for (segment, _, id) in found {
            events.remember(id, segment);
        }
        events.forget_old();
        Ok((events, log))
    }

    pub(super) fn begin(&mut self, batch: &mut Batch, segment: SegmentNumber) -> OutcomeRule {
        // The segments that hold the originals of repeats and are not inserted.
        let mut waiting = BTreeSet::new();
        let (known, pending, metrics) = (&mut self.known, &mut self.pending, &self.metrics);
        batch.remove_repeats(|id| match known.entry(*id) {
            Entry::Vacant(place) => {
                place.insert(segment);
                pending.push(*id);
                false
            }
            Entry::Occupied(original) => {
                let original = *original.get();
                if original == segment || metrics.is_waiting(original) {
                    waiting.insert(original);
                }
                true
            }
        });
        if batch.duplicates == 0 {
            return OutcomeRule::OfGroup;
        }
        if !batch.is_empty() {
            waiting.insert(segment);
        }
        OutcomeRule::IfCommitted(CommitOutcome::Deduplicated {
            segment: waiting.last().copied(),
            certain: waiting.len() <= 1,
        })
    }

    pub(super) fn committed(&mut self) {
        self.by_age.extend(self.pending.drain(..));
        self.forget_old();
    }

    pub(super) fn refused(&mut self) {
        for id in self.pending.drain(..) {
            self.known.remove(&id);
        }
    }

    pub(super) fn recovered(&mut self, segment: SegmentNumber, ids: &[Id]) {
        for id in ids {
            self.remember(*id, segment);
        }
        self.forget_old();
    }

    #[cfg(test)]
    pub(super) fn knows(&self, id: &Id) -> bool {
        self.known.contains_key(id)
    }

    fn remember(&mut self, id: Id, segment: SegmentNumber) {
        if let Entry::Vacant(place) = self.known.entry(id) {
            place.insert(segment);
            self.by_age.push_back(id);
        }
    }

    fn forget_old(&mut self) {
        while self.by_age.len() > self.values_max
            && let Some(id) = self.by_age.pop_front()
        {
            self.known.remove(&id);
        }
    }
}
