//! The tables that the server makes when they are missing, and their names in SQL.

use super::client::{ClickHouse, ClientError};
use crate::config::Settings;

/// A table's name, quoted for SQL: `` `database`.`table` ``.
///
/// The names are checked by [`Settings::validate`]; the quoting keeps `-` and `.` working.
pub fn quoted(database: &str, table: &str) -> String {
    format!("{}.{}", quote(database), quote(table))
}

/// An identifier in backticks.
pub fn quote(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// The quarantine table of a table.
pub fn quarantine_of(table: &str) -> String {
    format!("{table}_quarantine")
}

/// The one table that is made by default.
const DEFAULT_TABLE: &str = "events";

/// What makes the deduplication of tokens work, and survive a loss of power, on a single node.
const SETTINGS: &str =
    "SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1";

/// `CREATE DATABASE`.
fn create_database(database: &str) -> String {
    format!("CREATE DATABASE IF NOT EXISTS {}", quote(database))
}

/// `CREATE TABLE` of the default table.
fn create_events(database: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (\n  \
           client_time DateTime('UTC'), device_id String, device_os LowCardinality(String), session String,\n  \
           sequence Int64, event LowCardinality(String), param_int Int64, param_str String,\n  \
           ip String, server_time DateTime('UTC')\n\
         ) ENGINE = MergeTree PARTITION BY toYYYYMM(server_time) ORDER BY (event, server_time, device_id)\n{SETTINGS}",
        quoted(database, DEFAULT_TABLE)
    )
}

/// `CREATE TABLE` of a table's quarantine.
fn create_quarantine(database: &str, table: &str) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (\n  \
           server_time DateTime('UTC'), ip String, code LowCardinality(String), message String, line String\n\
         ) ENGINE = MergeTree PARTITION BY toYYYYMM(server_time) ORDER BY (code, server_time) \
         TTL server_time + INTERVAL 30 DAY\n{SETTINGS}",
        quoted(database, &quarantine_of(table))
    )
}

/// Every statement that [`create_missing`] may run for a table.
pub fn statements(database: &str, table: &str) -> Vec<String> {
    let mut statements = vec![create_database(database)];
    if table == DEFAULT_TABLE {
        statements.push(create_events(database));
    }
    statements.push(create_quarantine(database, table));
    statements
}

/// Makes what is missing, as `--create-table` allows. A quarantine that can't be made is a
/// warning: only refused lines need it, and they wait.
///
/// # Errors
///
/// When the database or the default table can't be made, or ClickHouse does not answer.
pub fn create_missing(clickhouse: &ClickHouse, settings: &Settings) -> Result<(), ClientError> {
    if !settings.create_table {
        return Ok(());
    }
    let (database, table) = (settings.database.as_str(), settings.table.as_str());
    if clickhouse.query(&format!("EXISTS DATABASE {}", quote(database)), &[])?.trim() != "1" {
        clickhouse.query(&create_database(database), &[])?;
        tracing::info!(database, "the database was missing and is created");
    }
    if !exists(clickhouse, database, table)? {
        if table != DEFAULT_TABLE {
            // An error, which the next look at the table says; it needs no quarantine.
            return Ok(());
        }
        clickhouse.query(&create_events(database), &[])?;
        tracing::info!(database, table, "the table was missing and is created");
    }
    let quarantine = quarantine_of(table);
    if !exists(clickhouse, database, &quarantine)? {
        match clickhouse.query(&create_quarantine(database, table), &[]) {
            Ok(_) => tracing::info!(database, table = quarantine, "the quarantine table was missing and is created"),
            Err(error) if error.is_no_answer() => return Err(error),
            Err(error) => tracing::warn!(
                database, table = quarantine, %error,
                "the quarantine table is missing and can't be created; refused lines wait in the spool"
            ),
        }
    }
    Ok(())
}

fn exists(clickhouse: &ClickHouse, database: &str, table: &str) -> Result<bool, ClientError> {
    let answer = clickhouse.query(&format!("EXISTS TABLE {}", quoted(database, table)), &[])?;
    Ok(answer.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        assert_eq!(quoted("default", "app-events"), "`default`.`app-events`");
        assert_eq!(quote("a`b\\"), "`a\\`b\\\\`");
    }
}
