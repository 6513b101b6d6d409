//! Where batches come from and go back to, as the committer sees it.

use std::time::Duration;

use super::{Batch, Returned};

/// The committer's side of the hand-over.
pub trait Exchange: Send + Sync {
    /// Says that the calling thread is the committer. Call once, first thing on that thread.
    fn register_committer(&self);

    /// The next batch, in the order of each worker's hand-over.
    fn next(&self) -> Option<Batch>;

    /// Sleeps until there is a batch, until no worker submits anything any more, or for `timeout`.
    fn wait(&self, timeout: Duration);

    /// Waits for more batches than there are, as long as a worker is at work, and no longer than
    /// `timeout`. A batch that comes meanwhile does not end the wait.
    fn gather(&self, timeout: Duration);

    /// True once no worker submits anything any more.
    fn is_finished(&self) -> bool;

    /// Sends a batch home. Follow with one [`Exchange::wake`] for each worker of a group.
    fn give_back(&self, returned: Returned);

    /// Wakes a worker if it sleeps or is about to.
    fn wake(&self, worker: usize);
}
