//! A worker's batches: the batch that is being filled in this turn, the batches under way to the
//! committer and back with the requests that wait for them, and the spare ones.
//!
//! The number of batches is fixed, and the bytes of batches under way count in the in-flight budget.
//! While no batch is spare, or while the budget is used up and a batch is under way, the worker reads
//! no requests. This is the back-pressure that TCP's flow control passes on to the clients.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::Fault;
use crate::api::{Answer, Taken};
use crate::batch::identity::Summary;
use crate::batch::{Batch, CommitOutcome, Mark, Returned, Sequence};
use crate::handoff::Handoff;
use crate::intake::budget::{ByteBudget, Charge, Size};
use crate::intake::quotas::Debit;
use crate::limits;
use crate::ndjson::{EncodeRefusal, RejectedByCode};

/// Where a reply goes: a slot of the worker, and the slot's generation. The generation changes when the
/// slot is reused, so that a late reply does not reach the next user of the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiter {
    /// The index of the slot.
    pub slot: usize,
    /// The generation of the slot when the request was served.
    pub generation: u64,
}

/// The outcome of a batch, or its passed deadline, with the requests that wait for it.
#[derive(Debug)]
pub struct Settled {
    /// The sequence of the batch.
    pub sequence: Sequence,
    /// The outcome; `None` when the deadline passed first.
    pub outcome: Option<CommitOutcome>,
    /// Rows of the batch, without duplicates.
    pub rows: u32,
    /// Events that had been stored before and were removed from the batch.
    pub duplicates: u32,
    /// The numbers in the reply to the only request of the batch, if that request has a key.
    pub keyed: Option<Summary>,
    /// The rejected lines of a request with a key, which are not counted yet.
    pub rejected: RejectedByCode,
    /// The requests of the batch. Return the memory with [`Outbox::recycle`].
    pub waiters: Vec<Waiter>,
    /// What its requests were charged.
    pub debits: Vec<Debit>,
    /// Why the only request of a batch that only asks is refused if it is no repeat.
    pub over: Option<Fault>,
    /// The time since the first request of the batch was served.
    pub elapsed: Duration,
}

/// What the worker keeps of a batch while the batch is being filled or is under way.
#[derive(Debug)]
struct UnderWay {
    sequence: Sequence,
    waiters: Vec<Waiter>,
    /// When the first request of the batch was served.
    begun: Instant,
    /// The deadline has passed, and the requests were answered 503.
    overdue: bool,
    rejected: RejectedByCode,
    /// What its requests were charged; empty where nothing is charged.
    debits: Vec<Debit>,
    over: Option<Fault>,
    /// What the batch takes of the budget from its hand-over until it is back, however much of it the
    /// committer took out.
    charge: Charge,
}

/// All batches of one worker: the one that is being filled, those under way and the spare ones.
#[derive(Debug)]
pub struct Outbox {
    budget: Arc<ByteBudget>,
    /// The serialized columns, types and INSERT settings of the rows, see [`Batch::frozen`].
    frozen: Arc<[u8]>,
    filling: Option<(Batch, UnderWay)>,
    under_way: VecDeque<UnderWay>,
    spare: Vec<Batch>,
    spare_waiters: Vec<Vec<Waiter>>,
    spare_debits: Vec<Vec<Debit>>,
    /// The sequence of the newest batch.
    sequence: Sequence,
}

impl Outbox {
    /// The outbox of `worker` with all of its batches. Their bytes are charged to `budget` while they
    /// are under way.
    pub fn new(worker: usize, budget: Arc<ByteBudget>) -> Self {
        Self {
            budget,
            frozen: Arc::default(),
            filling: None,
            under_way: VecDeque::with_capacity(limits::BATCHES_PER_WORKER),
            spare: (0..limits::BATCHES_PER_WORKER).map(|_| Batch::new(worker)).collect(),
            spare_waiters: Vec::with_capacity(limits::BATCHES_PER_WORKER),
            spare_debits: Vec::new(),
            sequence: Sequence::default(),
        }
    }

    /// True while another request of this size can be served, even one that needs a batch of its own.
    pub fn has_room(&self, size: Size) -> bool {
        match &self.filling {
            Some((_, under_way)) if !under_way.waiters.is_empty() => !self.spare.is_empty(),
            filling => {
                (filling.is_some() || !self.spare.is_empty())
                    && (self.under_way.is_empty() || !self.budget.is_used_up(size))
            }
        }
    }

    /// Opens the batch that is being filled for one request; `None` when no batch is spare.
    pub fn fill(&mut self) -> Option<Filling<'_>> {
        if self.filling.is_none() {
            self.filling = Some(self.open()?);
        }
        let (batch, under_way) = self.filling.as_mut()?;
        let mark = batch.mark();
        Some(Filling { batch, under_way, mark, joined: false })
    }

    /// A spare batch with the next sequence.
    fn open(&mut self) -> Option<(Batch, UnderWay)> {
        let mut batch = self.spare.pop()?;
        self.sequence = self.sequence.next();
        batch.sequence = self.sequence;
        let under_way = UnderWay {
            sequence: self.sequence,
            waiters: self.spare_waiters.pop().unwrap_or_default(),
            begun: Instant::now(),
            overdue: false,
            rejected: RejectedByCode::default(),
            debits: self.spare_debits.pop().unwrap_or_default(),
            over: None,
            charge: self.budget.open(None),
        };
        Some((batch, under_way))
    }

    /// Takes a spare batch for one request that is encoded over several turns; `None` when no batch is
    /// spare. It comes back by [`Outbox::resume`] or [`Outbox::put_back`].
    pub fn open_own(&mut self) -> Option<OwnBatch> {
        // One that no request has joined is spare as well.
        let unused = |filling: &mut (Batch, UnderWay)| filling.1.waiters.is_empty();
        let (batch, under_way) = self.open().or_else(|| self.filling.take_if(unused))?;
        let mark = batch.mark();
        Some(OwnBatch { batch, under_way, mark })
    }

    /// Makes it the batch that is being filled, by the request that it belongs to. What other requests
    /// have filled is handed over.
    pub fn resume(&mut self, own: OwnBatch, handoff: &Handoff) -> Filling<'_> {
        self.hand_over(handoff);
        let OwnBatch { batch, under_way, mark } = own;
        if let Some((empty, before)) = self.filling.take() {
            self.put_back(OwnBatch { mark: empty.mark(), batch: empty, under_way: before });
        }
        let (batch, under_way) = self.filling.insert((batch, under_way));
        under_way.charge.set(0);
        Filling { batch, under_way, mark, joined: false }
    }

    /// Takes back the batch that is being filled, with its memory, if no request has joined it.
    pub fn put_back_unused(&mut self) {
        if let Some((batch, under_way)) = self.filling.take_if(|(_, under_way)| under_way.waiters.is_empty()) {
            self.put_back(OwnBatch { mark: batch.mark(), batch, under_way });
        }
    }

    /// Takes back the batch of a request that is given up.
    pub fn put_back(&mut self, own: OwnBatch) {
        let OwnBatch { mut batch, under_way, .. } = own;
        batch.clear();
        self.spare.push(batch);
        self.recycle(under_way.waiters, under_way.debits);
    }

    /// Changes the schema of all further rows: hands over the batch that is being filled.
    pub fn change_schema(&mut self, frozen: Arc<[u8]>, handoff: &Handoff) {
        self.hand_over(handoff);
        self.frozen = frozen;
    }

    /// Hands over the batch that is being filled, if it is the batch of this sequence.
    pub fn hand_over_batch(&mut self, sequence: Sequence, handoff: &Handoff) {
        if self.filling.as_ref().is_some_and(|(_, under_way)| under_way.sequence == sequence) {
            self.hand_over(handoff);
        }
    }

    /// Hands the batch that is being filled to the committer. Does nothing, and returns false, if no request
    /// has joined it.
    pub fn hand_over(&mut self, handoff: &Handoff) -> bool {
        if self.filling.as_ref().is_none_or(|(_, under_way)| under_way.waiters.is_empty()) {
            return false;
        }
        if let Some((mut batch, mut under_way)) = self.filling.take() {
            if !Arc::ptr_eq(&batch.frozen, &self.frozen) {
                batch.frozen = self.frozen.clone();
            }
            batch.close();
            under_way.charge.set(batch.memory());
            self.under_way.push_back(under_way);
            handoff.submit(batch);
        }
        true
    }

    /// Takes back a batch that the committer has returned, and reports its outcome.
    pub fn settle(&mut self, returned: Returned) -> Option<Settled> {
        let Returned { mut batch, outcome } = returned;
        let (sequence, rows, duplicates) = (batch.sequence, batch.rows.count, batch.duplicates);
        let keyed = batch.key.map(|key| key.summary);
        batch.clear();
        self.spare.push(batch);
        let under_way = self.under_way.pop_front()?;
        // The check is made once a batch: a batch out of order would send its replies to the requests
        // of another batch.
        assert_eq!(under_way.sequence, sequence, "the committer returned a worker's batches out of order");
        Some(Settled {
            sequence,
            outcome: Some(outcome),
            rows,
            duplicates,
            keyed,
            rejected: under_way.rejected,
            debits: under_way.debits,
            over: under_way.over,
            elapsed: under_way.begun.elapsed(),
            waiters: under_way.waiters,
        })
    }

    /// Reports the next batch that has been under way for longer than `commit_timeout`. Its requests are
    /// answered 503 now. The batch stays under way without waiters, and its outcome has no effect on
    /// replies.
    pub fn overdue(&mut self, commit_timeout: Duration) -> Option<Settled> {
        let late = self
            .under_way
            .iter_mut()
            .find(|under_way| !under_way.overdue && under_way.begun.elapsed() > commit_timeout)?;
        late.overdue = true;
        Some(Settled {
            sequence: late.sequence,
            outcome: None,
            rows: 0,
            duplicates: 0,
            keyed: None,
            rejected: RejectedByCode::default(),
            // They are settled with the outcome.
            debits: Vec::new(),
            over: None,
            elapsed: late.begun.elapsed(),
            waiters: std::mem::take(&mut late.waiters),
        })
    }

    /// Takes back the memory of [`Settled::waiters`] and [`Settled::debits`] for reuse.
    pub fn recycle(&mut self, mut waiters: Vec<Waiter>, mut debits: Vec<Debit>) {
        if waiters.capacity() > 0 && self.spare_waiters.len() < limits::BATCHES_PER_WORKER {
            waiters.clear();
            self.spare_waiters.push(waiters);
        }
        if debits.capacity() > 0 {
            debits.clear();
            self.spare_debits.push(debits);
        }
    }

    /// Gives back the memory of the batches that are not in use.
    pub fn shrink(&mut self) {
        self.spare.iter_mut().for_each(Batch::shrink);
    }

    /// True while a batch is taken for requests to come.
    #[cfg(test)]
    pub fn is_filling(&self) -> bool {
        self.filling.is_some()
    }

    /// True when no request waits for a batch and no batch is under way.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty() && self.filling.as_ref().is_none_or(|(_, under_way)| under_way.waiters.is_empty())
    }
}

/// The batch of one request that is encoded over several turns.
#[derive(Debug)]
pub struct OwnBatch {
    batch: Batch,
    under_way: UnderWay,
    mark: Mark,
}

impl OwnBatch {
    /// The batch to append to.
    pub fn batch(&mut self) -> &mut Batch {
        &mut self.batch
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
    batch: &'a mut Batch,
    under_way: &'a mut UnderWay,
    mark: Mark,
    joined: bool,
}

impl Filling<'_> {
    /// The batch to append to.
    pub fn batch(&mut self) -> &mut Batch {
        self.batch
    }

    /// Keeps the numbers of rejected lines of the only request in the batch. They are counted once the
    /// committer has found that the request is not a repeat.
    pub fn note_rejected(&mut self, rejected: RejectedByCode) {
        self.under_way.rejected = rejected;
    }

    /// Keeps what the request was charged, until the outcome of the batch is known.
    pub fn note_debit(&mut self, debit: Debit) {
        self.under_way.debits.push(debit);
    }

    /// Rolls back what was appended, so that the batch only asks whether the key of its request was seen
    /// before. `over` is the reply if it was not.
    pub fn only_ask(&mut self, over: Fault) {
        self.under_way.over = Some(over);
        self.batch.roll_back(self.mark);
        self.batch.only_if_repeat = true;
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
            self.batch.key = None;
            self.batch.only_if_repeat = false;
        }
    }
}

#[cfg(test)]
mod tests;
