//! A worker's batches: the batch that is being filled in this turn, the batches under way to the
//! committer and back with the requests that wait for them, and the spare ones.
//!
//! The number of batches is fixed, and the bytes of batches under way count in the in-flight budget.
//! While no batch is spare, or while the budget is used up and a batch is under way, the worker reads
//! no requests. This is the back-pressure that TCP's flow control passes on to the clients.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::identity::Summary;
use crate::batch::{Batch, CommitOutcome, Mark, Returned, Sequence};
use crate::handoff::Handoff;
use crate::intake::budget::{ByteBudget, Charge, Size};
use crate::intake::quotas::Debit;
use crate::limits;
use crate::ndjson::RejectedByCode;

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
                charge: self.budget.open(None),
            };
            self.filling = Some((batch, under_way));
        }
        let (batch, under_way) = self.filling.as_mut()?;
        let mark = batch.mark();
        Some(Filling { batch, under_way, mark, joined: false })
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

    /// Hands the batch that is being filled to the committer. Does nothing if no request has joined it.
    pub fn hand_over(&mut self, handoff: &Handoff) {
        if self.filling.as_ref().is_none_or(|(_, under_way)| under_way.waiters.is_empty()) {
            return;
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
            elapsed: late.begun.elapsed(),
            waiters: std::mem::take(&mut late.waiters),
        })
    }

    /// Takes back the memory of [`Settled::waiters`] and [`Settled::debits`] for reuse.
    pub fn recycle(&mut self, mut waiters: Vec<Waiter>, mut debits: Vec<Debit>) {
        waiters.clear();
        self.spare_waiters.push(waiters);
        if debits.capacity() > 0 {
            debits.clear();
            self.spare_debits.push(debits);
        }
    }

    /// Gives back the memory of the batches that are not in use.
    pub fn shrink(&mut self) {
        self.spare.iter_mut().for_each(Batch::shrink);
    }

    /// True when no request waits for a batch and no batch is under way.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty() && self.filling.as_ref().is_none_or(|(_, under_way)| under_way.waiters.is_empty())
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
    /// before.
    pub fn only_ask(&mut self) {
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
mod tests {
    use super::*;
    use crate::batch::{CommitRefusal, Exchange, SegmentNumber};
    use crate::handoff::Mailbox;
    use crate::intake::budget::BudgetLimits;

    fn handoff() -> Handoff {
        let poll = mio::Poll::new().unwrap();
        Handoff::new(vec![Mailbox::new(poll.registry(), mio::Token(0)).unwrap()], Arc::default())
    }

    fn budget() -> Arc<ByteBudget> {
        ByteBudget::new(BudgetLimits { max: 1 << 20, request_max: 1 << 10 })
    }

    fn waiter(slot: usize) -> Waiter {
        Waiter { slot, generation: 1 }
    }

    /// Adds a request with `bytes` bytes of rows, and hands the batch over when it has reached the limit
    /// of a turn, as a worker does.
    fn join(outbox: &mut Outbox, bytes: usize, slot: usize, handoff: &Handoff) -> Sequence {
        let mut filling = outbox.fill().unwrap();
        let batch = filling.batch();
        batch.rows.bytes.resize(batch.rows.bytes.len() + bytes, 0);
        let sequence = batch.sequence;
        if filling.join(waiter(slot)) {
            outbox.hand_over(handoff);
        }
        sequence
    }

    #[test]
    fn there_is_room_until_all_batches_are_under_way() {
        let (mut outbox, handoff) = (Outbox::new(0, budget()), handoff());
        for sequence in 1..=limits::BATCHES_PER_WORKER as u64 {
            assert!(outbox.has_room(Size::Small));
            assert_eq!(join(&mut outbox, 0, 7, &handoff), Sequence::new(sequence));
            outbox.hand_over(&handoff);
        }
        assert!(!outbox.has_room(Size::Small));
        assert!(outbox.fill().is_none());
        let batch = handoff.next().unwrap();
        let outcome = CommitOutcome::Refused(CommitRefusal::DiskFull);
        let settled = outbox.settle(Returned { batch, outcome }).unwrap();
        assert_eq!((settled.sequence, settled.outcome), (Sequence::new(1), Some(outcome)));
        assert_eq!(settled.waiters, [waiter(7)]);
        assert!(outbox.has_room(Size::Small));
    }

    #[test]
    fn a_used_up_budget_stops_all_but_the_last_batch() {
        let budget = budget();
        let (mut outbox, handoff) = (Outbox::new(0, budget.clone()), handoff());
        join(&mut outbox, 1 << 20, 0, &handoff);
        assert!(budget.bytes() >= 1 << 20);
        assert!(!outbox.has_room(Size::Small));
        let returned = Returned {
            batch: handoff.next().unwrap(),
            outcome: CommitOutcome::Committed { segment: SegmentNumber::new(1) },
        };
        outbox.settle(returned).unwrap();
        assert_eq!(budget.bytes(), 0);
        // Other workers have used up the budget: a worker with no batch under way would wait for ever.
        let mut others = budget.open(None);
        others.set(2 << 20);
        assert!(outbox.has_room(Size::Small));
        join(&mut outbox, 0, 0, &handoff);
        outbox.hand_over(&handoff);
        assert!(!outbox.has_room(Size::Small));
        // A batch that was opened and left empty does not make room.
        drop(outbox.fill().unwrap());
        assert!(!outbox.has_room(Size::Small));
    }

    #[test]
    fn what_the_committer_takes_out_of_a_batch_is_given_back_too() {
        let budget = budget();
        let (mut outbox, handoff) = (Outbox::new(0, budget.clone()), handoff());
        for repeat in 0..3u8 {
            let mut filling = outbox.fill().unwrap();
            let batch = filling.batch();
            for row in 0..100 {
                batch.rows.bytes.extend_from_slice(&[repeat; 100]);
                batch.rows.count += 1;
                batch.identify([repeat; 16], row * 100..row * 100 + 100);
            }
            let _ = filling.join(waiter(0));
            outbox.hand_over(&handoff);
            let mut batch = handoff.next().unwrap();
            assert!(budget.bytes() >= 10_000);
            batch.remove_repeats(|_| true);
            batch.rows.bytes.shrink_to_fit();
            outbox.settle(Returned { batch, outcome: CommitOutcome::Refused(CommitRefusal::DiskFull) });
            assert_eq!(budget.bytes(), 0);
        }
    }

    #[test]
    fn a_batch_is_handed_over_at_the_limits_of_a_turn() {
        let (mut outbox, handoff) = (Outbox::new(0, budget()), handoff());
        for _ in 0..limits::TURN_REQUESTS_MAX {
            assert!(handoff.next().is_none());
            join(&mut outbox, 0, 0, &handoff);
        }
        assert_eq!(handoff.next().unwrap().sequence, Sequence::new(1));
        join(&mut outbox, limits::TURN_BYTES_MAX, 0, &handoff);
        assert_eq!(handoff.next().unwrap().sequence, Sequence::new(2));
    }

    #[test]
    fn handing_over_a_batch_again_does_not_hand_over_the_next_one() {
        let (mut outbox, handoff) = (Outbox::new(0, budget()), handoff());
        let first = join(&mut outbox, 0, 0, &handoff);
        outbox.hand_over(&handoff);
        let second = join(&mut outbox, 0, 0, &handoff);
        assert_eq!(handoff.next().unwrap().sequence, first);
        outbox.hand_over_batch(first, &handoff);
        assert!(handoff.next().is_none());
        outbox.hand_over_batch(second, &handoff);
        assert_eq!(handoff.next().unwrap().sequence, second);
    }

    #[test]
    fn a_batch_without_waiters_is_not_handed_over() {
        let (mut outbox, handoff) = (Outbox::new(0, budget()), handoff());
        drop(outbox.fill().unwrap());
        outbox.hand_over(&handoff);
        assert!(handoff.next().is_none());
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_a_request_appends_without_joining_is_rolled_back() {
        let (mut outbox, handoff) = (Outbox::new(0, budget()), handoff());
        join(&mut outbox, 7, 0, &handoff);
        let mut filling = outbox.fill().unwrap();
        let batch = filling.batch();
        batch.rows.bytes.resize(100, 0);
        batch.rejected.bytes.resize(10, 0);
        drop(filling);
        outbox.hand_over(&handoff);
        let batch = handoff.next().unwrap();
        assert_eq!((batch.rows.bytes.len(), batch.rejected.bytes.len()), (7, 0));
    }

    #[test]
    #[should_panic(expected = "out of order")]
    fn batches_that_return_out_of_order_end_the_process() {
        let (mut outbox, handoff) = (Outbox::new(0, budget()), handoff());
        for _ in 0..2 {
            join(&mut outbox, 0, 0, &handoff);
            outbox.hand_over(&handoff);
        }
        let (_, batch) = (handoff.next(), handoff.next().unwrap());
        let outcome = CommitOutcome::Committed { segment: SegmentNumber::new(1) };
        outbox.settle(Returned { batch, outcome });
    }

    #[test]
    fn a_batch_is_as_old_as_the_first_request_in_it() {
        let (mut outbox, handoff) = (Outbox::new(0, budget()), handoff());
        let timeout = Duration::from_secs(60);
        // The batch was opened long ago, for a request that did not join it.
        drop(outbox.fill().unwrap());
        outbox.filling.as_mut().unwrap().1.begun = Instant::now().checked_sub(2 * timeout).unwrap();
        join(&mut outbox, 0, 3, &handoff);
        outbox.hand_over(&handoff);
        assert!(outbox.overdue(timeout).is_none());
    }

    #[test]
    fn an_overdue_batch_is_reported_once_and_its_outcome_has_no_waiters() {
        let (mut outbox, handoff) = (Outbox::new(0, budget()), handoff());
        join(&mut outbox, 0, 3, &handoff);
        outbox.hand_over(&handoff);
        let late = outbox.overdue(Duration::ZERO).unwrap();
        assert_eq!((late.sequence, late.waiters.len(), late.outcome), (Sequence::new(1), 1, None));
        assert!(outbox.overdue(Duration::ZERO).is_none());
        let batch = handoff.next().unwrap();
        let settled = outbox
            .settle(Returned { batch, outcome: CommitOutcome::Committed { segment: SegmentNumber::new(1) } })
            .unwrap();
        assert!(settled.waiters.is_empty());
        assert!(outbox.is_empty());
    }
}
