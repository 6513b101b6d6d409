//! The commands of `sluicegate` besides `serve`, `drain` and `clickhouse`.

pub mod check;
pub mod live;
pub mod quarantine;
pub mod requeue;
mod running;
pub mod schema;
pub mod send;
pub mod spool;
pub mod suggest;

use std::io::Write;

use serde::Serialize;

/// Writes a value as one line of JSON.
fn write_json(out: &mut impl Write, value: &impl Serialize) -> Result<(), Box<dyn std::error::Error>> {
    writeln!(out, "{}", sonic_rs::to_string(value)?)?;
    Ok(())
}
