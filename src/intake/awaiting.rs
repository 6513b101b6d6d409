//! Replies that wait for ClickHouse's confirmation of an INSERT (`ack=inserted`). A waiting connection
//! blocks no thread: it is in a list that its worker checks when blocks were confirmed.

use super::outbox::Waiter;
use crate::batch::BlockNumber;
use crate::handoff::Inserted;

/// The connections of one worker with a reply that waits for the confirmation of a block.
#[derive(Debug, Default)]
pub struct AwaitingInserts {
    waiters: Vec<(BlockNumber, Waiter)>,
}

impl AwaitingInserts {
    /// Adds a connection whose reply waits for `block`. Returns false when the block is already
    /// confirmed and the reply may be sent.
    #[must_use]
    pub fn add(&mut self, block: BlockNumber, waiter: Waiter, inserted: &Inserted) -> bool {
        // The wait is announced before the check, so that a confirmation at the same time is seen by
        // this check or wakes this worker.
        inserted.wait();
        if inserted.has(block) {
            inserted.wait_no_more();
            return false;
        }
        self.waiters.push((block, waiter));
        true
    }

    /// Removes and returns the connections whose blocks are confirmed.
    pub fn take_proven(&mut self, inserted: &Inserted) -> Vec<(BlockNumber, Waiter)> {
        let proven: Vec<_> = self.waiters.extract_if(.., |(block, _)| inserted.has(*block)).collect();
        proven.iter().for_each(|_| inserted.wait_no_more());
        proven
    }

    /// The waiting connections.
    pub fn waiters(&self) -> Vec<Waiter> {
        self.waiters.iter().map(|(_, waiter)| *waiter).collect()
    }

    /// Removes the connections for which `waits` returns false.
    pub fn retain(&mut self, inserted: &Inserted, mut waits: impl FnMut(Waiter) -> bool) {
        self.waiters.retain(|(_, waiter)| {
            let waits = waits(*waiter);
            if !waits {
                inserted.wait_no_more();
            }
            waits
        });
    }
}
