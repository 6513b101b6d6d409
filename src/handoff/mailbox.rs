//! A worker's mailbox: returned batches, fresh connections and news, and how to wake the worker.

use std::io;
use std::net::IpAddr;

use super::sync::ArrayQueue;
use super::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use super::wakeup::Asleep;
use crate::batch::Returned;
use crate::limits;
use crate::net::Stream;

/// An accepted connection on its way to the worker that will serve it.
#[derive(Debug)]
pub struct Arrival {
    /// The socket, which is not registered with an event queue yet.
    pub stream: Stream,
    /// The address of the peer; none at a Unix socket.
    pub peer: Option<IpAddr>,
    /// A worker without room for it has passed it on: no other one does.
    pub is_passed: bool,
}

/// The queues to one worker, and the means to wake it.
pub struct Mailbox {
    /// The batches that the worker has.
    batches: usize,
    returned: ArrayQueue<Returned>,
    arrivals: ArrayQueue<Arrival>,
    connections: AtomicUsize,
    /// True if a block was confirmed since the worker last checked.
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
            batches: limits::BATCHES_PER_WORKER,
            returned: ArrayQueue::new(limits::BATCHES_PER_WORKER),
            arrivals: ArrayQueue::new(limits::ARRIVALS_MAX),
            connections: AtomicUsize::new(0),
            news: AtomicBool::new(false),
            asleep: Asleep::default(),
            waker: Box::new(wake),
        }
    }

    /// A mailbox for a worker with so many batches, at least one, in place of those of one table.
    #[must_use]
    pub fn with_batches(self, batches: usize) -> Self {
        let batches = batches.max(1);
        Self { batches, returned: ArrayQueue::new(batches), ..self }
    }

    /// The batches that the worker has.
    pub fn batches(&self) -> usize {
        self.batches
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

    /// Called by the worker: true if a connection waits to be served.
    pub fn has_arrivals(&self) -> bool {
        !self.arrivals.is_empty()
    }

    /// Called by the worker: takes the next connection to serve.
    pub fn arrival(&self) -> Option<Arrival> {
        self.arrivals.pop()
    }

    /// Called by the worker: true if a block was confirmed since the last call.
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

    /// True from the announcement of its sleep on, until the worker is awake or is being woken.
    pub(super) fn is_asleep(&self) -> bool {
        self.asleep.is_asleep()
    }

    /// Inserter: a block was confirmed.
    pub(super) fn tell_news(&self) {
        self.news.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Connections that the worker serves or is to serve.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Connections that the worker has taken and serves.
    pub(super) fn admitted(&self) -> usize {
        self.connections().saturating_sub(self.arrivals.len())
    }

    /// Gives the worker one more connection. If too many wait already, the connection is dropped, hence
    /// closed, and the client tries again.
    pub(super) fn place(&self, arrival: Arrival) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        if self.arrivals.push(arrival).is_err() {
            self.leave();
        }
    }

    /// One of the worker's connections is closed.
    pub(super) fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
