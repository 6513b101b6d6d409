//! A bit that flips at rest, and the loss that it may cause.
//!
//! - In a frame of a sealed segment: that frame, whatever becomes of the others.
//! - In a frame of an unsealed one: that frame, too. If no later frame says that it was on the disk,
//!   those behind it as well, and unnoticed: to the next start they are a torn tail.
//! - In a frame of what was sent and has no seal (a sync of it failed, and then the power did): the segment is set
//!   aside, whole.
//! - In an identity or a schema: nothing, there is a copy. In the seal of what was sent: nothing while all frames are
//!   whole, else the segment is set aside, whole.
//! - In any other seal: nothing. But without its seal a frame that was
//!   damaged before may be a torn tail.
//! - In the journal: nothing, each record is there twice.
//! - In a log of identities: that the events in that chunk are taken for new, once more.

use crate::batch::{Epoch, Position, SegmentNumber};
use std::collections::BTreeSet;
use std::path::Path;

use super::chance::Chance;
use super::faulty::FaultyDisk;
use super::model::{Model, Section, batches_of};
use crate::batch;
use crate::batch::identity::Id;
use crate::spool::block::{Identity, PAGE, Seal, Seals};
use crate::spool::frame::{FramePlace, HEADER, Header, MAGIC};

/// Flips a bit of one segment, and records the permitted loss in the model.
pub(super) fn flip(
    disk: &FaultyDisk,
    folder: &Path,
    was_sent: impl Fn(Epoch, SegmentNumber) -> bool,
    model: &mut Model,
    chance: &mut Chance,
) {
    let mut files = disk.files_in(folder);
    files.retain(|(name, _)| name.ends_with(".segment"));
    if files.is_empty() {
        return;
    }
    let (name, bytes) = chance.pick(&files);
    let Some(segment) = Segment::parse(bytes) else { return };
    let Segment { identity, identity_len, sealed_frames, frames } = segment;
    let is_sealed = sealed_frames.is_some();
    let (all, none, is_sent) = (0..frames.len(), 0..0, was_sent(identity.epoch, identity.number));
    let (first, len, hit, is_sealed) = match chance.below(5) {
        0 => (0, 60, none, true),
        1 => {
            let is_lost = is_sent && sealed_frames != Some(frames.len());
            (identity_len, 116, if is_lost { all } else { none }, is_sent)
        }
        _ if frames.is_empty() => return,
        _ => {
            let hit = chance.below(frames.len() as u64) as usize;
            let is_lost = is_sent && !is_sealed;
            let range = if is_lost { all } else { hit..hit + 1 };
            (frames[hit].offset, frames[hit].header.len() as usize, range, is_sealed || is_lost)
        }
    };
    let byte = first as u64 + chance.below(len as u64);
    disk.flip(&folder.join(name), byte, chance.below(8) as u8);
    let (hit, left): (Vec<_>, Vec<_>) = (0..).zip(&frames).partition(|(index, _)| hit.contains(index));
    hit.iter().for_each(|(_, frame)| model.damage(identity.number.get(), &frame.batches));
    if !is_sealed {
        let left: Vec<&Frame> = left.into_iter().map(|(_, frame)| frame).collect();
        let (torn, is_noticed) = torn_tail(&left, identity.first_position);
        left[torn..].iter().for_each(|frame| model.damage(identity.number.get(), &frame.batches));
        if !is_noticed {
            model.may_vanish(identity.number.get());
        }
    }
}

/// Flips a bit of the journal.
pub(super) fn flip_journal(disk: &FaultyDisk, folder: &Path, chance: &mut Chance) {
    let files = disk.files_in(folder);
    let (name, bytes) = chance.pick(&files);
    // Most of it is empty.
    let used = 1 + bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) as u64;
    disk.flip(&folder.join(name), chance.below(used), chance.below(8) as u8);
}

/// Flips a bit of a log of identities, and records the permitted loss in the model.
pub(super) fn flip_log(disk: &FaultyDisk, folder: &Path, model: &mut Model, chance: &mut Chance) {
    let files = disk.files_in(folder);
    if files.is_empty() {
        return;
    }
    let (name, bytes) = chance.pick(&files);
    let blocks = blocks(bytes);
    if blocks.is_empty() {
        return;
    }
    let hit = chance.below(blocks.len() as u64) as usize;
    let (offset, ids) = &blocks[hit];
    let byte = offset + chance.below((LOG_HEADER + ids.as_flattened().len()) as u64) as usize;
    disk.flip(&folder.join(name), byte as u64, chance.below(8) as u8);
    model.may_be_taken_again(ids);
}

const LOG_HEADER: usize = 28;

/// The offsets of the valid blocks of a log, and their records.
fn blocks(bytes: &[u8]) -> Vec<(usize, &[Id])> {
    let block = |offset: usize| {
        let (header, rest) = bytes[offset..].split_at_checked(LOG_HEADER)?;
        let ids = rest.get(..16 * u32::from_le_bytes(header[4..8].try_into().unwrap()) as usize)?;
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&header[..24]), ids);
        (header[24..] == checksum.to_le_bytes()).then_some((offset, ids.as_chunks().0))
    };
    memchr::memmem::find_iter(bytes, b"SEEN").filter_map(block).collect()
}

/// The offset at which a start that finds no seal sees a torn tail, and whether it sees damage before
/// that offset.
fn torn_tail(left: &[&Frame], first_position: Position) -> (usize, bool) {
    let (mut expected, mut is_noticed) = (first_position, false);
    for (index, frame) in left.iter().enumerate() {
        if frame.header.position != expected {
            if left[index..].iter().all(|later| later.header.durable < expected) {
                return (index, is_noticed);
            }
            is_noticed = true;
        }
        expected = frame.header.position.next();
    }
    (left.len(), is_noticed)
}

/// The batches in the valid frames of a block in a segment's file; without `rows`, only those that have rejected
/// lines.
pub(super) fn readable(disk: &FaultyDisk, path: &Path, block: u16, rows: bool) -> BTreeSet<u32> {
    let files = disk.files_in(path.parent().unwrap());
    let (_, bytes) = files.iter().find(|(name, _)| *name == *path.file_name().unwrap().to_string_lossy()).unwrap();
    let frames = Segment::parse(bytes).map_or(Vec::new(), |segment| segment.frames);
    let of_block = frames.iter().filter(|frame| frame.header.block == block);
    of_block.flat_map(|frame| if rows { &frame.batches } else { &frame.rejected }).copied().collect()
}

/// Number of segments that have frames and no seal.
pub(super) fn unsealed(disk: &FaultyDisk, folder: &Path) -> usize {
    let segments = disk.files_in(folder).into_iter().filter(|(name, _)| name.ends_with(".segment"));
    let parsed = segments.filter_map(|(_, bytes)| Segment::parse(&bytes));
    parsed.filter(|segment| segment.sealed_frames.is_none() && !segment.frames.is_empty()).count()
}

/// A segment's file, read without the code that is tested.
struct Segment {
    identity: Identity,
    identity_len: usize,
    /// How many its seal says.
    sealed_frames: Option<usize>,
    /// Those that are whole.
    frames: Vec<Frame>,
}

struct Frame {
    offset: usize,
    header: Header,
    batches: Vec<u32>,
    /// Those of them that have rejected lines.
    rejected: Vec<u32>,
}

impl Segment {
    fn parse(bytes: &[u8]) -> Option<Self> {
        // In front, or its copy.
        let mut halves = (0..bytes.len()).step_by(PAGE);
        let identity = halves.find_map(|at| Identity::decode(&bytes[at..]))?;
        let identity_len = identity.encode().len();
        let seal = if identity.is_of_one_block() {
            let seal = Seal::decode(&bytes[identity_len..], identity.epoch, identity.number);
            seal.map(|seal| (seal.end as usize, seal.frames as usize))
        } else {
            let seals = Seals::decode(&bytes[identity_len..], identity.epoch, identity.number);
            seals.map(|seals| (seals.end as usize, seals.frames as usize))
        };
        let start = identity.frames_start(identity_len as u64) as usize;
        let end = seal.map_or(bytes.len(), |(end, _)| end);
        let places = memchr::memmem::find_iter(bytes, MAGIC).filter(|offset| (start..end).contains(offset));
        let frames = places.filter_map(|offset| Frame::parse(bytes, &identity, offset)).collect();
        let sealed_frames = seal.map(|(_, frames)| frames);
        Some(Self { identity, identity_len, sealed_frames, frames })
    }
}

impl Frame {
    fn parse(bytes: &[u8], identity: &Identity, offset: usize) -> Option<Self> {
        let place = FramePlace { epoch: identity.epoch, number: identity.number, offset: offset as u64 };
        let header = Header::decode(&bytes[offset..], place)?;
        let payload = bytes.get(offset + HEADER..offset + header.len() as usize)?;
        let (rows, rest) = payload.split_at(header.rows_bytes as usize);
        // A frame that is damaged already can't be lost again.
        if batch::checksum(rows, rest, &[], &[]) != header.checksum {
            return None;
        }
        if header.is_schema {
            return Some(Self { offset, header, batches: Vec::new(), rejected: Vec::new() });
        }
        let mut batches = batches_of(Section::Rows, rows);
        let rejected = batches_of(Section::Rejected, &rest[..header.rejected_bytes as usize]);
        batches.extend(&rejected);
        Some(Self { offset, header, batches, rejected })
    }
}
