//! The watcher: looks whether the table is still what events are encoded for, and publishes what it
//! has become.
//!
//! It looks now and then, because a column that was added makes no error; at once when an insert's
//! failure may come from changed columns; and every few seconds while ClickHouse is away, because it
//! may come back with another table. Segments that were written before keep their columns
//! (invariant 3): those go in as they are, or are held.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::TableConfig;
use super::description::TableDescription;
use super::look::LookWish;
use super::metrics::InsertMetrics;
use super::servers::Servers;
use crate::handoff::Published;
use crate::limits;
use crate::schema::{Differences, SchemaVersion};

/// How often the log says that the table can't be followed.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Follows one table.
pub struct Watcher {
    /// Which table, and how rows are inserted into it.
    pub config: TableConfig,
    /// The servers to ask.
    pub servers: Arc<Servers>,
    /// Wakes the watcher before its time.
    pub look: Arc<LookWish>,
    /// Where a new version of the table is published.
    pub schema: Arc<Published<SchemaVersion>>,
    /// Where it is saved for the next start.
    pub path: PathBuf,
    /// Where it is noted that the table can't be followed.
    pub metrics: Arc<InsertMetrics>,
    /// The table that events are encoded for now.
    pub known: TableDescription,
}

/// When the log last said that the table can't be followed.
type Said = Option<Instant>;

impl Watcher {
    /// Looks until the process ends. The first time at once: the start may have taken the columns
    /// from the file.
    pub fn run(mut self) {
        let mut said = None;
        loop {
            let answered = self.ask(&mut said);
            thread::sleep(Duration::from_millis(limits::SCHEMA_LOOK_PAUSE_MS));
            let next = if answered { limits::SCHEMA_LOOK_SECONDS } else { limits::SCHEMA_LOOK_AWAY_SECONDS };
            self.look.wait(Duration::from_secs(next));
        }
    }

    /// Asks the server that the inserts go to. False when nobody described the table.
    fn ask(&mut self, said: &mut Said) -> bool {
        let mut refused = None;
        for index in self.servers.in_turn() {
            let Some(server) = self.servers.get(index) else { continue };
            match TableDescription::look(server, &self.config) {
                Ok(found) => {
                    self.compare(found, said);
                    return true;
                }
                Err(error) if error.may_pass() => tracing::debug!(url = server.url(), %error, "no look at the table"),
                Err(error) => refused = Some(format!("{}: {error}", server.url())),
            }
        }
        if let Some(reason) = refused {
            self.warn(format!("the table can't be looked at: {reason}"), said);
        }
        false
    }

    fn compare(&mut self, found: TableDescription, said: &mut Said) {
        if found == self.known {
            return self.nothing_is_wrong(said);
        }
        let plan = match found.plan() {
            Ok(plan) => plan,
            Err(error) => {
                return self.warn(format!("the table has changed and can't be followed: {error}"), said);
            }
        };
        let frozen = found.freeze(&plan, &self.config).to_bytes();
        let version = self.schema.publish(SchemaVersion::new(plan, frozen));
        let changed = changes(&self.known, &found);
        tracing::info!(version, changed, "the table has changed; new events are encoded for what it is now");
        if let Err(error) = found.save(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the columns can't be kept for a start without ClickHouse");
        }
        self.known = found;
        self.nothing_is_wrong(said);
    }

    fn nothing_is_wrong(&self, said: &mut Said) {
        *said = None;
        *self.metrics.table_problem() = None;
    }

    fn warn(&self, what: String, said: &mut Said) {
        let reason = format!("{what}; events are still taken for the columns that it had");
        let is_new = self.metrics.table_problem().as_ref() != Some(&reason);
        if is_new || said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
            tracing::warn!(reason, "the table needs operator action");
            *said = Some(Instant::now());
        }
        *self.metrics.table_problem() = Some(reason);
    }
}

/// What is another than before, for the log.
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
        changes.push("settings that ClickHouse knows".to_owned());
    }
    changes.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::ColumnDescription;

    #[test]
    fn the_log_says_what_is_another_than_before() {
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
            "time zone: from UTC to Asia/Tokyo; ClickHouse: from 25.3 to 26.7; settings that ClickHouse knows"
        );
    }
}
