//! A generation of the journal: the groups of records in one of its two files.
//!
//! ```text
//! a group, written twice; each copy begins at a multiple of 512 bytes
//!   0  8  "JOURNAL3"            8  8  generation         16  8  salt of the generation, random
//!  24  8  sequence: groups of the generation before it
//!  32  8  synced: groups of the generation that were known to be on the disk
//!  40  4  length L of records  44  4  number of records  48  4  checksum (CRC-32C) of bytes 0..48 and the records
//!  52  L  records ([`super::record`])
//! ```
//!
//! The first group of a generation is its checkpoint: the states of all blocks that the journal
//! remembers. A group that can't be read, and that a later one says was on the disk, is damage; any other
//! was never waited for.
//!
//! Records quote what ClickHouse says, which quotes what clients wrote. So no group is looked for inside of
//! another, and none is believed whose salt is not that of the first.

use std::io;

use super::super::frame::{get, get_u32, get_u64};
use super::super::storage::{StorageFile, read_up_to};
use super::block::{BlockId, Change};
use super::record;

/// Groups begin at multiples of this.
pub(super) const SECTOR: usize = 512;
const MAGIC: &[u8; 8] = b"JOURNAL3";
const GROUP_FIXED: usize = 52;
/// A longer file is not read: no journal grows so long.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// What was read of a file.
#[derive(Debug, Default)]
pub(super) struct Generation {
    /// 0 if no group can be read.
    pub(super) number: u64,
    /// The checkpoint is readable.
    pub(super) is_whole: bool,
    /// The records of all groups that can be read.
    pub(super) records: Vec<(BlockId, Change)>,
    /// Groups that were on the disk can't be read.
    pub(super) is_damaged: bool,
}

/// Which generation a group belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Name {
    pub(super) generation: u64,
    pub(super) salt: u64,
}

/// Where a group stands in its generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    /// Groups before it.
    pub(super) sequence: u64,
    /// Groups that are known to be on the disk.
    pub(super) synced: u64,
}

/// The bytes of a group, both copies of it.
pub(super) fn encode(name: Name, place: Place, records: &[u8], count: u32) -> Vec<u8> {
    let mut group = Vec::with_capacity(2 * padded(records.len()));
    group.extend_from_slice(MAGIC);
    for number in [name.generation, name.salt, place.sequence, place.synced] {
        group.extend_from_slice(&number.to_le_bytes());
    }
    group.extend_from_slice(&(records.len() as u32).to_le_bytes());
    group.extend_from_slice(&count.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&group), records);
    group.extend_from_slice(&checksum.to_le_bytes());
    group.extend_from_slice(records);
    group.resize(padded(records.len()), 0);
    group.repeat(2)
}

/// Length of one copy of a group with so many bytes of records.
fn padded(records: usize) -> usize {
    (GROUP_FIXED + records).next_multiple_of(SECTOR)
}

struct Group<'a> {
    name: Name,
    place: Place,
    records: &'a [u8],
    count: u32,
}

impl<'a> Group<'a> {
    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let fixed = get(bytes, 0, GROUP_FIXED - 4).filter(|fixed| fixed.starts_with(MAGIC))?;
        let records = get(bytes, GROUP_FIXED, get_u32(bytes, 40)? as usize)?;
        let checksum = crc32c::crc32c_append(crc32c::crc32c(fixed), records);
        (get_u32(bytes, 48)? == checksum).then_some(Self {
            name: Name { generation: get_u64(bytes, 8)?, salt: get_u64(bytes, 16)? },
            place: Place { sequence: get_u64(bytes, 24)?, synced: get_u64(bytes, 32)? },
            records,
            count: get_u32(bytes, 44)?,
        })
    }

    fn read(&self) -> Option<Vec<(BlockId, Change)>> {
        let (mut records, mut at) = (Vec::new(), 0);
        for _ in 0..self.count {
            let (id, change, len) = record::decode(self.records.get(at..)?)?;
            records.push((id, change));
            at += len;
        }
        Some(records)
    }
}

/// Reads the newest generation that a file has groups of.
pub(super) fn read(file: &dyn StorageFile) -> io::Result<Generation> {
    let len = file.len()?.min(FILE_BYTES_MAX);
    let mut bytes = vec![0; usize::try_from(len).unwrap_or_default()];
    let read = read_up_to(file, &mut bytes, 0)?;
    bytes.truncate(read);
    Ok(parse(&bytes))
}

pub(super) fn parse(bytes: &[u8]) -> Generation {
    let mut found = Generation::default();
    let (mut name, mut expected, mut at) = (None, 0, 0);
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(group) = Group::decode(rest) else {
            at += SECTOR;
            continue;
        };
        at += padded(group.records.len());
        // The file is overwritten from its start: behind the groups of one generation are those of an older.
        if *name.get_or_insert(group.name) != group.name || group.place.sequence < expected {
            continue;
        }
        found.number = group.name.generation;
        found.is_damaged |= group.place.sequence > expected && group.place.synced > expected;
        match group.read() {
            Some(records) => found.records.extend(records),
            // Of a release that knows more kinds of records.
            None => found.is_damaged = true,
        }
        found.is_whole |= group.place.sequence == 0;
        expected = group.place.sequence + 1;
    }
    found
}
