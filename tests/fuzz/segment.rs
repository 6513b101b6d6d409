//! The spool's files: whatever lies in a segment, a start comes up or says why not, and what it
//! finds can be read or is called damaged. Mostly real segments with bytes changed.

#![no_main]

use std::fs;
use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sluicegate::spool::{Durability, Inspected, Part, Spool, SpoolConfig, inspect};

const NAME: &str = "t/00000000000000000001.segment";

fn config(dir: &std::path::Path) -> SpoolConfig {
    SpoolConfig {
        dir: dir.to_owned(),
        table: "t".into(),
        node_id: Some("node".into()),
        spool_bytes_max: 1 << 30,
        disk_free_min: 0,
        batch_rows: 1000,
        batch_bytes: 64 << 10,
        batch_age: Duration::from_secs(3600),
        durability: Durability::Written,
        idempotency_keys_max: 100,
        dedup_values_max: Some(100),
    }
}

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

fuzz_target!(|bytes: &[u8]| {
    let dir = FOLDER.path();
    let _ = fs::remove_dir_all(dir.join("t"));
    fs::create_dir_all(dir.join("t")).expect("a folder");
    fs::write(dir.join(NAME), bytes).expect("a file");
    let Ok((_spool, recovered)) = Spool::open(config(dir)) else { return };
    for segment in &recovered.segments {
        for (part, expected) in [(Part::Rows, segment.rows_bytes()), (Part::Rejected, segment.rejected_bytes())] {
            let (mut reader, mut read) = (segment.read(part).expect("it is there"), 0);
            let whole = loop {
                match reader.next_piece() {
                    Ok(Some(piece)) => read += piece.len() as u64,
                    Ok(None) => break true,
                    Err(_) => break false,
                }
            };
            assert!(!whole || read == expected);
        }
    }
    for found in inspect(dir, "t").expect("a folder that can be read") {
        assert!(!matches!(found, Inspected::Unsealed { .. }), "a start seals or sets aside");
    }
});
