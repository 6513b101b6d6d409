//! `sluicegate quarantine list|replay`: the contents of the quarantine table, which are rejected lines
//! and rows that ClickHouse refused.

mod replay;
mod row;

use std::collections::HashSet;
use std::io::Write;

use crate::clickhouse::client::ClickHouse;
use crate::clickhouse::facts::TableFacts;
use crate::clickhouse::name::TableName;
use crate::config::cli::ListArgs;
use crate::config::{ConfigError, Settings};

pub use replay::replay;

/// The code of a row that is no line: it names the node through which a replay goes.
const MARK: &str = "replay";

/// The most characters of a line that are shown.
const SHOWN_CHARACTERS: &str = "200";

/// Prints the number of lines for each code, and the newest lines.
///
/// # Errors
///
/// If ClickHouse does not answer or has no such table, `--since` is not a time, or `out` can't be
/// written.
pub fn list(arguments: &ListArgs, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    let since = since(arguments.since.as_deref());
    let tables = arguments.settings.selected_tables();
    for table in &tables {
        match quarantine_tables(&arguments.settings, &table.name, &since, out)? {
            Some(quarantines) => list_tables(arguments, &since, &quarantines, out)?,
            // One table that has no quarantine keeps none of the others from being listed.
            None if tables.len() > 1 => writeln!(out, "there is no table {}", table.name.quarantine())?,
            None => return Err(missing(&table.name)),
        }
    }
    Ok(())
}

fn list_tables(
    arguments: &ListArgs,
    since: &Since<'_>,
    quarantines: &[QuarantineTable],
    out: &mut impl Write,
) -> Result<(), Box<dyn std::error::Error>> {
    let limit = arguments.limit.to_string();
    for quarantine in quarantines {
        let QuarantineTable { server, table } = quarantine;
        writeln!(out, "{table} at {}:", server.url())?;
        let mut parameters = since.parameters();
        let statement = format!(
            "SELECT code, toString(count()), toString(min(server_time)), toString(max(server_time)) FROM {table} \
             WHERE {} AND code != '{MARK}' GROUP BY code ORDER BY code FORMAT JSONCompactEachRow",
            since.condition
        );
        for line in server.query(&statement, &parameters)?.lines() {
            let [code, count, oldest, newest] = sonic_rs::from_str::<[String; 4]>(line)?;
            writeln!(out, "  {code}: {count} lines, {oldest} to {newest}")?;
        }
        let statement = format!(
            "SELECT toString(server_time), ip, code, message, toValidUTF8(substringUTF8(line, 1, {SHOWN_CHARACTERS})) \
             FROM {table} WHERE {} AND code != '{MARK}' ORDER BY server_time DESC LIMIT {{limit:UInt32}} FORMAT JSONCompactEachRow",
            since.condition
        );
        parameters.push(("param_limit", &limit));
        for line in server.query(&statement, &parameters)?.lines() {
            let [time, ip, code, message, line] = sonic_rs::from_str::<[String; 5]>(line)?;
            // `{:?}` escapes control characters, which a client may have sent, for the terminal.
            writeln!(out, "  {time} {ip} {code} {message:?}: {line:?}")?;
        }
    }
    Ok(())
}

/// A quarantine table, and a server that has it.
struct QuarantineTable {
    server: ClickHouse,
    /// The quoted name of the table.
    table: String,
}

/// The quarantine tables that the servers have for a table, each replicated one once; `None` if no server
/// has one. Prints which servers do not answer.
fn quarantine_tables(
    settings: &Settings,
    table: &TableName,
    since: &Since<'_>,
    out: &mut impl Write,
) -> Result<Option<Vec<QuarantineTable>>, Box<dyn std::error::Error>> {
    let table = table.quarantine();
    let (mut tables, mut known) = (Vec::new(), HashSet::new());
    let mut away = None;
    for server in settings.clickhouse()? {
        match TableFacts::ask(&server, &table) {
            Ok(Some(facts)) => {
                since.require_time(&server)?;
                if known.insert(facts.window_name) {
                    tables.push(QuarantineTable { server, table: table.to_string() });
                }
            }
            Ok(None) => {}
            Err(error) => away = Some(ConfigError(format!("{}: {error}", server.url()))),
        }
    }
    match away {
        Some(error) if tables.is_empty() => Err(error.into()),
        Some(error) => {
            writeln!(out, "{error}; the lines on this server are left out")?;
            Ok(Some(tables))
        }
        None => Ok((!tables.is_empty()).then_some(tables)),
    }
}

/// No server has the quarantine of this table.
fn missing(table: &TableName) -> Box<dyn std::error::Error> {
    ConfigError(format!("there is no table {}", table.quarantine())).into()
}

/// `--since` as a condition and its parameter.
struct Since<'a> {
    condition: &'static str,
    time: Option<&'a str>,
}

fn since(time: Option<&str>) -> Since<'_> {
    let condition = match time {
        Some(_) => "server_time >= parseDateTimeBestEffort({since:String}, 'UTC')",
        None => "1",
    };
    Since { condition, time }
}

impl<'a> Since<'a> {
    /// Checks that ClickHouse, which evaluates the condition, understands the time.
    fn require_time(&self, server: &ClickHouse) -> Result<(), Box<dyn std::error::Error>> {
        let Some(time) = self.time else { return Ok(()) };
        let statement = "SELECT parseDateTimeBestEffortOrNull({since:String}, 'UTC') IS NULL";
        if server.query(statement, &self.parameters())?.trim() == "0" {
            return Ok(());
        }
        Err(ConfigError(format!("--since `{time}` is no time; a time looks like 2026-11-24 or 2026-11-24T12:00:00Z"))
            .into())
    }

    fn parameters(&self) -> Vec<(&'static str, &'a str)> {
        self.time.map(|time| ("param_since", time)).into_iter().collect()
    }
}
