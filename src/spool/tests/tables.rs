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
    let of = |label: &str| SpoolConfig { tables: vec![table(label)], node_id: None, ..config(folder.path()) };
    for (seen, table) in NAMES.into_iter().enumerate() {
        for start in 0..3 {
            let (mut spool, recovered) = Spool::open(of(table)).unwrap();
            assert!(spool.layout.folder().starts_with(&of(table).dir));
            assert!(fs::metadata(of(table).dir.join("spare")).unwrap().is_file());
            let rows: Vec<_> = recovered.segments.iter().map(|segment| contents(segment).unwrap().0).collect();
            assert_eq!(rows, vec![table; start.min(1)], "{table}");
            let others = spool.layout.others().unwrap();
            let mut others: Vec<_> = others.into_iter().map(|other| (other.name, other.segments)).collect();
            others.sort();
            let mut expected: Vec<_> = NAMES[..seen].iter().map(|name| ((*name).to_owned(), 1)).collect();
            expected.sort();
            assert_eq!(others, expected);
            if start == 0 {
                write_segment(&spool, 1, None, &[keyed(table)]);
            } else {
                assert!(matches!(spool.repeats.rule(&keyed(table)), OutcomeRule::Fixed(_)), "{table}");
                let found = inspect(&of(table).dir, &[table]).unwrap();
                assert!(matches!(&found[..], [Inspected::Sealed(_)]), "{found:?}");
            }
            spool.repeats.refused();
        }
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
