//! The committer's side: the batches that were handed over, and its two waits, for the first batch and
//! for more of them.

use std::sync::OnceLock;
use std::time::Duration;

use crossbeam::utils::CachePadded;

use super::sync::{ArrayQueue, Thread, current, park_timeout};
use super::wakeup::Asleep;
use crate::batch::Batch;

/// The queue of batches from all workers to the one committer, and how to wake the committer.
pub(super) struct Submitted {
    batches: ArrayQueue<Batch>,
    committer: OnceLock<Thread>,
    asleep: CachePadded<Asleep>,
    gathering: CachePadded<Asleep>,
}

impl Submitted {
    /// An empty queue for so many batches, which must be all that there are.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            batches: ArrayQueue::new(capacity),
            committer: OnceLock::new(),
            asleep: CachePadded::default(),
            gathering: CachePadded::default(),
        }
    }

    /// Called by a worker: submits a closed batch to the committer. [`Submitted::wake`] follows.
    pub(super) fn push(&self, batch: Batch) {
        let accepted = self.batches.push(batch);
        assert!(accepted.is_ok(), "more batches are under way than exist");
    }

    /// Wakes the committer if it sleeps or is about to.
    pub(super) fn wake(&self) {
        if self.asleep.must_wake() {
            self.unpark();
        }
    }

    /// Wakes the committer if it waits for more batches and `is_over` says that none comes.
    pub(super) fn wake_when(&self, is_over: impl FnOnce() -> bool) {
        if self.gathering.must_wake_when(is_over) {
            self.unpark();
        }
    }

    /// Wakes the committer, whatever it waits for.
    pub(super) fn unpark(&self) {
        if let Some(committer) = self.committer.get() {
            committer.unpark();
        }
    }

    /// True while the committer waits for more batches to join a group.
    pub(super) fn is_gathering(&self) -> bool {
        self.gathering.is_asleep()
    }

    /// Committer: it is the calling thread.
    pub(super) fn register_committer(&self) {
        let _ = self.committer.set(current());
    }

    /// Committer: the next batch.
    pub(super) fn pop(&self) -> Option<Batch> {
        self.batches.pop()
    }

    /// Committer: sleeps until there is a batch, until it is woken as `is_finished`, or for `timeout`.
    pub(super) fn wait(&self, timeout: Duration, is_finished: impl FnOnce() -> bool) {
        if self.asleep.may_sleep(|| self.batches.is_empty() && !is_finished()) {
            park_timeout(timeout);
        }
        self.asleep.awake();
    }

    /// Committer: sleeps until a worker finds that `is_over`, or for `timeout`.
    pub(super) fn gather(&self, timeout: Duration, is_over: impl FnOnce() -> bool) {
        if self.gathering.may_sleep(|| !is_over()) {
            park_timeout(timeout);
        }
        self.gathering.awake();
    }
}
