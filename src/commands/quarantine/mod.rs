//! `sluicegate quarantine list|replay`: the lines that were refused, and the rows that ClickHouse
//! refused.

mod refused;
mod replay;

use std::collections::HashSet;
use std::io::Write;

use crate::clickhouse::client::ClickHouse;
use crate::clickhouse::facts::TableFacts;
use crate::config::cli::ListArgs;
use crate::config::{ConfigError, Settings};

pub use replay::replay;

/// How much of a line is shown.
const SHOWN_CHARACTERS: &str = "200";

/// Prints how many lines there are of each code, and the newest ones.
///
/// # Errors
///
/// ClickHouse does not answer or has no such table, `--since` is no time, or `out` can't be written.
pub fn list(arguments: &ListArgs, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    let since = since(arguments.since.as_deref());
    let limit = arguments.limit.to_string();
    for place in places(&arguments.settings, &since, out)? {
        let QuarantineTable { server, table } = &place;
        writeln!(out, "{table} at {}:", server.url())?;
        let mut parameters = since.parameters();
        let statement = format!(
            "SELECT code, toString(count()), toString(min(server_time)), toString(max(server_time)) FROM {table} \
             WHERE {} GROUP BY code ORDER BY code FORMAT JSONCompactEachRow",
            since.condition
        );
        for line in server.query(&statement, &parameters)?.lines() {
            let [code, count, oldest, newest] = sonic_rs::from_str::<[String; 4]>(line)?;
            writeln!(out, "  {code}: {count} lines, {oldest} to {newest}")?;
        }
        let statement = format!(
            "SELECT toString(server_time), ip, code, message, toValidUTF8(substringUTF8(line, 1, {SHOWN_CHARACTERS})) \
             FROM {table} WHERE {} ORDER BY server_time DESC LIMIT {{limit:UInt32}} FORMAT JSONCompactEachRow",
            since.condition
        );
        parameters.push(("param_limit", &limit));
        for line in server.query(&statement, &parameters)?.lines() {
            let [time, ip, code, message, line] = sonic_rs::from_str::<[String; 5]>(line)?;
            // A client wrote the line: no control character of it reaches a terminal.
            writeln!(out, "  {time} {ip} {code} {message:?}: {line:?}")?;
        }
    }
    Ok(())
}

/// A server with a quarantine table of its own.
struct QuarantineTable {
    server: ClickHouse,
    /// Its quoted name.
    table: String,
}

/// Every server whose quarantine is not another's replica; says which one does not answer.
fn places(
    settings: &Settings,
    since: &Since<'_>,
    out: &mut impl Write,
) -> Result<Vec<QuarantineTable>, Box<dyn std::error::Error>> {
    let table = settings.table().name.quarantine();
    let (mut places, mut known) = (Vec::new(), HashSet::new());
    let mut away = None;
    for server in settings.clickhouse()? {
        match TableFacts::ask(&server, &table) {
            Ok(Some(facts)) => {
                since.require_time(&server)?;
                if known.insert(facts.window_name) {
                    places.push(QuarantineTable { server, table: table.to_string() });
                }
            }
            Ok(None) => {}
            Err(error) => away = Some(ConfigError(format!("{}: {error}", server.url()))),
        }
    }
    match away {
        Some(error) if places.is_empty() => Err(error.into()),
        Some(error) => {
            writeln!(out, "{error}; what is there is left out")?;
            Ok(places)
        }
        None if !places.is_empty() => Ok(places),
        None => Err(ConfigError(format!("there is no table {table}")).into()),
    }
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
    /// What is a time is for ClickHouse to say, which compares with it.
    fn require_time(&self, server: &ClickHouse) -> Result<(), Box<dyn std::error::Error>> {
        let Some(time) = self.time else { return Ok(()) };
        let statement = "SELECT parseDateTimeBestEffortOrNull({since:String}, 'UTC') IS NULL";
        if server.query(statement, &self.parameters())?.trim() == "0" {
            return Ok(());
        }
        Err(ConfigError(format!("--since `{time}` is no time: it looks like 2026-11-24 or 2026-11-24T12:00:00Z"))
            .into())
    }

    fn parameters(&self) -> Vec<(&'static str, &'a str)> {
        self.time.map(|time| ("param_since", time)).into_iter().collect()
    }
}
