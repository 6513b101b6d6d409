//! `sluicegate schema`: the statements that `serve` would run.

use std::io::{self, Write};

use crate::clickhouse::tables;
use crate::config::Settings;

/// Prints the `CREATE` statements of the database, the default table and the quarantine table.
///
/// # Errors
///
/// If `out` can't be written.
pub fn run(settings: &Settings, out: &mut impl Write) -> io::Result<()> {
    for statement in tables::statements(&settings.table().name) {
        writeln!(out, "{statement};\n")?;
    }
    Ok(())
}
