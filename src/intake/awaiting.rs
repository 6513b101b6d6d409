//! Replies that wait for ClickHouse's proof of an INSERT (`ack=inserted`). A connection that waits
//! holds no thread: it stands in a list that its worker looks through when an inserter has news.

use super::outbox::Waiter;
use crate::batch::SegmentNumber;
use crate::handoff::Inserted;

/// The connections of one worker that have a reply waiting for a segment's proof.
#[derive(Debug, Default)]
pub struct AwaitingInserts {
    waiters: Vec<(SegmentNumber, Waiter)>,
}

impl AwaitingInserts {
    /// Notes that `waiter` has a reply that waits for `segment`. False when the proof is there
    /// already, and the reply may leave.
    #[must_use]
    pub fn add(&mut self, segment: SegmentNumber, waiter: Waiter, inserted: &Inserted) -> bool {
        // Announced before the look: a proof that comes in between is seen by one or the other.
        inserted.wait();
        if inserted.has(segment) {
            inserted.wait_no_more();
            return false;
        }
        self.waiters.push((segment, waiter));
        true
    }

    /// Takes out those whose segments are proven by now.
    pub fn take_proven(&mut self, inserted: &Inserted) -> Vec<(SegmentNumber, Waiter)> {
        let proven: Vec<_> = self.waiters.extract_if(.., |(segment, _)| inserted.has(*segment)).collect();
        proven.iter().for_each(|_| inserted.wait_no_more());
        proven
    }

    /// Those who wait now.
    pub fn waiters(&self) -> Vec<Waiter> {
        self.waiters.iter().map(|(_, waiter)| *waiter).collect()
    }

    /// Keeps only those who, asked in turn, still wait.
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
