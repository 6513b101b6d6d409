//! What the log says of events that are refused: when that begins, and when it is over.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::batch::CommitRefusal;
use crate::clock::monotonic_ms;

/// The least time between two lines that events are refused: at its limit a spool may refuse and take them in turn.
const SAID_AGAIN_MS: u64 = 10_000;

/// What the log has of refused events.
#[derive(Debug, Default)]
pub(super) struct RefusalSaid {
    /// By [`monotonic_ms`]; 0 before the first.
    at_ms: AtomicU64,
    is_begun: AtomicBool,
}

impl RefusalSaid {
    /// Events are refused from now on, for this reason, or taken again.
    #[cold]
    pub(super) fn changed(&self, refusal: Option<CommitRefusal>) {
        let Some(refusal) = refusal else {
            if self.is_begun.swap(false, Relaxed) {
                tracing::info!("events are taken again");
            }
            return;
        };
        let (now, before) = (monotonic_ms(), self.at_ms.load(Relaxed));
        if before == 0 || now.saturating_sub(before) >= SAID_AGAIN_MS {
            self.at_ms.store(now.max(1), Relaxed);
            self.is_begun.store(true, Relaxed);
            tracing::error!(reason = reason(refusal), "events are refused with 503");
        }
    }
}

/// Why events are refused, and what an operator can do.
pub fn reason(refusal: CommitRefusal) -> &'static str {
    match refusal {
        CommitRefusal::SpoolFull => {
            "the spool holds --spool-bytes-max; events are taken again when ClickHouse has taken some of them, or after a \
             start with a higher one"
        }
        CommitRefusal::DiskFull => {
            "less than --disk-free-min is free on the disk of the spool, or no room at all; events are taken again when \
             there is more, or after a start with a lower one"
        }
        CommitRefusal::NoDescriptors => {
            "the process may open no more files; raise the limit (LimitNOFILE), or lower --connections-max"
        }
        CommitRefusal::WriteFailed => "the disk of the spool refuses writes; see the errors before this line",
    }
}
