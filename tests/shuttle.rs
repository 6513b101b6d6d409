//! Where threads meet, in every order that a scheduler can think of: no wake-up is lost.
//!
//! The files under test are the server's own, built on `shuttle`'s atomics. It runs one thread at a
//! time and chooses which at each operation, at random or by priorities that it changes at a few
//! places (PCT). All threads asleep at once is a wake-up lost, and fails. Every operation is
//! sequentially consistent to it, which is what the protocol asks of the processor.

#[path = "../src/handoff/inserted.rs"]
#[allow(dead_code, missing_docs)]
mod inserted;
#[path = "../src/handoff/wakeup.rs"]
mod wakeup;

#[path = "../src/batch/number.rs"]
#[allow(dead_code, missing_docs)]
mod number;

mod batch {
    pub(crate) use super::number::SegmentNumber;
}

mod sync {
    pub(crate) use shuttle::sync::atomic;
}

/// A ring so small that segments meet in it.
mod limits {
    pub(crate) const INSERTED_RING: usize = 4;
}

use std::collections::VecDeque;

use batch::SegmentNumber;
use inserted::Inserted;
use shuttle::sync::atomic::{AtomicBool, Ordering::SeqCst};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;
use wakeup::Asleep;

const RANDOM: usize = 4000;
const BY_PRIORITY: usize = 4000;
/// Places where the priorities change.
const DEPTH: usize = 3;

fn in_many_orders(test: fn()) {
    shuttle::check_random(test, RANDOM);
    shuttle::check_pct(test, BY_PRIORITY, DEPTH);
}

#[test]
fn a_sleeper_hears_of_all_that_several_wakers_put_there() {
    in_many_orders(|| {
        const WAKERS: usize = 2;
        const EACH: usize = 2;
        let (queue, asleep) = (Arc::new(Mutex::new(VecDeque::new())), Arc::new(Asleep::default()));
        let sleeper = {
            let (queue, asleep) = (queue.clone(), asleep.clone());
            thread::spawn(move || {
                let mut taken = 0;
                while taken < WAKERS * EACH {
                    let next = queue.lock().unwrap().pop_front();
                    match next {
                        Some(()) => taken += 1,
                        None => {
                            if asleep.may_sleep(|| queue.lock().unwrap().is_empty()) {
                                thread::park();
                            }
                            asleep.awake();
                        }
                    }
                }
            })
        };
        let wakers: Vec<_> = (0..WAKERS)
            .map(|_| {
                let (queue, asleep, sleeper) = (queue.clone(), asleep.clone(), sleeper.thread().clone());
                thread::spawn(move || {
                    for _ in 0..EACH {
                        queue.lock().unwrap().push_back(());
                        if asleep.must_wake() {
                            sleeper.unpark();
                        }
                    }
                })
            })
            .collect();
        wakers.into_iter().for_each(|waker| waker.join().unwrap());
        sleeper.join().unwrap();
    });
}

#[test]
fn whoever_waits_until_all_sleep_hears_of_the_last() {
    in_many_orders(|| {
        const WORKERS: usize = 2;
        const TURNS: usize = 2;
        let workers: Arc<Vec<Asleep>> = Arc::new((0..WORKERS).map(|_| Asleep::default()).collect());
        let gathering = Arc::new(Asleep::default());
        let all_sleep = |workers: &[Asleep]| workers.iter().all(Asleep::is_asleep);
        let committer = {
            let (workers, gathering) = (workers.clone(), gathering.clone());
            thread::spawn(move || {
                if gathering.may_sleep(|| !all_sleep(&workers)) {
                    thread::park();
                }
                gathering.awake();
            })
        };
        let threads: Vec<_> = (0..WORKERS)
            .map(|index| {
                let (workers, gathering, committer) = (workers.clone(), gathering.clone(), committer.thread().clone());
                thread::spawn(move || {
                    for _ in 0..TURNS {
                        workers[index].awake();
                        if workers[index].may_sleep(|| true) && gathering.must_wake_when(|| all_sleep(&workers)) {
                            committer.unpark();
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        committer.join().unwrap();
    });
}

#[test]
fn a_reply_that_waits_for_its_segment_hears_of_it() {
    in_many_orders(|| {
        const SEGMENTS: [u64; 2] = [5, 6];
        let inserted = Arc::new(Inserted::default());
        let (asleep, news) = (Arc::new(Asleep::default()), Arc::new(AtomicBool::new(false)));
        let worker = {
            let (inserted, asleep, news) = (inserted.clone(), asleep.clone(), news.clone());
            thread::spawn(move || {
                for segment in SEGMENTS {
                    inserted.wait();
                    // Afterwards it looks only when there is news.
                    let mut is_there = inserted.has(SegmentNumber::new(segment));
                    while !is_there {
                        if asleep.may_sleep(|| !news.load(SeqCst)) {
                            thread::park();
                        }
                        asleep.awake();
                        is_there = news.swap(false, SeqCst) && inserted.has(SegmentNumber::new(segment));
                    }
                    inserted.wait_no_more();
                }
            })
        };
        let inserters: Vec<_> = SEGMENTS
            .into_iter()
            .map(|segment| {
                let (inserted, asleep, news) = (inserted.clone(), asleep.clone(), news.clone());
                let worker = worker.thread().clone();
                thread::spawn(move || {
                    if inserted.note(SegmentNumber::new(segment)) {
                        news.store(true, SeqCst);
                        if asleep.must_wake() {
                            worker.unpark();
                        }
                    }
                })
            })
            .collect();
        inserters.into_iter().for_each(|inserter| inserter.join().unwrap());
        worker.join().unwrap();
    });
}
