//! The facts about a table on a server: its engine, its deduplication window, and what may change or
//! hide rows after they are inserted.

use super::client::{ClickHouse, ClientError};
use super::name::TableName;
use super::server_id;

/// The properties of a table that decide its guarantee, from the system tables of a server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableFacts {
    /// The version of ClickHouse.
    pub version: String,
    /// The engine, such as `ReplicatedMergeTree`.
    pub engine: String,
    /// The partition key; empty if there is none.
    pub partition_key: String,
    /// Size of the deduplication window in blocks; `None` if no tokens are remembered.
    pub window: Option<u64>,
    /// Seconds for which a token is remembered; `None` if only the number of blocks limits it.
    pub window_seconds: Option<u64>,
    /// Name of the deduplication window; tables that share a window have the same name here.
    pub window_name: String,
    /// What an older release called it: an embedded ClickHouse went by its URL.
    pub former_window_name: Option<String>,
    /// True if `fsync_after_insert` is set.
    pub synced: bool,
    /// The columns of the sorting key and of the partition key, which no mutation changes.
    pub key_columns: Vec<String>,
    /// The TTL of the rows.
    pub expiry: Expiry,
    /// True if a row policy may hide rows from this user.
    pub has_row_policy: bool,
    /// True if a TTL of columns or a mutation may have changed stored rows.
    pub is_rewritten: bool,
    /// The number of the newest block, counting the blocks of all partitions and all writers.
    pub newest_block: Option<u64>,
}

/// The expiry of the rows of a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Expiry {
    /// Rows do not expire.
    #[default]
    Never,
    /// A row expires at the time that this expression gives.
    At(String),
    /// The TTL is not understood.
    Unknown,
}

impl TableFacts {
    /// Asks a server for the facts of a table; `None` if there is no such table.
    ///
    /// # Errors
    ///
    /// If the server does not answer or refuses.
    pub fn ask(clickhouse: &ClickHouse, name: &TableName) -> Result<Option<Self>, ClientError> {
        let TableName { database, table } = name;
        let parameters = [("param_database", database.as_str()), ("param_table", table.as_str())];
        let statement = "SELECT engine, partition_key, engine_full, toString(uuid), toString(serverUUID()), version() \
                         FROM system.tables WHERE database = {database:String} AND name = {table:String} \
                         FORMAT JSONCompactEachRow";
        let answer = clickhouse.query(statement, &parameters)?;
        let Ok([engine, partition_key, engine_full, uuid, server, version]) =
            sonic_rs::from_str::<[String; 6]>(answer.trim())
        else {
            return Ok(None);
        };
        let replicated = is_replicated(&engine);
        let (names, defaults) = if replicated {
            (["replicated_deduplication_window", "replicated_deduplication_window_seconds"], REPLICATED_DEFAULTS)
        } else {
            (["non_replicated_deduplication_window", ""], DEFAULTS)
        };
        let is_merge_tree = engine.ends_with("MergeTree");
        let value = |name: &str| -> Result<Option<u64>, ClientError> {
            if !is_merge_tree || name.is_empty() {
                return Ok(None);
            }
            let set = setting(&engine_full, name).map(str::to_owned);
            let value = match set {
                Some(value) => value,
                None => clickhouse.query(&format!("SELECT value FROM {defaults} WHERE name = '{name}'"), &[])?,
            };
            Ok(value.trim().parse().ok().filter(|value| *value > 0))
        };
        let [blocks, seconds] = names;
        let path = if replicated {
            let statement = "SELECT concat(zookeeper_name, ':', zookeeper_path) FROM system.replicas \
                             WHERE database = {database:String} AND table = {table:String}";
            clickhouse.query(statement, &parameters)?.trim().to_owned()
        } else {
            String::new()
        };
        let mut former_window_name = None;
        let window_name = match path.as_str() {
            "" if replicated => uuid,
            "" => {
                let name = if is_set(&uuid) { uuid } else { format!("{database}.{table}") };
                // A table created `ON CLUSTER` has the same UUID on all servers, but a window on each of them.
                let of_server = if is_set(&server) {
                    server
                } else {
                    former_window_name = Some(format!("{} {name}", clickhouse.url()));
                    embedded_server(clickhouse)?
                };
                format!("{of_server} {name}")
            }
            path => path.to_owned(),
        };
        let synced = setting(&engine_full, "fsync_after_insert").is_some_and(|value| value != "0");
        let (window, window_seconds) = (value(blocks)?, value(seconds)?);
        let key_columns = if is_merge_tree { key_columns(clickhouse, &parameters)? } else { Vec::new() };
        let newest_block = if is_merge_tree { newest_block(clickhouse, replicated, &parameters)? } else { None };
        Ok(Some(Self {
            version,
            expiry: expiry(&engine_full),
            engine,
            partition_key,
            window,
            window_seconds,
            window_name,
            former_window_name,
            synced,
            key_columns,
            has_row_policy: has_row_policy(clickhouse, &parameters)?,
            is_rewritten: is_merge_tree && is_rewritten(clickhouse, &parameters)?,
            newest_block,
        }))
    }
}

const DEFAULTS: &str = "system.merge_tree_settings";
const REPLICATED_DEFAULTS: &str = "system.replicated_merge_tree_settings";

/// The identity of a server without a UUID of its own: that of an embedded ClickHouse, else its URL.
fn embedded_server(clickhouse: &ClickHouse) -> Result<String, ClientError> {
    let statement = format!("SELECT substitution FROM system.macros WHERE macro = '{}'", server_id::MACRO);
    match clickhouse.query(&statement, &[]).as_deref().map(str::trim) {
        Ok("") | Err(ClientError::Refused { code: Some(_), .. }) => Ok(clickhouse.url().to_owned()),
        Ok(id) => Ok(id.to_owned()),
        Err(error) => Err(error.clone()),
    }
}

/// The columns that are in the sorting key or the partition key themselves, not as part of an expression.
fn key_columns(clickhouse: &ClickHouse, parameters: &[(&str, &str)]) -> Result<Vec<String>, ClientError> {
    let statement = "SELECT name FROM system.columns WHERE database = {database:String} AND table = {table:String} \
                     AND (is_in_sorting_key OR is_in_partition_key) ORDER BY position FORMAT JSONCompactEachRow";
    let answer = clickhouse.query(statement, parameters)?;
    Ok(answer.lines().filter_map(|line| sonic_rs::from_str::<[String; 1]>(line).ok()).map(|[name]| name).collect())
}

/// The number of blocks so far. Block numbers ascend over all partitions of a plain table, and within
/// each partition of a replicated one.
fn newest_block(
    clickhouse: &ClickHouse,
    replicated: bool,
    parameters: &[(&str, &str)],
) -> Result<Option<u64>, ClientError> {
    let over = if replicated { "sum(newest + 1)" } else { "max(newest)" };
    let statement = format!(
        "SELECT {over} FROM (SELECT max(max_block_number) AS newest FROM system.parts \
         WHERE database = {{database:String}} AND table = {{table:String}} GROUP BY partition_id)"
    );
    Ok(clickhouse.query(&statement, parameters)?.trim().parse().ok())
}

/// True if the table has a TTL of columns, which precedes the engine in the `CREATE` statement, or a
/// mutation.
fn is_rewritten(clickhouse: &ClickHouse, parameters: &[(&str, &str)]) -> Result<bool, ClientError> {
    let statement = "SELECT position(splitByString(' ENGINE = ', create_table_query)[1], ' TTL ') > 0 OR \
                     (SELECT count() FROM system.mutations WHERE database = {database:String} AND table = {table:String}) > 0 \
                     FROM system.tables WHERE database = {database:String} AND name = {table:String}";
    Ok(clickhouse.query(statement, parameters)?.trim() != "0")
}

/// True if a row policy applies to the table. A user who may not read the policies counts as having
/// none.
fn has_row_policy(clickhouse: &ClickHouse, parameters: &[(&str, &str)]) -> Result<bool, ClientError> {
    let statement = "SELECT count() FROM system.row_policies \
                     WHERE database IN ({database:String}, '') AND table IN ({table:String}, '')";
    match clickhouse.query(statement, parameters) {
        Ok(count) => Ok(count.trim() != "0"),
        Err(ClientError::Refused { code: Some(_), .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// True for an engine whose replicas share a deduplication window through Keeper.
pub fn is_replicated(engine: &str) -> bool {
    engine.starts_with("Replicated") || engine.starts_with("Shared")
}

/// True unless the UUID is the null UUID.
fn is_set(uuid: &str) -> bool {
    !uuid.trim_matches(['0', '-']).is_empty()
}

/// The value of a setting in `engine_full`, which ends with `SETTINGS name = value, …`.
fn setting<'a>(engine_full: &'a str, name: &str) -> Option<&'a str> {
    let (_, settings) = engine_full.split_once(" SETTINGS ")?;
    settings.split(", ").find_map(|pair| pair.strip_prefix(name)?.strip_prefix(" = "))
}

/// The TTL of rows in `engine_full`, which contains `TTL expression` before its settings.
fn expiry(engine_full: &str) -> Expiry {
    let definition = engine_full.split(" SETTINGS ").next().unwrap_or_default();
    let Some((_, ttl)) = definition.split_once(" TTL ") else { return Expiry::Never };
    let simple = ttl.strip_suffix(" DELETE").unwrap_or(ttl);
    let words = [" WHERE ", " GROUP BY ", " TO DISK ", " TO VOLUME ", " RECOMPRESS "];
    if words.iter().any(|word| simple.contains(word)) || has_comma_outside(simple) {
        return Expiry::Unknown;
    }
    Expiry::At(simple.to_owned())
}

fn has_comma_outside(expression: &str) -> bool {
    let mut depth = 0i32;
    expression.chars().any(|character| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        character == ',' && depth == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_found_among_others() {
        let full = "MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100, fsync_after_insert = 1";
        assert_eq!(setting(full, "non_replicated_deduplication_window"), Some("100"));
        assert_eq!(setting(full, "fsync_after_insert"), Some("1"));
        assert_eq!(setting(full, "index_granularity"), None);
        assert_eq!(setting("Null", "a"), None);
    }

    #[test]
    fn only_one_plain_expression_says_when_rows_expire() {
        let of = |rest: &str| expiry(&format!("MergeTree ORDER BY a{rest} SETTINGS index_granularity = 8192"));
        assert_eq!(of(""), Expiry::Never);
        let days = "server_time + toIntervalDay(30)";
        assert_eq!(of(&format!(" TTL {days}")), Expiry::At(days.to_owned()));
        assert_eq!(of(&format!(" TTL {days} DELETE")), Expiry::At(days.to_owned()));
        for more in
            [", b + toIntervalDay(1) TO DISK 'x'", " WHERE a = 1", " GROUP BY a SET b = max(b)", " TO VOLUME 'x'"]
        {
            assert_eq!(of(&format!(" TTL {days}{more}")), Expiry::Unknown, "{more}");
        }
    }
}
