//! Which connections are visited next, and how much work one turn does for them.
//!
//! Connections of which the socket has news come before those whose last visit left something to do: a
//! request that has just come does not wait behind what others have piled up. Each of the two queues gets
//! [`limits::TURN_WORK_MAX`] of work a turn, and what is left of it waits, in order, for the next turn: so
//! neither queue waits for ever, and a turn ends soon, whatever has come.

use std::collections::VecDeque;

use super::Worker;
use crate::limits;

/// The connections to visit, by their slots, each once.
#[derive(Debug, Default)]
pub(super) struct Visits {
    /// Those of which the socket has news.
    fresh: VecDeque<usize>,
    /// Those whose last visit left something to do, or that have waited for something else.
    begun: VecDeque<usize>,
    /// Work that was done since this was last set to 0, see [`limits::TURN_WORK_MAX`].
    pub(super) work: usize,
}

impl Visits {
    /// True when no connection is to be visited.
    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.begun.is_empty()
    }

    /// Adds a connection of which the socket has news.
    pub(super) fn push_fresh(&mut self, index: usize) {
        self.fresh.push_back(index);
    }

    /// Adds a connection that has something left to do.
    pub(super) fn push_begun(&mut self, index: usize) {
        self.begun.push_back(index);
    }

    /// Adds connections that have something left to do.
    pub(super) fn extend_begun(&mut self, indexes: impl IntoIterator<Item = usize>) {
        self.begun.extend(indexes);
    }

    /// Counts the work on so many bytes.
    pub(super) fn count_bytes(&mut self, bytes: usize) {
        self.work += bytes / limits::WORK_BYTES;
    }
}

impl Worker {
    /// Visits the connections of both queues, each queue within the work of a turn.
    pub(super) fn visit_all(&mut self) {
        // What the visits of this turn leave to do is for the next one.
        let (fresh, begun) = (self.visits.fresh.len(), self.visits.begun.len());
        self.visit_some(fresh, |visits| &mut visits.fresh);
        if begun == 0 {
            return;
        }
        // What has just come does not wait for the end of older work: neither for its way to the committer,
        // nor for the core if the committer has to share that with this worker.
        if self.outbox.hand_over(&self.shared.handoff) {
            std::thread::yield_now();
        }
        self.take_returned();
        self.visit_some(begun, |visits| &mut visits.begun);
    }

    fn visit_some(&mut self, count: usize, queue: impl Fn(&mut Visits) -> &mut VecDeque<usize>) {
        self.visits.work = 0;
        for _ in 0..count {
            if self.visits.work >= limits::TURN_WORK_MAX {
                return;
            }
            if let Some(index) = queue(&mut self.visits).pop_front() {
                self.visits.work += 1;
                self.visit(index);
            }
        }
    }
}
