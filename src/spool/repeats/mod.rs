//! Detection of repeats, which store nothing: requests by their `Idempotency-Key`, and events by
//! the value of `--dedup-field`.
//!
//! The committer owns both maps, the keeper their logs. The committer alone decides what is stored, so two copies of the same request
//! or event can't both be taken for new.
//!
//! An identity is stored in the same frame as the rows it belongs to, so a crash keeps or loses both
//! together. When the segment is sealed, its identities are also written to a log ([`log`]), because
//! a start reads no frames of sealed segments. A detected repeat costs no sync of its own.

mod events;
mod log;
mod outcome_rule;
mod requests;

use std::io;
use std::sync::Arc;

use events::SeenEvents;
use log::HourlyLog;
pub(super) use outcome_rule::OutcomeRule;
use requests::Requests;
pub use requests::SECONDS_MAX;

use super::layout::Layout;
use super::metrics::SpoolMetrics;
use super::storage::SealError;
use crate::batch::CommitOutcome;
use crate::batch::identity::{Id, RequestKey};
use crate::batch::{Batch, SegmentNumber};
use crate::clock::SteadyClock;

/// The request keys and event identities of a segment.
#[derive(Debug, Default)]
pub(super) struct Identities {
    pub(super) keys: Vec<RequestKey>,
    pub(super) ids: Vec<Id>,
}

impl Identities {
    /// Adds the identities of a frame.
    pub(super) fn add(&mut self, key: Option<RequestKey>, ids: &[Id]) {
        self.keys.extend(key);
        self.ids.extend_from_slice(ids);
    }
}

/// The identities that are remembered: of requests, and of events.
pub(super) struct Repeats {
    requests: Requests,
    /// `None` without `--dedup-field`.
    events: Option<SeenEvents>,
    clock: SteadyClock,
}

impl Repeats {
    /// What the logs have, and the logs. Without `values_max` no event has an identity.
    pub(super) fn open(
        layout: &Arc<Layout>,
        metrics: &Arc<SpoolMetrics>,
        keys_max: usize,
        values_max: Option<usize>,
    ) -> io::Result<(Self, IdentityLogs)> {
        let (mut requests, keys) = Requests::open(layout, metrics, keys_max)?;
        // No step of the clock forgets a key: not one back, which a later start would take for long ago.
        let clock = SteadyClock::start(requests.newest_second());
        requests.forget_old(clock.seconds());
        let events = values_max.map(|values_max| SeenEvents::open(layout, metrics, values_max)).transpose()?;
        let (events, seen) = events.unzip();
        Ok((Self { requests, events, clock }, IdentityLogs { keys, seen, clock, recovered: Vec::new() }))
    }

    /// The outcome rule of a batch according to its request key; [`OutcomeRule::OfGroup`] if the
    /// key is new or the batch has none.
    pub(super) fn rule(&self, batch: &Batch) -> OutcomeRule {
        let rule = batch.key.as_ref().map_or(OutcomeRule::OfGroup, |key| self.requests.rule(key));
        match rule {
            OutcomeRule::OfGroup if batch.only_if_repeat => OutcomeRule::Fixed(CommitOutcome::NoRepeat),
            rule => rule,
        }
    }

    /// Notes that a new batch joins the group that is committed to `segment`. Remembers its
    /// identities and removes the events that are repeats, which may leave the batch empty.
    pub(super) fn begin(&mut self, batch: &mut Batch, segment: SegmentNumber) -> OutcomeRule {
        if let Some(key) = &batch.key {
            self.requests.begin(key, segment);
        }
        match &mut self.events {
            Some(events) if !batch.ids.is_empty() => events.begin(batch, segment),
            _ => OutcomeRule::OfGroup,
        }
    }

    /// The commit of all that was begun is done.
    pub(super) fn committed(&mut self) {
        self.requests.committed(self.clock.seconds());
        if let Some(events) = &mut self.events {
            events.committed();
        }
    }

    /// Forgets the identities of the group, which was not committed.
    pub(super) fn refused(&mut self) {
        self.requests.refused();
        if let Some(events) = &mut self.events {
            events.refused();
        }
    }

    /// Remembers the identities of segments that a former run left.
    pub(super) fn remember(&mut self, recovered: Vec<(SegmentNumber, Identities)>) {
        let now = self.clock.seconds();
        for (segment, found) in recovered {
            self.requests.recovered(segment, &found.keys, now);
            if let Some(events) = &mut self.events {
                events.recovered(segment, &found.ids);
            }
        }
    }

    /// Forgets the keys that are too old.
    pub(super) fn forget_old(&mut self) {
        self.requests.forget_old(self.clock.seconds());
    }
}

/// The logs of the identities in sealed segments.
pub(super) struct IdentityLogs {
    keys: HourlyLog<RequestKey>,
    /// `None` without `--dedup-field`.
    seen: Option<HourlyLog<Id>>,
    clock: SteadyClock,
    recovered: Vec<(SegmentNumber, Identities)>,
}

impl IdentityLogs {
    /// Logs the identities of a segment, durably: it may be sealed then.
    pub(super) fn log(&mut self, segment: SegmentNumber, found: &Identities) -> Result<(), SealError> {
        let now = self.clock.seconds();
        if !found.keys.is_empty() {
            self.keys.append(segment, &found.keys, now)?;
        }
        match &mut self.seen {
            Some(seen) if !found.ids.is_empty() => seen.append(segment, &found.ids, now),
            _ => Ok(()),
        }
    }

    /// Logs the identities of a segment that a former run left, and keeps them to be remembered. Those of a
    /// segment of this run are known since their commit, and some may be forgotten again by now: they would
    /// come back as the newest.
    pub(super) fn recovered(&mut self, segment: SegmentNumber, found: Identities) -> Result<(), SealError> {
        self.log(segment, &found)?;
        self.recovered.push((segment, found));
        Ok(())
    }

    /// The identities that are to be remembered, see [`Repeats::remember`].
    pub(super) fn take_recovered(&mut self) -> Vec<(SegmentNumber, Identities)> {
        std::mem::take(&mut self.recovered)
    }
}

#[cfg(test)]
mod tests;
