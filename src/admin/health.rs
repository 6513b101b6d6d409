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

/// Held segments, and tables with faults, that `/readyz` names.
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

/// True for `/livez`, `/readyz` and the aliases of `/readyz`.
pub(super) fn is_health(path: &str) -> bool {
    matches!(path, LIVE_PATH | "/readyz" | "/healthz" | "/health" | "/ping")
}

/// `/readyz`: 200 if an event would be taken now, with a warning for everything that needs operator
/// action. If `tells` is false, the warnings are counts: ClickHouse's messages quote events.
pub(super) fn ready(admin: &Admin, tells: bool) -> Page {
    if let Some(fault) = admin.health.unready() {
        return Page::fault(fault.status, fault.code, fault.message);
    }
    let warnings: Vec<String> = if tells {
        warnings(admin).into_iter().flat_map(|warning| warning.texts).collect()
    } else {
        warnings(admin).iter().map(|Warning { about, count, .. }| format!("{about}: {count}")).collect()
    };
    let warnings = sonic_rs::to_string(&warnings).unwrap_or_else(|_| "[]".to_owned());
    Page::json(Status::Ok, format!("{{\"status\":\"ok\",\"warnings\":{warnings}}}"))
}

/// What needs operator action.
struct Warning {
    about: &'static str,
    count: u64,
    texts: Vec<String>,
}

impl Warning {
    fn of(about: &'static str, texts: impl IntoIterator<Item = String>) -> Self {
        let texts: Vec<String> = texts.into_iter().collect();
        Self { about, count: texts.len() as u64, texts }
    }
}

fn warnings(admin: &Admin) -> Vec<Warning> {
    let unbalanced = (!admin.spool.ledger().balances()).then(|| {
        "the ledger does not balance: this is a bug of sluicegate, please report it; /stats shows the accounts"
            .to_owned()
    });
    let damaged = admin.spool.damaged();
    let damaged_text = (damaged > 0)
        .then(|| format!("{damaged} files that could not be read completely are in the spool's folder damaged/"));
    let others = admin.spool.others().iter().map(|OtherTable { name, segments, events }| {
        format!(
            "the spool holds {events} events in {segments} segments of --table {name}, which this server does not send; \
             stop it and send them with `sluicegate drain --table {name}` and the same --spool-dir"
        )
    }).collect::<Vec<_>>();
    let problems = admin.inserts.problems();
    let (faults, unnamed) = (problems.len() as u64, problems.len().saturating_sub(WARNINGS_MAX));
    let problems = problems.into_iter().take(WARNINGS_MAX).map(|(table, problem)| format!("table {table}: {problem}"));
    let problems = problems.chain((unnamed > 0).then(|| format!("{unnamed} more tables have faults")));
    let held = admin.spool.held.reasons();
    let named = held.iter().take(WARNINGS_MAX).map(|(number, reason)| format!("segment {number} is held: {reason}"));
    let more = held.len().saturating_sub(WARNINGS_MAX);
    let more = (more > 0).then(|| format!("{more} more segments are held"));
    let all = [
        Warning::of("faults of the ledger", unbalanced),
        Warning { count: damaged, ..Warning::of("damaged files", damaged_text) },
        Warning::of("other tables in the spool", others),
        Warning { count: faults, ..Warning::of("faults of tables", problems) },
        Warning::of("warnings about failing INSERTs", admin.inserts.failing.warning()),
        Warning { count: held.len() as u64, ..Warning::of("held segments", named.chain(more)) },
    ];
    all.into_iter().filter(|warning| warning.count > 0).collect()
}
