//! Tests of the outbox: room, sequences, time-outs and what comes back.

mod tables;

use super::*;
use crate::batch::{BlockNumber, CommitRefusal, Exchange, SegmentNumber};
use crate::handoff::Mailbox;
use crate::intake::budget::BudgetLimits;

/// The only table.
const EVENTS: TableIndex = TableIndex::new(0);

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
    let mut filling = outbox.fill(EVENTS).unwrap();
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
    let (mut outbox, handoff) = (Outbox::new(0, limits::BATCHES_PER_WORKER, 1, budget()), handoff());
    for sequence in 1..=limits::BATCHES_PER_WORKER as u64 {
        assert!(outbox.has_room(Size::Small));
        assert_eq!(join(&mut outbox, 0, 7, &handoff), Sequence::new(sequence));
        outbox.hand_over(&handoff);
    }
    assert!(!outbox.has_room(Size::Small));
    assert!(outbox.fill(EVENTS).is_none());
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
    let (mut outbox, handoff) = (Outbox::new(0, limits::BATCHES_PER_WORKER, 1, budget.clone()), handoff());
    join(&mut outbox, 1 << 20, 0, &handoff);
    assert!(budget.bytes() >= 1 << 20);
    assert!(!outbox.has_room(Size::Small));
    let returned = Returned {
        batch: handoff.next().unwrap(),
        outcome: CommitOutcome::Committed { block: BlockNumber::first(SegmentNumber::new(1)) },
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
    drop(outbox.fill(EVENTS).unwrap());
    assert!(!outbox.has_room(Size::Small));
}

#[test]
fn what_the_committer_takes_out_of_a_batch_is_given_back_too() {
    let budget = budget();
    let (mut outbox, handoff) = (Outbox::new(0, limits::BATCHES_PER_WORKER, 1, budget.clone()), handoff());
    for repeat in 0..3u8 {
        let mut filling = outbox.fill(EVENTS).unwrap();
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
    let (mut outbox, handoff) = (Outbox::new(0, limits::BATCHES_PER_WORKER, 1, budget()), handoff());
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
    let (mut outbox, handoff) = (Outbox::new(0, limits::BATCHES_PER_WORKER, 1, budget()), handoff());
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
    let (mut outbox, handoff) = (Outbox::new(0, limits::BATCHES_PER_WORKER, 1, budget()), handoff());
    drop(outbox.fill(EVENTS).unwrap());
    outbox.hand_over(&handoff);
    assert!(handoff.next().is_none());
    assert!(outbox.is_empty());
}

#[test]
fn what_a_request_appends_without_joining_is_rolled_back() {
    let (mut outbox, handoff) = (Outbox::new(0, limits::BATCHES_PER_WORKER, 1, budget()), handoff());
    join(&mut outbox, 7, 0, &handoff);
    let mut filling = outbox.fill(EVENTS).unwrap();
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
    let (mut outbox, handoff) = (Outbox::new(0, limits::BATCHES_PER_WORKER, 1, budget()), handoff());
    for _ in 0..2 {
        join(&mut outbox, 0, 0, &handoff);
        outbox.hand_over(&handoff);
    }
    let (_, batch) = (handoff.next(), handoff.next().unwrap());
    let outcome = CommitOutcome::Committed { block: BlockNumber::first(SegmentNumber::new(1)) };
    outbox.settle(Returned { batch, outcome });
}

#[test]
fn a_batch_is_as_old_as_the_first_request_in_it() {
    let (mut outbox, handoff) = (Outbox::new(0, limits::BATCHES_PER_WORKER, 1, budget()), handoff());
    let timeout = Duration::from_secs(60);
    // The batch was opened long ago, for a request that did not join it.
    drop(outbox.fill(EVENTS).unwrap());
    outbox.tables[0].filling.as_mut().unwrap().1.begun = Instant::now().checked_sub(2 * timeout).unwrap();
    join(&mut outbox, 0, 3, &handoff);
    outbox.hand_over(&handoff);
    assert!(outbox.overdue(timeout).is_none());
}

#[test]
fn an_overdue_batch_is_reported_once_and_its_outcome_has_no_waiters() {
    let (mut outbox, handoff) = (Outbox::new(0, limits::BATCHES_PER_WORKER, 1, budget()), handoff());
    join(&mut outbox, 0, 3, &handoff);
    outbox.hand_over(&handoff);
    let late = outbox.overdue(Duration::ZERO).unwrap();
    assert_eq!((late.sequence, late.waiters.len(), late.outcome), (Sequence::new(1), 1, None));
    assert!(outbox.overdue(Duration::ZERO).is_none());
    let batch = handoff.next().unwrap();
    let settled = outbox
        .settle(Returned {
            batch,
            outcome: CommitOutcome::Committed { block: BlockNumber::first(SegmentNumber::new(1)) },
        })
        .unwrap();
    assert!(settled.waiters.is_empty());
    assert!(outbox.is_empty());
}

#[test]
fn a_request_with_a_batch_of_its_own_uses_the_last_one_though_it_was_opened_for_others() {
    let (mut outbox, handoff) = (Outbox::new(0, limits::BATCHES_PER_WORKER, 1, budget()), handoff());
    for _ in 1..limits::BATCHES_PER_WORKER {
        join(&mut outbox, 0, 7, &handoff);
        outbox.hand_over(&handoff);
    }
    drop(outbox.fill(EVENTS).unwrap());
    let own = outbox.open_own(EVENTS).expect("no request has joined the batch that fills");
    assert!(outbox.open_own(EVENTS).is_none());
    outbox.put_back(own);
    join(&mut outbox, 0, 7, &handoff);
    assert!(outbox.open_own(EVENTS).is_none(), "a request has joined it");
}

#[test]
fn no_more_lists_of_waiters_are_kept_than_there_are_batches() {
    let mut outbox = Outbox::new(0, limits::BATCHES_PER_WORKER, 1, budget());
    for _ in 0..3 * limits::BATCHES_PER_WORKER {
        outbox.keep_lists(vec![waiter(7)], Vec::new(), Vec::new());
    }
    assert_eq!(outbox.spare_waiters.len(), limits::BATCHES_PER_WORKER);
    assert!(outbox.spare_waiters.iter().all(Vec::is_empty));
}
