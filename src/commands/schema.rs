//! `sluicegate schema`: the statements that `serve` would run.

use std::collections::HashSet;
use std::io::Write;
use std::time::Duration;

use serde::Serialize;

use super::write_json;
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
pub fn run(settings: &Settings, is_json: bool, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    let names: Vec<TableName> = settings.selected_tables().into_iter().map(|table| table.name).collect();
    let servers = settings.clickhouse()?;
    let mut sets: Vec<(Vec<String>, Vec<&str>)> = Vec::new();
    let mut failed = Vec::new();
    for server in &servers {
        let patient = server.within(ANSWER_WITHIN);
        let asked = names.iter().map(|name| tables::statements_on(&patient, name)).collect::<Result<Vec<_>, _>>();
        match asked.map(once) {
            Ok(statements) => match sets.iter_mut().find(|(set, _)| *set == statements) {
                Some((_, urls)) => urls.push(server.url()),
                None => sets.push((statements, vec![server.url()])),
            },
            Err(error) => {
                let error = error.to_string().lines().next().unwrap_or_default().to_owned();
                failed.push(Failed { server: server.url(), error });
            }
        }
    }
    let is_asked = !sets.is_empty();
    if !is_asked {
        sets.push((once(names.iter().map(tables::statements).collect()), Vec::new()));
    }
    if is_json {
        let sets = sets.into_iter().map(|(statements, servers)| Set { servers, statements }).collect();
        return write_json(out, &Statements { sets, failed });
    }
    for Failed { server, error } in failed {
        writeln!(out, "-- {server}: {error}")?;
    }
    if !is_asked {
        writeln!(
            out,
            "-- No server could be asked. For a table that is there and has replicas, the quarantine differs."
        )?;
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

/// The whole of `schema --json`.
#[derive(Serialize)]
struct Statements<'a> {
    /// One, unless the servers need different ones.
    sets: Vec<Set<'a>>,
    /// The servers that could not be asked.
    failed: Vec<Failed<'a>>,
}

/// Statements, and the servers that they are for; none if no server could be asked.
#[derive(Serialize)]
struct Set<'a> {
    servers: Vec<&'a str>,
    statements: Vec<String>,
}

/// A server that could not be asked.
#[derive(Serialize)]
struct Failed<'a> {
    server: &'a str,
    error: String,
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
