//! `sluicegate schema`: the statements that `serve` would run.

use std::collections::HashSet;
use std::io::{self, Write};
use std::time::Duration;

use crate::clickhouse::name::TableName;
use crate::clickhouse::tables;
use crate::config::Settings;

/// Time limit for each query to a server.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Prints the `CREATE` statements of the databases, the default table and the quarantine tables. The
/// quarantine of a table that is there depends on the table's engine, so every server is asked; if their
/// statements differ, each set is printed below a comment with its servers.
///
/// # Errors
///
/// If the settings are invalid, or `out` can't be written.
pub fn run(settings: &Settings, out: &mut impl Write) -> io::Result<()> {
    let names: Vec<TableName> = settings.selected_tables().into_iter().map(|table| table.name).collect();
    let servers = settings.clickhouse().map_err(io::Error::other)?;
    let mut sets: Vec<(Vec<String>, Vec<&str>)> = Vec::new();
    for server in &servers {
        let patient = server.within(ANSWER_WITHIN);
        let asked = names.iter().map(|name| tables::statements_on(&patient, name)).collect::<Result<Vec<_>, _>>();
        match asked.map(once) {
            Ok(statements) => match sets.iter_mut().find(|(set, _)| *set == statements) {
                Some((_, urls)) => urls.push(server.url()),
                None => sets.push((statements, vec![server.url()])),
            },
            Err(error) => {
                let error = error.to_string();
                writeln!(out, "-- {}: {}", server.url(), error.lines().next().unwrap_or_default())?;
            }
        }
    }
    if sets.is_empty() {
        writeln!(
            out,
            "-- No server could be asked. For a table that is there and has replicas, the quarantine differs."
        )?;
        sets.push((once(names.iter().map(tables::statements).collect()), Vec::new()));
    }
    let differ = sets.len() > 1;
    for (statements, urls) in sets {
        if differ {
            writeln!(out, "-- {}", urls.join(", "))?;
        }
        for statement in statements {
            writeln!(out, "{statement};\n")?;
        }
    }
    Ok(())
}

/// All statements in their order, each once: tables of one database have its statement in common.
fn once(of_tables: Vec<Vec<String>>) -> Vec<String> {
    let mut statements: Vec<String> = Vec::new();
    let mut known = HashSet::new();
    for statement in of_tables.into_iter().flatten() {
        if known.insert(statement.clone()) {
            statements.push(statement);
        }
    }
    statements
}
