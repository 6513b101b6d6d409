//! What a contender stored: a table of its own, held against the requests that were answered.

use std::error::Error;
use std::time::{Duration, Instant};

use crate::columns;
use crate::process::ClickHouse;

/// How long a contender may store nothing more before what is missing counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(200);

/// Rows with this machine's address and a time of the last hour.
const ENRICHED: &str = "countIf(ip = '127.0.0.1' AND abs(dateDiff('second', server_time, now())) < 3600)";

/// Whether a table keeps its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// Takes them and keeps none; they are counted as they pass.
    Null,
    /// As sluicegate's own default table, but for its deduplication window.
    MergeTree,
}

/// A table of the database `bench`.
pub struct Table<'a> {
    clickhouse: &'a ClickHouse,
    engine: Engine,
    name: &'static str,
}

/// Counts over some rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// How many.
    pub rows: u64,
    /// The sum of the hashes of what the clients sent, modulo 2^64.
    hash: u64,
    /// As [`ENRICHED`].
    enriched: u64,
}

impl Stored {
    /// What one body holds, by ClickHouse's own reading of it.
    pub fn of_body(clickhouse: &ClickHouse, body: &str) -> Result<Self, Box<dyn Error>> {
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
        let (structure, body) = (quoted(&columns::definitions()), quoted(body));
        let from = format!("format(JSONEachRow, '{structure}', '{body}')");
        parse(&clickhouse.query(&format!("SELECT count(), sum({}), count() FROM {from}", hash()))?)
    }

    /// The same so many times.
    pub fn times(self, count: u64) -> Self {
        Self { rows: self.rows * count, hash: self.hash.wrapping_mul(count), enriched: self.enriched * count }
    }

    /// Both together.
    pub fn plus(self, other: Self) -> Self {
        Self {
            rows: self.rows + other.rows,
            hash: self.hash.wrapping_add(other.hash),
            enriched: self.enriched + other.enriched,
        }
    }

    /// What differs, in a few words.
    pub fn against(self, expected: Self) -> String {
        if self.rows < expected.rows {
            return format!("{} LOST", expected.rows - self.rows);
        }
        if self.rows > expected.rows {
            return format!("{} TOO MANY", self.rows - expected.rows);
        }
        if self.hash != expected.hash {
            return "OTHER VALUES".to_owned();
        }
        if self.enriched != expected.enriched { "all; not enriched".to_owned() } else { "all".to_owned() }
    }
}

impl<'a> Table<'a> {
    /// Makes it; `columns` are the sample events' own, perhaps with a default, and `window` is how
    /// many blocks ClickHouse remembers to drop repeats of.
    pub fn create(
        clickhouse: &'a ClickHouse,
        name: &'static str,
        columns: &str,
        engine: Engine,
        window: u32,
    ) -> Result<Self, Box<dyn Error>> {
        clickhouse.query("CREATE DATABASE IF NOT EXISTS bench")?;
        let storage = match engine {
            Engine::Null => "Null".to_owned(),
            Engine::MergeTree => format!(
                "MergeTree PARTITION BY toYYYYMM(server_time) ORDER BY (event, server_time, device_id) \
                 SETTINGS non_replicated_deduplication_window = {window}, fsync_after_insert = 1, fsync_part_directory = 1"
            ),
        };
        clickhouse.query(&format!("CREATE TABLE bench.{name} ({columns}) ENGINE = {storage}"))?;
        let table = Self { clickhouse, engine, name };
        if engine == Engine::Null {
            clickhouse.query(&format!(
                "CREATE TABLE bench.{name}_seen (rows UInt64, hash UInt64, enriched UInt64) ENGINE = Memory"
            ))?;
            clickhouse.query(&format!(
                "CREATE MATERIALIZED VIEW bench.{name}_view TO bench.{name}_seen AS \
                 SELECT count() AS rows, sum({}) AS hash, {ENRICHED} AS enriched FROM bench.{name}",
                hash()
            ))?;
        }
        Ok(table)
    }

    /// Its name with its database.
    pub fn full_name(&self) -> String {
        format!("bench.{}", self.name)
    }

    /// Waits for so many rows, or until there are no more of them; then counts, and empties it.
    pub fn take(&self, rows: u64) -> Result<Stored, Box<dyn Error>> {
        let mut stored = self.count()?;
        let mut grew = Instant::now();
        while stored.rows < rows && grew.elapsed() < PATIENCE {
            std::thread::sleep(LOOK);
            let now = self.count()?;
            if now != stored {
                (stored, grew) = (now, Instant::now());
            }
        }
        let emptied = if self.engine == Engine::Null { "_seen" } else { "" };
        self.clickhouse.query(&format!("TRUNCATE TABLE bench.{}{emptied}", self.name))?;
        Ok(stored)
    }

    fn count(&self) -> Result<Stored, Box<dyn Error>> {
        let name = self.name;
        let statement = match self.engine {
            Engine::Null => format!("SELECT sum(rows), sum(hash), sum(enriched) FROM bench.{name}_seen"),
            Engine::MergeTree => format!("SELECT count(), sum({}), {ENRICHED} FROM bench.{name}", hash()),
        };
        parse(&self.clickhouse.query(&statement)?)
    }
}

/// What a client's event is, whoever stores it.
fn hash() -> String {
    format!("cityHash64({})", columns::names())
}

fn parse(text: &str) -> Result<Stored, Box<dyn Error>> {
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    let mut next = || -> Result<u64, Box<dyn Error>> { Ok(numbers.next().ok_or("a count is missing")??) };
    Ok(Stored { rows: next()?, hash: next()?, enriched: next()? })
}
