//! `sluicegate spool list|verify`: reports on the blocks of a spool without changing anything.

use std::io::{self, Write};

use crate::clock::unix_ms;
use crate::config::Settings;
use crate::spool::{Inspected, Part, SealedBlock, SpoolError, inspect, table_folder};

/// Prints a line for each block.
///
/// # Errors
///
/// If a folder can't be read, or `out` can't be written.
pub fn list(settings: &Settings, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    let (mut rows, mut rejected) = (0, 0);
    let names = Names::new(settings);
    for inspected in names.inspect(settings)? {
        match inspected {
            Inspected::Sealed(block) => {
                rows += block.rows();
                rejected += block.rejected();
                writeln!(out, "{}: {}", names.of(&block), describe(&block))?;
            }
            Inspected::Unsealed { number, path } => {
                writeln!(out, "{number}: not sealed; the next start recovers its events ({})", path.display())?;
            }
            Inspected::Unreadable { path } => writeln!(out, "{}: can't be read, or not all of it", path.display())?,
        }
    }
    writeln!(out, "{rows} events and {rejected} rejected lines wait in sealed blocks")?;
    Ok(())
}

/// Reads every sealed block to its end. True if nothing is damaged.
///
/// # Errors
///
/// If a folder can't be read, or `out` can't be written.
pub fn verify(settings: &Settings, out: &mut impl Write) -> Result<bool, Box<dyn std::error::Error>> {
    let mut whole = true;
    let (mut sealed, mut others) = (0, 0);
    let names = Names::new(settings);
    for inspected in names.inspect(settings)? {
        match inspected {
            Inspected::Sealed(_) => sealed += 1,
            Inspected::Unsealed { .. } | Inspected::Unreadable { .. } => others += 1,
        }
        let (name, outcome) = match &inspected {
            Inspected::Sealed(block) => (names.of(block), read_through(block)),
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
    let dir = &settings.spool_dir;
    writeln!(out, "{sealed} sealed blocks and {others} other files were read in {}", dir.display())?;
    let of_tables = names.labels.iter().map(|label| table_folder(dir, label));
    for damaged in std::iter::once(dir.clone()).chain(of_tables).map(|folder| folder.join("damaged")) {
        let kept = damaged.read_dir().map_or(0, Iterator::count);
        if kept > 0 {
            writeln!(out, "{kept} files that were found damaged before are kept in {}", damaged.display())?;
        }
    }
    Ok(whole)
}

/// The tables whose blocks a command is about, and how it names blocks.
struct Names {
    /// Of all tables of the configuration.
    labels: Vec<String>,
    /// Of those of `--only`; empty without it.
    only: Vec<String>,
}

impl Names {
    fn new(settings: &Settings) -> Self {
        let labels = settings.tables().into_iter().map(|table| table.label).collect();
        Self { labels, only: settings.only.clone() }
    }

    fn inspect(&self, settings: &Settings) -> Result<Vec<Inspected>, SpoolError> {
        let labels: Vec<&str> = self.labels.iter().map(String::as_str).collect();
        let mut found = inspect(&settings.spool_dir, &labels)?;
        found.retain(|inspected| match inspected {
            Inspected::Sealed(block) => self.only.is_empty() || self.only.iter().any(|only| only == block.label()),
            Inspected::Unsealed { .. } | Inspected::Unreadable { .. } => true,
        });
        Ok(found)
    }

    /// The number of a block, and its table where that is not the only one.
    fn of(&self, block: &SealedBlock) -> String {
        match &self.labels[..] {
            [only] if only == block.label() => block.number().to_string(),
            _ => format!("{} ({})", block.number(), block.label()),
        }
    }
}

fn describe(block: &SealedBlock) -> String {
    let state = match block {
        block if block.rows_are_inserted() => "rows inserted, rejected lines wait",
        block if block.cut().is_some() => "cut into pieces",
        block if block.open_attempt().is_some() => "sent, not proven",
        block if block.was_sent() => "sent and refused",
        _ => "never sent",
    };
    format!(
        "{state}; {} events, {} rejected lines, {} bytes, {} s old, token {}",
        block.rows(),
        block.rejected(),
        block.rows_bytes() + block.rejected_bytes(),
        unix_ms().saturating_sub(block.created_ms()) / 1000,
        block.token()
    )
}

fn read_through(block: &SealedBlock) -> io::Result<&'static str> {
    for (part, expected) in [(Part::Rows, block.rows_bytes()), (Part::Rejected, block.rejected_bytes())] {
        let (mut reader, mut bytes) = (block.read(part)?, 0);
        while let Some(rows) = reader.next_rows()? {
            bytes += rows.len() as u64;
        }
        if bytes != expected {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its length differs from its seal"));
        }
    }
    Ok("whole")
}
