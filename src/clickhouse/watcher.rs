//! The watcher, which detects changes of the tables and publishes their new schemas.
//!
//! It asks for the description of a table
//!
//! - regularly, because an added column causes no error;
//! - at once when a failed INSERT may be due to changed columns;
//! - every few seconds while ClickHouse is away or the table is missing, because it may be different
//!   afterwards.
//!
//! One table that is missing or can't be filled delays none of the others. Blocks that were opened
//! before a change keep their columns (invariant 3): they are inserted with them, or held.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::description::{self, ServerDescription, TableError};
use super::metrics::InsertMetrics;
use super::refresh::RefreshSignal;
use super::servers::Servers;
use super::settings::ClickHouseSetting;
use super::watched::Watched;
pub use super::watched::WatchedTable;
use crate::limits;

/// Follows the changes of all tables.
pub struct Watcher {
    servers: Arc<Servers>,
    refresh: Arc<RefreshSignal>,
    /// `--clickhouse-setting`.
    settings: Vec<ClickHouseSetting>,
    tables: Vec<Watched>,
}

impl Watcher {
    /// A watcher of these tables, which `refresh` wakes early, and which puts into `metrics` why a table can't
    /// be followed.
    pub fn new(
        servers: Arc<Servers>,
        refresh: Arc<RefreshSignal>,
        metrics: &Arc<InsertMetrics>,
        settings: Vec<ClickHouseSetting>,
        tables: Vec<WatchedTable>,
    ) -> Self {
        let is_alone = tables.len() == 1;
        let watched = |table| Watched::new(table, is_alone, metrics.clone());
        Self { servers, refresh, settings, tables: tables.into_iter().map(watched).collect() }
    }

    /// Runs until the process ends. Asks for all tables immediately, because the start may have loaded
    /// their columns from files.
    pub fn run(mut self) {
        loop {
            self.ask();
            thread::sleep(Duration::from_millis(limits::SCHEMA_REFRESH_PAUSE_MS));
            if self.wait() {
                let now = Instant::now();
                self.tables.iter_mut().for_each(|table| table.due = now);
            }
        }
    }

    /// Waits until a table is due. True if all tables have to be described again: on a request, or when the
    /// server has another time zone, if a column depends on it. Such a change makes no error, and the times
    /// of events would be hours off.
    fn wait(&self) -> bool {
        let Some(due) = self.tables.iter().map(|table| table.due).min() else {
            return self.refresh.wait(Duration::from_secs(limits::SCHEMA_REFRESH_SECONDS));
        };
        let known = self.tables.iter().filter_map(|table| table.table.known.as_ref());
        let timezone = known.filter(|known| known.depends_on_timezone()).map(|known| known.timezone.as_str()).next();
        loop {
            let left = due.saturating_duration_since(Instant::now());
            let Some(timezone) = timezone else { return self.refresh.wait(left) };
            if self.refresh.wait(left.min(Duration::from_secs(limits::TIMEZONE_CHECK_SECONDS))) {
                return true;
            }
            if Instant::now() >= due {
                return false;
            }
            if self.timezone().as_deref() != Some(timezone) {
                return true;
            }
        }
    }

    /// The time zone of the server of the INSERTs; `None` without an answer.
    fn timezone(&self) -> Option<String> {
        let server = self.servers.in_turn().next().and_then(|index| self.servers.get(index))?;
        description::timezone(server).ok()
    }

    /// Asks about the tables that are due. Those that there was no answer about last time come when all is done for
    /// the others: what locks a table hides no change of another.
    fn ask(&mut self) {
        let now = Instant::now();
        let due = self.tables.iter_mut().filter(|table| table.due <= now);
        let (unanswered, others): (Vec<_>, Vec<_>) = due.partition(|table| table.is_unanswered);
        for tables in [others, unanswered] {
            Self::ask_about(tables, &self.servers, &self.settings);
        }
    }

    /// Asks the servers in the order of the INSERTs until one describes each of these tables.
    fn ask_about(mut due: Vec<&mut Watched>, servers: &Servers, settings: &[ClickHouseSetting]) {
        let mut refusals: BTreeMap<String, (String, TableError)> = BTreeMap::new();
        for index in servers.in_turn() {
            let Some(server) = servers.get(index).filter(|_| !due.is_empty()) else { continue };
            let mut refuse = |label: &str, error: TableError| {
                if error.may_pass() {
                    tracing::debug!(url = server.url(), table = label, %error, "the server did not describe the table");
                } else {
                    refusals.insert(label.to_owned(), (server.url().to_owned(), error));
                }
            };
            let described = match ServerDescription::ask(server, settings) {
                Ok(described) => described,
                Err(error) => {
                    due.iter().for_each(|table| refuse(&table.table.label, error.clone()));
                    continue;
                }
            };
            let mut is_gone = false;
            due.retain_mut(|table| {
                let asked = if is_gone { return true } else { table.ask(server, &described) };
                table.is_unanswered = asked.as_ref().is_err_and(TableError::is_no_answer);
                match asked {
                    Ok(found) => table.found(found),
                    Err(error) => {
                        is_gone = table.is_unanswered;
                        refuse(&table.table.label, error);
                        return true;
                    }
                }
                false
            });
        }
        for table in due {
            match refusals.get(&table.table.label) {
                Some((url, error)) => table.refused(url, error),
                None => table.ask_again_soon(),
            }
        }
    }
}
