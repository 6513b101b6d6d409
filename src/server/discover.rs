//! The tables' columns at the start: from ClickHouse, or else those saved by the last run.
//!
//! The only table of a server has to be there, and such that it can be filled: anything else is an error of
//! the start. One of several tables may be missing: the others take events, and the watcher looks for it.

use std::path::Path;
use std::time::{Duration, Instant};

use super::targets::Target;
use super::threads::ServerError;
use super::wait_until;
use crate::clickhouse::client::ClickHouse;
use crate::clickhouse::description::{ServerDescription, TableDescription, TableError};
use crate::handoff::Lifecycle;

/// Time limit for all servers together, if the columns are known from a previous run.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Pause between two attempts to reach ClickHouse for the first time.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// What the start knows of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Known {
    /// Its columns.
    Described(TableDescription),
    /// Why it can take no events now.
    Unavailable(String),
}

/// Asks ClickHouse for the columns of each table. If ClickHouse is away, returns the last known columns, or
/// waits for ClickHouse if those of no table are known. `None` if a signal ends the wait.
pub(super) fn known_tables(
    servers: &[ClickHouse],
    targets: &[Target],
    lifecycle: &Lifecycle,
) -> Result<Option<Vec<Known>>, ServerError> {
    let mut logged = false;
    while !lifecycle.is_stopping() {
        let last: Vec<Option<TableDescription>> = targets.iter().map(|target| last_known(&target.path)).collect();
        let has_last = last.iter().any(Option::is_some);
        let mut asked = Asked::new(targets, has_last);
        asked.ask(servers)?;
        let reason = asked.reasons.join("; ");
        if has_last || asked.found.iter().all(Option::is_some) {
            if asked.found.iter().any(Option::is_none) {
                tracing::warn!(
                    reason,
                    "ClickHouse can't be asked for the columns of every table; events are encoded for the last known \
                     columns"
                );
            }
            let known = asked.found.into_iter().zip(last).map(|(found, last)| match (found, last) {
                (Some(found), _) => found,
                (None, Some(last)) => Known::Described(last),
                (None, None) => Known::Unavailable(format!("its columns are not known yet: {reason}")),
            });
            return Ok(Some(known.collect()));
        }
        if !logged {
            tracing::warn!(reason, "waiting for ClickHouse: the columns of the tables are not known yet");
            logged = true;
        }
        wait_until(Instant::now() + RETRY_PAUSE, || lifecycle.is_stopping());
    }
    Ok(None)
}

/// One round of questions to all servers.
struct Asked<'a> {
    targets: &'a [Target],
    /// By table; `None` while no server has said anything about it.
    found: Vec<Option<Known>>,
    /// Why servers did not answer.
    reasons: Vec<String>,
    has_last: bool,
}

impl<'a> Asked<'a> {
    fn new(targets: &'a [Target], has_last: bool) -> Self {
        Self { targets, found: vec![None; targets.len()], reasons: Vec::new(), has_last }
    }

    /// Asks the servers one after the other until each table is described.
    fn ask(&mut self, servers: &[ClickHouse]) -> Result<(), ServerError> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        for server in servers {
            if self.found.iter().all(|found| matches!(found, Some(Known::Described(_)))) {
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let server = if self.has_last { server.within(left) } else { server.clone() };
            match ServerDescription::ask(&server, self.settings()) {
                Ok(described) => {
                    tracing::info!(url = server.url(), version = described.version(), "ClickHouse has answered");
                    self.ask_for_tables(&server, &described)?;
                }
                Err(error) if self.is_passing(&error) => self.reasons.push(format!("{}: {error}", server.url())),
                Err(error) => return Err(ServerError(format!("{}: {error}", server.url()))),
            }
        }
        Ok(())
    }

    fn ask_for_tables(&mut self, server: &ClickHouse, described: &ServerDescription) -> Result<(), ServerError> {
        let is_alone = self.targets.len() == 1;
        for (place, target) in self.targets.iter().enumerate() {
            let known = match self.found.get(place) {
                Some(Some(Known::Described(_))) => continue,
                _ => TableDescription::discover(server, described, &target.config),
            };
            let known = match known {
                Ok(table) => {
                    let columns = table.columns.len();
                    tracing::debug!(
                        url = server.url(),
                        table = target.settings.label,
                        columns,
                        "ClickHouse has described a table"
                    );
                    keep(&table, &target.path);
                    Known::Described(table)
                }
                Err(error) if self.is_passing(&error) => {
                    let reason = format!("{}: {error}", server.url());
                    self.reasons.push(reason.clone());
                    if !error.is_no_answer() {
                        continue;
                    }
                    // A server that went away is not asked for each of the other tables.
                    if ServerDescription::ask(server, self.settings()).is_err() {
                        return Ok(());
                    }
                    // It is there: something locks this table, and the others don't wait for it.
                    if is_alone || self.has_last {
                        continue;
                    }
                    Known::Unavailable(reason)
                }
                Err(error) if is_alone => return Err(ServerError(format!("{}: {error}", server.url()))),
                Err(error) => Known::Unavailable(format!("{}: {error}", server.url())),
            };
            if let Some(found) = self.found.get_mut(place) {
                *found = Some(known);
            }
        }
        Ok(())
    }

    /// True for an error that says nothing about the tables. With known columns, a refused login or a page of a
    /// proxy is like a ClickHouse that is away: events must not be lost. At a first start it is an error.
    fn is_passing(&self, error: &TableError) -> bool {
        error.may_pass() || self.has_last && error.is_not_about_the_table()
    }

    fn settings(&self) -> &'a [crate::clickhouse::settings::ClickHouseSetting] {
        self.targets.first().map_or(&[], |target| &target.config.insert_settings)
    }
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
