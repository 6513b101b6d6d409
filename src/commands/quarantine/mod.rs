//! `sluicegate quarantine list|replay`: the contents of the quarantine table, which are rejected lines
//! and rows that ClickHouse refused.

mod replay;

use std::io::Write;

use crate::clickhouse::name::TableName;
use crate::clickhouse::quarantined::{Filter, Found, QuarantineError, QuarantineTable, quarantine_tables};
use crate::config::cli::ListArgs;
use crate::config::{ConfigError, Settings};

pub use replay::replay;

/// The most characters of a line that are shown.
const SHOWN_CHARACTERS: &str = "200";

/// Prints the number of lines for each code, and the newest lines.
///
/// # Errors
///
/// If ClickHouse does not answer or has no such table, `--since` is not a time, or `out` can't be
/// written.
pub fn list(arguments: &ListArgs, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    let filter = Filter { since: arguments.since.clone(), ..Filter::default() };
    let tables = arguments.settings.selected_tables();
    for table in &tables {
        match tables_of(&arguments.settings, &table.name, &filter, out)? {
            Some(quarantines) => list_tables(arguments, &filter, &quarantines, out)?,
            // One table that has no quarantine keeps none of the others from being listed.
            None if tables.len() > 1 => writeln!(out, "there is no table {}", table.name.quarantine())?,
            None => return Err(missing(&table.name)),
        }
    }
    Ok(())
}

fn list_tables(
    arguments: &ListArgs,
    filter: &Filter,
    quarantines: &[QuarantineTable],
    out: &mut impl Write,
) -> Result<(), Box<dyn std::error::Error>> {
    let (limit, condition, parameters) = (arguments.limit.to_string(), filter.condition(), filter.parameters());
    for quarantine in quarantines {
        let QuarantineTable { server, table } = quarantine;
        writeln!(out, "{table} at {}:", server.url())?;
        let mut parameters: Vec<_> = parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let statement = format!(
            "SELECT code, toString(count()), toString(min(server_time)), toString(max(server_time)) FROM {table} \
             WHERE {condition} GROUP BY code ORDER BY code FORMAT JSONCompactEachRow"
        );
        for line in server.query(&statement, &parameters)?.lines() {
            let [code, count, oldest, newest] = sonic_rs::from_str::<[String; 4]>(line)?;
            writeln!(out, "  {code}: {count} lines, {oldest} to {newest}")?;
        }
        let statement = format!(
            "SELECT toString(server_time), ip, code, message, toValidUTF8(substringUTF8(line, 1, {SHOWN_CHARACTERS})) \
             FROM {table} WHERE {condition} ORDER BY server_time DESC LIMIT {{limit:UInt32}} FORMAT JSONCompactEachRow"
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

/// The quarantine tables that the servers have for a table; `None` if no server has one. Prints which servers
/// do not answer.
fn tables_of(
    settings: &Settings,
    table: &TableName,
    filter: &Filter,
    out: &mut impl Write,
) -> Result<Option<Vec<QuarantineTable>>, Box<dyn std::error::Error>> {
    let found = quarantine_tables(&settings.clickhouse()?, table, filter).map_err(|error| match error {
        QuarantineError::Filter(reason) => ConfigError(format!("--{reason}")).into(),
        error => Box::<dyn std::error::Error>::from(error),
    });
    let Found { tables, away } = found?;
    for server in away {
        writeln!(out, "{server}; the lines on this server are left out")?;
    }
    Ok((!tables.is_empty()).then_some(tables))
}

/// No server has the quarantine of this table.
fn missing(table: &TableName) -> Box<dyn std::error::Error> {
    ConfigError(format!("there is no table {}", table.quarantine())).into()
}
