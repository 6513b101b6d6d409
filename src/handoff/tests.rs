//! The hand-over with real threads and real event queues.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::*;
use crate::batch::{Batch, BlockNumber, CommitOutcome, CommitRefusal, Exchange, Returned, SegmentNumber, Sequence};
use crate::limits;
use crate::net::Stream;

const WAKE: mio::Token = mio::Token(0);

#[test]
fn every_batch_comes_back_and_no_wake_up_is_lost() {
    let mut poll = mio::Poll::new().unwrap();
    let mailbox = Mailbox::new(poll.registry(), WAKE).unwrap();
    let handoff = Arc::new(Handoff::new(vec![mailbox], Arc::default()));
    let committer = {
        let handoff = handoff.clone();
        thread::spawn(move || {
            handoff.register_committer();
            loop {
                let finished = handoff.is_finished();
                while let Some(batch) = handoff.next() {
                    let outcome = CommitOutcome::Committed {
                        block: BlockNumber::first(SegmentNumber::new(batch.sequence.get())),
                    };
                    let mailbox = handoff.mailbox(batch.worker).unwrap();
                    mailbox.give_back(Returned { batch, outcome });
                    mailbox.wake();
                }
                if finished {
                    return;
                }
                // Far longer than the test may take: a lost wake-up hangs it.
                handoff.wait(Duration::from_secs(600));
            }
        })
    };
    let mailbox = handoff.mailbox(0).unwrap();
    let mut events = mio::Events::with_capacity(8);
    let mut spare = vec![Batch::new(0), Batch::new(0)];
    let (mut sent, mut received) = (0u64, 0u64);
    while received < 20_000 {
        while let Some(mut batch) = spare.pop() {
            sent += 1;
            batch.sequence = Sequence::new(sent);
            batch.close();
            handoff.submit(batch);
        }
        while let Some(returned) = mailbox.take() {
            received += 1;
            assert_eq!(returned.batch.sequence.get(), received);
            assert_eq!(
                returned.outcome,
                CommitOutcome::Committed { block: BlockNumber::first(SegmentNumber::new(received)) }
            );
            spare.push(returned.batch);
        }
        if spare.is_empty() && mailbox.may_sleep() {
            poll.poll(&mut events, Some(Duration::from_secs(600))).unwrap();
        }
        mailbox.awake();
    }
    handoff.finish();
    committer.join().unwrap();
}

#[test]
fn a_committer_that_gathers_hears_of_the_last_worker_that_sleeps() {
    let polls: Vec<mio::Poll> = (0..3).map(|_| mio::Poll::new().unwrap()).collect();
    let mailboxes = polls.iter().map(|poll| Mailbox::new(poll.registry(), WAKE).unwrap()).collect();
    let handoff = Arc::new(Handoff::new(mailboxes, Arc::default()));
    let committer = {
        let handoff = handoff.clone();
        thread::spawn(move || {
            handoff.register_committer();
            // Far longer than the test may take: a lost wake-up hangs it.
            handoff.gather(Duration::from_secs(600));
        })
    };
    while !handoff.is_gathering() {
        thread::yield_now();
    }
    for worker in 0..3 {
        assert!(handoff.is_gathering(), "{worker} workers sleep, and it waits no more");
        handoff.submit(Batch::new(worker));
        assert!(handoff.mailbox(worker).unwrap().may_sleep());
        handoff.worker_sleeps();
    }
    committer.join().unwrap();
    // Nobody is at work: it does not wait at all.
    handoff.gather(Duration::from_secs(600));
}

#[test]
fn a_mailbox_with_something_in_it_forbids_sleep() {
    let poll = mio::Poll::new().unwrap();
    let mailbox = Mailbox::new(poll.registry(), WAKE).unwrap();
    assert!(mailbox.may_sleep());
    mailbox.awake();
    mailbox.give_back(Returned { batch: Batch::new(0), outcome: CommitOutcome::Refused(CommitRefusal::SpoolFull) });
    assert!(!mailbox.may_sleep());
}

#[test]
fn a_block_is_known_once_it_is_noted_and_until_it_is_very_old() {
    let inserted = Inserted::default();
    assert!(!inserted.has(BlockNumber::first(SegmentNumber::new(5))));
    assert!(!inserted.note(BlockNumber::first(SegmentNumber::new(5))), "nobody waits");
    assert!(
        inserted.has(BlockNumber::first(SegmentNumber::new(5)))
            && !inserted.has(BlockNumber::first(SegmentNumber::new(6)))
    );
    inserted.wait();
    assert!(
        inserted.note(BlockNumber::first(SegmentNumber::new(6)))
            && inserted.has(BlockNumber::first(SegmentNumber::new(6)))
    );
    inserted.wait_no_more();
    inserted.note(BlockNumber::first(SegmentNumber::new(5 + limits::INSERTED_RING as u64)));
    assert!(!inserted.has(BlockNumber::first(SegmentNumber::new(5))));
}

/// Makes connections to a listener of its own.
fn arrivals() -> impl Fn() -> Arrival {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    move || {
        let peer = listener.local_addr().unwrap();
        let stream = Stream::Tcp(mio::net::TcpStream::connect(peer).unwrap());
        Arrival { stream, peer: Some(peer.ip()), is_passed: false }
    }
}

#[test]
fn connections_are_spread_over_the_workers() {
    let arrival = arrivals();
    let polls: Vec<mio::Poll> = (0..4).map(|_| mio::Poll::new().unwrap()).collect();
    let mailboxes = polls.iter().map(|poll| Mailbox::new(poll.registry(), WAKE).unwrap()).collect();
    let handoff = Handoff::new(mailboxes, Arc::default());
    // All of them are accepted by one worker, as a hash may have it.
    for _ in 0..64 {
        handoff.place(2, arrival());
    }
    let held = |worker: usize| std::iter::from_fn(|| handoff.mailbox(worker).unwrap().arrival()).count();
    assert_eq!([held(0), held(1), held(2), held(3)], [16; 4]);
    assert_eq!(handoff.connections(), 64);
    handoff.leave(1);
    let place = || handoff.place(2, arrival());
    place();
    assert_eq!(held(1), 1);
    // Others may be at their end while the server stops.
    handoff.leave(1);
    handoff.leave(1);
    handoff.lifecycle.stop(Duration::ZERO);
    place();
    assert_eq!([held(1), held(2)], [0, 1]);
}

#[test]
fn a_connection_without_room_is_passed_on_once_to_the_worker_with_the_most() {
    let arrival = arrivals();
    let polls: Vec<mio::Poll> = (0..3).map(|_| mio::Poll::new().unwrap()).collect();
    let mailboxes = polls.iter().map(|poll| Mailbox::new(poll.registry(), WAKE).unwrap()).collect();
    let handoff = Handoff::new(mailboxes, Arc::default());
    (0..6).for_each(|_| handoff.place(2, arrival()));
    let take = |worker: usize| handoff.mailbox(worker).unwrap().arrival();
    let connections = || [0, 1, 2].map(|worker| handoff.mailbox(worker).unwrap().connections());
    (0..3).for_each(|worker| drop((take(worker), take(worker))));
    [0, 1, 1].into_iter().for_each(|worker| handoff.leave(worker));
    handoff.place(1, arrival());
    assert_eq!(connections(), [1, 1, 2]);
    handoff.pass_on(1, take(1).unwrap()).unwrap();
    assert_eq!(connections(), [1, 0, 3]);
    let passed = take(2).unwrap();
    assert!(handoff.pass_on(2, passed).is_err());
    assert_eq!(connections(), [1, 0, 3]);
    // Others may be at their end while the server stops.
    handoff.place(1, arrival());
    handoff.lifecycle.stop(Duration::ZERO);
    assert!(handoff.pass_on(1, take(1).unwrap()).is_err());
    assert_eq!(connections(), [1, 1, 3]);
}

#[test]
fn the_phase_goes_forward_only() {
    let lifecycle = Lifecycle::default();
    assert!(lifecycle.is_starting() && !lifecycle.is_stopping() && lifecycle.deadline().is_none());
    lifecycle.serve();
    assert!(!lifecycle.is_starting() && !lifecycle.is_stopping());
    assert!(lifecycle.stop(Duration::from_secs(30)));
    let deadline = lifecycle.deadline().unwrap();
    assert!(!lifecycle.stop(Duration::ZERO), "a second request to stop is told apart");
    assert_eq!(lifecycle.deadline(), Some(deadline), "and does not shorten the first");
    assert_eq!(deadline - lifecycle.stopping_since().unwrap(), Duration::from_secs(30));
    lifecycle.finish();
    lifecycle.serve();
    assert!(lifecycle.is_stopping() && lifecycle.is_finishing());
}

#[test]
fn a_stop_during_the_start_is_not_undone_by_its_end() {
    let lifecycle = Lifecycle::default();
    lifecycle.stop(Duration::ZERO);
    lifecycle.serve();
    assert!(lifecycle.is_stopping());
}
