//! The identities of the events that were stored recently: the newest `--dedup-values-max` values
//! of the `--dedup-field`.

use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use super::log::HourlyLog;
use crate::batch::identity::{Id, of_event};
use crate::batch::{Batch, BlockNumber, CommitOutcome, OutcomeRule, TableIndex};
use crate::spool::layout::Layout;
use crate::spool::metrics::SpoolMetrics;

/// The remembered event identities.
pub(super) struct SeenEvents {
    /// Each identity, with that of its table in it, and the block that holds the event.
    known: HashMap<Id, BlockNumber>,
    /// The committed identities from the oldest on.
    by_age: VecDeque<Id>,
    /// The identities of the group that is being committed.
    pending: Vec<Id>,
    values_max: usize,
    metrics: Arc<SpoolMetrics>,
    /// What the identities of each table are mixed with: two tables may have the same.
    salts: Vec<Id>,
}

impl SeenEvents {
    /// Those that the logs of these tables have, and the logs.
    pub(super) fn open(
        layout: &Arc<Layout>,
        metrics: &Arc<SpoolMetrics>,
        values_max: usize,
        tables: &[TableIndex],
    ) -> io::Result<(Self, BTreeMap<TableIndex, HourlyLog<Id>>)> {
        let salts = layout.tables().iter().map(|table| of_event("table", table.as_bytes())).collect();
        let metrics = metrics.clone();
        let (known, by_age, pending) = (HashMap::new(), VecDeque::new(), Vec::new());
        let mut events = Self { known, by_age, pending, values_max, metrics: metrics.clone(), salts };
        let (mut logs, mut all) = (BTreeMap::new(), Vec::new());
        for table in tables.iter().copied() {
            let folder = layout.seen_dir(table);
            let (log, found) = HourlyLog::open(layout, &metrics, folder, values_max as u64, u64::MAX)?;
            all.extend(found.into_iter().map(|(block, second, id)| (second, block, events.salted(table, id))));
            logs.insert(table, log);
        }
        // The oldest first, of all tables; of one they are in their order.
        all.sort_by_key(|(second, ..)| *second);
        for (_, block, id) in all {
            events.remember(id, block);
        }
        events.forget_old();
        Ok((events, logs))
    }

    fn salted(&self, table: TableIndex, id: Id) -> Id {
        salted(self.salts.get(table.get()), &id)
    }

    pub(super) fn begin(&mut self, batch: &mut Batch, block: BlockNumber) -> OutcomeRule {
        // The blocks that hold the originals of repeats and are not inserted.
        let mut waiting = BTreeSet::new();
        let (known, pending, metrics) = (&mut self.known, &mut self.pending, &self.metrics);
        let salt = self.salts.get(batch.table.get());
        batch.remove_repeats(|id| {
            let id = salted(salt, id);
            match known.entry(id) {
                Entry::Vacant(place) => {
                    place.insert(block);
                    pending.push(id);
                    false
                }
                Entry::Occupied(original) => {
                    let original = *original.get();
                    if original == block || metrics.is_waiting(original) {
                        waiting.insert(original);
                    }
                    true
                }
            }
        });
        if batch.duplicates == 0 {
            return OutcomeRule::OfGroup;
        }
        if !batch.is_empty() {
            waiting.insert(block);
        }
        OutcomeRule::IfCommitted(CommitOutcome::Deduplicated {
            block: waiting.last().copied(),
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

    pub(super) fn recovered(&mut self, block: BlockNumber, table: TableIndex, ids: &[Id]) {
        for id in ids {
            self.remember(self.salted(table, *id), block);
        }
        self.forget_old();
    }

    #[cfg(test)]
    pub(super) fn knows(&self, id: &Id) -> bool {
        self.known.contains_key(&self.salted(TableIndex::default(), *id))
    }

    fn remember(&mut self, id: Id, block: BlockNumber) {
        if let Entry::Vacant(place) = self.known.entry(id) {
            place.insert(block);
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

/// An identity as it is remembered of a table with this salt.
fn salted(salt: Option<&Id>, id: &Id) -> Id {
    let Some(salt) = salt else { return *id };
    (u128::from_le_bytes(*id) ^ u128::from_le_bytes(*salt)).to_le_bytes()
}
