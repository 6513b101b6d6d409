//! Tests of several tables in one spool, and of tables whose names are those of its files.

use super::*;
use crate::batch::identity::{RequestKey, Summary, of_request};
use crate::spool::repeats::OutcomeRule;

/// Names in the folder of a spool, or of a table.
const NAMES: [&str; 13] = [
    "keys",
    "state",
    "spare",
    "lock",
    "node-id",
    "node-id.new",
    "log",
    "held",
    "damaged",
    "seen",
    "schema",
    "free",
    "numbers",
];

fn keyed(row: &str) -> Batch {
    let mut batch = batch(&[row], &[]);
    let summary = Summary { accepted: 1, rejected: 0, refused: false };
    batch.key = Some(RequestKey::new(of_request("t", row.as_bytes()), b"body", summary));
    batch.close();
    batch
}

#[test]
fn a_table_with_the_name_of_a_file_of_the_spool_is_one_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let all = || SpoolConfig { tables: NAMES.map(table).into(), node_id: None, ..config(folder.path()) };
    let (spool, _) = Spool::open(all()).unwrap();
    let mut open = write_segment(&spool, 1, None, &[]);
    for (index, label) in (0..).zip(NAMES) {
        let mut batch = keyed(label);
        batch.table = TableIndex::new(index);
        open.append(std::iter::once(&batch), &mut Scratch::default()).unwrap();
    }
    open.sync().unwrap();
    drop((open, spool));
    for _ in 0..2 {
        let (mut spool, recovered) = Spool::open(all()).unwrap();
        assert!(fs::metadata(all().dir.join("spare")).unwrap().is_file());
        let found: Vec<_> =
            recovered.segments.iter().map(|block| (block.label(), contents(block).unwrap().0)).collect();
        assert_eq!(found, NAMES.map(|name| (name, name.to_owned())));
        assert!(recovered.segments.iter().zip(0..).all(|(block, index)| block.table() == TableIndex::new(index)));
        for label in NAMES {
            assert!(matches!(spool.repeats.rule(&keyed(label)), OutcomeRule::Fixed(_)), "{label}");
            assert!(spool.schema_path(recovered.segments[0].table()).starts_with(&all().dir));
        }
        spool.repeats.refused();
        assert_eq!(spool.layout.others().unwrap(), []);
        let found = inspect(&all().dir, &NAMES).unwrap();
        assert!(found.len() == NAMES.len() && found.iter().all(|found| matches!(found, Inspected::Sealed(_))));
    }
}

#[test]
fn the_start_of_one_table_notices_that_the_journal_of_another_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let of = |label: &str| SpoolConfig { tables: vec![table(label)], ..config(folder.path()) };
    let (mut spool, _) = Spool::open(of("t")).unwrap();
    let open = write_segment(&spool, 1, None, &[batch(&["row"], &[])]);
    let mut segment = open.seal(&mut spool.logs).unwrap_or_else(|_| panic!("it is sealed")).remove(0);
    segment.begin_attempt("server", SegmentNumber::new(1)).unwrap();
    drop((spool, segment));
    fs::remove_dir_all(of("t").dir.join("state")).unwrap();
    drop(Spool::open(of("another")).unwrap());
    let (_spool, recovered) = Spool::open(of("t")).unwrap();
    assert!(recovered.segments[0].open_attempt().is_some_and(|open| open.server.is_empty()));
}
