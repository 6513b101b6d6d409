//! Which delivery guarantee a table really gives, and the statement that improves it.
//!
//! Exactly once rests on ClickHouse recognising a token that it has seen; that depends on the
//! table's engine and settings, not on this server.

use std::fmt;

use super::client::{ClickHouse, ClientError};
use super::name::TableName;

/// What a table's delivery comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// A repeat of an INSERT whose answer was lost stores nothing.
    ExactlyOnce,
    /// A repeat may store the rows again.
    AtLeastOnce,
    /// Nobody promises that a confirmed row stays.
    None,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ExactlyOnce => "exactly once",
            Self::AtLeastOnce => "at least once",
            Self::None => "none",
        })
    }
}

/// A level, why, and what would raise it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarantee {
    /// The level.
    pub level: Level,
    /// Why.
    pub sentence: &'static str,
    /// The statement that improves it, where one does.
    pub mend: Option<String>,
}

/// What `system.tables` and the defaults of MergeTree say of a table. The default is that of a
/// table which is not there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TableFacts {
    /// Such as `ReplicatedMergeTree`.
    pub engine: String,
    /// Empty without one.
    pub partition_key: String,
    /// Blocks whose tokens are remembered; `None` when there is no such thing.
    pub window: Option<u64>,
    /// Seconds for which they are remembered; `None` for as long as the blocks are.
    pub window_seconds: Option<u64>,
    /// Names the window: tables that share it have one name.
    pub window_name: String,
    /// `fsync_after_insert` is set.
    pub synced: bool,
}

impl TableFacts {
    /// Asks for a table's facts; `None` when there is no such table.
    ///
    /// # Errors
    ///
    /// No answer, or a refusal.
    pub fn ask(clickhouse: &ClickHouse, name: &TableName) -> Result<Option<Self>, ClientError> {
        let TableName { database, table } = name;
        let parameters = [("param_database", database.as_str()), ("param_table", table.as_str())];
        let statement = "SELECT engine, partition_key, engine_full, toString(uuid), toString(serverUUID()) FROM system.tables \
                         WHERE database = {database:String} AND name = {table:String} FORMAT JSONCompactEachRow";
        let answer = clickhouse.query(statement, &parameters)?;
        let Ok([engine, partition_key, engine_full, uuid, server]) = sonic_rs::from_str::<[String; 5]>(answer.trim())
        else {
            return Ok(None);
        };
        let replicated = is_replicated(&engine);
        let (names, defaults) = if replicated {
            (["replicated_deduplication_window", "replicated_deduplication_window_seconds"], REPLICATED_DEFAULTS)
        } else {
            (["non_replicated_deduplication_window", ""], DEFAULTS)
        };
        let value = |name: &str| -> Result<Option<u64>, ClientError> {
            if !engine.ends_with("MergeTree") || name.is_empty() {
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
        // A table made `ON CLUSTER` has one UUID on all servers, and on each a window of its own.
        let of_server = if is_set(&server) { &server } else { clickhouse.url() };
        let window_name = match path.as_str() {
            "" if replicated => uuid,
            "" if is_set(&uuid) => format!("{of_server} {uuid}"),
            "" => format!("{of_server} {database}.{table}"),
            path => path.to_owned(),
        };
        let synced = setting(&engine_full, "fsync_after_insert").is_some_and(|value| value != "0");
        let (window, window_seconds) = (value(blocks)?, value(seconds)?);
        Ok(Some(Self { engine, partition_key, window, window_seconds, window_name, synced }))
    }

    /// Tokens that one insert takes in the window at most: one for each partition that it touches.
    pub fn tokens_per_insert(&self) -> u64 {
        match self.partition_key.as_str() {
            "" => 1,
            // The server's clock: a segment's events are seconds apart.
            key if key.contains("server_time") => 2,
            // What `max_partitions_per_insert_block` allows.
            _ => 100,
        }
    }

    /// What that comes to for `table`.
    pub fn guarantee(&self, table: &TableName) -> Guarantee {
        let alter = |settings: &str| Some(format!("ALTER TABLE {table} MODIFY SETTING {settings}"));
        if self.engine == "Distributed" {
            return Guarantee {
                level: Level::AtLeastOnce,
                sentence: "the table passes the token on (distributed_foreground_insert=1 is sent, so an answer means \
                           that the shards have the rows): exactly once only where each shard's table has a \
                           deduplication window and the sharding key depends on nothing but the row",
                mend: None,
            };
        }
        if !self.engine.ends_with("MergeTree") {
            return Guarantee {
                level: if self.engine == "Null" { Level::None } else { Level::AtLeastOnce },
                sentence: "the engine remembers no tokens, so an INSERT whose answer is lost may be stored twice",
                mend: None,
            };
        }
        let replicated = is_replicated(&self.engine);
        match self.window {
            None => Guarantee {
                level: Level::AtLeastOnce,
                sentence: "the table remembers no tokens, so an INSERT whose answer is lost may be stored twice",
                mend: if replicated {
                    alter("replicated_deduplication_window = 10000")
                } else {
                    alter("non_replicated_deduplication_window = 10000")
                },
            },
            Some(_) if !self.synced && !replicated => Guarantee {
                level: Level::ExactlyOnce,
                sentence: "but rows that ClickHouse has confirmed can be lost when its host loses power",
                mend: alter("fsync_after_insert = 1, fsync_part_directory = 1"),
            },
            Some(_) => Guarantee {
                level: Level::ExactlyOnce,
                sentence: match self.engine.as_str() {
                    _ if replicated => "a repeat within the window stores nothing",
                    "MergeTree" => {
                        "a repeat within the window stores nothing, and rows whose token a killed ClickHouse noted \
                         without them are found to be missing by their server_time, and sent again; ClickHouse does \
                         not sync its own list of tokens, so a loss of power on its host can double the last INSERT"
                    }
                    _ => {
                        "a repeat within the window stores nothing; ClickHouse does not sync its own list of tokens, \
                         so a loss of power on its host can double the last INSERT; it notes a token just before its \
                         rows, so a ClickHouse killed in that moment can lose the INSERT: only in a MergeTree without \
                         a prefix can the rows be looked up"
                    }
                },
                mend: None,
            },
        }
    }
}

const DEFAULTS: &str = "system.merge_tree_settings";
const REPLICATED_DEFAULTS: &str = "system.replicated_merge_tree_settings";

pub(super) fn is_replicated(engine: &str) -> bool {
    engine.starts_with("Replicated") || engine.starts_with("Shared")
}

/// A UUID, or the one that stands for none.
fn is_set(uuid: &str) -> bool {
    !uuid.trim_matches(['0', '-']).is_empty()
}

/// The value of a setting in `engine_full`, as `… SETTINGS name = value, …`.
fn setting<'a>(engine_full: &'a str, name: &str) -> Option<&'a str> {
    let (_, settings) = engine_full.split_once(" SETTINGS ")?;
    settings.split(", ").find_map(|pair| pair.strip_prefix(name)?.strip_prefix(" = "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(engine: &str, window: Option<u64>, synced: bool) -> TableFacts {
        TableFacts { engine: engine.into(), window, synced, ..TableFacts::default() }
    }

    #[test]
    fn a_setting_is_found_among_others() {
        let full = "MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100, fsync_after_insert = 1";
        assert_eq!(setting(full, "non_replicated_deduplication_window"), Some("100"));
        assert_eq!(setting(full, "fsync_after_insert"), Some("1"));
        assert_eq!(setting(full, "index_granularity"), None);
        assert_eq!(setting("Null", "a"), None);
    }

    #[test]
    fn each_table_gets_its_level_and_its_cure() {
        let of = |facts: TableFacts| facts.guarantee(&TableName::new("d", "t"));
        assert_eq!(of(facts("Null", None, false)).level, Level::None);
        assert_eq!(of(facts("Memory", None, false)).level, Level::AtLeastOnce);
        assert!(of(facts("Distributed", None, false)).sentence.contains("sharding key"));
        let unsafe_table = of(facts("MergeTree", None, false));
        assert_eq!(unsafe_table.level, Level::AtLeastOnce);
        assert!(unsafe_table.mend.unwrap().starts_with("ALTER TABLE `d`.`t` MODIFY SETTING non_replicated_"));
        assert!(of(facts("ReplicatedMergeTree", None, false)).mend.unwrap().contains("SETTING replicated_"));
        assert!(of(facts("MergeTree", Some(100), false)).mend.unwrap().contains("fsync_after_insert"));
        let best = of(facts("MergeTree", Some(100), true));
        assert_eq!((best.level, best.mend), (Level::ExactlyOnce, None));
        let sentence = |engine| of(facts(engine, Some(100), true)).sentence;
        assert!(sentence("MergeTree").contains("found to be missing"));
        assert!(sentence("ReplacingMergeTree").contains("can lose the INSERT"));
        assert!(!sentence("ReplicatedMergeTree").contains("killed"));
    }
}
