//! Where threads meet, in every order that a scheduler can think of: no wake-up is lost.
//!
//! The files under test are the server's own hand-over: its mailboxes, its committer's waits and its
//! list of confirmed blocks, built on `shuttle`'s atomics and threads instead of the system's. It
//! runs one thread at a time and chooses which at each operation, at random or by priorities that it
//! changes at a few places (PCT). All threads asleep at once is a lost wake-up and fails: to `shuttle`
//! no time-out ends a sleep. Every operation is sequentially consistent to it, which is what the
//! protocol asks of the processor.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

/// `src/handoff`, file by file, but for its `sync`.
#[path = "../src/handoff"]
#[allow(dead_code, missing_docs)]
mod handoff {
    pub(crate) mod exchange;
    mod inserted;
    mod lifecycle;
    pub(crate) mod mailbox;
    mod submitted;
    mod wakeup;

    /// What those files are built on here.
    mod sync {
        pub(super) use shuttle::sync::atomic;
        pub(super) use shuttle::thread::{Thread, current, park_timeout};

        use atomic::{AtomicUsize, Ordering::SeqCst};

        /// The server's queue, whose every operation is a place where another thread may go on.
        pub(super) struct ArrayQueue<T> {
            queue: crossbeam::queue::ArrayQueue<T>,
            place: AtomicUsize,
        }

        impl<T> ArrayQueue<T> {
            pub(super) fn new(capacity: usize) -> Self {
                Self { queue: crossbeam::queue::ArrayQueue::new(capacity), place: AtomicUsize::new(0) }
            }

            pub(super) fn push(&self, item: T) -> Result<(), T> {
                self.place.load(SeqCst);
                self.queue.push(item)
            }

            pub(super) fn len(&self) -> usize {
                self.place.load(SeqCst);
                self.queue.len()
            }

            pub(super) fn pop(&self) -> Option<T> {
                self.place.load(SeqCst);
                self.queue.pop()
            }

            pub(super) fn is_empty(&self) -> bool {
                self.place.load(SeqCst);
                self.queue.is_empty()
            }
        }
    }
}

/// Bounds so small that they are met.
mod limits {
    pub(crate) const BATCHES_PER_WORKER: usize = 2;
    pub(crate) const ARRIVALS_MAX: usize = 2;
    /// Blocks meet in the ring.
    pub(crate) const INSERTED_RING: usize = 4;
}

use std::fs::File;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::time::Duration;

use handoff::exchange::Handoff;
use handoff::mailbox::{Arrival, Mailbox};
use shuttle::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use shuttle::sync::{Arc, mpsc};
use shuttle::thread::{self, JoinHandle, Thread};
use sluicegate::batch::{self, Batch, BlockNumber, CommitOutcome, Exchange, Returned, SegmentNumber, Sequence};
use sluicegate::net::{self, Stream};

const RANDOM: usize = 4000;
const BY_PRIORITY: usize = 4000;
/// Places where the priorities change.
const DEPTH: usize = 3;
/// Never reached: nothing but a wake-up ends a sleep.
const FOR_EVER: Duration = Duration::MAX;

fn in_many_orders(test: fn()) {
    shuttle::check_random(test, RANDOM);
    shuttle::check_pct(test, BY_PRIORITY, DEPTH);
}

/// A hand-over and the threads of its workers, as soon as they run.
struct Meeting {
    handoff: Arc<Handoff>,
    workers: Vec<Arc<OnceLock<Thread>>>,
}

impl Meeting {
    fn of(workers: usize) -> Self {
        let workers: Vec<Arc<OnceLock<Thread>>> = (0..workers).map(|_| Arc::default()).collect();
        let mailbox = |worker: &Arc<OnceLock<Thread>>| {
            let worker = worker.clone();
            // A worker that does not run yet looks before it sleeps.
            Mailbox::woken_by(move || worker.get().into_iter().for_each(Thread::unpark))
        };
        let handoff = Handoff::new(workers.iter().map(mailbox).collect(), std::sync::Arc::default());
        Self { handoff: Arc::new(handoff), workers }
    }

    /// Starts worker `index`, which takes `turn` after `turn` until one returns true, and sleeps in
    /// between as a worker does.
    fn worker(
        &self,
        index: usize,
        mut turn: impl FnMut(&Handoff, &Mailbox) -> bool + Send + 'static,
    ) -> JoinHandle<()> {
        let (handoff, thread) = (self.handoff.clone(), self.workers[index].clone());
        thread::spawn(move || {
            thread.set(thread::current()).unwrap();
            let mailbox = handoff.mailbox(index).unwrap();
            while !turn(&handoff, mailbox) {
                if mailbox.may_sleep() {
                    handoff.worker_sleeps();
                    thread::park();
                }
                mailbox.awake();
            }
        })
    }

    /// Starts the committer, which takes every batch until no worker submits any more, and returns how
    /// many it took. With `gathers` it waits for more whenever it has taken the first.
    fn committer(&self, gathers: bool) -> JoinHandle<usize> {
        let handoff = self.handoff.clone();
        thread::spawn(move || {
            handoff.register_committer();
            let mut taken = 0;
            loop {
                let finished = handoff.is_finished();
                if let Some(first) = handoff.next() {
                    if gathers {
                        handoff.gather(FOR_EVER);
                    }
                    for batch in std::iter::once(first).chain(std::iter::from_fn(|| handoff.next())) {
                        taken += 1;
                        let worker = batch.worker;
                        let block = BlockNumber::first(SegmentNumber::new(batch.sequence.get()));
                        handoff.give_back(Returned { batch, outcome: CommitOutcome::Committed { block } });
                        handoff.wake(worker);
                    }
                } else if finished {
                    return taken;
                } else {
                    handoff.wait(FOR_EVER);
                }
            }
        })
    }
}

/// A worker's turn that hands over what it has, up to `count` batches in all, and returns true when
/// every one of them has come home in its order.
fn hand_over(worker: usize, count: u64) -> impl FnMut(&Handoff, &Mailbox) -> bool + Send {
    let mut home: Vec<Batch> = (0..limits::BATCHES_PER_WORKER).map(|_| Batch::new(worker)).collect();
    let (mut sent, mut received) = (0, 0);
    move |handoff, mailbox| {
        while let Some(Returned { batch, outcome }) = mailbox.take() {
            received += 1;
            assert_eq!(outcome, CommitOutcome::Committed { block: BlockNumber::first(SegmentNumber::new(received)) });
            home.push(batch);
        }
        while sent < count
            && let Some(mut batch) = home.pop()
        {
            sent += 1;
            batch.sequence = Sequence::new(sent);
            handoff.submit(batch);
        }
        received == count
    }
}

/// A connection without a network: nobody reads or writes here.
fn arrival() -> Arrival {
    let file = OwnedFd::from(File::open("/dev/null").unwrap());
    let stream = Stream::Tcp(mio::net::TcpStream::from_std(TcpStream::from(file)));
    Arrival { stream, peer: None, is_passed: false }
}

#[test]
fn every_batch_reaches_the_committer_and_comes_home() {
    in_many_orders(|| {
        const WORKERS: usize = 2;
        const EACH: u64 = 3;
        let meeting = Meeting::of(WORKERS);
        let committer = meeting.committer(false);
        let workers: Vec<_> = (0..WORKERS).map(|index| meeting.worker(index, hand_over(index, EACH))).collect();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        meeting.handoff.finish();
        assert_eq!(committer.join().unwrap(), WORKERS * EACH as usize);
    });
}

#[test]
fn a_committer_that_gathers_hears_of_the_last_worker_that_sleeps() {
    in_many_orders(|| {
        const WORKERS: usize = 2;
        const EACH: u64 = 2;
        let meeting = Meeting::of(WORKERS);
        let committer = meeting.committer(true);
        let (done, all_done) = mpsc::channel();
        let workers: Vec<_> = (0..WORKERS)
            .map(|index| {
                let (mut turn, mut done) = (hand_over(index, EACH), Some(done.clone()));
                // Whose batches are all home waits for clients, until the last one comes.
                meeting.worker(index, move |handoff, mailbox| {
                    if done.is_some() && turn(handoff, mailbox) {
                        done.take().unwrap().send(()).unwrap();
                    }
                    mailbox.arrival().is_some()
                })
            })
            .collect();
        (0..WORKERS).for_each(|_| all_done.recv().unwrap());
        for index in 0..WORKERS {
            meeting.handoff.place(index, arrival());
            meeting.handoff.mailbox(index).unwrap().wake();
        }
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        meeting.handoff.finish();
        assert_eq!(committer.join().unwrap(), WORKERS * EACH as usize);
    });
}

#[test]
fn a_reply_that_waits_for_its_block_hears_of_it() {
    in_many_orders(|| {
        const BLOCKS: [u64; 2] = [5, 6];
        let meeting = Meeting::of(1);
        let mut waiting = BLOCKS.to_vec();
        let mut is_noted = false;
        let worker = meeting.worker(0, move |handoff, mailbox| {
            while let Some(block) = waiting.last().copied().map(SegmentNumber::new).map(BlockNumber::first) {
                if !is_noted {
                    handoff.inserted.wait();
                }
                // Later it looks only when there is news.
                if (is_noted && !mailbox.take_news()) || !handoff.inserted.has(block) {
                    is_noted = true;
                    return false;
                }
                handoff.inserted.wait_no_more();
                waiting.pop();
                is_noted = false;
            }
            true
        });
        let inserters: Vec<_> = BLOCKS
            .into_iter()
            .map(|block| {
                let handoff = meeting.handoff.clone();
                thread::spawn(move || handoff.block_inserted(BlockNumber::first(SegmentNumber::new(block))))
            })
            .collect();
        inserters.into_iter().for_each(|inserter| inserter.join().unwrap());
        worker.join().unwrap();
    });
}

#[test]
fn a_connection_that_another_worker_accepted_is_served() {
    in_many_orders(|| {
        const EACH: usize = 2;
        let meeting = Meeting::of(2);
        let mut served = 0;
        let idle = meeting.worker(0, move |_, mailbox| {
            served += std::iter::from_fn(|| mailbox.arrival()).count();
            served == EACH
        });
        for _ in 0..2 * EACH {
            meeting.handoff.place(1, arrival());
        }
        idle.join().unwrap();
        assert_eq!(meeting.handoff.connections(), 2 * EACH);
    });
}

#[test]
fn no_connection_goes_to_a_worker_that_has_ended() {
    in_many_orders(|| {
        const PLACED: usize = 4;
        let meeting = Meeting::of(2);
        let taken = Arc::new(AtomicUsize::new(0));
        let take_all = |taken: &AtomicUsize, mailbox: &Mailbox| {
            taken.fetch_add(std::iter::from_fn(|| mailbox.arrival()).count(), SeqCst);
        };
        let (handoff, counted) = (meeting.handoff.clone(), taken.clone());
        // It looks a last time once it has seen the stop, as a worker does, and ends. It does not sleep: the
        // end of its time does not wake it here.
        let ending = thread::spawn(move || {
            let mut ends = false;
            while !ends {
                ends = handoff.lifecycle.is_stopping();
                if ends {
                    handoff.ends_soon();
                }
                take_all(&counted, handoff.mailbox(0).unwrap());
                thread::yield_now();
            }
        });
        let (handoff, counted) = (meeting.handoff.clone(), taken.clone());
        let accepting = thread::spawn(move || {
            for _ in 0..PLACED {
                // The other one has fewer each second time, and is given these.
                handoff.place(1, arrival());
                take_all(&counted, handoff.mailbox(1).unwrap());
            }
        });
        meeting.handoff.lifecycle.stop(Duration::from_secs(3600));
        ending.join().unwrap();
        accepting.join().unwrap();
        assert!(meeting.handoff.mailbox(0).unwrap().arrival().is_none(), "nobody serves it");
        assert_eq!(taken.load(SeqCst), PLACED);
    });
}
