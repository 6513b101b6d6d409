//! Folders that older releases left, with a segment in each state that their format could hold: every one
//! keeps its token, its state and its contents, whatever happens to the start that takes it over.
//!
//! `<commit>.folder` and `<commit>.states` were written by tests of the commits f78a46e and 9fc1a69, with
//! their own spool code: the first has the files of the folder (32 bytes a line, without those that are all
//! zero; `spare` is not made of it), the second what that code then said of each segment. The wall clock stood
//! at the year 2100, so that no key is ever too old. Where today says more than f78a46e, the states are today's: segment 15, whose
//! seal is damaged, and the tokens of unsealed segments, which that release sealed under another epoch.
//!
//! | segment | how it was left |
//! |---|---|
//! | 1 | sealed and never sent, with a request key and identities in the logs |
//! | 2, 3 | with an open attempt; answered |
//! | 4, 5 | forced; suspect (only 9fc1a69) |
//! | 6, 7 | with one used-up token; with two, and an open attempt again |
//! | 8, 9 | rows inserted and rejected lines waiting; the same with an open attempt |
//! | 10, 11, 12 | cut: with an open piece; refused rows sent; refused rows stored |
//! | 13, 14, 15 | with a damaged cut; a damaged progress page; a damaged seal |
//! | 16 | sealed, with a damaged frame |
//! | 17 | with an open attempt, and a crash before it got the name of one that was sent |
//! | 18 | cut, with a used-up token |
//! | 19 | with a damaged identity (only 9fc1a69, which has a copy of it) |
//! | 20 | sent, and replaced by what was readable of it |
//! | 21, 22, 23, 24 | open: with a request key; a torn tail; a damaged frame; empty |
//! | 26 | cut and answered, with a damaged seal |

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::faulty::{End, Fault, FaultyDisk};
use super::*;
use crate::batch::OutcomeRule;
use crate::batch::identity::RequestKey;
use crate::spool::storage::{Storage, write_all};

/// The segments that have no seal.
const OPEN: [u64; 3] = [21, 22, 23];

/// A folder, and what the release that left it says of it.
struct Left {
    files: Vec<(PathBuf, Vec<u8>)>,
    /// The text about each segment.
    segments: BTreeMap<u64, String>,
    next: u64,
    keys: Vec<RequestKey>,
    events: Vec<[u8; 16]>,
}

fn all() -> [Left; 2] {
    [
        Left::parse(include_str!("9fc1a69.folder"), include_str!("9fc1a69.states")),
        Left::parse(include_str!("f78a46e.folder"), include_str!("f78a46e.states")),
    ]
}

impl Left {
    fn parse(folder: &str, states: &str) -> Self {
        let mut left =
            Self { files: Vec::new(), segments: BTreeMap::new(), next: 0, keys: Vec::new(), events: Vec::new() };
        for line in folder.lines() {
            if let Some(file) = line.strip_prefix("file ") {
                let (path, len) = file.rsplit_once(' ').unwrap();
                left.files.push((path.into(), vec![0; len.parse().unwrap()]));
                continue;
            }
            let (offset, hex) = line.split_once(' ').unwrap();
            let (offset, bytes) = (offset.parse::<usize>().unwrap(), bytes_of(hex));
            left.files.last_mut().unwrap().1[offset..offset + bytes.len()].copy_from_slice(&bytes);
        }
        let mut number = 0;
        for line in states.lines() {
            match line.split_once(' ').unwrap() {
                ("next", next) => left.next = next.parse().unwrap(),
                ("key", hex) => left.keys.push(RequestKey::decode(&bytes_of(hex).try_into().unwrap())),
                ("event", hex) => left.events.push(bytes_of(hex).try_into().unwrap()),
                ("segment", found) => number = found.parse().unwrap(),
                _ => {
                    let text = left.segments.entry(number).or_default();
                    writeln!(text, "{line}").unwrap();
                }
            }
        }
        left
    }

    fn write_to(&self, storage: &dyn Storage, dir: &Path) {
        for (path, bytes) in self.files.iter().filter(|(path, _)| path != Path::new("spare")) {
            let path = dir.join(path);
            let folder = path.parent().unwrap();
            storage.make_folder(folder).unwrap();
            let file = storage.create(&path).unwrap();
            file.set_len(bytes.len() as u64).unwrap();
            for (chunk, offset) in bytes.chunks(4096).zip((0..).step_by(4096)) {
                if chunk.iter().any(|byte| *byte != 0) {
                    write_all(&*file, chunk, offset).unwrap();
                }
            }
            file.sync().unwrap();
            storage.sync_folder(folder).unwrap();
        }
    }

    /// What was sealed is there.
    fn check_all_but_open(&self, recovered: &Recovered) {
        for block in &recovered.blocks {
            assert_eq!(self.segments[&block.number().segment.get()], describe(block), "on a full disk");
        }
        let sealed = self.segments.keys().filter(|number| !OPEN.contains(number)).count();
        assert!(recovered.blocks.len() >= sealed);
    }

    /// The spool holds what was left, and nothing else.
    fn check(&self, spool: &mut Spool, recovered: &Recovered, context: &str) {
        let found: BTreeMap<u64, String> =
            recovered.blocks.iter().map(|block| (block.number().segment.get(), describe(block))).collect();
        for (number, text) in &self.segments {
            assert_eq!(found.get(number), Some(text), "segment {number}: {context}");
        }
        assert_eq!(found.len(), self.segments.len(), "{context}");
        assert!(recovered.next_number.get() >= self.next, "{context}");
        for key in &self.keys {
            assert!(matches!(spool.repeats.rule(key), OutcomeRule::Fixed(_)), "{key:?}: {context}");
        }
        for id in &self.events {
            let mut batch = batch(&["x"], &[]);
            batch.identify(*id, 0..1);
            let rule = spool.repeats.begin(&mut batch, BlockNumber::first(SegmentNumber::new(99)));
            assert!(matches!(rule, OutcomeRule::IfCommitted(_)), "{id:?}: {context}");
            spool.repeats.refused();
        }
        assert!(!spool.layout.journal().is_doubtful(), "{context}");
    }
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// A block as the states describe its segment.
fn describe(block: &SealedBlock) -> String {
    let mut out = String::new();
    let is_copied = block.number() == BlockNumber::first(SegmentNumber::new(23));
    writeln!(out, "token {}", if is_copied { "of a copy".to_owned() } else { block.token() }).unwrap();
    writeln!(out, "frozen {:?}, created {}", String::from_utf8_lossy(block.frozen()), block.created_ms()).unwrap();
    let (sent, inserted) = (block.was_sent(), block.rows_are_inserted());
    let (forced, suspect) = (block.is_forced(), block.is_suspect());
    writeln!(out, "sent {sent}, rows inserted {inserted}, forced {forced}, suspect {suspect}").unwrap();
    if let Some(open) = block.open_attempt() {
        writeln!(out, "open since {}, newest {}, server {:?}", open.since_ms, open.newest, open.server).unwrap();
    }
    if let Some(cut) = block.cut() {
        let (sent, stored) = (cut.refused_are_sent, cut.refused_are_stored);
        writeln!(out, "cut, unreadable {}, sent {sent}, stored {stored}", cut.is_unreadable()).unwrap();
        for Piece { first, rows, offset, bytes, state } in &cut.pieces {
            writeln!(out, "piece {first} {rows} {offset} {bytes} {state:?}").unwrap();
        }
    }
    let (rows, undecided, rejected) = (block.rows_waiting(), block.rows_undecided(), block.rejected());
    writeln!(out, "waiting {rows} rows, {undecided} undecided, {rejected} rejected").unwrap();
    match contents(block) {
        Ok((rows, rejected)) => writeln!(out, "contents {rows:?} {rejected:?}").unwrap(),
        Err(error) => writeln!(out, "contents {:?}", error.kind()).unwrap(),
    }
    out
}

/// The settings of the releases' folders, which keep the node id themselves.
fn config(dir: &Path) -> SpoolConfig {
    SpoolConfig { node_id: None, ..super::config(dir) }
}

fn start(storage: &FaultyDisk) -> Result<(Spool, Recovered), SpoolError> {
    Spool::open_on(Arc::new(storage.clone()), config(Path::new("/")))
}

fn loaded(left: &Left, seed: u64) -> FaultyDisk {
    let disk = FaultyDisk::new(seed);
    left.write_to(&disk, Path::new("/spool"));
    disk
}

#[test]
fn what_an_older_release_left_keeps_its_tokens_and_states() {
    for left in all() {
        let folder = tempfile::tempdir().unwrap();
        left.write_to(&Disk, &folder.path().join("spool"));
        for context in ["first start", "second start", "third start"] {
            let (mut spool, recovered) = Spool::open(config(folder.path())).unwrap();
            left.check(&mut spool, &recovered, context);
            let names = files(spool.layout.of_table("t").folder());
            let numbered = recovered.blocks.iter().map(|block| format!("{:020}.segment", block.number().segment.get()));
            let expected: Vec<_> = numbered.chain(["schema.json".to_owned()]).collect();
            assert_eq!(names, expected, "{context}");
        }
    }
}

/// What was recovered, with the segments that waited for room.
fn with_postponed(spool: &mut Spool, mut recovered: Recovered) -> Recovered {
    loop {
        let blocks = spool.recover_postponed().unwrap();
        if blocks.is_empty() {
            return recovered;
        }
        recovered.blocks.extend(blocks);
    }
}

/// Starts on a disk that fails as planned, and then again. False if the plan was for later.
fn survives(left: &Left, mut disk: FaultyDisk, context: &str) -> bool {
    let first = start(&disk);
    if disk.is_planned() {
        disk.heal();
        let (mut spool, recovered) = first.unwrap_or_else(|error| panic!("{context}: {error}"));
        left.check(&mut spool, &recovered, context);
        return false;
    }
    if let Ok((mut spool, recovered)) = first
        && disk.ended().is_none()
    {
        let recovered = with_postponed(&mut spool, recovered);
        left.check(&mut spool, &recovered, context);
    }
    let end = disk.ended().unwrap_or(if disk.is_read_only() { End::PowerLost } else { End::Killed });
    disk.restart(end);
    let (mut spool, recovered) = start(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    left.check(&mut spool, &recovered, context);
    true
}

#[test]
fn a_start_that_ends_at_any_call_changes_no_state() {
    for left in all() {
        for fault in [Fault::Kill, Fault::PowerLoss, Fault::Fails] {
            let planned = |nth: &u64| {
                let disk = loaded(&left, *nth);
                disk.plan_change(*nth, fault);
                survives(&left, disk, &format!("{fault:?} at change {nth}"))
            };
            assert!((1..).take_while(planned).count() > 100);
        }
    }
}

#[test]
fn a_start_that_fails_to_read_changes_no_state() {
    for left in all() {
        // A read that fails only stops it.
        for nth in (1..).step_by(23) {
            let disk = loaded(&left, nth);
            disk.plan(nth, Fault::Fails);
            if !survives(&left, disk, &format!("call {nth} fails")) {
                break;
            }
        }
    }
}

#[test]
fn a_full_disk_stops_the_first_start_with_a_sentence_or_not_at_all() {
    for left in all() {
        for (has_spare, seed) in [false, true].into_iter().zip(0..) {
            let mut disk = loaded(&left, seed);
            if has_spare {
                disk.create(Path::new("/spool/spare")).unwrap().reserve(crate::limits::SPARE_BYTES).unwrap();
            }
            disk.fill_up();
            match start(&disk) {
                Ok((mut spool, recovered)) => {
                    assert!(has_spare);
                    left.check_all_but_open(&recovered);
                    // Room for what was open.
                    disk.fill(false);
                    let recovered = with_postponed(&mut spool, recovered);
                    left.check(&mut spool, &recovered, "with room again");
                }
                Err(error) => {
                    let error = error.to_string();
                    assert!(
                        !has_spare && error.contains("can't be used: taking over what an earlier run left"),
                        "{error}"
                    );
                }
            }
            disk.fill(false);
            disk.restart(End::Killed);
            let (mut spool, recovered) = start(&disk).unwrap();
            left.check(&mut spool, &recovered, "the next start");
        }
    }
}

#[test]
fn what_an_older_release_did_after_a_start_that_failed_before_the_tripwire_counts() {
    let tripwire = Path::new("/spool/t/00000000000000000000.segment");
    let mut reached = false;
    for nth in 1.. {
        let [left, _] = all();
        let mut disk = loaded(&left, nth);
        disk.plan_change(nth, Fault::Kill);
        drop(start(&disk));
        if disk.is_planned() {
            break;
        }
        disk.restart(End::Killed);
        let journal =
            journal::Journal::load(Arc::new(disk.clone()), Path::new("/spool/state"), vec!["/spool/t".into()]);
        if journal.unwrap().is_new() || disk.open(tripwire).is_ok() {
            continue;
        }
        reached = true;
        // The older release has begun an attempt, and a part of the note is not on the disk.
        disk.flip(Path::new("/spool/t/00000000000000000003.sent"), 8192 + 4096 + 26, 0);
        let (_spool, recovered) = start(&disk).unwrap();
        let third =
            recovered.blocks.iter().find(|block| block.number() == BlockNumber::first(SegmentNumber::new(3))).unwrap();
        assert!(third.open_attempt().is_some_and(|open| open.server.is_empty()), "call {nth}");
    }
    assert!(reached);
}

#[test]
fn the_tripwire_is_a_segment_that_older_releases_refuse() {
    let folder = tempfile::tempdir().unwrap();
    let (spool, _) = Spool::open(config(folder.path())).unwrap();
    let name = "00000000000000000000.segment";
    let bytes = fs::read(spool.layout.of_table("t").folder().join(name)).unwrap();
    let (number, extension) = name.split_once('.').unwrap();
    // As those releases read it: the name, the first bytes, the checksum; then the version.
    assert_eq!((number.parse(), extension), (Ok(0), "segment"));
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!((&bytes[..8], word(12) % 4096, word(12) <= bytes.len()), (&b"SLUICEG1"[..], 0, true));
    assert_eq!(&bytes[24..32], [0; 8], "the number");
    let (node_id, frozen) = (word(48), word(52));
    let whole = [&bytes[..56], &bytes[60..60 + node_id + frozen]].concat();
    assert_eq!(crc32c::crc32c(&whole) as usize, word(56));
    assert_eq!(word(8), 3, "they read version 2 and no other");
}

#[test]
fn a_table_that_an_older_release_kept_in_a_folder_of_the_spool_gets_one_of_its_own() {
    for table in ["keys", "state", "log", "held", "spare"] {
        for left in all() {
            let folder = tempfile::tempdir().unwrap();
            let dir = folder.path().join("spool");
            let of_table =
                |path: &Path| path.strip_prefix("t").map_or(path.to_owned(), |path| Path::new(table).join(path));
            let files = left.files.iter().map(|(path, bytes)| (of_table(path), bytes.clone())).collect();
            let left = Left { files, ..left };
            left.write_to(&Disk, &dir);
            fs::create_dir_all(dir.join(table).join("free")).unwrap();
            // A start of another table, and two of this one.
            for opened in ["other", table, table] {
                let (mut spool, recovered) =
                    Spool::open(SpoolConfig { tables: vec![super::table(opened)], ..config(folder.path()) }).unwrap();
                if opened == table {
                    left.check(&mut spool, &recovered, table);
                } else {
                    let others = spool.layout.others().unwrap();
                    assert_eq!((others.len(), &*others[0].name), (1, table));
                }
            }
        }
    }
}

#[test]
fn a_journal_that_is_lost_after_the_adoption_leaves_no_order_to_send_behind() {
    for left in all() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("spool");
        left.write_to(&Disk, &dir);
        drop(Spool::open(config(folder.path())).unwrap());
        fs::remove_dir_all(dir.join("state")).unwrap();
        let (_spool, recovered) = Spool::open(config(folder.path())).unwrap();
        assert_eq!(recovered.blocks.len(), left.segments.len());
        for block in &recovered.blocks {
            assert!(block.open_attempt().is_some_and(|open| open.server.is_empty()), "{block:?}");
            assert!(!block.is_forced(), "{block:?}");
        }
    }
}
