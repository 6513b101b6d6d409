//! Tests of the log on a real file system: what is written is recovered, whatever is truncated or
//! changed.

mod adopting;
pub(super) mod chance;
mod committing;
mod exchange;
pub(super) mod faulty;
mod flips;
mod lying;
mod meeting;
mod model;
mod recovering;
mod salvaging;
mod sealing;
mod sharing;
mod simulation;
mod tables;

use crate::batch::SegmentNumber;
use std::fs;

use super::file_name::FileKind;
use super::segment::{OpenSegment, Scratch};
use super::*;
use crate::batch::{Batch, BlockNumber};

/// Settings of a spool that never seals by rows, bytes or age.
fn config(dir: &Path) -> SpoolConfig {
    SpoolConfig {
        dir: dir.join("spool"),
        tables: vec![table("t")],
        node_id: Some("node".into()),
        spool_bytes_max: 1 << 30,
        disk_free_min: 1,
        durability: Durability::Sync,
        idempotency_keys_max: 1000,
        dedup_values_max: 1000,
    }
}

/// A table that never seals by rows, bytes or age.
fn table(label: &str) -> SpoolTable {
    SpoolTable {
        label: label.into(),
        batch_rows: 1000,
        batch_bytes: 64 << 10,
        batch_age: Duration::from_secs(3600),
        has_identities: true,
        bytes_max: None,
    }
}

/// The settings with a change of every table's.
fn with(mut config: SpoolConfig, change: impl Fn(&mut SpoolTable)) -> SpoolConfig {
    config.tables.iter_mut().for_each(change);
    config
}

/// The number of the first block of a segment.
fn number(segment: u64) -> BlockNumber {
    BlockNumber::first(SegmentNumber::new(segment))
}

fn batch(rows: &[&str], rejected: &[&str]) -> Batch {
    let mut batch = Batch::new(0);
    batch.frozen = b"frozen"[..].into();
    for (section, texts) in [(&mut batch.rows, rows), (&mut batch.rejected, rejected)] {
        for text in texts {
            section.bytes.extend_from_slice(text.as_bytes());
            section.count += 1;
        }
    }
    batch.close();
    batch
}

/// Rows and rejected lines of a block, as one text each.
fn contents(block: &SealedBlock) -> io::Result<(String, String)> {
    let read = |part| -> io::Result<String> {
        let (mut reader, mut bytes) = (block.read(part)?, Vec::new());
        while let Some(piece) = reader.next_rows()? {
            bytes.extend_from_slice(&piece);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let (rows, rejected) = (read(Part::Rows)?, read(Part::Rejected)?);
    assert_eq!((rows.len() as u64, rejected.len() as u64), (block.rows_bytes(), block.rejected_bytes()));
    Ok((rows, rejected))
}

/// Opens a segment in a spool's folder and appends these batches, each synced before the next.
fn write_segment(spool: &Spool, number: u64, recycled: Option<(&Path, u64)>, batches: &[Batch]) -> OpenSegment {
    let mut open = OpenSegment::create(&spool.layout, SegmentNumber::new(number), 4096, recycled).unwrap();
    let mut scratch = Scratch::default();
    for batch in batches {
        open.append(std::iter::once(batch), &mut scratch).unwrap();
        open.sync().unwrap();
    }
    open
}

/// The bytes of an unsealed segment with three frames, and the end offset of each frame.
fn three_frames(dir: &Path) -> (Vec<u8>, [usize; 3]) {
    let (spool, _) = Spool::open(config(dir)).unwrap();
    let batches = [batch(&["one"], &[]), batch(&["two", "deux"], &["bad"]), batch(&[], &["worse"])];
    let mut ends = [0; 3];
    for (count, end) in (1..).zip(&mut ends) {
        let open = write_segment(&spool, 1, None, &batches[..count]);
        *end = open.end as usize;
    }
    let bytes = fs::read(spool.layout.path(SegmentNumber::new(1), FileKind::Segment)).unwrap();
    (bytes, ends)
}

/// Recovers a folder whose only segment has these bytes.
fn recover(bytes: &[u8], name: &str) -> (tempfile::TempDir, Spool, Vec<SealedBlock>) {
    let folder = tempfile::tempdir().unwrap();
    let table_dir = folder.path().join("spool/log");
    fs::create_dir_all(&table_dir).unwrap();
    fs::write(table_dir.join(name), bytes).unwrap();
    let (spool, recovered) = Spool::open(config(folder.path())).unwrap();
    (folder, spool, recovered.blocks)
}

pub(super) fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| name != numbers::NAME && name != "00000000000000000000.segment")
        .collect();
    names.sort();
    names
}
