//! The phase of the process, from start to stop, and the deadline of a stop.
//!
//! ```text
//! Starting ──▶ Serving ──▶ Stopping ──▶ Finishing
//!     └────────────────────────▲
//! ```
//!
//! The phase never goes back.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::sync::atomic::{AtomicU8, Ordering};

const STARTING: u8 = 0;
const SERVING: u8 = 1;
const STOPPING: u8 = 2;
const FINISHING: u8 = 3;

/// The phase of the process. The main thread and the signal handler set it; all threads read it.
#[derive(Debug, Default)]
pub struct Lifecycle {
    phase: AtomicU8,
    leaving: OnceLock<Instant>,
    stop: OnceLock<Stop>,
}

/// The beginning and the deadline of a stop.
#[derive(Debug, Clone, Copy)]
struct Stop {
    since: Instant,
    deadline: Instant,
}

impl Lifecycle {
    /// Notes that the workers listen. Has no effect during a stop.
    pub fn serve(&self) {
        self.phase.fetch_max(SERVING, Ordering::SeqCst);
    }

    /// Notes that a stop was asked for, which begins at once or later. False if it was before.
    pub fn leave(&self) -> bool {
        self.leaving.set(Instant::now()).is_ok()
    }

    /// When a stop was asked for; `None` before.
    pub fn leaving_since(&self) -> Option<Instant> {
        self.leaving.get().copied()
    }

    /// Begins the stop, with a deadline `within` this time. False if it had begun before.
    pub fn stop(&self, within: Duration) -> bool {
        let since = Instant::now();
        let first = self.stop.set(Stop { since, deadline: since + within }).is_ok();
        self.phase.fetch_max(STOPPING, Ordering::SeqCst);
        first
    }

    /// Notes that no worker submits any more batches, so that the committer can end.
    pub fn finish(&self) {
        self.phase.fetch_max(FINISHING, Ordering::SeqCst);
    }

    /// True until the workers listen.
    pub fn is_starting(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == STARTING
    }

    /// True since the stop has begun.
    pub fn is_stopping(&self) -> bool {
        self.phase.load(Ordering::Relaxed) >= STOPPING
    }

    /// True once no worker submits any more batches.
    pub fn is_finishing(&self) -> bool {
        self.phase.load(Ordering::SeqCst) >= FINISHING
    }

    /// The beginning of the stop; `None` before.
    pub fn stopping_since(&self) -> Option<Instant> {
        self.stop.get().map(|stop| stop.since)
    }

    /// The deadline of the stop; `None` before its beginning.
    pub fn deadline(&self) -> Option<Instant> {
        self.stop.get().map(|stop| stop.deadline)
    }
}
