//! `sluicegate spool list|verify`: reports on the segments of a spool without changing anything.

use std::io::{self, Write};

use crate::clock::unix_ms;
use crate::config::Settings;
use crate::spool::{Inspected, Part, SealedSegment, inspect, table_folder};

/// Prints a line for each segment.
///
/// # Errors
///
/// If the folder can't be read, or `out` can't be written.
pub fn list(settings: &Settings, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    for_each_table(settings, out, |table, out| list_table(settings, table, out))
}

fn list_table(settings: &Settings, table: &str, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    let (mut rows, mut rejected) = (0, 0);
    for inspected in inspect(&settings.spool_dir, table)? {
        match inspected {
            Inspected::Sealed(segment) => {
                rows += segment.rows();
                rejected += segment.rejected();
                writeln!(out, "{}", describe(&segment))?;
            }
            Inspected::Unsealed { number, path } => {
                writeln!(out, "{number}: not sealed; the next start recovers its events ({})", path.display())?;
            }
            Inspected::Unreadable { path } => writeln!(out, "{}: can't be read, or not all of it", path.display())?,
        }
    }
    writeln!(out, "{rows} events and {rejected} rejected lines wait in sealed segments")?;
    Ok(())
}

/// Reads every sealed segment to its end. True if no segment is damaged.
///
/// # Errors
///
/// If the folder can't be read, or `out` can't be written.
pub fn verify(settings: &Settings, out: &mut impl Write) -> Result<bool, Box<dyn std::error::Error>> {
    let mut whole = true;
    for_each_table(settings, out, |table, out| {
        whole &= verify_table(settings, table, out)?;
        Ok(())
    })?;
    Ok(whole)
}

fn verify_table(settings: &Settings, table: &str, out: &mut impl Write) -> Result<bool, Box<dyn std::error::Error>> {
    let mut whole = true;
    let (mut sealed, mut others) = (0, 0);
    for inspected in inspect(&settings.spool_dir, table)? {
        match inspected {
            Inspected::Sealed(_) => sealed += 1,
            Inspected::Unsealed { .. } | Inspected::Unreadable { .. } => others += 1,
        }
        let (name, outcome) = match &inspected {
            Inspected::Sealed(segment) => (segment.number().to_string(), read_through(segment)),
            Inspected::Unsealed { number, .. } => (number.to_string(), Ok("not sealed")),
            Inspected::Unreadable { path } => {
                (path.display().to_string(), Err(io::Error::other("not all that was written in it can be read")))
            }
        };
        match outcome {
            Ok(sentence) => writeln!(out, "{name}: {sentence}")?,
            Err(error) => {
                whole = false;
                writeln!(out, "{name}: DAMAGED: {error}")?;
            }
        }
    }
    let folder = table_folder(&settings.spool_dir, table);
    writeln!(out, "{sealed} sealed segments and {others} other files were read in {}", folder.display())?;
    let damaged = folder.join("damaged");
    let kept = damaged.read_dir().map_or(0, Iterator::count);
    if kept > 0 {
        writeln!(out, "{kept} files that were found damaged before are kept in {}", damaged.display())?;
    }
    Ok(whole)
}

/// Calls `each` with the label of every table that the command is about, below a line with the label where
/// the configuration has several tables.
fn for_each_table<W: Write>(
    settings: &Settings,
    out: &mut W,
    mut each: impl FnMut(&str, &mut W) -> Result<(), Box<dyn std::error::Error>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let has_several = settings.tables().len() > 1;
    for table in settings.selected_tables() {
        if has_several {
            writeln!(out, "table {}:", table.label)?;
        }
        each(&table.label, out)?;
    }
    Ok(())
}

fn describe(segment: &SealedSegment) -> String {
    let state = match segment {
        segment if segment.rows_are_inserted() => "rows inserted, rejected lines wait",
        segment if segment.cut().is_some() => "cut into pieces",
        segment if segment.open_attempt().is_some() => "sent, not proven",
        segment if segment.was_sent() => "sent and refused",
        _ => "never sent",
    };
    format!(
        "{}: {state}; {} events, {} rejected lines, {} bytes, {} s old, token {}",
        segment.number(),
        segment.rows(),
        segment.rejected(),
        segment.rows_bytes() + segment.rejected_bytes(),
        unix_ms().saturating_sub(segment.created_ms()) / 1000,
        segment.token()
    )
}

fn read_through(segment: &SealedSegment) -> io::Result<&'static str> {
    for (part, expected) in [(Part::Rows, segment.rows_bytes()), (Part::Rejected, segment.rejected_bytes())] {
        let (mut reader, mut bytes) = (segment.read(part)?, 0);
        while let Some(rows) = reader.next_rows()? {
            bytes += rows.len() as u64;
        }
        if bytes != expected {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its length differs from its seal"));
        }
    }
    Ok("whole")
}
