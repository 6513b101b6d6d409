//! The deduplication horizon: for how many INSERTs, and for how long, a table remembers a token.
//!
//! A block with an attempt of unknown outcome may be sent again only while ClickHouse still
//! remembers its token. The number of later INSERTs is bounded by the difference of segment numbers,
//! which needs no clock and survives a restart.

use std::fmt;
use std::time::Duration;

use super::facts::{TableFacts, is_replicated};
use super::name::TableName;
use super::version::Release;

/// The share of the window that is not relied on, to allow for clock differences and for bursts of
/// other writers.
const MARGIN_PERCENT: u64 = 10;
const MARGIN_MIN: u64 = 5;

/// The horizon that gives an operator time to react. A shorter one is reported together with the
/// statement that widens it.
const WANTED: Duration = Duration::from_secs(24 * 3600);

/// The largest window that is recommended: ClickHouse or Keeper stores an entry per token.
const WINDOW_MAX: u64 = 1_000_000;

/// Recommended values are rounded up to a multiple of this.
const ROUND: u64 = 10_000;

/// The deduplication horizon of a table for one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Horizon {
    /// Number of later blocks of this node after which the token may be forgotten.
    pub blocks: u64,
    /// Time after which the token may be forgotten, if blocks are sealed by age.
    pub duration: Duration,
    /// The age that seals blocks.
    pub batch_age: Duration,
    /// The statement that widens a horizon of less than a day to a day; `None` if it is a day, or if
    /// the window for a day would be too large.
    pub widen: Option<String>,
}

impl fmt::Display for Horizon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.duration.as_secs_f64() / 3600.0;
        write!(f, "{hours:.*} hours", if hours < 0.1 { 3 } else { 1 })?;
        write!(f, " ({} blocks of this node, one every {:?} by --batch-age", self.blocks, self.batch_age)?;
        f.write_str("; less while size seals them sooner)")
    }
}

/// The nodes that fill the deduplication window of a table together.
#[derive(Debug, Clone, Copy)]
pub struct Writers {
    /// Number of sluicegate nodes that insert into the table.
    pub nodes: u64,
}

impl Writers {
    /// Number of blocks that this node may insert before the table forgets a token; `None` without
    /// a window.
    pub fn blocks(self, facts: &TableFacts) -> Option<u64> {
        Some(with_margin(facts.window?) / self.tokens_per_block(facts))
    }

    /// The horizon if blocks are sealed by age; `None` without a window.
    ///
    /// Age seals at most one block per `batch_age`. Blocks that are sealed by rows or bytes come
    /// faster and make the horizon shorter; by how much depends on the load.
    pub fn horizon(self, facts: &TableFacts, batch_age: Duration, table: &TableName) -> Option<Horizon> {
        let blocks = self.blocks(facts)?;
        let by_count = batch_age.saturating_mul(u32::try_from(blocks).unwrap_or(u32::MAX));
        let by_age = facts.window_seconds.map(|seconds| Duration::from_secs(with_margin(seconds)));
        let duration = by_age.map_or(by_count, |by_age| by_age.min(by_count));
        let widen = self.widen(facts, batch_age, by_count, by_age, table);
        Some(Horizon { blocks, duration, batch_age, widen })
    }

    fn widen(
        self,
        facts: &TableFacts,
        batch_age: Duration,
        by_count: Duration,
        by_age: Option<Duration>,
        table: &TableName,
    ) -> Option<String> {
        let prefix = if is_replicated(&facts.engine) { "" } else { "non_" };
        let mut settings = Vec::new();
        if by_count < WANTED {
            let blocks = WANTED.as_nanos().div_ceil(batch_age.as_nanos().max(1));
            let blocks = u64::try_from(blocks).unwrap_or(u64::MAX);
            let tokens = with_room(blocks.saturating_mul(self.tokens_per_block(facts)));
            if tokens > WINDOW_MAX {
                return None;
            }
            settings.push(format!("{prefix}replicated_deduplication_window = {tokens}"));
        }
        if by_age.is_some_and(|by_age| by_age < WANTED) {
            let seconds = with_room(WANTED.as_secs());
            settings.push(format!("replicated_deduplication_window_seconds = {seconds}"));
        }
        (!settings.is_empty()).then(|| format!("ALTER TABLE {table} MODIFY SETTING {}", settings.join(", ")))
    }

    /// Number of tokens that all writers add to the window while one of them inserts a block.
    fn tokens_per_block(self, facts: &TableFacts) -> u64 {
        facts.tokens_per_insert().saturating_mul(self.nodes.max(1)).saturating_mul(places_of_a_block(facts))
    }

    /// Checks that the table still remembers the token of the first attempt.
    ///
    /// # Errors
    ///
    /// If the table may have forgotten the token; the text says why.
    pub fn still_known(self, facts: &TableFacts, first: &FirstAttempt, now_ms: u64) -> Result<(), String> {
        // Without a window the guarantee is at least once, and a repeat is permitted.
        let (Some(window), Some(blocks)) = (facts.window, self.blocks(facts)) else { return Ok(()) };
        if let (Some(then), Some(now)) = (first.release, Release::of(&facts.version))
            && !then.tokens_are_known_to(now)
        {
            return Err(format!("ClickHouse was upgraded from {then} to {now}, which recognises no token of {then}"));
        }
        if first.release.is_none() && Release::of(&facts.version).is_some_and(|now| now >= Release::new(26, 7)) {
            return Err(format!(
                "the ClickHouse version of its first attempt is not known, and {} recognises no token of a release \
                 before 26.2",
                facts.version
            ));
        }
        let places = first.release.map_or(1, Release::places_of_a_block).max(places_of_a_block(facts));
        match followed(facts, first) {
            Some(blocks) if blocks.saturating_mul(places) > with_margin(window) => {
                return Err(format!(
                    "{blocks} blocks of all writers followed its first attempt, and the table remembers the tokens of \
                     {window}"
                ));
            }
            None if first.blocks_since > blocks => {
                return Err(format!(
                    "up to {} INSERTs of this node may have followed its first attempt, and the table remembers the \
                     tokens of {blocks}",
                    first.blocks_since
                ));
            }
            _ => {}
        }
        let age = now_ms.saturating_sub(first.since_ms) / 1000;
        match facts.window_seconds {
            Some(seconds) if age > with_margin(seconds) => {
                Err(format!("its first attempt was {age} s ago, and the table remembers tokens for {seconds} s"))
            }
            _ => Ok(()),
        }
    }
}

/// The first attempt without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstAttempt {
    /// Start of the attempt, Unix ms.
    pub since_ms: u64,
    /// The most blocks of this node that may have been inserted since.
    pub blocks_since: u64,
    /// The release of the server; `None` if unknown.
    pub release: Option<Release>,
    /// The newest block of the table at or shortly before the start of the attempt.
    pub newest_block: Option<u64>,
}

/// Number of blocks that all writers have added to the table since the first attempt, in all partitions;
/// `None` if it is not known. Block numbers fall back if the newest partition is dropped.
fn followed(facts: &TableFacts, first: &FirstAttempt) -> Option<u64> {
    facts.newest_block?.checked_sub(first.newest_block?)
}

fn places_of_a_block(facts: &TableFacts) -> u64 {
    Release::of(&facts.version).map_or(1, Release::places_of_a_block)
}

/// The part of a window that is relied on. The margin has a minimum, because INSERTs of other writers may
/// come between the query and the repeat.
fn with_margin(value: u64) -> u64 {
    value.saturating_sub((value / 100 * MARGIN_PERCENT).max(MARGIN_MIN.min(value / 2)))
}

/// A round value that is at least `value` after its margin is subtracted.
fn with_room(value: u64) -> u64 {
    let with_margin = value.saturating_mul(100).div_ceil(100 - MARGIN_PERCENT);
    with_margin.div_ceil(ROUND).saturating_mul(ROUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(window: Option<u64>, seconds: Option<u64>, partition_key: &str) -> TableFacts {
        TableFacts { window, window_seconds: seconds, partition_key: partition_key.into(), ..TableFacts::default() }
    }

    #[test]
    fn the_blocks_in_a_window_depend_on_partitions_and_nodes() {
        let one = Writers { nodes: 1 };
        assert_eq!(one.blocks(&facts(Some(10_000), None, "")), Some(9000));
        assert_eq!(one.blocks(&facts(Some(10_000), None, "toYYYYMM(server_time)")), Some(4500));
        assert_eq!(one.blocks(&facts(Some(10_000), None, "toYYYYMM(client_time)")), Some(90));
        assert_eq!(Writers { nodes: 3 }.blocks(&facts(Some(10_000), None, "")), Some(3000));
        assert_eq!(one.blocks(&facts(None, None, "")), None);
    }

    #[test]
    fn the_horizon_is_the_shorter_of_count_and_age_and_a_day_is_recommended() {
        let second = Duration::from_secs(1);
        let horizon = |nodes, facts: &TableFacts, age| Writers { nodes }.horizon(facts, age, &TableName::new("d", "t"));
        let of = |nodes, facts: &TableFacts, age| {
            horizon(nodes, facts, age).map(|horizon| (horizon.duration.as_secs(), horizon.widen.unwrap_or_default()))
        };
        let blocks =
            |tokens| format!("ALTER TABLE `d`.`t` MODIFY SETTING non_replicated_deduplication_window = {tokens}");
        let plain = facts(Some(10_000), None, "");
        assert_eq!(of(1, &plain, second), Some((9000, blocks(100_000))));
        assert_eq!(of(1, &plain, second / 2), Some((4500, blocks(200_000))));
        assert_eq!(of(4, &plain, second), Some((2250, blocks(390_000))));
        assert_eq!(of(1, &plain, second * 10), Some((90_000, String::new())));
        assert_eq!(of(1, &facts(None, None, ""), second), None);
        // With a hundred partitions per INSERT the window would be too large.
        assert_eq!(of(1, &facts(Some(10_000), None, "toYYYYMM(client_time)"), second), Some((90, String::new())));
        let engine = "ReplicatedMergeTree".to_owned();
        let replicated = TableFacts { engine, ..facts(Some(10_000), Some(3600), "") };
        assert_eq!(
            of(1, &replicated, second),
            Some((
                3240,
                "ALTER TABLE `d`.`t` MODIFY SETTING replicated_deduplication_window = 100000, \
                 replicated_deduplication_window_seconds = 100000"
                    .to_owned()
            ))
        );
        let said = horizon(1, &plain, second).map(|horizon| horizon.to_string()).unwrap();
        assert_eq!(
            said,
            "2.5 hours (9000 blocks of this node, one every 1s by --batch-age; less while size seals them sooner)"
        );
    }

    #[test]
    fn the_recommended_window_is_enough() {
        for (nodes, key, age_ms) in [(1, "", 1000), (3, "server_time", 700), (2, "", 333), (1, "a", 20_000)] {
            let age = Duration::from_millis(age_ms);
            let mut facts = facts(Some(10), None, key);
            let widen = Writers { nodes }.horizon(&facts, age, &TableName::new("d", "t")).unwrap().widen.unwrap();
            facts.window = widen.rsplit(' ').next().unwrap().parse().ok();
            let horizon = Writers { nodes }.horizon(&facts, age, &TableName::new("d", "t")).unwrap();
            assert!(horizon.duration >= WANTED && horizon.widen.is_none(), "{nodes} {key} {age_ms}: {horizon}");
        }
    }

    #[test]
    fn a_token_is_known_until_too_many_inserts_or_seconds_have_passed() {
        let one = Writers { nodes: 1 };
        let first = |blocks_since| FirstAttempt {
            since_ms: 1_000_000,
            blocks_since,
            release: Some(Release::new(26, 7)),
            newest_block: None,
        };
        let known = |facts: &TableFacts, since, now_ms| one.still_known(facts, &first(since), now_ms).is_ok();
        let counted = facts(Some(1000), None, "");
        assert!(known(&counted, 1, u64::MAX));
        assert!(known(&counted, 900, 0));
        assert!(!known(&counted, 901, 0));
        let timed = facts(Some(1000), Some(3600), "");
        assert!(known(&timed, 2, 1_000_000 + 3_200_000));
        assert!(!known(&timed, 2, 1_000_000 + 3_300_000));
        assert!(known(&facts(None, None, ""), u64::MAX, u64::MAX), "without a window nothing is promised");
    }

    #[test]
    fn blocks_of_all_writers_and_partitions_count_where_they_can_be_counted() {
        let one = Writers { nodes: 1 };
        let known = |then: Option<u64>, now: Option<u64>, release, blocks_since| {
            let release = Some(release);
            let first = FirstAttempt { since_ms: 0, blocks_since, release, newest_block: then };
            let facts = TableFacts { newest_block: now, version: "26.7.2.1".into(), ..facts(Some(1000), None, "") };
            one.still_known(&facts, &first, 0).is_ok()
        };
        let release = Release::new(26, 7);
        assert!(known(Some(10), Some(910), release, u64::MAX), "few blocks, whatever this node made");
        assert!(!known(Some(10), Some(911), release, 1), "another writer, or many partitions");
        assert!(!known(Some(10), Some(5), release, 901), "numbers that fell back say nothing");
        assert!(known(None, Some(5000), release, 900));
        assert!(!known(Some(10), Some(500), Release::new(26, 3), 1), "blocks of 26.3 take two places");
    }

    #[test]
    fn a_token_does_not_cross_an_upgrade_that_forgets_it() {
        let known = |release, now: &str| {
            let first = FirstAttempt { since_ms: 0, blocks_since: 1, release, newest_block: None };
            let facts = TableFacts { version: now.into(), ..facts(Some(1000), None, "") };
            Writers { nodes: 1 }.still_known(&facts, &first, 0).is_ok()
        };
        assert!(!known(Some(Release::new(25, 8)), "26.7.2.1"));
        assert!(known(Some(Release::new(25, 8)), "26.3.9.1"));
        assert!(known(Some(Release::new(26, 3)), "26.9.2.1"));
        assert!(known(None, "26.3.9.1"));
        assert!(!known(None, "26.9.2.1"), "nobody knows where it was sent to");
    }
}
