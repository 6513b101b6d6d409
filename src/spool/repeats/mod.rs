//! What was taken lately, so that a repeat stores nothing: requests by their `Idempotency-Key`, and
//! events by the value of `--dedup-field`.
//!
//! The committer owns both maps: it alone decides what is stored, so two of the same can't both be
//! new. An identity stands in the frame of what it belongs to; when the segment is sealed it goes
//! into a log as well ([`log`]), since a start reads no frame of a sealed segment. So no crash parts
//! an identity from its events, and a repeat that is noticed costs no sync of its own.

mod events;
mod fate;
mod log;
mod requests;

use std::io;
use std::sync::Arc;

use events::SeenEvents;
pub(super) use fate::Fate;
use requests::Requests;
pub use requests::SECONDS_MAX;

use super::layout::Layout;
use super::metrics::SpoolMetrics;
use super::storage::SealError;
use crate::batch::identity::{Id, RequestKey};
use crate::batch::{Batch, SegmentNumber};

/// The identities in a segment.
#[derive(Debug, Default)]
pub(super) struct Identities {
    pub(super) keys: Vec<RequestKey>,
    pub(super) ids: Vec<Id>,
}

impl Identities {
    /// Those of a frame.
    pub(super) fn add(&mut self, key: Option<RequestKey>, ids: &[Id]) {
        self.keys.extend(key);
        self.ids.extend_from_slice(ids);
    }
}

/// See the module.
pub(super) struct Repeats {
    requests: Requests,
    /// `None` without `--dedup-field`.
    events: Option<SeenEvents>,
}

impl Repeats {
    /// What the logs have, at the second `now`. Without `values_max` no event has an identity.
    pub(super) fn open(
        layout: &Arc<Layout>,
        metrics: &Arc<SpoolMetrics>,
        keys_max: usize,
        values_max: Option<usize>,
        now: u64,
    ) -> io::Result<Self> {
        let requests = Requests::open(layout, metrics, keys_max, now)?;
        let events = values_max.map(|values_max| SeenEvents::open(layout, metrics, values_max)).transpose()?;
        Ok(Self { requests, events })
    }

    /// What becomes of a batch by its request's key: [`Fate::Shared`] when that is new.
    pub(super) fn fate(&self, batch: &Batch) -> Fate {
        batch.key.as_ref().map_or(Fate::Shared, |key| self.requests.fate(key))
    }

    /// A new batch is about to be committed to a segment: notes what it is, and takes out the
    /// events that are repeats. It may have nothing left to store.
    pub(super) fn begin(&mut self, batch: &mut Batch, segment: SegmentNumber) -> Fate {
        if let Some(key) = &batch.key {
            self.requests.begin(key, segment);
        }
        match &mut self.events {
            Some(events) if !batch.ids.is_empty() => events.begin(batch, segment),
            _ => Fate::Shared,
        }
    }

    /// The commit of all that was begun is done, at the second `now`.
    pub(super) fn committed(&mut self, now: u64) {
        self.requests.committed(now);
        if let Some(events) = &mut self.events {
            events.committed();
        }
    }

    /// The commit of all that was begun has failed: it was never there.
    pub(super) fn refused(&mut self) {
        self.requests.refused();
        if let Some(events) = &mut self.events {
            events.refused();
        }
    }

    /// Logs the identities of a segment, durably: it may be sealed then.
    pub(super) fn log(&mut self, segment: SegmentNumber, found: &Identities, now: u64) -> Result<(), SealError> {
        self.requests.log(segment, &found.keys, now)?;
        match &mut self.events {
            Some(events) => events.log(segment, &found.ids, now),
            None => Ok(()),
        }
    }

    /// Logs the identities of a segment that a former run left, and remembers them. Those of a
    /// segment of this run are known since their commit, and some may be forgotten again by now:
    /// they would come back as the newest.
    pub(super) fn recovered(&mut self, segment: SegmentNumber, found: &Identities, now: u64) -> Result<(), SealError> {
        self.log(segment, found, now)?;
        self.requests.recovered(segment, &found.keys, now);
        if let Some(events) = &mut self.events {
            events.recovered(segment, &found.ids);
        }
        Ok(())
    }

    /// Forgets the keys that are too old at the second `now`.
    pub(super) fn forget_old(&mut self, now: u64) {
        self.requests.forget_old(now);
    }
}

#[cfg(test)]
mod tests;
