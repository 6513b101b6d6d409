//! A worker's side of the hand-over: the batch that fills in this turn, the batches under way with
//! the requests that wait for them, and the spare ones.
//!
//! The number of batches is fixed, and their bytes count in the budget of what is in flight. While
//! no batch is spare, or the budget is used up and another batch is still to come back, the worker
//! takes no requests: that is the back-pressure which the kernel's windows pass on to the clients.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::handoff::{CommitOutcome, Handoff, Returned};
use crate::identity::Figures;
use crate::in_flight::InFlight;
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
    pub sequence: u64,
    /// What became of it; `None` when the deadline passed first.
    pub outcome: Option<CommitOutcome>,
    /// Rows that the batch holds.
    pub rows: u32,
    /// Events that were stored before, and are not among `rows`.
    pub duplicates: u32,
    /// What its request is answered, where that came with a key.
    pub keyed: Option<Figures>,
    /// Its refused lines then, which are not counted yet.
    pub rejected: RejectedByCode,
    /// The requests in it; return the memory with [`Outbox::recycle`].
    pub waiters: Vec<Waiter>,
    /// Since the first request of the batch was served.
    pub elapsed: Duration,
}

#[derive(Debug)]
struct UnderWay {
    sequence: u64,
    waiters: Vec<Waiter>,
    /// When the first of them was served.
    begun: Instant,
    overdue: bool,
    rejected: RejectedByCode,
}

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    in_flight: Arc<InFlight>,
    /// What the batches say about the columns of their rows.
    frozen: Arc<[u8]>,
    filling: Option<(Batch, UnderWay)>,
    under_way: VecDeque<UnderWay>,
    spare: Vec<Batch>,
    spare_waiters: Vec<Vec<Waiter>>,
    sequence: u64,
}

impl Outbox {
    /// The outbox of `worker`, with all batches that it will ever have, counted in `in_flight`
    /// while they are under way.
    pub fn new(worker: usize, in_flight: Arc<InFlight>) -> Self {
        Self {
            in_flight,
            frozen: Arc::default(),
            filling: None,
            under_way: VecDeque::with_capacity(limits::BATCHES_PER_WORKER),
            spare: (0..limits::BATCHES_PER_WORKER).map(|_| Batch::new(worker)).collect(),
            spare_waiters: Vec::with_capacity(limits::BATCHES_PER_WORKER),
            sequence: 0,
        }
    }

    /// True while the events of another request have a place, even if they need a batch of their own.
    pub fn has_room(&self) -> bool {
        match &self.filling {
            Some((_, under_way)) if !under_way.waiters.is_empty() => !self.spare.is_empty(),
            filling => {
                (filling.is_some() || !self.spare.is_empty())
                    && (self.under_way.is_empty() || !self.in_flight.is_used_up())
            }
        }
    }

    /// The batch that fills, and the sequence it will have; `None` without room.
    pub fn filling(&mut self) -> Option<(&mut Batch, u64)> {
        if self.filling.is_none() {
            let batch = self.spare.pop()?;
            let under_way = UnderWay {
                sequence: self.sequence + 1,
                waiters: self.spare_waiters.pop().unwrap_or_default(),
                begun: Instant::now(),
                overdue: false,
                rejected: RejectedByCode::default(),
            };
            self.sequence += 1;
            self.filling = Some((batch, under_way));
        }
        self.filling.as_mut().map(|(batch, under_way)| (batch, under_way.sequence))
    }

    /// Notes the refused lines of the one request in the batch that fills: they count when it turns
    /// out to be none that came before.
    pub fn note_rejected(&mut self, rejected: RejectedByCode) {
        if let Some((_, under_way)) = &mut self.filling {
            under_way.rejected = rejected;
        }
    }

    /// Notes that `waiter` has events in the batch that fills, and hands the batch over if the
    /// turn's share is used up.
    pub fn wait_for_filling(&mut self, waiter: Waiter, handoff: &Handoff) {
        if let Some((batch, under_way)) = &mut self.filling {
            if under_way.waiters.is_empty() {
                // It may have been there for long, for requests that left nothing in it.
                under_way.begun = Instant::now();
            }
            under_way.waiters.push(waiter);
            if under_way.waiters.len() >= limits::TURN_REQUESTS_MAX || batch.len() >= limits::TURN_BYTES_MAX {
                self.hand_over(handoff);
            }
        }
    }

    /// The rows of all further requests are of another schema: hands over what fills.
    pub fn change_schema(&mut self, frozen: Arc<[u8]>, handoff: &Handoff) {
        self.hand_over(handoff);
        self.frozen = frozen;
    }

    /// Hands over what fills if it is the batch of this sequence: its turn is over.
    pub fn hand_over_batch(&mut self, sequence: u64, handoff: &Handoff) {
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
            batch.close(under_way.sequence);
            self.in_flight.add(batch.len());
            self.under_way.push_back(under_way);
            handoff.submit(batch);
        }
    }

    /// Takes a batch back from the committer.
    pub fn settle(&mut self, returned: Returned) -> Option<Settled> {
        let Returned { mut batch, outcome } = returned;
        let (sequence, rows, duplicates) = (batch.sequence, batch.rows.count, batch.duplicates);
        let keyed = batch.key.map(|key| key.figures);
        self.in_flight.release(batch.len());
        batch.clear();
        self.spare.push(batch);
        let under_way = self.under_way.pop_front()?;
        debug_assert_eq!(under_way.sequence, sequence, "batches return in order");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handoff::{CommitRefusal, Mailbox};

    fn handoff() -> Handoff {
        let poll = mio::Poll::new().unwrap();
        Handoff::new(vec![Mailbox::new(poll.registry(), mio::Token(0)).unwrap()])
    }

    fn waiter(slot: usize) -> Waiter {
        Waiter { slot, generation: 1 }
    }

    #[test]
    fn there_is_room_until_all_batches_are_under_way() {
        let (mut outbox, handoff) = (Outbox::new(0, InFlight::new(1 << 20)), handoff());
        for sequence in 1..=limits::BATCHES_PER_WORKER as u64 {
            assert!(outbox.has_room());
            assert_eq!(outbox.filling().unwrap().1, sequence);
            outbox.wait_for_filling(waiter(7), &handoff);
            outbox.hand_over(&handoff);
        }
        assert!(!outbox.has_room());
        assert!(outbox.filling().is_none());
        let batch = handoff.next().unwrap();
        let outcome = CommitOutcome::Refused(CommitRefusal::DiskFull);
        let settled = outbox.settle(Returned { batch, outcome }).unwrap();
        assert_eq!((settled.sequence, settled.outcome), (1, Some(outcome)));
        assert_eq!(settled.waiters, [waiter(7)]);
        assert!(outbox.has_room());
    }

    #[test]
    fn a_used_up_budget_stops_all_but_the_last_batch() {
        let in_flight = InFlight::new(1 << 20);
        let (mut outbox, handoff) = (Outbox::new(0, in_flight.clone()), handoff());
        outbox.filling().unwrap().0.rows.bytes.resize(1 << 20, 0);
        outbox.wait_for_filling(waiter(0), &handoff);
        assert_eq!(in_flight.bytes(), 1 << 20);
        assert!(!outbox.has_room());
        let returned = Returned { batch: handoff.next().unwrap(), outcome: CommitOutcome::Committed { segment: 1 } };
        outbox.settle(returned).unwrap();
        assert_eq!(in_flight.bytes(), 0);
        // Whoever else has used it up: a worker with nothing under way would wait for ever.
        in_flight.add(2 << 20);
        assert!(outbox.has_room());
        outbox.filling().unwrap();
        outbox.wait_for_filling(waiter(0), &handoff);
        outbox.hand_over(&handoff);
        assert!(!outbox.has_room());
        // A batch that a request took and left empty is no room either.
        outbox.filling().unwrap();
        assert!(!outbox.has_room());
    }

    #[test]
    fn a_batch_leaves_when_the_turns_share_is_used_up() {
        let (mut outbox, handoff) = (Outbox::new(0, InFlight::new(1 << 20)), handoff());
        for _ in 0..limits::TURN_REQUESTS_MAX {
            assert!(handoff.next().is_none());
            outbox.filling().unwrap();
            outbox.wait_for_filling(waiter(0), &handoff);
        }
        assert_eq!(handoff.next().unwrap().sequence, 1);
        outbox.filling().unwrap().0.rows.bytes.resize(limits::TURN_BYTES_MAX, 0);
        outbox.wait_for_filling(waiter(0), &handoff);
        assert_eq!(handoff.next().unwrap().sequence, 2);
    }

    #[test]
    fn a_batch_that_has_left_does_not_take_the_next_with_it() {
        let (mut outbox, handoff) = (Outbox::new(0, InFlight::new(1 << 20)), handoff());
        let fill = |outbox: &mut Outbox| {
            let sequence = outbox.filling().unwrap().1;
            outbox.wait_for_filling(waiter(0), &handoff);
            sequence
        };
        let first = fill(&mut outbox);
        outbox.hand_over(&handoff);
        let second = fill(&mut outbox);
        assert_eq!(handoff.next().unwrap().sequence, first);
        outbox.hand_over_batch(first, &handoff);
        assert!(handoff.next().is_none());
        outbox.hand_over_batch(second, &handoff);
        assert_eq!(handoff.next().unwrap().sequence, second);
    }

    #[test]
    fn a_batch_without_waiters_is_not_handed_over() {
        let (mut outbox, handoff) = (Outbox::new(0, InFlight::new(1 << 20)), handoff());
        outbox.filling().unwrap();
        outbox.hand_over(&handoff);
        assert!(handoff.next().is_none());
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_batch_is_as_old_as_the_first_request_in_it() {
        let (mut outbox, handoff) = (Outbox::new(0, InFlight::new(1 << 20)), handoff());
        let timeout = Duration::from_secs(60);
        // For a request that left nothing in it, and long ago.
        outbox.filling().unwrap();
        outbox.filling.as_mut().unwrap().1.begun = Instant::now().checked_sub(2 * timeout).unwrap();
        outbox.filling().unwrap();
        outbox.wait_for_filling(waiter(3), &handoff);
        outbox.hand_over(&handoff);
        assert!(outbox.overdue(timeout).is_none());
    }

    #[test]
    fn an_overdue_batch_is_reported_once_and_its_outcome_finds_nobody() {
        let (mut outbox, handoff) = (Outbox::new(0, InFlight::new(1 << 20)), handoff());
        outbox.filling().unwrap();
        outbox.wait_for_filling(waiter(3), &handoff);
        outbox.hand_over(&handoff);
        let late = outbox.overdue(Duration::ZERO).unwrap();
        assert_eq!((late.sequence, late.waiters.len(), late.outcome), (1, 1, None));
        assert!(outbox.overdue(Duration::ZERO).is_none());
        let batch = handoff.next().unwrap();
        let settled = outbox.settle(Returned { batch, outcome: CommitOutcome::Committed { segment: 1 } }).unwrap();
        assert!(settled.waiters.is_empty());
        assert!(outbox.is_empty());
    }
}
