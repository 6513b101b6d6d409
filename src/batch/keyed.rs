//! The requests of a batch that have an `Idempotency-Key`. They share it with the others; one that the
//! committer finds to be a repeat is removed from it.

use super::identity::RequestKey;
use super::{Batch, CommitOutcome, Mark, OutcomeRule, Section, remove_ranges};

/// A request with an `Idempotency-Key`, and what of its batch belongs to it.
#[derive(Debug, Clone, Copy)]
pub struct KeyedRequest {
    /// Its key and the numbers in its reply.
    pub key: RequestKey,
    /// It only asks whether the key was seen before: nothing of it is stored, nor the key remembered.
    pub only_asks: bool,
    /// How its outcome follows from that of the group; fixed once the batch is returned.
    pub rule: OutcomeRule,
    from: Mark,
    to: Mark,
}

impl KeyedRequest {
    /// True while it is no repeat, as far as is known.
    fn is_stored(&self) -> bool {
        self.rule == OutcomeRule::OfGroup && !self.only_asks
    }
}

impl Batch {
    /// The requests with a key, in their order.
    pub fn keyed(&self) -> &[KeyedRequest] {
        &self.keyed
    }

    /// The same, for the committer to say what becomes of each.
    pub fn keyed_mut(&mut self) -> &mut [KeyedRequest] {
        &mut self.keyed
    }

    /// All that was appended since `from` is of a request with this key. Returns its place among those with
    /// one.
    pub fn add_keyed(&mut self, key: RequestKey, from: Mark) -> usize {
        let (only_asks, rule, to) = (false, OutcomeRule::OfGroup, self.mark());
        self.keyed.push(KeyedRequest { key, only_asks, rule, from, to });
        self.keyed.len() - 1
    }

    /// Removes what the newest request has appended since `from`, and leaves its key to be asked for.
    pub fn only_ask(&mut self, from: Mark) {
        let asking = self.keyed.last().copied();
        self.roll_back(from);
        self.keyed.extend(asking.map(|request| KeyedRequest { only_asks: true, from, to: from, ..request }));
    }

    /// True if something in it is no part of a repeated request, as far as is known.
    pub fn has_news(&self) -> bool {
        let count = |of: fn(&Mark) -> u32| {
            self.keyed.iter().map(|request| of(&request.to).saturating_sub(of(&request.from))).sum::<u32>()
        };
        self.keyed.iter().any(KeyedRequest::is_stored)
            || self.rows.count > count(|mark| mark.rows.1)
            || self.rejected.count > count(|mark| mark.rejected.1)
    }

    /// Removes what belongs to requests that are repeats, or only ask. The batch is closed again.
    pub fn remove_repeated_requests(&mut self) {
        if self.keyed.iter().all(KeyedRequest::is_stored) {
            return;
        }
        let keyed = std::mem::take(&mut self.keyed);
        let gone = || keyed.iter().filter(|request| !request.is_stored());
        self.rows.remove(gone().map(|request| (request.from.rows, request.to.rows)));
        self.rejected.remove(gone().map(|request| (request.from.rejected, request.to.rejected)));
        remove_ranges(&mut self.ids, gone().map(|request| request.from.ids..request.to.ids));
        let (mut next, mut removed) = (gone().peekable(), 0);
        self.id_rows.retain_mut(|row| {
            while let Some(before) = next.next_if(|request| request.to.rows.0 <= row.start) {
                removed += before.to.rows.0 - before.from.rows.0;
            }
            let is_gone = next.peek().is_some_and(|request| request.from.rows.0 <= row.start);
            *row = row.start - removed..row.end - removed;
            !is_gone
        });
        self.keyed = keyed;
        self.close();
    }

    /// The outcome of each request with a key becomes certain: that of its batch, unless it has its own.
    pub fn settle(&mut self, group: CommitOutcome, batch: CommitOutcome) {
        for request in &mut self.keyed {
            let of_group = if request.rule == OutcomeRule::OfGroup { batch } else { group };
            request.rule = OutcomeRule::Fixed(request.rule.outcome(of_group));
        }
    }

    /// The keys that are stored, as a frame has them.
    pub(super) fn encode_keys(&mut self) {
        let stored = self.keyed.iter().filter(|request| request.is_stored());
        self.keys.clear();
        self.keys.extend(stored.map(|request| request.key.encode()));
    }

    /// True if it stores a key.
    pub(super) fn stores_a_key(&self) -> bool {
        self.keyed.iter().any(KeyedRequest::is_stored)
    }
}

impl Section {
    /// Removes these ranges, which ascend: bytes and number of rows at their begin and end.
    fn remove(&mut self, ranges: impl Iterator<Item = ((usize, u32), (usize, u32))>) {
        let count = &mut self.count;
        let ranges = ranges.inspect(|(from, to)| *count = count.saturating_sub(to.1.saturating_sub(from.1)));
        remove_ranges(&mut self.bytes, ranges.map(|(from, to)| from.0..to.0));
    }
}
