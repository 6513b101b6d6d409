//! The tables that events are taken for: `--table` alone, or the `[table.NAME]` sections of the file.
//!
//! | of a table | from |
//! |---|---|
//! | name | the section's; without a database in it, `--database` |
//! | label | its name without the database; with it where two databases share the name |
//! | own path | `path`, else `/api/<label>` |
//! | `/api/events` | the table whose own path it is, else the one named `events`, else the only one |
//! | other keys | the section's, else the flag's, variable's or top-level key's |

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::section::Section;
use super::validate::{is_plain_name, rule};
use super::{ConfigError, Settings, UnknownFieldsFlag};
use crate::api::rate::Rate;
use crate::clickhouse::TableConfig;
use crate::clickhouse::metrics::quarantine_label;
use crate::clickhouse::name::TableName;
use crate::clickhouse::settings::InsertFormat;
use crate::limits;
use crate::schema::{Mapping, UnknownFields};

/// The path that belongs to a table also without being named.
const EVENTS_PATH: &str = "/api/events";

/// The name of the table that [`EVENTS_PATH`] belongs to if no table names it.
const EVENTS: &str = "events";

/// Paths of the public address that are no table's.
const OWN_PATHS: [&str; 1] = ["/health"];

/// The settings of one table.
#[derive(Debug, Clone, PartialEq)]
pub struct TableSettings {
    /// The table.
    pub name: TableName,
    /// Its name in metrics, in paths of the admin address and in folders: without the database, unless two
    /// databases share the table's name. No two tables have the same label.
    pub label: String,
    /// The paths that its events come to: its own, and `/api/events` if that is its too.
    pub paths: Vec<String>,
    /// `batch-rows`.
    pub batch_rows: u64,
    /// `batch-bytes`.
    pub batch_bytes: u64,
    /// `batch-age`.
    pub batch_age: Duration,
    /// `dedup-field`.
    pub dedup_field: Option<String>,
    /// `insert-format`.
    pub insert_format: InsertFormat,
    /// `rate-limit`, of all events of the table: the section's, else `--rate-limit`. With a
    /// `--write-key-file` that is the rate of each key's name instead, and the table has only its own.
    pub rate_limit: Option<Rate>,
    /// Where its columns get their values from.
    pub mapping: Mapping,
    /// `spool-bytes-max`: what the table may take of the spool's `--spool-bytes-max`; by default half of it,
    /// and with only one table all of it.
    pub spool_bytes_max: u64,
}

impl Settings {
    /// The tables, in the order of their names (database, then table). A
    /// [`TableIndex`](crate::batch::TableIndex) is a place in this list.
    pub fn tables(&self) -> Vec<TableSettings> {
        self.titled_tables().into_iter().map(|(_, table)| table).collect()
    }

    /// The tables that `--only` names, in the same order; all of them without it.
    pub fn selected_tables(&self) -> Vec<TableSettings> {
        let mut tables = self.tables();
        tables.retain(|table| self.only.is_empty() || self.only.contains(&table.label));
        tables
    }

    /// What the rest of the program needs to know of a table of [`Settings::tables`].
    pub fn table_config(&self, table: &TableSettings) -> TableConfig {
        TableConfig {
            name: table.name.clone(),
            create: self.create_table,
            insert_settings: self.clickhouse_setting.clone(),
            insert_format: table.insert_format,
            writers: self.writers,
            batch_age: table.batch_age,
            addresses: self.addresses(),
            whole_addresses: self.whole_addresses(),
            mapping: Arc::new(table.mapping.clone()),
            dedup_field: table.dedup_field.clone(),
        }
    }

    /// Each table with the head of its section, which is empty without sections.
    pub(super) fn titled_tables(&self) -> Vec<(String, TableSettings)> {
        let mut named: Vec<(String, TableName, Option<&Section>)> = if self.sections.is_empty() {
            vec![(String::new(), TableName::new(&self.database, &self.table), None)]
        } else {
            let sections = self.sections.iter();
            sections.map(|section| (section.title(), section.table(&self.database), Some(section))).collect()
        };
        named.sort_by(|(_, a, _), (_, b, _)| (&a.database, &a.table).cmp(&(&b.database, &b.table)));
        let mut databases: HashMap<&str, HashSet<&str>> = HashMap::new();
        for (_, name, _) in &named {
            databases.entry(&name.table).or_default().insert(&name.database);
        }
        let label = |name: &TableName| match databases.get(name.table.as_str()) {
            Some(several) if several.len() > 1 => format!("{}.{}", name.database, name.table),
            _ => name.table.clone(),
        };
        let count = named.len();
        let settings =
            |name: &TableName, section: Option<&Section>| self.table_settings(name, label(name), section, count);
        let mut tables: Vec<(String, TableSettings)> =
            named.iter().map(|(title, name, section)| (title.clone(), settings(name, *section))).collect();
        let names: Vec<&TableSettings> = tables.iter().map(|(_, table)| table).collect();
        if let Some(table) = self.table_of_events(&names).and_then(|place| tables.get_mut(place)) {
            table.1.paths.push(EVENTS_PATH.to_owned());
        }
        tables
    }

    fn table_settings(
        &self,
        name: &TableName,
        label: String,
        section: Option<&Section>,
        tables: usize,
    ) -> TableSettings {
        let keys = section.map(|section| &section.keys);
        let own_path = keys.and_then(|keys| keys.path.clone()).unwrap_or_else(|| format!("/api/{label}"));
        let share = if tables > 1 { self.spool_bytes_max.0 / 2 } else { self.spool_bytes_max.0 };
        TableSettings {
            paths: vec![own_path],
            name: name.clone(),
            label,
            batch_rows: keys.and_then(|keys| keys.batch_rows).unwrap_or(self.batch_rows),
            batch_bytes: keys.and_then(|keys| keys.batch_bytes).unwrap_or(self.batch_bytes).0,
            batch_age: *keys.and_then(|keys| keys.batch_age).unwrap_or(self.batch_age),
            mapping: self.mapping(section),
            dedup_field: keys.and_then(|keys| keys.dedup_field.clone()).or_else(|| self.dedup_field.clone()),
            insert_format: keys.and_then(|keys| keys.insert_format).unwrap_or(self.insert_format),
            rate_limit: keys
                .and_then(|keys| keys.rate_limit)
                .or_else(|| self.rate_limit.filter(|_| self.write_key_file.is_none())),
            spool_bytes_max: keys.and_then(|keys| keys.spool_bytes_max).map_or(share, |size| size.0),
        }
    }

    fn mapping(&self, section: Option<&Section>) -> Mapping {
        let mapping = section.map(|section| section.mapping.clone()).unwrap_or_default();
        let usual = match self.unknown_fields {
            UnknownFieldsFlag::Skip => UnknownFields::Skip,
            UnknownFieldsFlag::Reject => UnknownFields::Reject,
        };
        Mapping {
            columns: mapping.columns,
            required: mapping.required,
            unknown_fields: mapping.unknown_fields.unwrap_or(usual),
        }
    }

    /// The place of the table that gets [`EVENTS_PATH`] beside its own path; `None` if that is the own path
    /// of a table, or no table has a claim to it.
    fn table_of_events(&self, tables: &[&TableSettings]) -> Option<usize> {
        if tables.iter().any(|table| table.paths.iter().any(|path| path == EVENTS_PATH)) {
            return None;
        }
        if tables.len() == 1 {
            return Some(0);
        }
        let mut named = tables.iter().enumerate().filter(|(_, table)| table.name.table == EVENTS);
        // Of several databases with such a table, `--database` is the one of `[table.events]`.
        let is_default = |table: &TableSettings| table.name.database == self.database;
        match (named.clone().count(), named.clone().next()) {
            (1, Some((place, _))) => Some(place),
            _ => named.find(|(_, table)| is_default(table)).map(|(place, _)| place),
        }
    }

    /// Checks the tables: each one, and what they may not share.
    pub(super) fn check_tables(&self) -> Result<(), ConfigError> {
        let tables = self.titled_tables();
        for (title, table) in &tables {
            let checked = self.check_table(table);
            checked.map_err(|error| if title.is_empty() { error } else { ConfigError(format!("{title}: {error}")) })?;
        }
        unshared(&tables)?;
        for label in &self.only {
            let labels: Vec<&str> = tables.iter().map(|(_, table)| table.label.as_str()).collect();
            rule(
                labels.contains(&label.as_str()),
                format_args!("--only {label} names none of the tables; they are {}", labels.join(", ")),
            )?;
        }
        Ok(())
    }

    fn check_table(&self, table: &TableSettings) -> Result<(), ConfigError> {
        if self.sections.is_empty() {
            rule(
                is_plain_name(&table.name.table),
                format_args!("--table must consist of letters, digits, `_`, `-` and `.`, not `{}`", table.name.table),
            )?;
        } else {
            for part in [&table.name.database, &table.name.table] {
                rule(
                    is_plain_name(part),
                    format_args!(
                        "a section names a table, or \"database.table\", of letters, digits, `_`, `-` and `.`, not \
                         `{part}`"
                    ),
                )?;
            }
        }
        self.check_batches(table)?;
        rule(
            !table.mapping.hashes_addresses() || self.client_ip_key_file.is_some(),
            "{ client-ip = \"hashed\" } needs --client-ip-key-file",
        )?;
        table.paths.iter().try_for_each(|path| check_path(path))
    }
}

/// Checks a path: what clients send as it is written, and what does not depend on how `%` and dots in it are
/// read (RFC 3986, sections 2.3 and 3.3).
fn check_path(path: &str) -> Result<(), ConfigError> {
    rule(path.starts_with('/'), format_args!("path must begin with `/`, not be `{path}`"))?;
    rule(
        path.len() <= limits::PATH_BYTES_MAX,
        format_args!("path must have at most {} bytes", limits::PATH_BYTES_MAX),
    )?;
    rule(
        path.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'.' | b'_' | b'~')),
        format_args!("path must consist of letters, digits, `/`, `-`, `.`, `_` and `~`, not be `{path}`"),
    )?;
    rule(
        !path.contains("//") && path.split('/').all(|part| !matches!(part, "." | "..")),
        format_args!("path must not have an empty part, `.` or `..` in it, as `{path}` has"),
    )?;
    rule(!OWN_PATHS.contains(&path), format_args!("path `{path}` is one of the server's own; choose another one"))
}

/// Checks that the tables share no name, no path and no label, and that none is the quarantine of another.
fn unshared(tables: &[(String, TableSettings)]) -> Result<(), ConfigError> {
    let (mut names, mut paths, mut labels) = (HashMap::new(), BTreeMap::new(), BTreeMap::new());
    for (title, table) in tables {
        if let Some(other) = names.insert(table.name.clone(), title) {
            return Err(ConfigError(format!("{other} and {title} are the same table, {}", table.name)));
        }
    }
    for (title, table) in tables {
        let quarantine = table.name.quarantine();
        if let Some(other) = names.get(&quarantine) {
            return Err(ConfigError(format!(
                "{other} is the quarantine table of {title}: it takes the rejected lines, and no events"
            )));
        }
        for path in &table.paths {
            if let Some(other) = paths.insert(path, title) {
                return Err(ConfigError(format!(
                    "the path {path} is claimed by {other} and by {title}; set another `path` in one of them"
                )));
            }
        }
        for label in [table.label.clone(), quarantine_label(&table.label)] {
            if let Some(other) = labels.insert(label.clone(), title) {
                return Err(ConfigError(format!(
                    "{other} and {title} would both have the label {label} in metrics and folders; rename one of the \
                     tables"
                )));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::cli::tests::{settings, with_file};

    /// What a table of the settings came to: its label and its paths.
    fn paths(text: &str) -> Vec<(String, Vec<String>)> {
        let tables = with_file(text, &[]).unwrap().tables();
        tables.into_iter().map(|table| (table.label, table.paths)).collect()
    }

    fn expected(tables: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
        let paths = |paths: &[&str]| paths.iter().map(|&path| path.to_owned()).collect();
        tables.iter().map(|(label, of_table)| ((*label).to_owned(), paths(of_table))).collect()
    }

    #[test]
    fn without_sections_there_is_the_table_of_the_flag_at_both_paths() {
        let tables = settings(&["--table", "t", "--database", "d", "--batch-rows", "7"]).unwrap().tables();
        let [table] = tables.as_slice() else { panic!("{tables:?}") };
        assert_eq!((&table.name, table.label.as_str()), (&TableName::new("d", "t"), "t"));
        assert_eq!(table.paths, ["/api/t", "/api/events"]);
        assert_eq!((table.batch_rows, table.spool_bytes_max), (7, 10 << 30), "the only table has the whole spool");
        assert_eq!(paths(""), expected(&[("events", &["/api/events"])]));
    }

    #[test]
    fn a_section_beats_the_flag_and_what_it_does_not_set_is_the_flag_s() {
        let text = "batch-rows = 5\nbatch-age = \"2s\"\n[table.events]\n[table.\"web.hits\"]\npath = \"/hits\"\n\
                    batch-rows = 6\nbatch-bytes = \"1MiB\"\nbatch-age = \"5s\"\ndedup-field = \"id\"\n\
                    insert-format = \"native\"\nrate-limit = \"10/s\"\nspool-bytes-max = \"2GiB\"";
        let tables = with_file(text, &["--dedup-field", "uid", "--rate-limit", "20/s"]).unwrap().tables();
        let [events, hits] = tables.as_slice() else { panic!("{tables:?}") };
        assert_eq!((&events.name, &hits.name), (&TableName::new("default", "events"), &TableName::new("web", "hits")));
        assert_eq!((events.batch_rows, events.batch_bytes, events.batch_age.as_secs()), (5, 32 << 20, 2));
        assert_eq!((hits.batch_rows, hits.batch_bytes, hits.batch_age.as_secs()), (6, 1 << 20, 5));
        assert_eq!((events.dedup_field.as_deref(), hits.dedup_field.as_deref()), (Some("uid"), Some("id")));
        assert_eq!((events.insert_format, hits.insert_format), (InsertFormat::Rowbinary, InsertFormat::Native));
        assert_eq!((events.rate_limit, hits.rate_limit), ("20/s".parse().ok(), "10/s".parse().ok()));
        assert_eq!((events.spool_bytes_max, hits.spool_bytes_max), (5 << 30, 2 << 30), "half of the spool by default");
        assert_eq!(hits.paths, ["/hits"]);
    }

    #[test]
    fn events_go_to_the_table_that_says_so_or_is_named_so_or_is_the_only_one() {
        let of = |sections: &str| paths(sections);
        assert_eq!(of("[table.hits]"), expected(&[("hits", &["/api/hits", "/api/events"])]));
        assert_eq!(of("[table.hits]\npath = \"/h\""), expected(&[("hits", &["/h", "/api/events"])]));
        assert_eq!(of("[table.a]\n[table.b]"), expected(&[("a", &["/api/a"]), ("b", &["/api/b"])]));
        assert_eq!(
            of("[table.hits]\n[table.events]\npath = \"/in\""),
            expected(&[("events", &["/in", "/api/events"]), ("hits", &["/api/hits"])])
        );
        assert_eq!(
            of("[table.hits]\npath = \"/api/events\"\n[table.events]\npath = \"/in\""),
            expected(&[("events", &["/in"]), ("hits", &["/api/events"])])
        );
        assert_eq!(
            of("[table.\"web.events\"]\n[table.hits]"),
            expected(&[("hits", &["/api/hits"]), ("events", &["/api/events"])]),
            "it has the name in another database"
        );
    }

    #[test]
    fn tables_of_one_name_in_two_databases_are_told_apart_by_their_labels() {
        assert_eq!(
            paths("[table.\"web.events\"]\n[table.events]\n[table.\"web.hits\"]"),
            expected(&[
                ("default.events", &["/api/default.events", "/api/events"]),
                ("web.events", &["/api/web.events"]),
                ("hits", &["/api/hits"]),
            ])
        );
        assert_eq!(
            paths("[table.\"a.events\"]\n[table.\"b.events\"]"),
            expected(&[("a.events", &["/api/a.events"]), ("b.events", &["/api/b.events"])]),
            "neither is in --database"
        );
    }

    #[test]
    fn a_section_without_a_database_is_in_that_of_the_flag() {
        let tables = with_file("[table.hits]\n[table.\"web.hits\"]", &["--database", "d"]).unwrap().tables();
        let names: Vec<String> = tables.iter().map(|table| table.name.to_string()).collect();
        assert_eq!(names, ["`d`.`hits`", "`web`.`hits`"]);
    }

    #[test]
    fn what_is_wrong_with_sections_stops_the_start_with_a_sentence() {
        let many: String = (0..=limits::TABLES_MAX).map(|number| format!("[table.t{number}]\n")).collect();
        let long = format!("[table.a]\npath = \"/{}\"", "x".repeat(limits::PATH_BYTES_MAX));
        for (text, parts) in [
            ("table = \"a\"\n[table.b]", &["`table`", "[table.NAME]", "leave one of them out"][..]),
            ("[table.a]\nbatch-row = 7", &["[table.a]", "`batch-row`", "did you mean `batch-rows`?", "dedup-field"]),
            ("[table.a]\nlisten = \"x\"", &["[table.a]", "unknown key `listen`", "a section takes path, batch-rows"]),
            ("[table.a]\nbatch-rows = \"many\"", &["[table.a]", "'many'", "batch-rows", "a whole number"]),
            ("[table.a]\nbatch-bytes = \"10X\"", &["[table.a]", "batch-bytes", "looks like 4096"]),
            ("[table.a]\nbatch-age = [1]", &["[table.a]", "`batch-age` takes a string"]),
            ("[table.a]\nrate-limit = \"5\"", &["[table.a]", "rate-limit", "looks like 5000/s"]),
            ("[table.a]\ninsert-format = \"csv\"", &["[table.a]", "insert-format", "rowbinary, native"]),
            ("[table.a]\nbatch-rows = 0", &["[table.a]", "batch-rows must be more than 0"]),
            ("[table.a]\nbatch-rows = 1048449", &["[table.a]", "batch-rows plus --events-max"]),
            ("[table.a]\nbatch-bytes = \"2GiB\"", &["[table.a]", "batch-bytes must be at most 1GiB"]),
            ("[table.a]\nbatch-age = \"0s\"", &["[table.a]", "batch-age must be more than 0s"]),
            ("[table.a]\nspool-bytes-max = \"20GiB\"", &["[table.a]", "spool-bytes-max must be at most"]),
            ("[table.a]\nspool-bytes-max = \"1MiB\"", &["[table.a]", "spool-bytes-max must be more than"]),
            ("spool-bytes-max = \"40MiB\"\n[table.a]\n[table.b]", &["[table.a]", "may take 20.0 MiB of the spool"]),
            ("[table.a]\npath = \"api\"", &["[table.a]", "path must begin with `/`", "`api`"]),
            ("[table.a]\npath = \"/health\"", &["[table.a]", "`/health`", "the server's own"]),
            ("[table.a]\npath = \"/a?b\"", &["[table.a]", "path must consist of letters", "`/a?b`"]),
            ("[table.a]\npath = \"/a/../b\"", &["[table.a]", "`..`"]),
            (&long, &["[table.a]", "path must have at most 1024 bytes"]),
            ("[table.a]\npath = \"/x\"\n[table.b]\npath = \"/x\"", &["/x", "claimed by [table.a] and by [table.b]"]),
            ("[table.events]\n[table.b]\npath = \"/api/events\"", &["/api/events", "[table.b] and by [table.events]"]),
            ("[table.a]\n[table.\"default.a\"]", &["[table.a] and [table.\"default.a\"] are the same table"]),
            ("[table.a]\n[table.a_quarantine]", &["[table.a_quarantine] is the quarantine table of [table.a]"]),
            (
                "[table.\"default.web.hits\"]\n[table.\"web.hits\"]\npath = \"/h\"\n[table.\"x.hits\"]",
                &["both have the label web.hits"],
            ),
            ("[table.\"a b\"]", &["[table.\"a b\"]", "of letters, digits", "`a b`"]),
            ("[table.\".b\"]", &["[table.\".b\"]", "of letters, digits", "not ``"]),
            ("[table.web.hits]", &["[table.web]", "[table.\"web.hits\"]"]),
            ("[table]", &["[table] names no table"]),
            ("[table]\na = 1", &["[table]", "`a` is no section"]),
            (&many, &["1001 [table.NAME] sections", "at most 1000 tables"]),
        ] {
            let error = with_file(text, &[]).unwrap_err();
            assert!(parts.iter().all(|part| error.0.contains(part)), "{parts:?}: {error}");
            assert!(!error.0.trim_end().contains('\n'), "{error}");
        }
    }

    #[test]
    fn the_flag_and_sections_together_stop_the_start() {
        let error = with_file("[table.a]", &["--table", "b"]).unwrap_err();
        assert!(error.0.contains("--table") && error.0.contains("leave one of them out"), "{error}");
    }

    #[test]
    fn a_command_is_about_the_tables_that_it_names() {
        let text = "[table.a]\n[table.b]\n[table.c]";
        let labels = |only: &[&str]| {
            let mut settings = with_file(text, &[]).unwrap();
            settings.only = only.iter().map(|&label| label.to_owned()).collect();
            settings
                .validate()
                .map(|()| settings.selected_tables().into_iter().map(|table| table.label).collect::<Vec<_>>())
        };
        assert_eq!(labels(&[]).unwrap(), ["a", "b", "c"]);
        assert_eq!(labels(&["c", "a"]).unwrap(), ["a", "c"]);
        let error = labels(&["d"]).unwrap_err();
        assert!(error.0.contains("--only d") && error.0.contains("a, b, c"), "{error}");
    }
}
