//! `sluicegate spool list|verify`: reports on the blocks of a spool without changing anything.

use std::io::{self, Write};

use serde::Serialize;

use super::write_json;
use crate::clock::unix_ms;
use crate::config::Settings;
use crate::spool::{Inspected, Part, SealedBlock, SpoolError, inspect, table_folder};

/// Prints a line for each block, or one JSON object.
///
/// # Errors
///
/// If a folder can't be read, or `out` can't be written.
pub fn list(settings: &Settings, is_json: bool, out: &mut impl Write) -> Result<(), Box<dyn std::error::Error>> {
    let names = Names::new(settings);
    let inspected = names.inspect(settings)?;
    let sealed = inspected.iter().filter_map(|inspected| match inspected {
        Inspected::Sealed(block) => Some((block.rows(), block.rejected())),
        Inspected::Unsealed { .. } | Inspected::Unreadable { .. } => None,
    });
    let (events, rejected) = sealed.fold((0, 0), |(events, lines), more| (events + more.0, lines + more.1));
    if is_json {
        let blocks = inspected.iter().map(Listed::new).collect();
        return write_json(out, &List { events, rejected, blocks });
    }
    for inspected in inspected {
        match inspected {
            Inspected::Sealed(block) => writeln!(out, "{}: {}", names.of(&block), describe(&block))?,
            Inspected::Unsealed { number, path } => {
                writeln!(out, "{number}: not sealed; the next start recovers its events ({})", path.display())?;
            }
            Inspected::Unreadable { path } => writeln!(out, "{}: can't be read, or not all of it", path.display())?,
        }
    }
    writeln!(out, "{events} events and {rejected} rejected lines wait in sealed blocks")?;
    Ok(())
}

/// Reads every sealed block to its end. True if nothing is damaged.
///
/// # Errors
///
/// If a folder can't be read, or `out` can't be written.
pub fn verify(settings: &Settings, is_json: bool, out: &mut impl Write) -> Result<bool, Box<dyn std::error::Error>> {
    let names = Names::new(settings);
    let dir = &settings.spool_dir;
    let mut verified = Verified { whole: true, blocks: Vec::new(), damaged: Vec::new() };
    let (mut sealed, mut others) = (0, 0);
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
        verified.whole &= outcome.is_ok();
        if is_json {
            let error = outcome.as_ref().err().map(ToString::to_string);
            verified.blocks.push(Checked { listed: Listed::new(&inspected), whole: outcome.is_ok(), error });
            continue;
        }
        match outcome {
            Ok(sentence) => writeln!(out, "{name}: {sentence}")?,
            Err(error) => writeln!(out, "{name}: DAMAGED: {error}")?,
        }
    }
    let of_tables = names.labels.iter().map(|label| table_folder(dir, label));
    for folder in std::iter::once(dir.clone()).chain(of_tables).map(|folder| folder.join("damaged")) {
        let files = folder.read_dir().map_or(0, Iterator::count);
        if files > 0 {
            verified.damaged.push(Damaged { folder: folder.display().to_string(), files });
        }
    }
    if is_json {
        write_json(out, &verified)?;
        return Ok(verified.whole);
    }
    writeln!(out, "{sealed} sealed blocks and {others} other files were read in {}", dir.display())?;
    for Damaged { folder, files } in &verified.damaged {
        writeln!(out, "{files} files that were found damaged before are kept in {folder}")?;
    }
    Ok(verified.whole)
}

/// The whole of `spool list --json`.
#[derive(Serialize)]
struct List {
    /// Of all sealed blocks.
    events: u64,
    rejected: u64,
    blocks: Vec<Listed>,
}

/// A block, or a file that is none yet or can't be read.
#[derive(Serialize)]
struct Listed {
    /// `waiting`, `not_sealed` or `unreadable`.
    state: &'static str,
    number: Option<String>,
    table: Option<String>,
    /// What became of it so far, in words.
    sent: Option<&'static str>,
    events: u64,
    rejected: u64,
    bytes: u64,
    age_seconds: Option<u64>,
    token: Option<String>,
    /// The file, of what is no block.
    path: Option<String>,
}

/// The whole of `spool verify --json`.
#[derive(Serialize)]
struct Verified {
    whole: bool,
    blocks: Vec<Checked>,
    /// Folders with files that were found damaged before.
    damaged: Vec<Damaged>,
}

/// A block that was read to its end.
#[derive(Serialize)]
struct Checked {
    #[serde(flatten)]
    listed: Listed,
    whole: bool,
    error: Option<String>,
}

/// A folder with damaged files.
#[derive(Serialize)]
struct Damaged {
    folder: String,
    files: usize,
}

impl Listed {
    fn new(inspected: &Inspected) -> Self {
        let none = Self {
            state: "unreadable",
            number: None,
            table: None,
            sent: None,
            events: 0,
            rejected: 0,
            bytes: 0,
            age_seconds: None,
            token: None,
            path: None,
        };
        match inspected {
            Inspected::Sealed(block) => Self {
                state: "waiting",
                number: Some(block.number().to_string()),
                table: Some(block.label().to_owned()),
                sent: Some(sent(block)),
                events: block.rows(),
                rejected: block.rejected(),
                bytes: block.rows_bytes() + block.rejected_bytes(),
                age_seconds: Some(age_seconds(block)),
                token: Some(block.token().to_string()),
                path: None,
            },
            Inspected::Unsealed { number, path } => Self {
                state: "not_sealed",
                number: Some(number.to_string()),
                path: Some(path.display().to_string()),
                ..none
            },
            Inspected::Unreadable { path } => Self { path: Some(path.display().to_string()), ..none },
        }
    }
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
    format!(
        "{}; {} events, {} rejected lines, {} bytes, {} s old, token {}",
        sent(block),
        block.rows(),
        block.rejected(),
        block.rows_bytes() + block.rejected_bytes(),
        age_seconds(block),
        block.token()
    )
}

/// What became of a block so far.
fn sent(block: &SealedBlock) -> &'static str {
    match block {
        block if block.rows_are_inserted() => "rows inserted, rejected lines wait",
        block if block.cut().is_some() => "cut into pieces",
        block if block.open_attempt().is_some() => "sent, not proven",
        block if block.was_sent() => "sent and refused",
        _ => "never sent",
    }
}

fn age_seconds(block: &SealedBlock) -> u64 {
    unix_ms().saturating_sub(block.created_ms()) / 1000
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
