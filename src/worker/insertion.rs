//! Replies that wait for ClickHouse (`ack=inserted`). A connection that waits holds no thread: it
//! stands in a list that is looked at when an inserter says that there are news.

use super::{Worker, slot_of};
use crate::outbox::Waiter;

impl Worker {
    /// Notes that a connection has a reply that waits for a segment; the proof may be there already.
    pub(super) fn await_insert(&mut self, segment: u64, waiter: Waiter) {
        let inserted = &self.shared.handoff.inserted;
        inserted.wait();
        if inserted.has(segment) {
            inserted.wait_no_more();
            if let Some(slot) = slot_of(&mut self.slots, waiter) {
                slot.connection.replies().inserted(segment);
            }
        } else {
            self.awaiting.push((segment, waiter));
        }
    }

    /// Sends the replies whose segments are proven.
    pub(super) fn take_inserted(&mut self) {
        let news = self.shared.handoff.mailbox(self.index).is_some_and(|mailbox| mailbox.take_news());
        if !news {
            return;
        }
        let inserted = &self.shared.handoff.inserted;
        let done: Vec<_> = self.awaiting.extract_if(.., |(segment, _)| inserted.has(*segment)).collect();
        for (segment, waiter) in done {
            self.shared.handoff.inserted.wait_no_more();
            if let Some(slot) = slot_of(&mut self.slots, waiter) {
                slot.connection.replies().inserted(segment);
                self.send_released(waiter);
            }
        }
    }

    /// Answers 202 where the time is over, or the server stops.
    pub(super) fn give_up_inserts(&mut self) {
        if self.awaiting.is_empty() {
            return;
        }
        let (now, timeout) = (self.now, self.shared.timeouts.inserted);
        // A stop does not wait for ClickHouse: no reply waits longer than the whole time.
        let reached = if self.stopping_since.is_some() { now + timeout } else { now };
        for (_, waiter) in self.awaiting.clone() {
            if let Some(slot) = slot_of(&mut self.slots, waiter) {
                slot.connection.replies().give_up_inserts(reached);
                self.send_released(waiter);
            }
        }
        let slots = &mut self.slots;
        let still =
            |waiter: Waiter| slot_of(slots, waiter).is_some_and(|slot| slot.connection.replies().awaits_insert());
        let mut still = still;
        let inserted = &self.shared.handoff.inserted;
        self.awaiting.retain(|(_, waiter)| {
            let waits = still(*waiter);
            if !waits {
                inserted.wait_no_more();
            }
            waits
        });
    }
}
