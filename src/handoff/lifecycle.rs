//! From start to stop: the one place that says whether the server starts, serves or stops, and until
//! when a stop may take.
//!
//! ```text
//! Starting ──▶ Serving ──▶ Stopping ──▶ Finishing
//!     └────────────────────────▲
//! ```
//!
//! The phase only ever goes forward.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

const STARTING: u8 = 0;
const SERVING: u8 = 1;
const STOPPING: u8 = 2;
const FINISHING: u8 = 3;

/// The phase of the process, set by the main thread and the signal handler, read by everybody.
#[derive(Debug, Default)]
pub struct Lifecycle {
    phase: AtomicU8,
    stop: OnceLock<Stop>,
}

/// A stop that was asked for.
#[derive(Debug, Clone, Copy)]
struct Stop {
    since: Instant,
    deadline: Instant,
}

impl Lifecycle {
    /// The workers listen. Changes nothing once the server stops.
    pub fn serve(&self) {
        self.phase.fetch_max(SERVING, Ordering::SeqCst);
    }

    /// Begins the stop, which has to end `within` this time. False when it had begun before.
    pub fn stop(&self, within: Duration) -> bool {
        let since = Instant::now();
        let first = self.stop.set(Stop { since, deadline: since + within }).is_ok();
        self.phase.fetch_max(STOPPING, Ordering::SeqCst);
        first
    }

    /// No worker submits anything any more: the committer stores what is queued, seals, and ends.
    pub fn finish(&self) {
        self.phase.fetch_max(FINISHING, Ordering::SeqCst);
    }

    /// True before the workers listen.
    pub fn is_starting(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == STARTING
    }

    /// True from the request to stop on.
    pub fn is_stopping(&self) -> bool {
        self.phase.load(Ordering::Relaxed) >= STOPPING
    }

    /// True once no worker submits anything.
    pub fn is_finishing(&self) -> bool {
        self.phase.load(Ordering::SeqCst) >= FINISHING
    }

    /// When the stop began, if it has.
    pub fn stopping_since(&self) -> Option<Instant> {
        self.stop.get().map(|stop| stop.since)
    }

    /// When the stop has to be over, if it has begun.
    pub fn deadline(&self) -> Option<Instant> {
        self.stop.get().map(|stop| stop.deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phase_goes_forward_only() {
        let lifecycle = Lifecycle::default();
        assert!(lifecycle.is_starting() && !lifecycle.is_stopping() && lifecycle.deadline().is_none());
        lifecycle.serve();
        assert!(!lifecycle.is_starting() && !lifecycle.is_stopping());
        assert!(lifecycle.stop(Duration::from_secs(30)));
        let deadline = lifecycle.deadline().unwrap();
        assert!(!lifecycle.stop(Duration::ZERO), "a second request to stop is told apart");
        assert_eq!(lifecycle.deadline(), Some(deadline), "and does not shorten the first");
        assert_eq!(deadline - lifecycle.stopping_since().unwrap(), Duration::from_secs(30));
        lifecycle.finish();
        lifecycle.serve();
        assert!(lifecycle.is_stopping() && lifecycle.is_finishing());
    }

    #[test]
    fn a_stop_during_the_start_is_not_undone_by_its_end() {
        let lifecycle = Lifecycle::default();
        lifecycle.stop(Duration::ZERO);
        lifecycle.serve();
        assert!(lifecycle.is_stopping());
    }
}
