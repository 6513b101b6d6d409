//! `sluicegate schema --suggest`: the columns that a table lacks for the fields that clients send.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::running::RunningServer;
use super::write_json;
use crate::clickhouse::client::ClickHouse;
use crate::clickhouse::description::describe_table;
use crate::clickhouse::name::quoted;
use crate::config::{ConfigError, Settings, TableSettings};
use crate::schema::is_servers_own;

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
pub fn run(settings: &Settings, is_json: bool, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    let counted = ask(settings)?;
    let servers = settings.clickhouse()?;
    let mut all = Vec::new();
    for table in settings.selected_tables() {
        let Some(fields) = counted.get(&table.label) else {
            return Err(ConfigError(format!("the running server has no table {}", table.label)).into());
        };
        let mut columns = columns_of(&servers, &table);
        if fields.is_empty() && !is_json {
            writeln!(out, "-- {}: no field came that no column takes", table.name)?;
        }
        for suggestion in fields.iter().filter_map(|field| suggest(&table, field, &mut columns)) {
            if is_json {
                all.push(suggestion);
            } else {
                suggestion.print(out)?;
            }
        }
    }
    if is_json { write_json(out, &Suggestions { suggestions: all }) } else { Ok(()) }
}

/// The whole of `schema --suggest --json`.
#[derive(Serialize)]
struct Suggestions {
    suggestions: Vec<Suggestion>,
}

/// A column that a table lacks.
#[derive(Serialize)]
struct Suggestion {
    table: String,
    field: String,
    /// How often the field came.
    count: u64,
    column: String,
    #[serde(rename = "type")]
    column_type: String,
    /// True if `columns` of the table's section has to name the field, since the column has another name.
    needs_mapping: bool,
    /// `None` if the table has the column already, and only the mapping is left to do.
    statement: Option<String>,
}

impl Suggestion {
    fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        let Self { field, count, column, column_type, needs_mapping, statement, .. } = self;
        writeln!(out, "-- {field:?}: {count} times")?;
        if *needs_mapping {
            writeln!(out, "-- with {column:?} = {field:?} in the `columns` of the table's section")?;
        }
        match statement {
            Some(statement) => writeln!(out, "{statement};\n"),
            None => writeln!(out, "-- the table has a column {column:?} of the type {column_type}\n"),
        }
    }
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

/// The table's columns now and their types, as the first server that answers says; none if no server does.
fn columns_of(servers: &[ClickHouse], table: &TableSettings) -> HashMap<String, String> {
    let described = servers.iter().find_map(|server| describe_table(&server.within(ANSWER_WITHIN), &table.name).ok());
    described.unwrap_or_default().into_iter().map(|column| (column.name, column.type_name)).collect()
}

fn suggest(
    table: &TableSettings,
    Field { field, count, column_type }: &Field,
    columns: &mut HashMap<String, String>,
) -> Option<Suggestion> {
    // A name with dots is that of a Nested column to ClickHouse, and may be a path.
    let plain = field.replace('.', "_");
    if plain.is_empty() || plain == *field && columns.contains_key(field) {
        // ClickHouse has no column without a name; or it was added since.
        return None;
    }
    // A column that the server fills by its name would never hold the field. One of another name that has the type
    // may be what was suggested before.
    let mut names = std::iter::once(plain.clone()).chain((2..).map(|number| format!("{plain}_{number}")));
    let is_free = |name: &String| match columns.get(name) {
        Some(type_name) => name != field && type_name == column_type,
        None => !is_servers_own(name),
    };
    let column = names.find(is_free)?;
    let is_there = columns.insert(column.clone(), String::new()).is_some();
    Some(Suggestion {
        table: table.label.clone(),
        field: field.clone(),
        count: *count,
        needs_mapping: column != *field,
        statement: (!is_there)
            .then(|| format!("ALTER TABLE {} ADD COLUMN {} {column_type}", table.name, quoted(&column))),
        column_type: column_type.clone(),
        column,
    })
}
