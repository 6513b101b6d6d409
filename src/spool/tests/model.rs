//! The model: a record of what must have become of every batch, kept beside the spool and compared
//! with it.
//!
//! Two servers stand for ClickHouse. Each remembers tokens, stores the rows of a new token, and is
//! independent of the other. A fault of the spool therefore shows as rows that are stored twice or
//! not at all.
//!
//! - An acknowledged batch is stored exactly once. A batch that was refused, or never answered, is
//!   stored at most once, and completely if at all. The same holds for all batches with one request
//!   key together, and for all events with one identity together.
//! - Reads return the rows as they were written, in complete frames, and nothing else.
//! - A token names the same bytes for ever.
//! - A flipped bit costs what [`super::flips`] lists. Held blocks are on the disk.

use std::collections::{BTreeMap, BTreeSet};

use memchr::memmem;

use crate::batch::identity::{Id, RequestKey, Summary, of_event, of_request};
use crate::batch::{Batch, Sequence};

use super::chance::Chance;

/// What is promised of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Promise {
    /// It was acknowledged.
    Kept,
    /// It was refused, or the process ended before it answered.
    None,
}

/// A part of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Section {
    Rows,
    Rejected,
}

#[derive(Debug)]
pub(super) struct Record {
    pub(super) promise: Promise,
    pub(super) is_keyed: bool,
    /// True if each event has an identity.
    pub(super) is_identified: bool,
    /// True if the batch is in a segment that was seen sealed, so that no loss of power takes it.
    pub(super) is_sealed: bool,
    /// The segments in which a flipped bit has hit the batch, or a page that its frame depends on.
    damaged_in: BTreeSet<u64>,
    /// True if a flipped bit may have taken the batch without notice: nothing on the disk proves that
    /// it was acknowledged.
    may_vanish: bool,
    /// How often the batch may be stored: more than once if its identities were forgotten.
    copies_max: usize,
    /// How often each row is stored: rows, and rejected lines.
    stored: [Vec<u32>; 2],
    filler: [usize; 2],
}

/// Appends a row: its section, batch, index and length, then a filler computed from them.
const ROW_HEADER: usize = 11;

fn put_row(section: Section, id: u32, index: u16, len: usize, bytes: &mut Vec<u8>) {
    bytes.push(if section == Section::Rows { b'R' } else { b'Q' });
    bytes.extend_from_slice(&id.to_le_bytes());
    bytes.extend_from_slice(&index.to_le_bytes());
    bytes.extend_from_slice(&(len as u32).to_le_bytes());
    let filler = (id as u8).wrapping_mul(31).wrapping_add(index as u8);
    bytes.resize(bytes.len() + len, filler);
}

/// Parses a row: its batch, its index, and the offset of the next row.
fn get_row(section: Section, bytes: &[u8], at: usize) -> (u32, u16, usize) {
    let header = &bytes[at..at + ROW_HEADER];
    assert_eq!(header[0], if section == Section::Rows { b'R' } else { b'Q' }, "no row begins at {at}");
    let id = u32::from_le_bytes(header[1..5].try_into().unwrap());
    let index = u16::from_le_bytes(header[5..7].try_into().unwrap());
    let len = u32::from_le_bytes(header[7..11].try_into().unwrap()) as usize;
    let filler = (id as u8).wrapping_mul(31).wrapping_add(index as u8);
    let text = &bytes[at + ROW_HEADER..at + ROW_HEADER + len];
    assert!(text.iter().all(|byte| *byte == filler), "row {index} of batch {id} has changed");
    (id, index, at + ROW_HEADER + len)
}

fn identity(id: u32, index: usize) -> Id {
    of_event("id", format!("{id} {index}").as_bytes())
}

/// The batches that have rows in these bytes.
pub(super) fn batches_of(section: Section, bytes: &[u8]) -> Vec<u32> {
    let (mut at, mut ids) = (0, Vec::new());
    while at < bytes.len() {
        let (id, _, next) = get_row(section, bytes, at);
        ids.push(id);
        at = next;
    }
    ids.dedup();
    ids
}

/// The offsets of the rows.
pub(super) fn row_offsets(bytes: &[u8]) -> Vec<u64> {
    let (mut at, mut offsets) = (0, Vec::new());
    while at < bytes.len() {
        offsets.push(at as u64);
        (_, _, at) = get_row(Section::Rows, bytes, at);
    }
    offsets
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) records: Vec<Record>,
    /// The bytes that were ever seen under each token.
    tokens: BTreeMap<String, Vec<u8>>,
    /// The tokens that each of the two servers knows; it lacks the rows of some.
    servers: [BTreeMap<String, bool>; 2],
}

impl Record {
    /// The numbers in the reply.
    pub(super) fn summary(&self) -> Summary {
        let [accepted, rejected] = [0, 1].map(|section: usize| self.stored[section].len() as u32);
        Summary { accepted, rejected, refused: false }
    }
}

impl Model {
    /// A new batch.
    pub(super) fn batch(&mut self, chance: &mut Chance, is_keyed: bool, is_identified: bool) -> u32 {
        let rows = chance.below(6) as usize;
        let rejected = chance.below(3).saturating_sub(u64::from(rows > 0)) as usize;
        // A rejected line has no identity.
        let rejected = if is_identified { 0 } else { rejected };
        let rows = if rows + rejected == 0 { 1 } else { rows };
        let len = match chance.below(8) {
            0 => 3000 + chance.below(9000),
            1 | 2 => chance.below(1500),
            _ => chance.below(100),
        };
        self.records.push(Record {
            promise: Promise::None,
            is_keyed,
            is_identified,
            is_sealed: false,
            damaged_in: BTreeSet::new(),
            may_vanish: false,
            copies_max: 1,
            stored: [vec![0; rows], vec![0; rejected]],
            filler: [len as usize, (len / 2) as usize],
        });
        self.records.len() as u32 - 1
    }

    /// The batch of these records, as a worker submits it.
    pub(super) fn contents(&self, ids: &[u32], sequence: u64) -> Batch {
        let mut batch = Batch::new(0);
        for id in ids.iter().copied() {
            let (record, from) = (&self.records[id as usize], batch.mark());
            for section in [Section::Rows, Section::Rejected] {
                for index in 0..record.stored[section as usize].len() {
                    let target = if section == Section::Rows { &mut batch.rows } else { &mut batch.rejected };
                    let (len, from) = (record.filler[section as usize] + index, target.bytes.len());
                    put_row(section, id, index as u16, len, &mut target.bytes);
                    target.count += 1;
                    if record.is_identified {
                        let row = from..target.bytes.len();
                        batch.identify(identity(id, index), row);
                    }
                }
            }
            if record.is_keyed {
                let key = RequestKey::of_tests(of_request("t", &id.to_le_bytes()), b"body", record.summary());
                batch.add_keyed(key, from);
            }
        }
        batch.sequence = Sequence::new(sequence);
        batch.close();
        batch
    }

    /// The batches in a part of a block; asserts that each is complete and none is there twice.
    fn batches_in(&self, section: Section, bytes: &[u8]) -> Vec<u32> {
        let (mut at, mut ids) = (0, Vec::<u32>::new());
        while at < bytes.len() {
            let (id, index, next) = get_row(section, bytes, at);
            let count = self.records[id as usize].stored[section as usize].len();
            if index == 0 {
                assert!(!ids.contains(&id), "batch {id} is twice in one block");
                ids.push(id);
            }
            assert!(ids.last() == Some(&id) && usize::from(index) < count, "a frame of batch {id} is not whole");
            if usize::from(index) + 1 < count {
                let (same, following, _) = get_row(section, bytes, next);
                assert_eq!((same, following), (id, index + 1), "a frame of batch {id} is not whole");
            }
            at = next;
        }
        ids
    }

    /// The batches in a block that was read to its end.
    pub(super) fn look_at(&mut self, token: &str, rows: &[u8], rejected: &[u8]) -> Vec<u32> {
        self.is_the_same(token, rows);
        self.is_the_same(&format!("{token}-q"), rejected);
        let mut ids = self.batches_in(Section::Rows, rows);
        let of_rejected = self.batches_in(Section::Rejected, rejected);
        // Salvage leaves out a part that is stored already.
        let both = |id: u32| self.records[id as usize].stored.iter().all(|rows| rows.contains(&0));
        for id in ids.iter().chain(&of_rejected).copied().filter(|id| both(*id)) {
            assert!(ids.contains(&id) && of_rejected.contains(&id), "batch {id} is parted");
        }
        ids.extend(of_rejected.into_iter().filter(|id| !both(*id)));
        ids
    }

    fn is_the_same(&mut self, token: &str, bytes: &[u8]) {
        let known = self.tokens.entry(token.to_owned()).or_insert_with(|| bytes.to_vec());
        assert!(known == bytes, "token {token} names other bytes than before");
    }

    /// Kills a server between writing the token and the rows of an INSERT.
    pub(super) fn know_only(&mut self, server: usize, token: &str, bytes: &[u8]) {
        self.is_the_same(token, bytes);
        self.servers[server].entry(token.to_owned()).or_insert(false);
    }

    /// Looks up whether a server has the rows of a token that it knows.
    pub(super) fn has_rows(&self, server: usize, token: &str) -> bool {
        self.servers[server][token]
    }

    /// A server executes an INSERT.
    pub(super) fn insert(&mut self, server: usize, token: &str, section: Section, bytes: &[u8]) {
        self.is_the_same(token, bytes);
        if self.servers[server].contains_key(token) {
            return;
        }
        self.servers[server].insert(token.to_owned(), true);
        let mut at = 0;
        while at < bytes.len() {
            let (id, index, next) = get_row(section, bytes, at);
            self.records[id as usize].stored[section as usize][usize::from(index)] += 1;
            at = next;
        }
    }

    /// Notes that a flipped bit has hit these batches in a segment.
    pub(super) fn damage(&mut self, segment: u64, ids: &[u32]) {
        for id in ids {
            self.records[*id as usize].damaged_in.insert(segment);
        }
    }

    /// Notes that a flipped bit in a segment may go unnoticed.
    pub(super) fn may_vanish(&mut self, segment: u64) {
        let hit = self.records.iter_mut().filter(|record| record.damaged_in.contains(&segment));
        hit.for_each(|record| record.may_vanish = true);
    }

    /// Notes that a flipped bit lets these identities be forgotten.
    pub(super) fn may_be_taken_again(&mut self, ids: &[Id]) {
        for (id, record) in (0..).zip(&mut self.records).filter(|(_, record)| record.is_identified) {
            record.copies_max += usize::from(ids.contains(&identity(id, 0)));
        }
    }

    /// True if a flipped bit has hit a segment.
    pub(super) fn is_damaged(&self, segment: u64) -> bool {
        self.records.iter().any(|record| record.damaged_in.contains(&segment))
    }

    /// True if a server has these rows, under any token.
    pub(super) fn finds(&self, rows: &[u8]) -> bool {
        let stored = self.servers.iter().flatten().filter(|(_, is_stored)| **is_stored);
        stored.into_iter().any(|(token, _)| memmem::find(&self.tokens[token], rows).is_some())
    }

    /// The server that knows this token.
    pub(super) fn server_of(&self, token: &str) -> Option<usize> {
        self.servers.iter().position(|server| server.contains_key(token))
    }

    /// Checks after a start that every promised batch is in ClickHouse or in a recovered block.
    pub(super) fn nothing_is_missing(&self, found: &[Vec<u32>], where_: &str) {
        for (id, record) in (0..).zip(&self.records) {
            let times = found.iter().filter(|ids| ids.contains(&id)).count();
            assert!(times <= record.copies_max, "batch {id} is in {times} blocks {where_}");
            let there = times > 0 || record.stored.iter().flatten().all(|count| *count > 0);
            let owed = record.promise == Promise::Kept && record.damaged_in.is_empty();
            assert!(there || !owed, "batch {id} was acknowledged and is lost {where_}: {record:?}");
        }
    }

    /// Checks at the end that every batch is stored as often as was promised, or `held`. True if a
    /// batch is neither, which only a flipped bit explains; the loss must then have been reported.
    pub(super) fn everything_is_stored_once(&self, held: &BTreeSet<u32>) -> bool {
        let mut lost = false;
        for (id, record) in (0..).zip(&self.records) {
            let counts: Vec<u32> = record.stored.iter().flatten().copied().collect();
            assert!(
                counts.iter().all(|count| *count as usize <= record.copies_max),
                "batch {id} is stored twice: {record:?}"
            );
            if !record.damaged_in.is_empty() {
                lost |= record.promise == Promise::Kept && !record.may_vanish && counts.contains(&0);
                continue;
            }
            if held.contains(&id) {
                continue;
            }
            let whole = counts.iter().all(|count| *count == counts[0]);
            assert!(whole, "batch {id} is stored in part: {record:?}");
            assert!(counts[0] > 0 || record.promise == Promise::None, "batch {id} is lost: {record:?}");
        }
        lost
    }
}
