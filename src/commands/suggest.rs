//! `sluicegate schema --suggest`: the columns that a table lacks for the fields that clients send.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::time::Duration;

use serde::Deserialize;

use super::running::RunningServer;
use crate::clickhouse::client::ClickHouse;
use crate::clickhouse::description::describe_table;
use crate::clickhouse::name::quoted;
use crate::config::{ConfigError, Settings, TableSettings};

/// Path of the server's counts.
const PATH: &str = "/fields";

/// Time limit for each request to a server.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// A field that the server has counted because no column takes it.
#[derive(Deserialize)]
struct Field {
    field: String,
    count: u64,
    /// The type of a column that takes all values that the field had.
    #[serde(rename = "type")]
    column_type: String,
}

/// Prints an `ALTER TABLE … ADD COLUMN` for each field that the running server has counted because no column takes
/// it, the most frequent first. A column for a path into objects needs a line in the configuration, too, which is
/// printed beside it.
///
/// # Errors
///
/// If no server runs on these settings, or `out` can't be written.
pub fn run(settings: &Settings, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    let counted = ask(settings)?;
    let servers = settings.clickhouse()?;
    for table in settings.selected_tables() {
        let Some(fields) = counted.get(&table.label) else {
            return Err(ConfigError(format!("the running server has no table {}", table.label)).into());
        };
        let mut columns = columns_of(&servers, &table);
        if fields.is_empty() {
            writeln!(out, "-- {}: no field came that no column takes", table.name)?;
        }
        for field in fields {
            suggest(&table, field, &mut columns, out)?;
        }
    }
    Ok(())
}

fn ask(settings: &Settings) -> Result<BTreeMap<String, Vec<Field>>, Box<dyn std::error::Error>> {
    let server = RunningServer::new(settings, ANSWER_WITHIN)?;
    let url = server.url(PATH);
    let reply = server.get(PATH).send().and_then(|reply| Ok((reply.status(), reply.text()?)));
    let (status, text) = reply.map_err(|error| {
        ConfigError(format!("no server answers at {url}, and only a running one has counted fields: {error}"))
    })?;
    if !status.is_success() {
        return Err(ConfigError(format!("{url} answered {status}: {}", text.trim())).into());
    }
    let counted = sonic_rs::from_str(&text);
    Ok(counted.map_err(|_| ConfigError(format!("what answers at {url} counts no fields: {}", text.trim())))?)
}

/// The names of the table's columns now, as the first server that answers says; none if no server does.
fn columns_of(servers: &[ClickHouse], table: &TableSettings) -> HashSet<String> {
    let described = servers.iter().find_map(|server| describe_table(&server.within(ANSWER_WITHIN), &table.name).ok());
    described.unwrap_or_default().into_iter().map(|column| column.name).collect()
}

fn suggest(
    table: &TableSettings,
    Field { field, count, column_type }: &Field,
    columns: &mut HashSet<String>,
    out: &mut impl Write,
) -> std::io::Result<()> {
    // A name with dots is that of a Nested column to ClickHouse, and may be a path.
    let plain = field.replace('.', "_");
    if plain == *field && columns.contains(field) {
        // It was added since.
        return Ok(());
    }
    let name = std::iter::once(plain.clone()).chain((2..).map(|number| format!("{plain}_{number}")));
    let Some(name) = name.into_iter().find(|name| !columns.contains(name)) else { return Ok(()) };
    writeln!(out, "-- {field:?}: {count} times")?;
    if name != *field {
        writeln!(out, "-- with {name:?} = {field:?} in the `columns` of the table's section")?;
    }
    writeln!(out, "ALTER TABLE {} ADD COLUMN {} {column_type};\n", table.name, quoted(&name))?;
    columns.insert(name);
    Ok(())
}
