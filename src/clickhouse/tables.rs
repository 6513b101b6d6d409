//! The tables that sluicegate creates if they are missing, and their `CREATE` statements.

use super::client::{ClickHouse, ClientError};
use super::name::{TableName, literal, quoted};

/// The only target table that sluicegate creates.
const DEFAULT_TABLE: &str = "events";

/// Table settings that turn deduplication on and make inserted rows survive a loss of power, on a
/// single node.
const SETTINGS: &str =
    "SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1";

/// The same for a table with replicas; since 25.10 they forget a token after an hour unless told otherwise.
const REPLICATED_SETTINGS: &str = "SETTINGS replicated_deduplication_window = 10000, \
    replicated_deduplication_window_seconds = 604800, fsync_after_insert = 1, fsync_part_directory = 1";

/// The engine of a quarantine table.
#[derive(Debug, Clone, PartialEq, Eq)]
enum QuarantineEngine {
    /// On one server. In ClickHouse Cloud it becomes a SharedMergeTree by itself.
    MergeTree,
    /// On each replica of a table that is replicated under this path.
    Replicated {
        /// With the name of a further ZooKeeper in front, where the table is in one.
        path: String,
        replica: String,
    },
    /// In a database of the engine Replicated, which makes the table on each replica and chooses the path.
    ReplicatedByDatabase,
}

impl QuarantineEngine {
    /// That of the quarantine of a table which is there.
    fn like(clickhouse: &ClickHouse, table: &TableName) -> Result<Self, ClientError> {
        let parameters = [("param_database", table.database.as_str()), ("param_table", table.table.as_str())];
        let ask = |statement: &str| clickhouse.query(statement, &parameters);
        let answer = ask("SELECT t.engine, d.engine FROM system.tables AS t, system.databases AS d \
                          WHERE t.database = {database:String} AND t.name = {table:String} AND d.name = t.database \
                          FORMAT JSONCompactEachRow")?;
        let not_there = |of: &str| ClientError::Refused {
            status: 404,
            code: Some(60),
            message: format!("{of} does not list {table}"),
        };
        let Ok([engine, of_database]) = sonic_rs::from_str::<[String; 2]>(answer.trim()) else {
            return Err(not_there("system.tables"));
        };
        if !engine.starts_with("Replicated") {
            return Ok(Self::MergeTree);
        }
        if of_database == "Replicated" {
            return Ok(Self::ReplicatedByDatabase);
        }
        let answer = ask("SELECT if(zookeeper_name = 'default', '', concat(zookeeper_name, ':')) || zookeeper_path, \
                          replica_name FROM system.replicas \
                          WHERE database = {database:String} AND table = {table:String} FORMAT JSONCompactEachRow")?;
        let Ok([path, replica]) = sonic_rs::from_str::<[String; 2]>(answer.trim()) else {
            return Err(not_there("system.replicas"));
        };
        Ok(Self::Replicated { path: format!("{path}_quarantine"), replica })
    }

    fn engine(&self) -> String {
        match self {
            Self::MergeTree => "MergeTree".to_owned(),
            Self::Replicated { path, replica } => {
                format!("ReplicatedMergeTree({}, {})", literal(path), literal(replica))
            }
            Self::ReplicatedByDatabase => "ReplicatedMergeTree".to_owned(),
        }
    }

    fn settings(&self) -> &'static str {
        if *self == Self::MergeTree { SETTINGS } else { REPLICATED_SETTINGS }
    }

    /// Adds to a refusal what an operator can do about it.
    fn advise(&self, refusal: ClientError) -> ClientError {
        match (self, refusal) {
            (
                Self::Replicated { path, replica },
                ClientError::Refused { status, code: code @ Some(REPLICA_ALREADY_EXISTS), message },
            ) => {
                let message = format!(
                    "{}; Keeper has an entry of this replica, and this server has no such table: a CREATE that lost \
                     Keeper leaves one. Unless the table is detached or has another name here, `SYSTEM DROP REPLICA {} \
                     FROM ZKPATH {}` on this server removes the entry, and the table is then created by itself",
                    message.lines().next().unwrap_or_default(),
                    literal(replica),
                    literal(path)
                );
                ClientError::Refused { status, code, message }
            }
            (_, refusal) => refusal,
        }
    }
}

/// `REPLICA_ALREADY_EXISTS`: a `CREATE` whose session with Keeper ends in its middle leaves the replica's entry there.
const REPLICA_ALREADY_EXISTS: u32 = 253;

/// True for a table that [`create_missing`] creates.
pub fn is_created(name: &TableName) -> bool {
    name.table == DEFAULT_TABLE
}

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
fn create_quarantine(name: &TableName, engine: &QuarantineEngine) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {} (\n  \
           server_time DateTime('UTC'), ip String, code LowCardinality(String), message String, line String\n\
         ) ENGINE = {} PARTITION BY toYYYYMM(server_time) ORDER BY (code, server_time) \
         TTL server_time + INTERVAL 30 DAY\n{}",
        name.quarantine(),
        engine.engine(),
        engine.settings()
    )
}

/// Every statement that [`create_missing`] may run for a table without replicas.
pub fn statements(name: &TableName) -> Vec<String> {
    statements_with(name, &QuarantineEngine::MergeTree)
}

/// Every statement that [`create_missing`] may run on a server.
///
/// # Errors
///
/// If the server does not answer or refuses.
pub fn statements_on(clickhouse: &ClickHouse, name: &TableName) -> Result<Vec<String>, ClientError> {
    let engine = match QuarantineEngine::like(clickhouse, name) {
        // The table is missing. The one that is created has no replicas.
        Err(ClientError::Refused { code: Some(60), .. }) => QuarantineEngine::MergeTree,
        engine => engine?,
    };
    Ok(statements_with(name, &engine))
}

fn statements_with(name: &TableName, quarantine: &QuarantineEngine) -> Vec<String> {
    let mut statements = vec![create_database(&name.database)];
    if is_created(name) {
        statements.push(create_events(name));
    }
    statements.push(create_quarantine(name, quarantine));
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
        if !is_created(name) {
            // The caller describes the table next and reports that it is missing.
            return Ok(());
        }
        clickhouse.query(&create_events(name), &[])?;
        tracing::info!(database, table, "created the missing table");
    }
    match create_missing_quarantine(clickhouse, name) {
        Err(error) if !error.is_no_answer() => {
            say_not_created(clickhouse, name, &error);
            Ok(())
        }
        done => done,
    }
}

/// Makes the quarantine of a table that is there, like the table: the quarantine of a replicated one has a replica
/// beside each of its replicas.
///
/// # Errors
///
/// When the table is not there, ClickHouse does not answer, or refuses.
pub fn create_missing_quarantine(clickhouse: &ClickHouse, name: &TableName) -> Result<(), ClientError> {
    let quarantine = name.quarantine();
    if exists(clickhouse, &quarantine)? {
        return Ok(());
    }
    let engine = QuarantineEngine::like(clickhouse, name)?;
    clickhouse.query(&create_quarantine(name, &engine), &[]).map_err(|refusal| engine.advise(refusal))?;
    tracing::info!(url = clickhouse.url(), table = %quarantine, "the quarantine table was missing and is created");
    Ok(())
}

/// Warns that a quarantine table is missing.
pub fn say_not_created(clickhouse: &ClickHouse, name: &TableName, error: &ClientError) {
    tracing::warn!(
        url = clickhouse.url(), table = %name.quarantine(), %error,
        "the quarantine table is missing and can't be created; rejected lines go to another server, or wait in the spool"
    );
}

/// True if a server has a table.
pub(super) fn exists(clickhouse: &ClickHouse, name: &TableName) -> Result<bool, ClientError> {
    Ok(clickhouse.query(&format!("EXISTS TABLE {name}"), &[])?.trim() == "1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarantine_is_made_like_its_table() {
        let name = TableName::new("d", "hits");
        let of = |engine: &QuarantineEngine| create_quarantine(&name, engine);
        let plain = of(&QuarantineEngine::MergeTree);
        assert!(plain.contains("`d`.`hits_quarantine`") && plain.contains("ENGINE = MergeTree PARTITION"), "{plain}");
        let replicated = of(&QuarantineEngine::Replicated { path: "/it's/d_quarantine".into(), replica: "r1".into() });
        let engine = r"ENGINE = ReplicatedMergeTree('/it\'s/d_quarantine', 'r1') PARTITION";
        assert!(replicated.contains(engine) && replicated.contains("SETTINGS replicated_"), "{replicated}");
        let by_database = of(&QuarantineEngine::ReplicatedByDatabase);
        assert!(by_database.contains("ENGINE = ReplicatedMergeTree PARTITION"), "{by_database}");
    }
}
