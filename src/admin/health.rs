//! `/livez` and `/readyz`.

use std::sync::Arc;

use super::{Admin, Page};
use crate::clock::monotonic_ms;
use crate::http::Status;
use crate::intake::metrics::WorkerMetrics;
use crate::limits;
use crate::spool::{OtherTable, SpoolMetrics};

/// Where [`live`] is.
pub(super) const LIVE_PATH: &str = "/livez";

/// Held segments that `/readyz` names.
const WARNINGS_MAX: usize = 10;

/// `/livez`: 200 while the heartbeats of the workers and the committer are fresh. ClickHouse is not
/// checked, because a restart of this server would not bring ClickHouse back.
pub(super) fn live(workers: &[Arc<WorkerMetrics>], spool: &SpoolMetrics) -> Page {
    let now = monotonic_ms();
    // A heartbeat of 0 belongs to a thread that has not begun, while the server waits to start.
    let stale = |beat: u64| beat != 0 && now.saturating_sub(beat) > limits::HEARTBEAT_AGE_MAX_MS;
    if workers.iter().any(|worker| stale(worker.heartbeat_ms.get())) {
        return Page::fault(Status::ServiceUnavailable, "worker_stuck", "A worker has shown no sign of life for 30 s.");
    }
    if stale(spool.heartbeat_ms()) {
        return Page::fault(
            Status::ServiceUnavailable,
            "committer_stuck",
            "The committer has shown no sign of life for 30 s.",
        );
    }
    Page::json(Status::Ok, "{\"status\":\"ok\"}".to_owned())
}

/// `/readyz`: 200 if an event would be taken now, with a warning for everything that needs operator
/// action.
pub(super) fn ready(admin: &Admin) -> Page {
    if let Some(fault) = admin.health.unready() {
        return Page::fault(fault.status, fault.code, fault.message);
    }
    let warnings = sonic_rs::to_string(&warnings(admin)).unwrap_or_else(|_| "[]".to_owned());
    Page::json(Status::Ok, format!("{{\"status\":\"ok\",\"warnings\":{warnings}}}"))
}

fn warnings(admin: &Admin) -> Vec<String> {
    let mut warnings = Vec::new();
    if !admin.spool.ledger().balances() {
        warnings.push(
            "the ledger does not balance: this is a bug of sluicegate, please report it; /stats shows the accounts"
                .to_owned(),
        );
    }
    let damaged = admin.spool.damaged();
    if damaged > 0 {
        warnings.push(format!("{damaged} files that could not be read completely are in the spool's folder damaged/"));
    }
    warnings.extend(admin.spool.others().iter().map(|OtherTable { name, segments, events }| {
        format!(
            "the spool holds {events} events in {segments} segments of --table {name}, which this server does not send; \
             stop it and send them with `sluicegate drain --table {name}` and the same --spool-dir"
        )
    }));
    warnings.extend(admin.inserts.table_problem().clone());
    warnings.extend(admin.inserts.failing.warning());
    let held = admin.spool.held.reasons();
    warnings
        .extend(held.iter().take(WARNINGS_MAX).map(|(number, reason)| format!("segment {number} is held: {reason}")));
    let more = held.len().saturating_sub(WARNINGS_MAX);
    warnings.extend((more > 0).then(|| format!("{more} more segments are held")));
    warnings
}
