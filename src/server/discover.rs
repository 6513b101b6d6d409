//! The table's columns at the start: from ClickHouse, or else those saved by the last run.

use std::path::Path;
use std::time::{Duration, Instant};

use super::threads::ServerError;
use super::wait_until;
use crate::batch::TableIndex;
use crate::clickhouse::TableConfig;
use crate::clickhouse::client::ClickHouse;
use crate::clickhouse::description::TableDescription;
use crate::handoff::Lifecycle;
use crate::spool::Spool;

/// Time limit for all servers together, if the columns are known from a previous run.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Pause between two attempts to reach ClickHouse for the first time.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Asks ClickHouse for the columns. If ClickHouse is away, returns the last known columns, or waits
/// for ClickHouse if there are none. `None` if a signal ends the wait.
pub(super) fn known_table(
    servers: &[ClickHouse],
    config: &TableConfig,
    spool: &Spool,
    lifecycle: &Lifecycle,
) -> Result<Option<TableDescription>, ServerError> {
    let path = spool.schema_path(TableIndex::default());
    let mut logged = false;
    while !lifecycle.is_stopping() {
        let known = last_known(&path);
        let reason = match ask(servers, config, known.is_some())? {
            Ok(table) => {
                keep(&table, &path);
                return Ok(Some(table));
            }
            Err(reason) => reason,
        };
        if known.is_some() {
            tracing::warn!(
                reason,
                "ClickHouse can't be asked for the columns of the table; events are encoded for the last known columns"
            );
            return Ok(known);
        }
        if !logged {
            tracing::warn!(reason, "waiting for ClickHouse: the columns of the table are not known yet");
            logged = true;
        }
        wait_until(Instant::now() + RETRY_PAUSE, || lifecycle.is_stopping());
    }
    Ok(None)
}

/// The description by the first server that answers. The inner error gives the reasons if none does.
fn ask(
    servers: &[ClickHouse],
    config: &TableConfig,
    has_known: bool,
) -> Result<Result<TableDescription, String>, ServerError> {
    let mut reasons = Vec::new();
    let deadline = Instant::now() + ANSWER_WITHIN;
    for server in servers {
        let left = deadline.saturating_duration_since(Instant::now());
        let patient = if has_known { server.within(left) } else { server.clone() };
        match TableDescription::discover(&patient, config) {
            Ok(table) => {
                tracing::info!(
                    url = server.url(),
                    version = table.version,
                    columns = table.columns.len(),
                    "ClickHouse has described the table"
                );
                return Ok(Ok(table));
            }
            // With known columns, a refused login or a page of a proxy is like a ClickHouse that is away:
            // events must not be lost. At a first start it is an error.
            Err(error) if error.may_pass() || has_known && error.is_not_about_the_table() => {
                reasons.push(format!("{}: {error}", server.url()));
            }
            Err(error) => return Err(ServerError(format!("{}: {error}", server.url()))),
        }
    }
    Ok(Err(reasons.join("; ")))
}

fn last_known(path: &Path) -> Option<TableDescription> {
    TableDescription::load(path).unwrap_or_else(|error| {
        tracing::warn!(%error, path = %path.display(), "the last known columns can't be read");
        None
    })
}

fn keep(table: &TableDescription, path: &Path) {
    if let Err(error) = table.save(path) {
        tracing::warn!(%error, path = %path.display(), "the columns can't be saved for a start without ClickHouse");
    }
}
