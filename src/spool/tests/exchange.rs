//! An [`Exchange`] with a single worker, which is the test itself.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::Duration;

use crate::batch::{Batch, Exchange, Returned};

#[derive(Default)]
pub(super) struct TestExchange {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    submitted: VecDeque<Batch>,
    returned: VecDeque<Returned>,
    finished: bool,
}

impl TestExchange {
    pub(super) fn submit(&self, batch: Batch) {
        self.lock().submitted.push_back(batch);
        self.changed.notify_all();
    }

    /// The next returned batch; `None` if there is none yet.
    pub(super) fn take(&self) -> Option<Returned> {
        self.lock().returned.pop_front()
    }

    /// Waits for the next returned batch.
    pub(super) fn wait_for_return(&self) -> Returned {
        let mut state = self.lock();
        loop {
            if let Some(returned) = state.returned.pop_front() {
                return returned;
            }
            let (next, timeout) = self.changed.wait_timeout(state, Duration::from_secs(60)).unwrap();
            assert!(!timeout.timed_out(), "no batch came back within a minute");
            state = next;
        }
    }

    pub(super) fn finish(&self) {
        self.lock().finished = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Exchange for TestExchange {
    fn register_committer(&self) {}

    fn next(&self) -> Option<Batch> {
        self.lock().submitted.pop_front()
    }

    fn wait(&self, timeout: Duration) {
        let state = self.lock();
        if state.submitted.is_empty() && !state.finished {
            drop(self.changed.wait_timeout(state, timeout).unwrap());
        }
    }

    fn gather(&self, _: Duration) {}

    fn is_finished(&self) -> bool {
        self.lock().finished
    }

    fn give_back(&self, returned: Returned) {
        self.lock().returned.push_back(returned);
        self.changed.notify_all();
    }

    fn wake(&self, _: usize) {}
}
