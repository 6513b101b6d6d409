//! One of the tables that the watcher follows: what is known of it, and what its answers change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::TableConfig;
use super::client::ClickHouse;
use super::description::{ServerDescription, TableDescription, TableError};
use super::metrics::InsertMetrics;
use crate::handoff::Published;
use crate::limits;
use crate::schema::{Differences, SchemaVersion};

/// Pause between two log messages about the same problem of a table.
const LOG_PAUSE: Duration = Duration::from_secs(60);

/// What the start knows of a table.
pub struct WatchedTable {
    /// The configuration of the table.
    pub config: TableConfig,
    /// Its name in metrics and messages.
    pub label: String,
    /// Receives new versions of the schema; `None` while the table is unavailable.
    pub schema: Arc<Published<Option<SchemaVersion>>>,
    /// The file that keeps the description for the next start.
    pub path: PathBuf,
    /// The description that events are encoded for; `None` while the table is unavailable.
    pub known: Option<TableDescription>,
}

/// How the reason begins why a table is not known.
const UNDESCRIBED: &str = "the table can't be described: ";

/// A table that is followed.
pub(super) struct Watched {
    pub(super) table: WatchedTable,
    /// When the table is described again.
    pub(super) due: Instant,
    /// True for the only table of the server. Its events are taken while it is missing, and wait in the
    /// spool; of several tables a missing one is unavailable, so that its events do not fill the spool.
    is_alone: bool,
    /// It was asked about last time, and there was no answer: the others are asked about first.
    pub(super) is_unanswered: bool,
    /// True once it was there: a table that an operator drops is not created again.
    was_there: bool,
    /// Time of the last log message about a problem.
    logged: Option<Instant>,
    metrics: Arc<InsertMetrics>,
}

impl Watched {
    pub(super) fn new(table: WatchedTable, is_alone: bool, metrics: Arc<InsertMetrics>) -> Self {
        let was_there = table.known.is_some();
        let (due, is_unanswered) = (Instant::now(), false);
        Self { table, due, is_alone, is_unanswered, was_there, logged: None, metrics }
    }

    /// Asks a server about the table. One that was never there is created, as at the start.
    pub(super) fn ask(
        &self,
        clickhouse: &ClickHouse,
        server: &ServerDescription,
    ) -> Result<TableDescription, TableError> {
        if self.was_there {
            TableDescription::ask_of(clickhouse, server, &self.table.config.name)
        } else {
            TableDescription::discover(clickhouse, server, &self.table.config)
        }
    }

    /// A server has described the table: publishes it if it has changed.
    pub(super) fn found(&mut self, found: TableDescription) {
        self.due = Instant::now() + Duration::from_secs(limits::SCHEMA_REFRESH_SECONDS);
        if self.table.known.as_ref() == Some(&found) {
            return self.clear_problem();
        }
        let WatchedTable { config, label, schema, path, known } = &self.table;
        let version = if known.is_some() { found.version(config) } else { found.first_version(config) };
        let version = match version {
            Ok(version) => version,
            Err(error) if known.is_some() => {
                return self.warn(format!("the table has changed and can't be followed: {error}"));
            }
            Err(error) => return self.warn(format!("the table can't be filled: {error}")),
        };
        let number = schema.publish(Some(version));
        match known {
            Some(known) => {
                let changed = changes(known, &found);
                tracing::info!(
                    table = label,
                    version = number,
                    changed,
                    "the table has changed; new events are encoded for its new columns"
                );
            }
            None => tracing::info!(table = label, version = number, "the table is there; its events are taken"),
        }
        if let Err(error) = found.save(path) {
            tracing::warn!(%error, path = %path.display(), "the columns can't be saved for a start without ClickHouse");
        }
        self.table.known = Some(found);
        self.was_there = true;
        self.clear_problem();
    }

    /// No server describes the table, and one of them says why.
    pub(super) fn refused(&mut self, url: &str, error: &TableError) {
        self.ask_again_soon();
        if error.is_missing() && !self.is_alone && self.table.known.take().is_some() {
            self.table.schema.publish(None);
        }
        self.warn(format!("{UNDESCRIBED}{url}: {error}"));
    }

    /// No server has answered.
    pub(super) fn ask_again_soon(&mut self) {
        self.due = Instant::now() + Duration::from_secs(limits::SCHEMA_REFRESH_AWAY_SECONDS);
    }

    fn clear_problem(&mut self) {
        self.logged = None;
        self.metrics.set_problem(&self.table.label, None);
    }

    fn warn(&mut self, what: String) {
        let consequence = match self.table.known {
            Some(_) => "new events are still encoded for the columns that the table had",
            None => "its events are answered with 503 until that is fixed",
        };
        let (reason, label) = (format!("{what}; {consequence}"), &self.table.label);
        // At the start the log has said the same already.
        let cause = what.strip_prefix(UNDESCRIBED).unwrap_or(&what);
        let is_said = |known: &String| *known == reason || self.logged.is_none() && known.starts_with(cause);
        let is_new = !self.metrics.problem(label).as_ref().is_some_and(is_said);
        if !is_new && self.logged.is_none() {
            self.logged = Some(Instant::now());
        }
        if is_new || self.logged.is_none_or(|logged| logged.elapsed() >= LOG_PAUSE) {
            tracing::warn!(table = label, reason, "the table needs operator action");
            self.logged = Some(Instant::now());
        }
        self.metrics.set_problem(label, Some(reason));
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
    use crate::clickhouse::client::ClientError;
    use crate::clickhouse::name::TableName;
    use crate::clickhouse::settings::InsertFormat;
    use crate::schema::{Addresses, ColumnDescription};

    fn described(columns: &[(&str, &str)]) -> TableDescription {
        let column = |&(name, type_name): &(&str, &str)| ColumnDescription {
            name: name.to_owned(),
            type_name: type_name.to_owned(),
            default_kind: String::new(),
            default_expression: String::new(),
        };
        TableDescription {
            version: "25.8".into(),
            timezone: "UTC".into(),
            columns: columns.iter().map(column).collect(),
            settings: Default::default(),
        }
    }

    /// A table that the start has found with these columns, or not at all.
    fn watched(
        known: Option<TableDescription>,
        dedup_field: Option<&str>,
        is_alone: bool,
        folder: &tempfile::TempDir,
    ) -> (Watched, Arc<Published<Option<SchemaVersion>>>, Arc<InsertMetrics>) {
        let config = TableConfig {
            name: TableName::new("d", "hits"),
            create: false,
            insert_settings: Vec::new(),
            insert_format: InsertFormat::Rowbinary,
            writers: std::num::NonZeroUsize::MIN,
            batch_age: Duration::from_secs(1),
            addresses: Addresses::Any,
            whole_addresses: Addresses::Any,
            mapping: Arc::default(),
            dedup_field: dedup_field.map(str::to_owned),
        };
        let first = known.as_ref().map(|known| known.version(&config).unwrap());
        let (schema, metrics) = (Arc::new(Published::new(first)), Arc::<InsertMetrics>::default());
        let path = folder.path().join("schema.json");
        let table = WatchedTable { config, label: "hits".into(), schema: schema.clone(), path, known };
        (Watched::new(table, is_alone, metrics.clone()), schema, metrics)
    }

    fn missing() -> TableError {
        TableError::Client(ClientError::Refused { status: 404, code: Some(60), message: "no such table".into() })
    }

    #[test]
    fn one_of_several_tables_is_unavailable_while_it_is_missing_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let (mut watched, schema, metrics) = watched(Some(described(&[("a", "String")])), None, false, &folder);
        watched.refused("http://c", &missing());
        assert!(schema.newest().is_none());
        assert!(metrics.problem("hits").unwrap().contains("503"), "{:?}", metrics.problem("hits"));
        watched.found(described(&[("a", "String"), ("b", "String")]));
        let version = schema.newest();
        assert_eq!(version.as_ref().as_ref().unwrap().plan.columns().len(), 2);
        assert_eq!(metrics.problem("hits"), None);
        let kept = TableDescription::load(&folder.path().join("schema.json")).unwrap();
        assert_eq!(kept, Some(described(&[("a", "String"), ("b", "String")])), "for a start without ClickHouse");
    }

    #[test]
    fn the_only_table_takes_events_while_it_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let (mut watched, schema, metrics) = watched(Some(described(&[("a", "String")])), None, true, &folder);
        watched.refused("http://c", &missing());
        assert!(schema.newest().is_some());
        assert!(metrics.problem("hits").unwrap().contains("still encoded"));
    }

    #[test]
    fn an_error_that_does_not_say_that_the_table_is_missing_makes_it_not_unavailable() {
        let folder = tempfile::tempdir().unwrap();
        let (mut watched, schema, metrics) = watched(Some(described(&[("a", "String")])), None, false, &folder);
        let denied = ClientError::Refused { status: 403, code: Some(497), message: "not enough privileges".into() };
        watched.refused("http://c", &denied.into());
        assert!(schema.newest().is_some());
        assert!(metrics.problem("hits").unwrap().contains("not enough privileges"));
        watched.ask_again_soon();
        assert!(metrics.problem("hits").is_some(), "no answer fixes nothing");
    }

    #[test]
    fn a_table_that_can_not_be_filled_stays_as_it_is_and_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let (mut watched, schema, metrics) = watched(None, Some("id"), false, &folder);
        watched.found(described(&[("a", "String")]));
        assert!(schema.newest().is_none());
        let problem = metrics.problem("hits").unwrap();
        assert!(problem.contains("--dedup-field id") && problem.contains("503"), "{problem}");
        watched.found(described(&[("id", "String")]));
        assert!(schema.newest().is_some() && metrics.problem("hits").is_none());
        // Later it is followed no further, and events are encoded for what it was.
        watched.found(described(&[("id", "Strange")]));
        assert_eq!(schema.newest().as_ref().as_ref().unwrap().plan.columns().len(), 1);
        assert!(metrics.problem("hits").unwrap().contains("can't be followed"));
    }

    #[test]
    fn the_log_names_the_differences() {
        let before = described(&[("a", "String"), ("b", "String")]);
        let now = described(&[("a", "String"), ("c", "String")]);
        assert_eq!(changes(&before, &now), "columns: added `c` String; dropped `b` String");
        let now = described(&[("b", "String"), ("a", "String")]);
        assert_eq!(changes(&before, &now), "the order of the columns");
        let settings = [("async_insert".to_owned(), "0".to_owned())].into();
        let now =
            TableDescription { version: "26.7".into(), timezone: "Asia/Tokyo".into(), settings, ..before.clone() };
        assert_eq!(
            changes(&before, &now),
            "time zone: from UTC to Asia/Tokyo; ClickHouse: from 25.8 to 26.7; the settings that ClickHouse knows"
        );
    }
}
