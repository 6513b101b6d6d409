//! `/livez` and `/readyz`.

use std::sync::Arc;

use super::{Admin, Page, SpoolLimits};
use crate::api::Shed;
use crate::batch::CommitRefusal;
use crate::clock::monotonic_ms;
use crate::http::Status;
use crate::intake::metrics::WorkerMetrics;
use crate::limits;
use crate::spool::{self, OtherTable, SpoolMetrics};

/// Where [`live`] is.
pub(super) const LIVE_PATH: &str = "/livez";

/// Tables and held blocks that `/readyz` names, of each kind of warning.
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
        let refused = admin.spool.refusal().filter(|refusal| fault == Shed::Commit(*refusal).into());
        let message = refused.map_or_else(|| fault.message.to_owned(), |refusal| why_refused(admin, refusal));
        return Page::fault(fault.status, fault.code, &message);
    }
    let warnings: Vec<String> = if tells {
        texts(admin)
    } else {
        warnings(admin).iter().map(|Warning { about, count, .. }| format!("{about}: {count}")).collect()
    };
    let warnings = sonic_rs::to_string(&warnings).unwrap_or_else(|_| "[]".to_owned());
    Page::json(Status::Ok, format!("{{\"status\":\"ok\",\"warnings\":{warnings}}}"))
}

/// Why events are refused, with the figures that an operator needs.
fn why_refused(admin: &Admin, refusal: CommitRefusal) -> String {
    let SpoolLimits { bytes_max, disk_free_min, .. } = &admin.spool_limits;
    let figures = match (refusal, admin.series.disk_free()) {
        (CommitRefusal::SpoolFull, _) => format!(" ({} of {bytes_max} bytes)", admin.spool.spool_bytes()),
        (CommitRefusal::DiskFull, Some(free)) => format!(" ({free} bytes are free of the {disk_free_min} wanted)"),
        _ => String::new(),
    };
    format!("{} {}{figures}.", Shed::Commit(refusal).message(), sentence(spool::reason_of_refusal(refusal)))
}

/// With its first letter large.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// The warnings of `/readyz`.
pub(super) fn texts(admin: &Admin) -> Vec<String> {
    warnings(admin).into_iter().flat_map(|warning| warning.texts).collect()
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

/// A warning that names the first of many, and how many `more` there are.
fn first_of(about: &'static str, mut texts: Vec<String>, more: &str) -> Warning {
    let (count, unnamed) = (texts.len() as u64, texts.len().saturating_sub(WARNINGS_MAX));
    texts.truncate(WARNINGS_MAX);
    texts.extend((unnamed > 0).then(|| format!("{unnamed} more {more}")));
    Warning { about, count, texts }
}

/// The tables that take no events, and those that have another fault, each with the reason.
fn tables(admin: &Admin) -> (Vec<String>, Vec<String>) {
    let mut problems = admin.inserts.problems();
    let tables = admin.health.unavailable().into_iter().filter_map(|table| admin.tables.get(table.get()));
    let unavailable = tables.map(|table| match problems.remove(&table.label) {
        Some(problem) => format!("table {}: {problem}", table.label),
        None => format!("table {} takes no events", table.label),
    });
    let unavailable = unavailable.collect();
    (unavailable, problems.into_iter().map(|(table, problem)| format!("table {table}: {problem}")).collect())
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
            "an older release left {events} events in {segments} segments of the table {name}, which is not configured; \
             stop the server and send them with `sluicegate drain --table {name}` and the same --spool-dir"
        )
    }).collect::<Vec<_>>();
    let (unavailable, faults) = tables(admin);
    let held = admin.spool.held.reasons();
    let held = held.iter().map(|(number, reason)| format!("block {number} is held: {reason}"));
    let all = [
        Warning::of("faults of the ledger", unbalanced),
        Warning { count: damaged, ..Warning::of("damaged files", damaged_text) },
        Warning::of("other tables in the spool", others),
        first_of("unavailable tables", unavailable, "tables are unavailable"),
        first_of("faults of tables", faults, "tables have faults"),
        Warning::of("warnings about failing INSERTs", admin.inserts.failing.warning()),
        first_of("held blocks", held.collect(), "blocks are held"),
    ];
    all.into_iter().filter(|warning| warning.count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_many_are_named_and_all_are_counted() {
        let texts = |number| (0..number).map(|text: u32| text.to_string()).collect::<Vec<_>>();
        let few = first_of("tables", texts(10), "have faults");
        assert_eq!((few.count, few.texts), (10, texts(10)));
        let many = first_of("tables", texts(12), "tables have faults");
        assert_eq!((many.count, many.texts.len()), (12, 11));
        assert_eq!(many.texts.last().map(String::as_str), Some("2 more tables have faults"));
    }
}
