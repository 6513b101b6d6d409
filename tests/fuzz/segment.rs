//! The spool's files: whatever has happened to a segment, a start comes up or says why not, and what
//! it finds can be read to the length that its seal says, or is called damaged.
//!
//! The input is a real segment, sealed or not, with bytes changed and its end cut off.

#![no_main]

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crossbeam::channel::unbounded;
use libfuzzer_sys::fuzz_target;
use sluicegate::batch::identity::{BodyHashing, RequestKey, Summary, of_event, of_request};
use sluicegate::batch::{Batch, Mark, TableIndex};
use sluicegate::handoff::{Handoff, Mailbox};
use sluicegate::spool::{Committer, Durability, Inspected, Part, Spool, SpoolConfig, SpoolTable, inspect};

const NAME: &str = "log/00000000000000000001.segment";

const TABLES: [&str; 2] = ["t", "u"];

/// Where the seals are.
const SEALS: Range<usize> = 8192..8192 + 16384;

struct Base {
    folder: tempfile::TempDir,
    segment: Vec<u8>,
}

static BASE: LazyLock<Base> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a folder");
    let (spool, _) = Spool::open(config(folder.path())).expect("an empty folder");
    let poll = mio::Poll::new().expect("an event queue");
    let mailbox = Mailbox::new(poll.registry(), mio::Token(0)).expect("a waker");
    let handoff = Arc::new(Handoff::new(vec![mailbox], Arc::default()));
    for sequence in 1..=6u16 {
        let mut batch = Batch::new(0);
        (batch.table, batch.frozen) = (TableIndex::new(sequence % 2), b"frozen"[..].into());
        batch.rows.bytes.extend_from_slice(b"a row and another row");
        batch.rows.count = 2;
        batch.rejected.bytes.extend_from_slice(b"bad");
        batch.rejected.count = 1;
        if sequence % 2 == 0 {
            let summary = Summary { accepted: 2, rejected: 1, refused: false };
            batch.add_keyed(
                RequestKey {
                    id: of_request("t", &[sequence as u8]),
                    body: BodyHashing::default().hash(b"body"),
                    summary,
                },
                Mark::default(),
            );
            let from = batch.mark();
            batch.add_keyed(
                RequestKey {
                    id: of_request("t", &[sequence as u8, 0]),
                    body: BodyHashing::default().hash(b""),
                    summary,
                },
                from,
            );
            batch.identify(of_event("column", &[sequence as u8]), 0..5);
        }
        batch.close();
        handoff.submit(batch);
    }
    handoff.finish();
    let (sender, _sealed) = unbounded();
    let (committer, keeper) = Committer::new(spool, handoff, sender, 1);
    std::thread::scope(|scope| {
        scope.spawn(|| keeper.run());
        committer.run();
    });
    let mut segment = fs::read(folder.path().join(NAME)).expect("a sealed segment");
    // Behind its frames there is nothing but reserved room.
    let end = segment.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    segment.truncate(end);
    Base { folder, segment }
});

fn config(dir: &Path) -> SpoolConfig {
    SpoolConfig {
        dir: dir.to_owned(),
        tables: TABLES.map(table).into(),
        node_id: Some("node".into()),
        spool_bytes_max: 1 << 30,
        disk_free_min: 0,
        durability: Durability::Written,
        idempotency_keys_max: 100,
        dedup_values_max: 100,
    }
}

fn table(label: &str) -> SpoolTable {
    SpoolTable {
        label: label.to_owned(),
        batch_rows: 1000,
        batch_bytes: 64 << 10,
        batch_age: Duration::from_secs(3600),
        has_identities: true,
        bytes_max: None,
    }
}

fuzz_target!(|input: (bool, u16, Vec<(u16, u8)>)| {
    let (is_sealed, cut, changes) = input;
    let Base { folder, segment } = &*BASE;
    let mut bytes = segment.clone();
    if !is_sealed {
        bytes[SEALS].fill(0);
    }
    for (at, change) in changes {
        let at = usize::from(at) % bytes.len();
        bytes[at] ^= change;
    }
    bytes.truncate(bytes.len() - usize::from(cut) % bytes.len());
    let dir = folder.path();
    for folder in ["log", "damaged", "keys"].iter().chain(&TABLES) {
        let _ = fs::remove_dir_all(dir.join(folder));
    }
    fs::create_dir_all(dir.join("log")).expect("a folder");
    fs::write(dir.join(NAME), &bytes).expect("a file");
    let Ok((_spool, recovered)) = Spool::open(config(dir)) else { return };
    for block in &recovered.blocks {
        for (part, expected) in [(Part::Rows, block.rows_bytes()), (Part::Rejected, block.rejected_bytes())] {
            let (mut reader, mut read) = (block.read(part).expect("it is there"), 0);
            let is_whole = loop {
                match reader.next_rows() {
                    Ok(Some(piece)) => read += piece.len() as u64,
                    Ok(None) => break true,
                    Err(_) => break false,
                }
            };
            assert!(!is_whole || read == expected);
        }
    }
    for found in inspect(dir, &TABLES).expect("a folder that can be read") {
        assert!(!matches!(found, Inspected::Unsealed { .. }), "a start seals or sets aside");
    }
});
