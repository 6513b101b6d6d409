//! The committer's interface to the workers: batches to commit, and their return.

use std::time::Duration;

use super::{Batch, Returned};

/// The committer's side of the exchange of batches with the workers.
pub trait Exchange: Send + Sync {
    /// Registers the calling thread as the committer. Call once, before any other method.
    fn register_committer(&self);

    /// Takes the next batch. The batches of one worker come in the order in which the worker handed
    /// them over.
    fn next(&self) -> Option<Batch>;

    /// Sleeps until a batch arrives, until the workers have ended, or for `timeout`.
    fn wait(&self, timeout: Duration);

    /// Waits for further batches while any worker is running, and at most for `timeout`. The arrival
    /// of a batch does not end the wait.
    fn gather(&self, timeout: Duration);

    /// True once the workers have ended: batches that are queued remain, and no further batch arrives.
    fn is_finished(&self) -> bool;

    /// Returns a batch to its worker. After a group, call [`Exchange::wake`] once for each worker of
    /// the group.
    fn give_back(&self, returned: Returned);

    /// Wakes a worker that sleeps or is about to sleep.
    fn wake(&self, worker: usize);
}
