//! Requests to refresh the description of the table. Several requests before a refresh count as one.

use std::time::Duration;

use crossbeam::channel::{self, Receiver, Sender};

/// A signal by which any thread wakes the watcher to refresh the description of the table.
pub struct RefreshSignal {
    request: Sender<()>,
    requested: Receiver<()>,
}

impl Default for RefreshSignal {
    fn default() -> Self {
        let (request, requested) = channel::bounded(1);
        Self { request, requested }
    }
}

impl RefreshSignal {
    /// Requests a refresh; does not wait for it.
    pub fn request(&self) {
        // If the channel is full, a refresh is requested already.
        let _ = self.request.try_send(());
    }

    /// Waits for a request, at most for `longest`. True if there was one.
    pub(super) fn wait(&self, longest: Duration) -> bool {
        self.requested.recv_timeout(longest).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn many_requests_are_one_and_none_is_lost() {
        let refresh = RefreshSignal::default();
        (0..5).for_each(|_| refresh.request());
        let soon = Instant::now();
        assert!(refresh.wait(Duration::from_secs(3600)));
        assert!(soon.elapsed() < Duration::from_secs(60));
        assert!(refresh.requested.try_recv().is_err());
    }
}
