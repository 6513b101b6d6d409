//! The tables that the server makes when they are missing, and their names in SQL.

use super::client::{ClickHouse, ClientError};
use super::name::{TableName, quoted};

/// The one table that is made by default.
const DEFAULT_TABLE: &str = "events";

/// What makes the deduplication of tokens work, and survive a loss of power, on a single node.
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

/// Makes what is missing of a table that may be made. A quarantine table that can't be made is a
/// warning: only rejected lines need it, and they wait in the spool.
///
/// # Errors
///
/// When the database or the default table can't be made, or ClickHouse does not answer.
pub fn create_missing(clickhouse: &ClickHouse, name: &TableName) -> Result<(), ClientError> {
    let TableName { database, table } = name;
    if clickhouse.query(&format!("EXISTS DATABASE {}", quoted(database)), &[])?.trim() != "1" {
        clickhouse.query(&create_database(database), &[])?;
        tracing::info!(database, "the database was missing and is created");
    }
    if !exists(clickhouse, name)? {
        if table != DEFAULT_TABLE {
            // An error, which the description of the table says next; it needs no quarantine.
            return Ok(());
        }
        clickhouse.query(&create_events(name), &[])?;
        tracing::info!(database, table, "the table was missing and is created");
    }
    let quarantine = name.quarantine();
    if !exists(clickhouse, &quarantine)? {
        let table = quarantine.table;
        match clickhouse.query(&create_quarantine(name), &[]) {
            Ok(_) => tracing::info!(database, table, "the quarantine table was missing and is created"),
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
