//! Detection of repeats, which store nothing: requests by their `Idempotency-Key`, and events by
//! the value of `--dedup-field`.
//!
//! The committer owns both maps, the keeper their logs. The committer alone decides what is stored, so two
//! copies of the same request or event can't both be taken for new.
//!
//! An identity is stored in the same frame as the rows it belongs to, so a crash keeps or loses both
//! together. When the block is sealed, its identities are also written to a log ([`log`]), because
//! a start reads no frames of sealed blocks. A detected repeat costs no sync of its own.

mod events;
mod log;
mod requests;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use events::SeenEvents;
use log::HourlyLog;
use requests::Requests;
pub use requests::SECONDS_MAX;

use super::layout::Layout;
use super::metrics::SpoolMetrics;
use super::storage::SealError;
use crate::batch::identity::{Id, REQUEST_KEY_BYTES, RequestKey};
use crate::batch::{Batch, BlockNumber, CommitOutcome, KeyedRequest, OutcomeRule, TableIndex};
use crate::clock::SteadyClock;

/// The request keys and event identities of a block.
#[derive(Debug, Default)]
pub(super) struct Identities {
    pub(super) keys: Vec<RequestKey>,
    pub(super) ids: Vec<Id>,
}

impl Identities {
    /// Adds the identities of a frame.
    pub(super) fn add(&mut self, keys: &[[u8; REQUEST_KEY_BYTES]], ids: &[Id]) {
        self.keys.extend(keys.iter().map(RequestKey::decode));
        self.ids.extend_from_slice(ids);
    }
}

/// The identities that are remembered: of requests, and of events.
pub(super) struct Repeats {
    requests: Requests,
    events: SeenEvents,
    clock: SteadyClock,
}

impl Repeats {
    /// What the logs have, and the logs: of all request keys, and of the event identities of each of the tables
    /// in `identified`.
    pub(super) fn open(
        layout: &Arc<Layout>,
        metrics: &Arc<SpoolMetrics>,
        keys_max: usize,
        values_max: usize,
        identified: &[TableIndex],
    ) -> io::Result<(Self, IdentityLogs)> {
        let (mut requests, keys) = Requests::open(layout, metrics, keys_max)?;
        // Time goes on where the newest key was taken, whatever the wall clock says by now: a step of it, forward
        // or back, would let keys be forgotten too early, and nothing tells a step from time that has passed.
        let clock = SteadyClock::start(requests.newest_second().unwrap_or_else(|| layout.storage().unix_seconds()));
        requests.forget_old(clock.seconds());
        let (events, seen) = SeenEvents::open(layout, metrics, values_max, identified)?;
        Ok((Self { requests, events, clock }, IdentityLogs { keys, seen, clock, recovered: Vec::new() }))
    }

    /// Says of each request with a key in the batch whether it is a repeat, as far as is known before the batch
    /// joins a group. False if nothing in the batch is new, so that nothing of it is stored.
    pub(super) fn look(&self, batch: &mut Batch) -> bool {
        for request in batch.keyed_mut() {
            request.rule = self.requests.rule(&request.key);
        }
        let has_news = batch.has_news();
        if !has_news {
            batch.keyed_mut().iter_mut().for_each(conclude_asking);
            batch.remove_repeated_requests();
        }
        has_news
    }

    /// Notes that a batch with something new joins the group that is committed to `block`. Remembers its
    /// identities, and removes the requests and events that are repeats, which may leave the batch empty.
    pub(super) fn begin(&mut self, batch: &mut Batch, block: BlockNumber) -> OutcomeRule {
        for request in batch.keyed_mut().iter_mut().filter(|request| request.rule == OutcomeRule::OfGroup) {
            // One before it in the batch may have the same key.
            request.rule = self.requests.rule(&request.key);
            conclude_asking(request);
            if request.rule == OutcomeRule::OfGroup {
                self.requests.begin(&request.key, block);
            }
        }
        batch.remove_repeated_requests();
        if batch.ids.is_empty() { OutcomeRule::OfGroup } else { self.events.begin(batch, block) }
    }

    #[cfg(test)]
    pub(super) fn rule(&self, key: &RequestKey) -> OutcomeRule {
        self.requests.rule(key)
    }

    /// The commit of all that was begun is done.
    pub(super) fn committed(&mut self) {
        self.requests.committed(self.clock.seconds());
        self.events.committed();
    }

    /// Forgets the identities of the group, which was not committed.
    pub(super) fn refused(&mut self) {
        self.requests.refused();
        self.events.refused();
    }

    /// Remembers the identities of blocks that a former run left.
    pub(super) fn remember(&mut self, recovered: Vec<(BlockNumber, TableIndex, Identities)>) {
        let now = self.clock.seconds();
        for (block, table, found) in recovered {
            self.requests.recovered(block, &found.keys, now);
            self.events.recovered(block, table, &found.ids);
        }
    }

    /// Forgets the keys that are too old.
    pub(super) fn forget_old(&mut self) {
        self.requests.forget_old(self.clock.seconds());
    }
}

/// A request that only asks, and is no repeat, is told so.
fn conclude_asking(request: &mut KeyedRequest) {
    if request.only_asks && request.rule == OutcomeRule::OfGroup {
        request.rule = OutcomeRule::Fixed(CommitOutcome::NoRepeat);
    }
}

/// The logs of the identities in sealed blocks.
pub(super) struct IdentityLogs {
    keys: HourlyLog<RequestKey>,
    seen: BTreeMap<TableIndex, HourlyLog<Id>>,
    clock: SteadyClock,
    recovered: Vec<(BlockNumber, TableIndex, Identities)>,
}

impl IdentityLogs {
    /// Logs the identities of a block of a table, durably: it may be sealed then.
    pub(super) fn log(&mut self, block: BlockNumber, table: TableIndex, found: &Identities) -> Result<(), SealError> {
        let now = self.clock.seconds();
        if !found.keys.is_empty() {
            self.keys.append(block, &found.keys, now)?;
        }
        match self.seen.get_mut(&table) {
            Some(seen) if !found.ids.is_empty() => seen.append(block, &found.ids, now),
            _ => Ok(()),
        }
    }

    /// Logs the identities of a block that a former run left, and keeps them to be remembered. Those of a
    /// block of this run are known since their commit, and some may be forgotten again by now: they would
    /// come back as the newest.
    pub(super) fn recovered(
        &mut self,
        block: BlockNumber,
        table: TableIndex,
        found: Identities,
    ) -> Result<(), SealError> {
        self.log(block, table, &found)?;
        self.recovered.push((block, table, found));
        Ok(())
    }

    /// The identities that are to be remembered, see [`Repeats::remember`].
    pub(super) fn take_recovered(&mut self) -> Vec<(BlockNumber, TableIndex, Identities)> {
        std::mem::take(&mut self.recovered)
    }
}

#[cfg(test)]
mod tests;
