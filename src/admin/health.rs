//! `/livez` and `/readyz`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Page;
use crate::figures::{WorkerFigures, unix_ms};
use crate::health::{Health, Unready};
use crate::http::Status;
use crate::insert::figures::InsertFigures;
use crate::spool::SpoolFigures;

/// A thread that has not come round for so long is stuck. A sync of a slow disk may take seconds.
const HEARTBEAT_AGE_MAX_MS: u64 = 30_000;

/// Alive while every worker's and the committer's heartbeat is fresh. Never looks at ClickHouse: a
/// restart of this server would not bring that one back.
pub(super) fn live(workers: &[Arc<WorkerFigures>], spool: &SpoolFigures) -> Page {
    let now = unix_ms();
    // A heartbeat of 0 belongs to a thread that has not begun, while the server waits to start.
    let stale = |beat: u64| beat != 0 && now.saturating_sub(beat) > HEARTBEAT_AGE_MAX_MS;
    if workers.iter().any(|worker| stale(worker.heartbeat_ms.get())) {
        return Page::fault(Status::ServiceUnavailable, "worker_stuck", "A worker has not come round for 30 s.");
    }
    if stale(spool.heartbeat_ms()) {
        return Page::fault(
            Status::ServiceUnavailable,
            "committer_stuck",
            "The committer has not come round for 30 s.",
        );
    }
    Page::json(Status::Ok, "{\"status\":\"ok\"}".to_owned())
}

/// Ready when an event would be taken now; what waits for a person is a warning beside it.
pub(super) fn ready(health: &Health, inserts: &InsertFigures) -> Page {
    if let Some(Unready { code, message }) = health.unready() {
        return Page::fault(Status::ServiceUnavailable, code, message);
    }
    let held = inserts.held.load(Relaxed);
    let warnings = match held {
        0 => String::new(),
        held => format!("\"{held} segments wait for a person: ClickHouse refuses them, see the log\""),
    };
    Page::json(Status::Ok, format!("{{\"status\":\"ok\",\"warnings\":[{warnings}]}}"))
}
