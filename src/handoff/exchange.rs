//! The hand-over as a whole: every worker's mailbox, and the way to the committer.

use std::sync::Arc;
use std::time::Duration;

use crossbeam::utils::CachePadded;

use super::inserted::Inserted;
use super::lifecycle::Lifecycle;
use super::mailbox::{Arrival, Mailbox};
use super::submitted::Submitted;
use super::sync::atomic::{Ordering, fence};
use crate::batch::{Batch, BlockNumber, Exchange, Returned};

/// The queue to the committer, and the mailboxes of all workers.
pub struct Handoff {
    submitted: Submitted,
    mailboxes: Box<[CachePadded<Mailbox>]>,
    /// For the one batch that belongs to no worker: that of lines which are replayed. Nobody sleeps
    /// on it.
    replay: Mailbox,
    /// The phase of the process.
    pub lifecycle: Arc<Lifecycle>,
    /// The blocks that ClickHouse has confirmed recently.
    pub inserted: Inserted,
}

impl Handoff {
    /// Creates a hand-off for the workers with these mailboxes, in the order of their indices.
    pub fn new(mailboxes: Vec<Mailbox>, lifecycle: Arc<Lifecycle>) -> Self {
        let capacity = mailboxes.iter().map(Mailbox::batches).sum::<usize>() + 1;
        Self {
            submitted: Submitted::new(capacity),
            mailboxes: mailboxes.into_iter().map(CachePadded::new).collect(),
            replay: Mailbox::woken_by(|| ()),
            lifecycle,
            inserted: Inserted::default(),
        }
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.mailboxes.len()
    }

    /// The mailbox of a worker; behind the last one, that of lines which are replayed.
    pub fn mailbox(&self, worker: usize) -> Option<&Mailbox> {
        match self.mailboxes.get(worker) {
            Some(padded) => Some(padded),
            None => (worker == self.mailboxes.len()).then_some(&self.replay),
        }
    }

    /// The batches that a worker has.
    pub fn batches(&self, worker: usize) -> usize {
        self.mailbox(worker).map_or(0, Mailbox::batches)
    }

    /// Called by worker `from`: passes a connection that it has accepted to the worker with the fewest
    /// connections, and keeps it if `from` is one of those.
    ///
    /// The kernel distributes connections over the listening sockets by a hash of their addresses,
    /// which gives some workers twice the share of others.
    pub fn place(&self, from: usize, arrival: Arrival) {
        // While the server stops, another worker may be at its end.
        let stopping = self.lifecycle.is_stopping();
        let index = if stopping { from } else { self.least_busy(from) };
        self.hand(from, index, arrival);
    }

    /// Called by worker `from`, which has taken a connection, has no room for it, and none that is idle: passes it on to
    /// the other worker with the most connections, which may have idle ones. Gives it back if it was passed on
    /// before, or there is no such worker.
    ///
    /// # Errors
    ///
    /// The connection, which stays with `from`.
    pub fn pass_on(&self, from: usize, arrival: Arrival) -> Result<(), Arrival> {
        let others = (0..).zip(&self.mailboxes).filter(|(index, _)| *index != from);
        let busiest = others.map(|(index, mailbox)| (mailbox.connections(), index)).max();
        match busiest {
            Some((1.., index)) if !arrival.is_passed && !self.lifecycle.is_stopping() => {
                self.leave(from);
                self.hand(from, index, Arrival { is_passed: true, ..arrival });
                Ok(())
            }
            _ => Err(arrival),
        }
    }

    fn hand(&self, from: usize, index: usize, arrival: Arrival) {
        self.place_at(index, arrival);
        if index == from {
            return;
        }
        if let Some(mailbox) = self.mailbox(index) {
            mailbox.wake();
        }
        // Together with the fence of `ends_soon`: either that worker sees the connection, or the stop is
        // seen here.
        fence(Ordering::SeqCst);
        if self.lifecycle.is_stopping() {
            while let Some(arrival) = self.mailbox(index).and_then(Mailbox::arrival) {
                self.leave(index);
                self.place_at(from, arrival);
            }
        }
    }

    /// Called by a worker that has seen that the server stops, before it looks for arrivals a last time.
    /// Afterwards no connection comes to it but from itself.
    pub fn ends_soon(&self) {
        fence(Ordering::SeqCst);
    }

    /// The worker with the fewest connections, `from` if it is one of them.
    fn least_busy(&self, from: usize) -> usize {
        let own = self.mailbox(from).map_or(usize::MAX, Mailbox::connections);
        let least = (0..).zip(&self.mailboxes).min_by_key(|(_, mailbox)| mailbox.connections());
        least.filter(|(_, mailbox)| mailbox.connections() < own).map_or(from, |(index, _)| index)
    }

    fn place_at(&self, worker: usize, arrival: Arrival) {
        if let Some(mailbox) = self.mailbox(worker) {
            mailbox.place(arrival);
        }
    }

    /// Called by a worker after it has closed a connection.
    pub fn leave(&self, worker: usize) {
        if let Some(mailbox) = self.mailbox(worker) {
            mailbox.leave();
        }
    }

    /// Number of open connections that their workers have taken.
    pub fn admitted(&self) -> usize {
        self.mailboxes.iter().map(|mailbox| mailbox.admitted()).sum()
    }

    /// Number of open connections of all workers.
    pub fn connections(&self) -> usize {
        self.mailboxes.iter().map(|mailbox| mailbox.connections()).sum()
    }

    /// Called by an inserter after ClickHouse has confirmed the rows of a block.
    pub fn block_inserted(&self, block: BlockNumber) {
        if self.inserted.note(block) {
            for mailbox in &self.mailboxes {
                mailbox.tell_news();
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
        self.submit_all([batch]);
    }

    /// The same for all batches of a turn: a committer that sleeps finds all of them when it wakes, and
    /// commits them with one sync.
    pub fn submit_all(&self, batches: impl IntoIterator<Item = Batch>) {
        batches.into_iter().for_each(|batch| self.submitted.push(batch));
        self.submitted.wake();
    }

    /// True while the committer waits for more batches to join a group.
    pub fn is_gathering(&self) -> bool {
        self.submitted.is_gathering()
    }

    /// Called by a worker that is about to sleep. The last worker to sleep wakes a committer that
    /// gathers a group.
    pub fn worker_sleeps(&self) {
        self.submitted.wake_when(|| self.all_workers_sleep());
    }

    fn all_workers_sleep(&self) -> bool {
        self.mailboxes.iter().all(|mailbox| mailbox.is_asleep())
    }

    /// Wakes the committer if it sleeps or is about to.
    pub fn wake_committer(&self) {
        self.submitted.wake();
    }

    /// Notes that no worker submits any more batches. The committer stores the queued batches, seals
    /// the open segment, and ends.
    pub fn finish(&self) {
        self.lifecycle.finish();
        self.submitted.unpark();
    }
}

impl Exchange for Handoff {
    fn register_committer(&self) {
        self.submitted.register_committer();
    }

    fn next(&self) -> Option<Batch> {
        self.submitted.pop()
    }

    fn wait(&self, timeout: Duration) {
        self.submitted.wait(timeout, || self.is_finished());
    }

    fn gather(&self, timeout: Duration) {
        self.submitted.gather(timeout, || self.all_workers_sleep());
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
