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

use super::figures::InsertFigures;
use super::inserter::Inserts;
use super::target::Target;
use crate::config::Settings;
use crate::limits;
use crate::schema::{CurrentSchema, Differences};

/// How often the log says that the table can't be followed.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// See the module.
pub struct Watcher {
    inserts: Arc<Inserts>,
    figures: Arc<InsertFigures>,
    schema: Arc<CurrentSchema>,
    settings: Settings,
    path: PathBuf,
    known: Target,
    said: Option<Instant>,
}

impl Watcher {
    /// A watcher of the table that `known` is what events are encoded for now. What it becomes goes
    /// to `schema`, to `path` for the next start, and what is wrong with it to `figures`.
    pub fn new(
        inserts: Arc<Inserts>,
        figures: Arc<InsertFigures>,
        schema: Arc<CurrentSchema>,
        settings: Settings,
        path: PathBuf,
        known: Target,
    ) -> Self {
        Self { inserts, figures, schema, settings, path, known, said: None }
    }

    /// Looks until the process ends. The first time at once: the start may have taken the columns
    /// from the file.
    pub fn run(mut self) {
        loop {
            let answered = self.look();
            thread::sleep(Duration::from_millis(limits::SCHEMA_LOOK_PAUSE_MS));
            let next = if answered { limits::SCHEMA_LOOK_SECONDS } else { limits::SCHEMA_LOOK_AWAY_SECONDS };
            self.inserts.look.wait(Duration::from_secs(next));
        }
    }

    /// Asks the server that the inserts go to. False when nobody described the table.
    fn look(&mut self) -> bool {
        let mut refused = None;
        for place in self.inserts.servers.in_turn() {
            let Some(server) = self.inserts.servers.get(place) else { continue };
            match Target::look(server, &self.settings) {
                Ok(found) => {
                    self.compare(found);
                    return true;
                }
                Err(error) if error.may_pass() => tracing::debug!(url = server.url(), %error, "no look at the table"),
                Err(error) => refused = Some(format!("{}: {error}", server.url())),
            }
        }
        if let Some(reason) = refused {
            self.warn(format!("the table can't be looked at: {reason}"));
        }
        false
    }

    fn compare(&mut self, found: Target) {
        if found == self.known {
            return self.nothing_is_wrong();
        }
        let plan = match found.plan() {
            Ok(plan) => plan,
            Err(error) => {
                return self.warn(format!("the table has changed and can't be followed: {error}"));
            }
        };
        let frozen = found.freeze(&plan).to_bytes();
        let version = self.schema.publish(plan, frozen);
        let changed = changes(&self.known, &found);
        tracing::info!(version, changed, "the table has changed; new events are encoded for what it is now");
        if let Err(error) = found.save(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "the columns can't be kept for a start without ClickHouse");
        }
        self.known = found;
        self.nothing_is_wrong();
    }

    fn nothing_is_wrong(&mut self) {
        self.said = None;
        *self.figures.schema() = None;
    }

    fn warn(&mut self, what: String) {
        let reason = format!("{what}; events are still taken for the columns that it had");
        let is_new = self.figures.schema().as_ref() != Some(&reason);
        if is_new || self.said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
            tracing::warn!(reason, "the schema needs a person");
            self.said = Some(Instant::now());
        }
        *self.figures.schema() = Some(reason);
    }
}

/// What is another than before, for the log.
fn changes(before: &Target, now: &Target) -> String {
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
        let before = Target {
            version: "25.3".into(),
            timezone: "UTC".into(),
            columns: vec![column("a"), column("b")],
            settings: Default::default(),
        };
        let now = Target { columns: vec![column("a"), column("c")], ..before.clone() };
        assert_eq!(changes(&before, &now), "columns: added `c` String; dropped `b` String");
        let now = Target { columns: vec![column("b"), column("a")], ..before.clone() };
        assert_eq!(changes(&before, &now), "the order of the columns");
        let settings = [("async_insert".to_owned(), "0".to_owned())].into();
        let now = Target { version: "26.7".into(), timezone: "Asia/Tokyo".into(), settings, ..before.clone() };
        assert_eq!(
            changes(&before, &now),
            "time zone: from UTC to Asia/Tokyo; ClickHouse: from 25.3 to 26.7; settings that ClickHouse knows"
        );
    }
}
