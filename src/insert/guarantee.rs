//! Which delivery guarantee a table really gives, and the statement that improves it.
//!
//! Exactly once rests on ClickHouse recognising a token that it has seen; that depends on the
//! table's engine and settings, not on this server.

use std::fmt;

use super::client::{ClickHouse, ClientError};

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

/// What `system.tables` and the defaults of MergeTree say of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFacts {
    /// Such as `ReplicatedMergeTree`.
    pub engine: String,
    /// Empty without one.
    pub partition_key: String,
    /// Blocks whose tokens are remembered; `None` when there is no such thing.
    pub window: Option<u64>,
    /// `fsync_after_insert` is set.
    pub synced: bool,
}

impl TableFacts {
    /// Asks for a table's facts; `None` when there is no such table.
    ///
    /// # Errors
    ///
    /// No answer, or a refusal.
    pub fn ask(clickhouse: &ClickHouse, database: &str, table: &str) -> Result<Option<Self>, ClientError> {
        let parameters = [("param_database", database), ("param_table", table)];
        let statement = "SELECT engine, partition_key, engine_full FROM system.tables \
                         WHERE database = {database:String} AND name = {table:String} FORMAT JSONCompactEachRow";
        let answer = clickhouse.query(statement, &parameters)?;
        let Ok([engine, partition_key, engine_full]) = sonic_rs::from_str::<[String; 3]>(answer.trim()) else {
            return Ok(None);
        };
        let replicated = engine.starts_with("Replicated") || engine.starts_with("Shared");
        let window = if !engine.ends_with("MergeTree") {
            None
        } else {
            let (name, defaults) = if replicated {
                ("replicated_deduplication_window", "system.replicated_merge_tree_settings")
            } else {
                ("non_replicated_deduplication_window", "system.merge_tree_settings")
            };
            match setting(&engine_full, name) {
                Some(value) => value.parse().ok(),
                None => {
                    let default =
                        clickhouse.query(&format!("SELECT value FROM {defaults} WHERE name = '{name}'"), &[])?;
                    default.trim().parse().ok()
                }
            }
        };
        let window = window.filter(|blocks| *blocks > 0);
        let synced = setting(&engine_full, "fsync_after_insert").is_some_and(|value| value != "0");
        Ok(Some(Self { engine, partition_key, window, synced }))
    }

    /// What that comes to. `table` is the quoted name, for the statement.
    pub fn guarantee(&self, table: &str) -> Guarantee {
        let alter = |settings: &str| Some(format!("ALTER TABLE {table} MODIFY SETTING {settings}"));
        if !self.engine.ends_with("MergeTree") {
            return Guarantee {
                level: if self.engine == "Null" { Level::None } else { Level::AtLeastOnce },
                sentence: "the engine remembers no tokens, so an INSERT whose answer is lost may be stored twice",
                mend: None,
            };
        }
        let replicated = self.engine.starts_with("Replicated") || self.engine.starts_with("Shared");
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
                sentence: "a repeat within the window stores nothing; ClickHouse does not sync its own list of tokens, \
                           so a loss of power on its host can double the last INSERT",
                mend: None,
            },
        }
    }
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
        TableFacts { engine: engine.into(), partition_key: String::new(), window, synced }
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
        let of = |facts: TableFacts| facts.guarantee("`d`.`t`");
        assert_eq!(of(facts("Null", None, false)).level, Level::None);
        assert_eq!(of(facts("Memory", None, false)).level, Level::AtLeastOnce);
        let unsafe_table = of(facts("MergeTree", None, false));
        assert_eq!(unsafe_table.level, Level::AtLeastOnce);
        assert!(unsafe_table.mend.unwrap().starts_with("ALTER TABLE `d`.`t` MODIFY SETTING non_replicated_"));
        assert!(of(facts("ReplicatedMergeTree", None, false)).mend.unwrap().contains("SETTING replicated_"));
        assert!(of(facts("MergeTree", Some(100), false)).mend.unwrap().contains("fsync_after_insert"));
        let best = of(facts("MergeTree", Some(100), true));
        assert_eq!((best.level, best.mend), (Level::ExactlyOnce, None));
    }
}
