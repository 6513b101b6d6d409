//! `sluicegate quarantine list|replay`: the contents of the quarantine table, which are rejected lines
//! and rows that ClickHouse refused.

mod replay;

use std::io::Write;

use serde::Serialize;

use super::write_json;
use crate::clickhouse::name::TableName;
use crate::clickhouse::quarantined::{Filter, Found, QuarantineError, QuarantineTable, quarantine_tables};
use crate::config::cli::ListArgs;
use crate::config::{ConfigError, Settings};

pub use replay::replay;

/// The most characters of a line that are shown.
const SHOWN_CHARACTERS: &str = "200";

/// Prints the number of lines for each code, and the newest lines; or one JSON object.
///
/// # Errors
///
/// If ClickHouse does not answer or has no such table, `--since` is not a time, or `out` can't be
/// written.
pub fn list(arguments: &ListArgs, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    let filter = Filter { since: arguments.since.clone(), ..Filter::default() };
    let tables = arguments.settings.selected_tables();
    // In JSON, what is left out is a member of its own.
    let mut notes = Vec::new();
    let mut listed = Vec::new();
    for table in &tables {
        match tables_of(&arguments.settings, &table.name, &filter, &mut notes)? {
            Some(quarantines) => {
                for quarantine in &quarantines {
                    listed.push(list_table(arguments, &filter, quarantine, &table.label)?);
                }
            }
            // One table that has no quarantine keeps none of the others from being listed.
            None if tables.len() > 1 => writeln!(notes, "there is no table {}", table.name.quarantine())?,
            None => return Err(missing(&table.name)),
        }
        if !arguments.json {
            out.write_all(&std::mem::take(&mut notes))?;
            for quarantine in listed.drain(..) {
                quarantine.print(out)?;
            }
        }
    }
    if !arguments.json {
        return Ok(());
    }
    let notes = String::from_utf8_lossy(&notes).lines().map(str::to_owned).collect();
    write_json(out, &List { quarantines: listed, notes })
}

/// The whole of `quarantine list --json`.
#[derive(Serialize)]
struct List {
    quarantines: Vec<Listed>,
    /// Servers and tables that are left out, and why.
    notes: Vec<String>,
}

/// The contents of a quarantine table.
#[derive(Serialize)]
struct Listed {
    /// The label of the table whose lines these are.
    table: String,
    quarantine: String,
    server: String,
    codes: Vec<Code>,
    /// The newest ones.
    lines: Vec<Line>,
}

/// The lines with one code.
#[derive(Serialize)]
struct Code {
    code: String,
    lines: u64,
    oldest: String,
    newest: String,
}

/// A rejected line.
#[derive(Serialize)]
struct Line {
    server_time: String,
    ip: String,
    code: String,
    message: String,
    line: String,
}

impl Listed {
    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        writeln!(out, "{} at {}:", self.quarantine, self.server)?;
        for Code { code, lines, oldest, newest } in &self.codes {
            writeln!(out, "  {code}: {lines} lines, {oldest} to {newest}")?;
        }
        for Line { server_time, ip, code, message, line } in &self.lines {
            // `{:?}` escapes control characters, which a client may have sent, for the terminal.
            writeln!(out, "  {server_time} {ip} {code} {message:?}: {line:?}")?;
        }
        Ok(())
    }
}

fn list_table(
    arguments: &ListArgs,
    filter: &Filter,
    QuarantineTable { server, table }: &QuarantineTable,
    label: &str,
) -> Result<Listed, Box<dyn std::error::Error>> {
    let (limit, condition, parameters) = (arguments.limit.to_string(), filter.condition(), filter.parameters());
    let mut parameters: Vec<_> = parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let statement = format!(
        "SELECT code, toString(count()), toString(min(server_time)), toString(max(server_time)) FROM {table} \
         WHERE {condition} GROUP BY code ORDER BY code FORMAT JSONCompactEachRow"
    );
    let mut codes = Vec::new();
    for row in server.query(&statement, &parameters)?.lines() {
        let [code, lines, oldest, newest] = sonic_rs::from_str::<[String; 4]>(row)?;
        codes.push(Code { code, lines: lines.parse()?, oldest, newest });
    }
    let statement = format!(
        "SELECT toString(server_time), ip, code, message, toValidUTF8(substringUTF8(line, 1, {SHOWN_CHARACTERS})) \
         FROM {table} WHERE {condition} ORDER BY server_time DESC LIMIT {{limit:UInt32}} FORMAT JSONCompactEachRow"
    );
    parameters.push(("param_limit", &limit));
    let mut lines = Vec::new();
    for row in server.query(&statement, &parameters)?.lines() {
        let [server_time, ip, code, message, line] = sonic_rs::from_str::<[String; 5]>(row)?;
        lines.push(Line { server_time, ip, code, message, line });
    }
    Ok(Listed { table: label.to_owned(), quarantine: table.clone(), server: server.url().to_owned(), codes, lines })
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
