//! The tables that sluicegate creates if they are missing, and their `CREATE` statements.

use super::client::{ClickHouse, ClientError};
use super::name::{TableName, quoted};

/// The only target table that sluicegate creates.
const DEFAULT_TABLE: &str = "events";

/// Table settings that turn deduplication on and make inserted rows survive a loss of power, on a
/// single node.
const SETTINGS: &str =
    "SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1";

/// `CREATE DATABASE`.
fn create_database(database: &str) -> String {
    format!("CREATE DATABASE IF NOT EXISTS {}", quoted(database))
}

/// `CREATE TABLE` of the default table.
fn create_events(name: &TableName) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {name} (\n  \
           client_time DateTime('UTC'), device_id String, device_os LowCardinality(String), session String,\n  \
           sequence Int64, event LowCardinality(String), param_int Int64, param_str String,\n  \
           ip String, server_time DateTime('UTC')\n\
         ) ENGINE = MergeTree PARTITION BY toYYYYMM(server_time) ORDER BY (event, server_time, device_id)\n{SETTINGS}"
    )
}

/// `CREATE TABLE` of a table's quarantine.
fn create_quarantine(name: &TableName) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (\n  \
           server_time DateTime('UTC'), ip String, code LowCardinality(String), message String, line String\n\
         ) ENGINE = MergeTree PARTITION BY toYYYYMM(server_time) ORDER BY (code, server_time) \
         TTL server_time + INTERVAL 30 DAY\n{SETTINGS}",
        name.quarantine()
    )
}

/// Every statement that [`create_missing`] may run for a table.
pub fn statements(name: &TableName) -> Vec<String> {
    let mut statements = vec![create_database(&name.database)];
    if name.table == DEFAULT_TABLE {
        statements.push(create_events(name));
    }
    statements.push(create_quarantine(name));
    statements
}

/// Creates the database, the default table and the quarantine table if they are missing. A quarantine
/// table that can't be created is only a warning: rejected lines wait for it in the spool.
///
/// # Errors
///
/// If the database or the default table can't be created, or ClickHouse does not answer.
pub fn create_missing(clickhouse: &ClickHouse, name: &TableName) -> Result<(), ClientError> {
    let TableName { database, table } = name;
    if clickhouse.query(&format!("EXISTS DATABASE {}", quoted(database)), &[])?.trim() != "1" {
        clickhouse.query(&create_database(database), &[])?;
        tracing::info!(database, "created the missing database");
    }
    if !exists(clickhouse, name)? {
        if table != DEFAULT_TABLE {
            // The caller describes the table next and reports that it is missing.
            return Ok(());
        }
        clickhouse.query(&create_events(name), &[])?;
        tracing::info!(database, table, "created the missing table");
    }
    let quarantine = name.quarantine();
    if !exists(clickhouse, &quarantine)? {
        let table = quarantine.table;
        match clickhouse.query(&create_quarantine(name), &[]) {
            Ok(_) => tracing::info!(database, table, "created the missing quarantine table"),
            Err(error) if error.is_no_answer() => return Err(error),
            Err(error) => tracing::warn!(
                database, table, %error,
                "the quarantine table is missing and can't be created; rejected lines wait in the spool"
            ),
        }
    }
    Ok(())
}

fn exists(clickhouse: &ClickHouse, name: &TableName) -> Result<bool, ClientError> {
    Ok(clickhouse.query(&format!("EXISTS TABLE {name}"), &[])?.trim() == "1")
}
