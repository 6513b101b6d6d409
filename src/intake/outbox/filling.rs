//! A batch that is opened for one request: the one that a table's requests share, or one of its own.

use std::time::Instant;

use super::{Keyed, UnderWay, Waiter};
use crate::api::{Answer, Fault, Taken};
use crate::batch::{Batch, Mark};
use crate::intake::live::LiveLine;
use crate::intake::quotas::Debit;
use crate::limits;
use crate::ndjson::{EncodeRefusal, RejectedByCode};

/// The batch of one request that is encoded over several turns.
#[derive(Debug)]
pub struct OwnBatch {
    pub(super) batch: Batch,
    pub(super) under_way: UnderWay,
    pub(super) mark: Mark,
}

impl OwnBatch {
    /// The batch to append to.
    pub fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// Opens it for its request, to join it. What it takes of the budget is charged again by its hand-over.
    pub fn fill(&mut self) -> Filling<'_> {
        self.under_way.charge.set(0);
        Filling { batch: &mut self.batch, under_way: &mut self.under_way, mark: self.mark, joined: false }
    }

    /// Charges the memory that the batch holds by now.
    pub fn account(&mut self) {
        self.under_way.charge.set(self.batch.memory());
    }

    /// The answer to the request, once it is encoded or refused.
    pub fn conclude(&mut self, taken: &Taken, encoded: Result<(), EncodeRefusal>) -> Answer {
        taken.conclude(encoded, self.mark, &mut self.batch)
    }

    /// Removes all that was appended.
    pub fn roll_back(&mut self) {
        self.batch.roll_back(self.mark);
    }
}

/// A guard: the batch that is being filled, opened for one request. What the request appends is kept if
/// the request joins the batch, and rolled back if the guard is dropped before.
#[derive(Debug)]
pub struct Filling<'a> {
    pub(super) batch: &'a mut Batch,
    pub(super) under_way: &'a mut UnderWay,
    pub(super) mark: Mark,
    pub(super) joined: bool,
}

impl Filling<'_> {
    /// The batch to append to.
    pub fn batch(&mut self) -> &mut Batch {
        self.batch
    }

    /// Keeps the numbers of rejected lines of the request, which has a key. They are counted once the
    /// committer has found that the request is not a repeat.
    pub fn note_keyed(&mut self, rejected: RejectedByCode) {
        self.under_way.keyed.push(Keyed { rejected, ..Keyed::default() });
    }

    /// Keeps what the request was charged, until its outcome is known.
    pub fn note_debit(&mut self, debit: Debit) {
        self.under_way.debits.push(debit);
    }

    /// Keeps lines of the request for those who watch, until its outcome is known. `keyed` is its place among the
    /// requests with a key.
    pub fn note_samples(&mut self, samples: Vec<LiveLine>, keyed: Option<usize>) {
        self.under_way.samples.extend(samples.into_iter().map(|sample| sample.of_keyed(keyed)));
    }

    /// Rolls back what was appended, so that the request only asks whether its key was seen before. `over` is
    /// the reply if it was not.
    pub fn only_ask(&mut self, over: Fault) {
        self.under_way.keyed.push(Keyed { over: Some(over), ..Keyed::default() });
        self.batch.only_ask(self.mark);
    }

    /// Keeps what was appended; `waiter` gets the reply. Returns true when the batch has reached the
    /// limit of a turn and has to be handed over before another request is served.
    #[must_use]
    pub fn join(mut self, waiter: Waiter) -> bool {
        self.joined = true;
        if self.under_way.waiters.is_empty() {
            // The batch may have been opened long ago, for requests that did not join it.
            self.under_way.begun = Instant::now();
        }
        self.under_way.waiters.push(waiter);
        self.under_way.waiters.len() >= limits::TURN_REQUESTS_MAX || self.batch.len() >= limits::TURN_BYTES_MAX
    }
}

impl Drop for Filling<'_> {
    fn drop(&mut self) {
        if !self.joined {
            self.batch.roll_back(self.mark);
            self.under_way.keyed.truncate(self.batch.keyed().len());
        }
    }
}
