//! The exchange between threads: bounded lock-free queues, and wake-ups that make a system call only
//! when the other side sleeps.
//!
//! ```text
//! worker k ── batch ──▶ Handoff.submitted ──▶ committer
//! worker k ◀─ the same batch with its outcome ── Mailbox k ── committer
//! worker k ◀─ segments that ClickHouse has confirmed ── Inserted ── inserter i
//! worker k ◀─ new connections, if it has fewer than worker j ── Mailbox k ── worker j
//! ```
//!
//! Each worker owns a fixed number of batches, and the queues have the capacity for all batches, so
//! a push of a batch never fails. A worker whose batches are all submitted stops reading from its
//! sockets, and TCP flow control slows the clients down.
//!
//! The module [`wakeup`] describes how a sleeping thread is woken.

mod inserted;
mod lifecycle;
mod published;
mod wakeup;

/// The atomics that `inserted` and `wakeup` use; a test replaces them.
mod sync {
    pub(super) use std::sync::atomic;
}

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

pub use inserted::Inserted;
pub use lifecycle::Lifecycle;
pub use published::{Published, Subscription};
use wakeup::Asleep;

use crate::batch::{Batch, Exchange, Returned, SegmentNumber};
use crate::limits;

/// An accepted connection on its way to the worker that will serve it.
#[derive(Debug)]
pub struct Arrival {
    /// The socket, which is not registered with an event queue yet.
    pub stream: mio::net::TcpStream,
    /// The address of the peer.
    pub peer: SocketAddr,
}

/// The queues to one worker, and the means to wake it.
pub struct Mailbox {
    returned: ArrayQueue<Returned>,
    arrivals: ArrayQueue<Arrival>,
    connections: AtomicUsize,
    /// True if a segment was confirmed since the worker last checked.
    news: AtomicBool,
    asleep: Asleep,
    waker: Box<dyn Fn() + Send + Sync>,
}

impl Mailbox {
    /// Creates the mailbox of a worker that polls with `registry`; `token` identifies the waker.
    pub fn new(registry: &mio::Registry, token: mio::Token) -> io::Result<Self> {
        let waker = mio::Waker::new(registry, token)?;
        Ok(Self::woken_by(move || {
            // The only failure of an eventfd write is a full counter, which wakes as well.
            let _ = waker.wake();
        }))
    }

    /// Creates the mailbox of a worker that sleeps until `wake` is called.
    pub fn woken_by(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            returned: ArrayQueue::new(limits::BATCHES_PER_WORKER),
            arrivals: ArrayQueue::new(limits::ARRIVALS_MAX),
            connections: AtomicUsize::new(0),
            news: AtomicBool::new(false),
            asleep: Asleep::default(),
            waker: Box::new(wake),
        }
    }

    /// Called by the committer: returns a batch. Must be followed by one [`Mailbox::wake`] per group.
    pub fn give_back(&self, returned: Returned) {
        let delivered = self.returned.push(returned);
        assert!(delivered.is_ok(), "more batches came back than exist");
    }

    /// Wakes the worker if it sleeps or is about to.
    pub fn wake(&self) {
        if self.asleep.must_wake() {
            (self.waker)();
        }
    }

    /// Called by the worker: takes the next returned batch.
    pub fn take(&self) -> Option<Returned> {
        self.returned.pop()
    }

    /// Called by the worker: takes the next connection to serve.
    pub fn arrival(&self) -> Option<Arrival> {
        self.arrivals.pop()
    }

    /// Called by the worker: true if a segment was confirmed since the last call.
    pub fn take_news(&self) -> bool {
        self.news.load(Ordering::Relaxed) && self.news.swap(false, Ordering::SeqCst)
    }

    /// Called by the worker: announces that it is about to sleep. If the result is false, the mailbox
    /// is not empty and the worker must not sleep.
    pub fn may_sleep(&self) -> bool {
        self.asleep
            .may_sleep(|| self.returned.is_empty() && self.arrivals.is_empty() && !self.news.load(Ordering::SeqCst))
    }

    /// Called by the worker after it has slept.
    pub fn awake(&self) {
        self.asleep.awake();
    }
}

/// The queue to the committer, and the mailboxes of all workers.
pub struct Handoff {
    submitted: ArrayQueue<Batch>,
    mailboxes: Box<[CachePadded<Mailbox>]>,
    committer: OnceLock<Thread>,
    committer_asleep: CachePadded<Asleep>,
    gathering: CachePadded<Asleep>,
    /// The phase of the process.
    pub lifecycle: Arc<Lifecycle>,
    /// The segments that ClickHouse has confirmed recently.
    pub inserted: Inserted,
}

impl Handoff {
    /// Creates a hand-off for the workers with these mailboxes, in the order of their indices.
    pub fn new(mailboxes: Vec<Mailbox>, lifecycle: Arc<Lifecycle>) -> Self {
        let capacity = (mailboxes.len() * limits::BATCHES_PER_WORKER).max(1);
        Self {
            submitted: ArrayQueue::new(capacity),
            mailboxes: mailboxes.into_iter().map(CachePadded::new).collect(),
            committer: OnceLock::new(),
            committer_asleep: CachePadded::default(),
            gathering: CachePadded::default(),
            lifecycle,
            inserted: Inserted::default(),
        }
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.mailboxes.len()
    }

    /// The mailbox of a worker.
    pub fn mailbox(&self, worker: usize) -> Option<&Mailbox> {
        self.mailboxes.get(worker).map(|padded| &**padded)
    }

    /// Called by worker `from`: passes a connection that it has accepted to the worker with the fewest
    /// connections, and keeps it if `from` is one of those.
    ///
    /// The kernel distributes connections over the listening sockets by a hash of their addresses,
    /// which gives some workers twice the share of others.
    pub fn place(&self, from: usize, arrival: Arrival) {
        let load = |mailbox: &Mailbox| mailbox.connections.load(Ordering::Relaxed);
        let own = self.mailbox(from).map_or(usize::MAX, load);
        let least = (0..).zip(&self.mailboxes).min_by_key(|(_, mailbox)| load(mailbox));
        let Some((index, mailbox)) = least
            .filter(|(_, mailbox)| load(mailbox) < own)
            .or_else(|| (0..).zip(&self.mailboxes).find(|(index, _)| *index == from))
        else {
            return;
        };
        mailbox.connections.fetch_add(1, Ordering::Relaxed);
        if mailbox.arrivals.push(arrival).is_err() {
            // The worker is far behind. The connection is dropped, hence closed, and the client tries
            // again.
            mailbox.connections.fetch_sub(1, Ordering::Relaxed);
        } else if index != from {
            mailbox.wake();
        }
    }

    /// Called by a worker after it has closed a connection.
    pub fn leave(&self, worker: usize) {
        if let Some(mailbox) = self.mailbox(worker) {
            mailbox.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Number of open connections of all workers.
    pub fn connections(&self) -> usize {
        self.mailboxes.iter().map(|mailbox| mailbox.connections.load(Ordering::Relaxed)).sum()
    }

    /// Called by an inserter after ClickHouse has confirmed the rows of a segment.
    pub fn segment_inserted(&self, segment: SegmentNumber) {
        if self.inserted.note(segment) {
            for mailbox in &self.mailboxes {
                mailbox.news.store(true, Ordering::SeqCst);
                mailbox.wake();
            }
        }
    }

    /// Wakes every worker, so that it notices a change that concerns all.
    pub fn wake_workers(&self) {
        for mailbox in &self.mailboxes {
            mailbox.wake();
        }
    }

    /// Called by a worker: submits a closed batch to the committer.
    pub fn submit(&self, batch: Batch) {
        let accepted = self.submitted.push(batch);
        assert!(accepted.is_ok(), "more batches are under way than exist");
        self.wake_committer();
    }

    /// True while the committer waits for more batches to join a group.
    pub fn is_gathering(&self) -> bool {
        self.gathering.is_asleep()
    }

    /// Called by a worker that is about to sleep. The last worker to sleep wakes a committer that
    /// gathers a group.
    pub fn worker_sleeps(&self) {
        if self.gathering.must_wake_when(|| self.all_workers_sleep())
            && let Some(committer) = self.committer.get()
        {
            committer.unpark();
        }
    }

    fn all_workers_sleep(&self) -> bool {
        self.mailboxes.iter().all(|mailbox| mailbox.asleep.is_asleep())
    }

    /// Wakes the committer if it sleeps or is about to.
    pub fn wake_committer(&self) {
        if self.committer_asleep.must_wake()
            && let Some(committer) = self.committer.get()
        {
            committer.unpark();
        }
    }

    /// Notes that no worker submits any more batches. The committer stores the queued batches, seals
    /// the open segment, and ends.
    pub fn finish(&self) {
        self.lifecycle.finish();
        if let Some(committer) = self.committer.get() {
            committer.unpark();
        }
    }
}

impl Exchange for Handoff {
    fn register_committer(&self) {
        let _ = self.committer.set(thread::current());
    }

    fn next(&self) -> Option<Batch> {
        self.submitted.pop()
    }

    fn wait(&self, timeout: Duration) {
        if self.committer_asleep.may_sleep(|| self.submitted.is_empty() && !self.is_finished()) {
            thread::park_timeout(timeout);
        }
        self.committer_asleep.awake();
    }

    fn gather(&self, timeout: Duration) {
        if self.gathering.may_sleep(|| !self.all_workers_sleep()) {
            thread::park_timeout(timeout);
        }
        self.gathering.awake();
    }

    fn is_finished(&self) -> bool {
        self.lifecycle.is_finishing()
    }

    fn give_back(&self, returned: Returned) {
        if let Some(mailbox) = self.mailbox(returned.batch.worker) {
            mailbox.give_back(returned);
        }
    }

    fn wake(&self, worker: usize) {
        if let Some(mailbox) = self.mailbox(worker) {
            mailbox.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{CommitOutcome, CommitRefusal, Sequence};

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
                        let outcome = CommitOutcome::Committed { segment: SegmentNumber::new(batch.sequence.get()) };
                        let mailbox = handoff.mailbox(batch.worker).unwrap();
                        mailbox.give_back(Returned { batch, outcome });
                        mailbox.wake();
                    }
                    if finished {
                        return;
                    }
                    // Far longer than the test takes: a lost wake-up makes it hang.
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
                assert_eq!(returned.outcome, CommitOutcome::Committed { segment: SegmentNumber::new(received) });
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
                // Far longer than the test takes: a lost wake-up makes it hang.
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
        // No worker is awake, so the committer does not wait at all.
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
    fn a_segment_is_known_once_it_is_noted_and_until_it_is_very_old() {
        let inserted = Inserted::default();
        assert!(!inserted.has(SegmentNumber::new(5)));
        assert!(!inserted.note(SegmentNumber::new(5)), "nobody waits");
        assert!(inserted.has(SegmentNumber::new(5)) && !inserted.has(SegmentNumber::new(6)));
        inserted.wait();
        assert!(inserted.note(SegmentNumber::new(6)) && inserted.has(SegmentNumber::new(6)));
        inserted.wait_no_more();
        inserted.note(SegmentNumber::new(5 + limits::INSERTED_RING as u64));
        assert!(!inserted.has(SegmentNumber::new(5)));
    }

    #[test]
    fn connections_are_spread_over_the_workers() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = listener.local_addr().unwrap();
        let polls: Vec<mio::Poll> = (0..4).map(|_| mio::Poll::new().unwrap()).collect();
        let mailboxes = polls.iter().map(|poll| Mailbox::new(poll.registry(), WAKE).unwrap()).collect();
        let handoff = Handoff::new(mailboxes, Arc::default());
        // One worker accepts all connections, as the hash of the kernel may have it.
        for _ in 0..64 {
            let stream = mio::net::TcpStream::connect(peer).unwrap();
            handoff.place(2, Arrival { stream, peer });
        }
        let held = |worker: usize| std::iter::from_fn(|| handoff.mailbox(worker).unwrap().arrival()).count();
        assert_eq!([held(0), held(1), held(2), held(3)], [16; 4]);
        assert_eq!(handoff.connections(), 64);
        handoff.leave(1);
        handoff.place(2, Arrival { stream: mio::net::TcpStream::connect(peer).unwrap(), peer });
        assert_eq!(held(1), 1);
    }
}
