//! The watcher, which detects changes of the table and publishes the new schema.
//!
//! It asks for the description of the table
//!
//! - regularly, because an added column causes no error;
//! - at once when a failed INSERT may be due to changed columns;
//! - every few seconds while ClickHouse is away, because the table may be different afterwards.
//!
//! Segments that were opened before a change keep their columns (invariant 3): they are inserted
//! with them, or held.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::TableConfig;
use super::description::TableDescription;
use super::metrics::InsertMetrics;
use super::refresh::RefreshSignal;
use super::servers::Servers;
use crate::handoff::Published;
use crate::limits;
use crate::schema::{Differences, SchemaVersion};

/// Pause between two log messages about the same problem of the table.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// Follows the changes of one table.
pub struct Watcher {
    /// The configuration of the table.
    pub config: TableConfig,
    /// Its label.
    pub label: String,
    /// The servers to ask.
    pub servers: Arc<Servers>,
    /// Wakes the watcher early.
    pub refresh: Arc<RefreshSignal>,
    /// Receives new versions of the schema.
    pub schema: Arc<Published<Option<SchemaVersion>>>,
    /// The file that keeps the description for the next start.
    pub path: PathBuf,
    /// Receives the reason why new events can't be encoded for the changed table.
    pub metrics: Arc<InsertMetrics>,
    /// The description that events are encoded for now.
    pub known: TableDescription,
}

/// Time of the last log message about a problem of the table.
type LastLogged = Option<Instant>;

impl Watcher {
    /// Runs until the process ends. Asks once immediately, because the start may have loaded the
    /// columns from the file.
    pub fn run(mut self) {
        let mut logged = None;
        loop {
            let answered = self.ask(&mut logged);
            thread::sleep(Duration::from_millis(limits::SCHEMA_REFRESH_PAUSE_MS));
            if answered {
                self.wait();
            } else {
                self.refresh.wait(Duration::from_secs(limits::SCHEMA_REFRESH_AWAY_SECONDS));
            }
        }
    }

    /// Waits until the table has to be described again: on a request, after a while, or when the server
    /// has another time zone, if a column depends on it. Such a change makes no error, and the times of
    /// events would be hours off.
    fn wait(&self) {
        if !self.known.depends_on_timezone() {
            self.refresh.wait(Duration::from_secs(limits::SCHEMA_REFRESH_SECONDS));
            return;
        }
        for _ in 0..limits::SCHEMA_REFRESH_SECONDS / limits::TIMEZONE_CHECK_SECONDS {
            if self.refresh.wait(Duration::from_secs(limits::TIMEZONE_CHECK_SECONDS)) || !self.has_known_timezone() {
                return;
            }
        }
    }

    /// Asks the server of the INSERTs for its time zone. False if that has changed, or without an answer.
    fn has_known_timezone(&self) -> bool {
        let server = self.servers.in_turn().next().and_then(|index| self.servers.get(index));
        let timezone = server.and_then(|server| super::description::timezone(server).ok());
        timezone.as_ref() == Some(&self.known.timezone)
    }

    /// Asks the servers in the order of the INSERTs until one describes the table. False if none does.
    fn ask(&mut self, logged: &mut LastLogged) -> bool {
        let mut refused = None;
        for index in self.servers.in_turn() {
            let Some(server) = self.servers.get(index) else { continue };
            match TableDescription::ask(server, &self.config) {
                Ok(found) => {
                    self.compare(found, logged);
                    return true;
                }
                Err(error) if error.may_pass() => {
                    tracing::debug!(url = server.url(), %error, "the server did not describe the table");
                }
                Err(error) => refused = Some(format!("{}: {error}", server.url())),
            }
        }
        if let Some(reason) = refused {
            self.warn(format!("the table can't be described: {reason}"), logged);
        }
        false
    }

    fn compare(&mut self, found: TableDescription, logged: &mut LastLogged) {
        if found == self.known {
            return self.clear_problem(logged);
        }
        let plan = match found.plan(&self.config) {
            Ok(plan) => plan,
            Err(error) => {
                return self.warn(format!("the table has changed and can't be followed: {error}"), logged);
            }
        };
        let frozen = found.freeze(&plan, &self.config).to_bytes();
        let version = self.schema.publish(Some(SchemaVersion::new(plan, frozen)));
        let changed = changes(&self.known, &found);
        tracing::info!(version, changed, "the table has changed; new events are encoded for its new columns");
        if let Err(error) = found.save(&self.path) {
            tracing::warn!(
                %error, path = %self.path.display(),
                "the columns can't be saved for a start without ClickHouse"
            );
        }
        self.known = found;
        self.clear_problem(logged);
    }

    fn clear_problem(&self, logged: &mut LastLogged) {
        *logged = None;
        self.metrics.set_problem(&self.label, None);
    }

    fn warn(&self, what: String, logged: &mut LastLogged) {
        let reason = format!("{what}; new events are still encoded for the columns that the table had");
        let is_new = self.metrics.problems().get(&self.label) != Some(&reason);
        if is_new || logged.is_none_or(|logged| logged.elapsed() >= LOG_PAUSE) {
            tracing::warn!(reason, "the table needs operator action");
            *logged = Some(Instant::now());
        }
        self.metrics.set_problem(&self.label, Some(reason));
    }
}

/// Describes the differences between two descriptions, for the log.
fn changes(before: &TableDescription, now: &TableDescription) -> String {
    let columns = Differences::between(&before.columns, &now.columns);
    let mut changes = Vec::new();
    if !columns.is_empty() {
        changes.push(format!("columns: {columns}"));
    } else if before.columns != now.columns {
        changes.push("the order of the columns".to_owned());
    }
    if before.timezone != now.timezone {
        changes.push(format!("time zone: from {} to {}", before.timezone, now.timezone));
    }
    if before.version != now.version {
        changes.push(format!("ClickHouse: from {} to {}", before.version, now.version));
    }
    if before.settings != now.settings {
        changes.push("the settings that ClickHouse knows".to_owned());
    }
    changes.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::ColumnDescription;

    #[test]
    fn the_log_names_the_differences() {
        let column = |name: &str| ColumnDescription {
            name: name.to_owned(),
            type_name: "String".to_owned(),
            default_kind: String::new(),
            default_expression: String::new(),
        };
        let before = TableDescription {
            version: "25.3".into(),
            timezone: "UTC".into(),
            columns: vec![column("a"), column("b")],
            settings: Default::default(),
        };
        let now = TableDescription { columns: vec![column("a"), column("c")], ..before.clone() };
        assert_eq!(changes(&before, &now), "columns: added `c` String; dropped `b` String");
        let now = TableDescription { columns: vec![column("b"), column("a")], ..before.clone() };
        assert_eq!(changes(&before, &now), "the order of the columns");
        let settings = [("async_insert".to_owned(), "0".to_owned())].into();
        let now =
            TableDescription { version: "26.7".into(), timezone: "Asia/Tokyo".into(), settings, ..before.clone() };
        assert_eq!(
            changes(&before, &now),
            "time zone: from UTC to Asia/Tokyo; ClickHouse: from 25.3 to 26.7; the settings that ClickHouse knows"
        );
    }
}
