//! The delivery guarantee that a table gives, and the statement that improves it.
//!
//! "Exactly once" requires that ClickHouse recognises a repeated token, which depends on the engine
//! and the settings of the table.

use std::fmt;

use super::facts::{TableFacts, is_replicated};
use super::name::TableName;

/// The level of a delivery guarantee, the best one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A repeat of an INSERT whose answer was lost stores nothing.
    ExactlyOnce,
    /// A repeat may store the rows again.
    AtLeastOnce,
    /// A confirmed row may be gone.
    None,
    /// The table can't be inserted into.
    Unfit,
}

impl Level {
    /// The name of the level for machines.
    pub fn code(self) -> &'static str {
        match self {
            Self::ExactlyOnce => "exactly_once",
            Self::AtLeastOnce => "at_least_once",
            Self::None => "none",
            Self::Unfit => "unfit",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ExactlyOnce => "exactly once",
            Self::AtLeastOnce => "at least once",
            Self::None => "none",
            Self::Unfit => "not a table to insert into",
        })
    }
}

/// The delivery guarantee of a table, with its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guarantee {
    /// The level.
    pub level: Level,
    /// The reason for the level.
    pub sentence: &'static str,
    /// The statement that improves the guarantee; `None` if there is none.
    pub fix: Option<String>,
}

impl TableFacts {
    /// Tokens that one insert takes in the window at most: one for each partition that it touches.
    pub fn tokens_per_insert(&self) -> u64 {
        match self.partition_key.as_str() {
            "" => 1,
            // The events of a block are seconds apart, so they touch at most two partitions.
            key if key.contains("server_time") => 2,
            // The default limit of `max_partitions_per_insert_block`.
            _ => 100,
        }
    }

    /// The guarantee that follows from these facts for `table`.
    pub fn guarantee(&self, table: &TableName) -> Guarantee {
        let alter = |settings: &str| Some(format!("ALTER TABLE {table} MODIFY SETTING {settings}"));
        if self.engine == "Distributed" {
            return Guarantee {
                level: Level::AtLeastOnce,
                sentence: "the table passes the token on to its shards (distributed_foreground_insert=1 is sent, so a \
                           success means that the shards have the rows): exactly once only if each shard's table has \
                           a deduplication window and the sharding key depends only on the row",
                fix: None,
            };
        }
        if self.engine.ends_with("View") {
            return Guarantee {
                level: Level::Unfit,
                sentence: "the table is a view; set --table to the table that stores the rows",
                fix: None,
            };
        }
        if self.engine == "Memory" {
            return Guarantee {
                level: Level::None,
                sentence: "a restart of ClickHouse loses all rows of a Memory table",
                fix: None,
            };
        }
        if !self.engine.ends_with("MergeTree") {
            return Guarantee {
                level: if self.engine == "Null" { Level::None } else { Level::AtLeastOnce },
                sentence: "the engine remembers no tokens, so an INSERT whose answer is lost may be stored twice",
                fix: None,
            };
        }
        let replicated = is_replicated(&self.engine);
        match self.window {
            None => Guarantee {
                level: Level::AtLeastOnce,
                sentence: "the table remembers no tokens, so an INSERT whose answer is lost may be stored twice",
                fix: if replicated {
                    alter("replicated_deduplication_window = 10000")
                } else {
                    alter("non_replicated_deduplication_window = 10000")
                },
            },
            Some(_) if self.has_row_policy && !replicated => Guarantee {
                level: Level::AtLeastOnce,
                sentence: "a row policy may hide rows from this user, so the rows of an INSERT whose answer was lost \
                           can't be looked up; its block is held until an operator sends it again",
                fix: Some("insert as a user to whom no row policy of the table applies".to_owned()),
            },
            Some(_) if !self.synced && !replicated => Guarantee {
                level: Level::ExactlyOnce,
                sentence: "but rows that ClickHouse has confirmed can be lost when its host loses power",
                fix: alter("fsync_after_insert = 1, fsync_part_directory = 1"),
            },
            Some(_) => Guarantee {
                level: Level::ExactlyOnce,
                sentence: match self.engine.as_str() {
                    _ if replicated => "a repeat within the window stores nothing",
                    "MergeTree" => {
                        "a repeat within the window stores nothing; if a killed ClickHouse has kept the token of an \
                         INSERT without its rows, the rows are found to be missing by their server_time and sent \
                         again; ClickHouse does not sync its log of tokens, so a loss of power on its host can double \
                         the last INSERT"
                    }
                    _ => {
                        "a repeat within the window stores nothing; ClickHouse does not sync its log of tokens, so a \
                         loss of power on its host can double the last INSERT; rows can be looked up only in a plain \
                         MergeTree, so an INSERT whose answer was lost in a restart of ClickHouse is held"
                    }
                },
                fix: None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(engine: &str, window: Option<u64>, synced: bool) -> TableFacts {
        TableFacts { engine: engine.into(), window, synced, ..TableFacts::default() }
    }

    #[test]
    fn each_table_gets_its_level_and_its_fix() {
        let of = |facts: TableFacts| facts.guarantee(&TableName::new("d", "t"));
        assert_eq!(of(facts("Null", None, false)).level, Level::None);
        assert_eq!(of(facts("Memory", None, false)).level, Level::None);
        assert_eq!(of(facts("MaterializedView", None, false)).level, Level::Unfit);
        let hidden = TableFacts { has_row_policy: true, ..facts("MergeTree", Some(100), true) };
        assert_eq!(of(hidden).level, Level::AtLeastOnce);
        assert!(of(facts("Distributed", None, false)).sentence.contains("sharding key"));
        let unsafe_table = of(facts("MergeTree", None, false));
        assert_eq!(unsafe_table.level, Level::AtLeastOnce);
        assert!(unsafe_table.fix.unwrap().starts_with("ALTER TABLE `d`.`t` MODIFY SETTING non_replicated_"));
        assert!(of(facts("ReplicatedMergeTree", None, false)).fix.unwrap().contains("SETTING replicated_"));
        assert!(of(facts("MergeTree", Some(100), false)).fix.unwrap().contains("fsync_after_insert"));
        let best = of(facts("MergeTree", Some(100), true));
        assert_eq!((best.level, best.fix), (Level::ExactlyOnce, None));
        let sentence = |engine| of(facts(engine, Some(100), true)).sentence;
        assert!(sentence("MergeTree").contains("found to be missing"));
        assert!(sentence("ReplacingMergeTree").contains("is held"));
        assert!(!sentence("ReplicatedMergeTree").contains("killed"));
    }
}
