//! A worker's side of the hand-over: the batch that fills in this turn, the batches under way with
//! the requests that wait for them, and the spare ones.
//!
//! The number of batches is fixed, and their bytes count in the budget of what is in flight. While
//! no batch is spare, or the budget is used up and another batch is still to come back, the worker
//! takes no requests: that is the back-pressure which the kernel's windows pass on to the clients.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::identity::Summary;
use crate::batch::{Batch, CommitOutcome, Mark, Returned, Sequence};
use crate::handoff::Handoff;
use crate::intake::budget::ByteBudget;
use crate::limits;
use crate::ndjson::RejectedByCode;

/// A request's connection: its slot, and the generation that tells it from the slot's next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiter {
    /// Index of the connection's slot.
    pub slot: usize,
    /// The slot's generation when the request was served.
    pub generation: u64,
}

/// A batch whose commit is decided (or came too late), and who waits for it.
#[derive(Debug)]
pub struct Settled {
    /// The batch's sequence.
    pub sequence: Sequence,
    /// What became of it; `None` when the deadline passed first.
    pub outcome: Option<CommitOutcome>,
    /// Rows that the batch holds.
    pub rows: u32,
    /// Events that were stored before, and are not among `rows`.
    pub duplicates: u32,
    /// What its request is answered, where that came with a key.
    pub keyed: Option<Summary>,
    /// Its refused lines then, which are not counted yet.
    pub rejected: RejectedByCode,
    /// The requests in it; return the memory with [`Outbox::recycle`].
    pub waiters: Vec<Waiter>,
    /// Since the first request of the batch was served.
    pub elapsed: Duration,
}

#[derive(Debug)]
struct UnderWay {
    sequence: Sequence,
    waiters: Vec<Waiter>,
    /// When the first of them was served.
    begun: Instant,
    overdue: bool,
    rejected: RejectedByCode,
}

/// All batches of one worker: the one that fills, those under way with who waits for them, and the
/// spare ones.
#[derive(Debug)]
pub struct Outbox {
    budget: Arc<ByteBudget>,
    /// What the batches say about the columns of their rows.
    frozen: Arc<[u8]>,
    filling: Option<(Batch, UnderWay)>,
    under_way: VecDeque<UnderWay>,
    spare: Vec<Batch>,
    spare_waiters: Vec<Vec<Waiter>>,
    sequence: Sequence,
}

impl Outbox {
    /// The outbox of `worker`, with all batches that it will ever have, counted in `budget`
    /// while they are under way.
    pub fn new(worker: usize, budget: Arc<ByteBudget>) -> Self {
        Self {
            budget,
            frozen: Arc::default(),
            filling: None,
            under_way: VecDeque::with_capacity(limits::BATCHES_PER_WORKER),
            spare: (0..limits::BATCHES_PER_WORKER).map(|_| Batch::new(worker)).collect(),
            spare_waiters: Vec::with_capacity(limits::BATCHES_PER_WORKER),
            sequence: Sequence::default(),
        }
    }

    /// True while the events of another request have a place, even if they need a batch of their own.
    pub fn has_room(&self) -> bool {
        match &self.filling {
            Some((_, under_way)) if !under_way.waiters.is_empty() => !self.spare.is_empty(),
            filling => {
                (filling.is_some() || !self.spare.is_empty())
                    && (self.under_way.is_empty() || !self.budget.is_used_up())
            }
        }
    }

    /// Opens the batch that fills for one request; `None` without room.
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
            };
            self.filling = Some((batch, under_way));
        }
        let (batch, under_way) = self.filling.as_mut()?;
        let mark = batch.mark();
        Some(Filling { batch, under_way, mark, joined: false })
    }

    /// The rows of all further requests are of another schema: hands over what fills.
    pub fn change_schema(&mut self, frozen: Arc<[u8]>, handoff: &Handoff) {
        self.hand_over(handoff);
        self.frozen = frozen;
    }

    /// Hands over what fills if it is the batch of this sequence: its turn is over.
    pub fn hand_over_batch(&mut self, sequence: Sequence, handoff: &Handoff) {
        if self.filling.as_ref().is_some_and(|(_, under_way)| under_way.sequence == sequence) {
            self.hand_over(handoff);
        }
    }

    /// The turn is over: hands over what fills.
    pub fn hand_over(&mut self, handoff: &Handoff) {
        if self.filling.as_ref().is_none_or(|(_, under_way)| under_way.waiters.is_empty()) {
            return;
        }
        if let Some((mut batch, under_way)) = self.filling.take() {
            if !Arc::ptr_eq(&batch.frozen, &self.frozen) {
                batch.frozen = self.frozen.clone();
            }
            batch.close();
            self.budget.add(batch.len());
            self.under_way.push_back(under_way);
            handoff.submit(batch);
        }
    }

    /// Takes a batch back from the committer.
    pub fn settle(&mut self, returned: Returned) -> Option<Settled> {
        let Returned { mut batch, outcome } = returned;
        let (sequence, rows, duplicates) = (batch.sequence, batch.rows.count, batch.duplicates);
        let keyed = batch.key.map(|key| key.summary);
        self.budget.release(batch.len());
        batch.clear();
        self.spare.push(batch);
        let under_way = self.under_way.pop_front()?;
        // Once a batch: out of order, it would give its replies to the requests of another.
        assert_eq!(under_way.sequence, sequence, "the committer returned a worker's batches out of order");
        Some(Settled {
            sequence,
            outcome: Some(outcome),
            rows,
            duplicates,
            keyed,
            rejected: under_way.rejected,
            elapsed: under_way.begun.elapsed(),
            waiters: under_way.waiters,
        })
    }

    /// The next batch that has waited longer than `commit_timeout`. It stays under way, without
    /// waiters: they are told 503 now, and its outcome will interest nobody.
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
            elapsed: late.begun.elapsed(),
            waiters: std::mem::take(&mut late.waiters),
        })
    }

    /// Takes a list of waiters back for its next use.
    pub fn recycle(&mut self, mut waiters: Vec<Waiter>) {
        waiters.clear();
        self.spare_waiters.push(waiters);
    }

    /// True when no batch fills or is under way.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty() && self.filling.as_ref().is_none_or(|(_, under_way)| under_way.waiters.is_empty())
    }
}

/// The batch that fills, opened for one request. What the request appends stays only if the request
/// joins the batch; dropped without that, the guard rolls it back.
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

    /// Notes the rejected lines of the only request in the batch: they are counted once the
    /// committer has found that the request is no repeat.
    pub fn note_rejected(&mut self, rejected: RejectedByCode) {
        self.under_way.rejected = rejected;
    }

    /// Keeps what was appended, for a reply to `waiter`. True when the turn's share is used up: the
    /// batch has to be handed over before it is filled again.
    #[must_use]
    pub fn join(mut self, waiter: Waiter) -> bool {
        self.joined = true;
        if self.under_way.waiters.is_empty() {
            // The batch may have been open for long, for requests that left nothing in it.
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{CommitRefusal, Exchange, SegmentNumber};
    use crate::handoff::Mailbox;

    fn handoff() -> Handoff {
        let poll = mio::Poll::new().unwrap();
        Handoff::new(vec![Mailbox::new(poll.registry(), mio::Token(0)).unwrap()], Arc::default())
    }

    fn waiter(slot: usize) -> Waiter {
        Waiter { slot, generation: 1 }
    }

    /// A request of `bytes` bytes of rows joins the batch that fills, which is handed over when its
    /// share is used up, as a worker does it.
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
        let (mut outbox, handoff) = (Outbox::new(0, ByteBudget::new(1 << 20)), handoff());
        for sequence in 1..=limits::BATCHES_PER_WORKER as u64 {
            assert!(outbox.has_room());
            assert_eq!(join(&mut outbox, 0, 7, &handoff), Sequence::new(sequence));
            outbox.hand_over(&handoff);
        }
        assert!(!outbox.has_room());
        assert!(outbox.fill().is_none());
        let batch = handoff.next().unwrap();
        let outcome = CommitOutcome::Refused(CommitRefusal::DiskFull);
        let settled = outbox.settle(Returned { batch, outcome }).unwrap();
        assert_eq!((settled.sequence, settled.outcome), (Sequence::new(1), Some(outcome)));
        assert_eq!(settled.waiters, [waiter(7)]);
        assert!(outbox.has_room());
    }

    #[test]
    fn a_used_up_budget_stops_all_but_the_last_batch() {
        let budget = ByteBudget::new(1 << 20);
        let (mut outbox, handoff) = (Outbox::new(0, budget.clone()), handoff());
        join(&mut outbox, 1 << 20, 0, &handoff);
        assert_eq!(budget.bytes(), 1 << 20);
        assert!(!outbox.has_room());
        let returned = Returned {
            batch: handoff.next().unwrap(),
            outcome: CommitOutcome::Committed { segment: SegmentNumber::new(1) },
        };
        outbox.settle(returned).unwrap();
        assert_eq!(budget.bytes(), 0);
        // Whoever else has used it up: a worker with nothing under way would wait for ever.
        budget.add(2 << 20);
        assert!(outbox.has_room());
        join(&mut outbox, 0, 0, &handoff);
        outbox.hand_over(&handoff);
        assert!(!outbox.has_room());
        // A batch that a request took and left empty is no room either.
        drop(outbox.fill().unwrap());
        assert!(!outbox.has_room());
    }

    #[test]
    fn a_batch_leaves_when_the_turns_share_is_used_up() {
        let (mut outbox, handoff) = (Outbox::new(0, ByteBudget::new(1 << 20)), handoff());
        for _ in 0..limits::TURN_REQUESTS_MAX {
            assert!(handoff.next().is_none());
            join(&mut outbox, 0, 0, &handoff);
        }
        assert_eq!(handoff.next().unwrap().sequence, Sequence::new(1));
        join(&mut outbox, limits::TURN_BYTES_MAX, 0, &handoff);
        assert_eq!(handoff.next().unwrap().sequence, Sequence::new(2));
    }

    #[test]
    fn a_batch_that_has_left_does_not_take_the_next_with_it() {
        let (mut outbox, handoff) = (Outbox::new(0, ByteBudget::new(1 << 20)), handoff());
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
        let (mut outbox, handoff) = (Outbox::new(0, ByteBudget::new(1 << 20)), handoff());
        drop(outbox.fill().unwrap());
        outbox.hand_over(&handoff);
        assert!(handoff.next().is_none());
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_a_request_appends_without_joining_is_rolled_back() {
        let (mut outbox, handoff) = (Outbox::new(0, ByteBudget::new(1 << 20)), handoff());
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
        let (mut outbox, handoff) = (Outbox::new(0, ByteBudget::new(1 << 20)), handoff());
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
        let (mut outbox, handoff) = (Outbox::new(0, ByteBudget::new(1 << 20)), handoff());
        let timeout = Duration::from_secs(60);
        // For a request that left nothing in it, and long ago.
        drop(outbox.fill().unwrap());
        outbox.filling.as_mut().unwrap().1.begun = Instant::now().checked_sub(2 * timeout).unwrap();
        join(&mut outbox, 0, 3, &handoff);
        outbox.hand_over(&handoff);
        assert!(outbox.overdue(timeout).is_none());
    }

    #[test]
    fn an_overdue_batch_is_reported_once_and_its_outcome_finds_nobody() {
        let (mut outbox, handoff) = (Outbox::new(0, ByteBudget::new(1 << 20)), handoff());
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
