//! A bit that flips at rest, and what it may cost.
//!
//! - In a frame of an unsealed segment: that frame. If no later frame says that it was on the disk,
//!   those behind it too, and unnoticed: to the next start they are a torn tail.
//! - In a frame of a sealed segment: the segment is held, whole.
//! - In an identity, or in the seal of what was sent: the segment is set aside, whole.
//! - In any other seal, or in a progress block: nothing. But a frame that was damaged before, under
//!   that seal, may be a torn tail without it.

use std::path::Path;

use super::chance::Chance;
use super::faulty::FaultyDisk;
use super::model::Model;
use crate::batch;
use crate::spool::block::{BLOCK, Identity, Seal, frames_start};
use crate::spool::frame::{HEADER, Header, MAGIC, Place};

/// Flips a bit of one segment, and tells the model.
pub(super) fn flip(disk: &FaultyDisk, folder: &Path, model: &mut Model, chance: &mut Chance) {
    let mut files = disk.files_in(folder);
    files.retain(|(name, _)| name.ends_with(".segment") || name.ends_with(".sent"));
    if files.is_empty() {
        return;
    }
    let (name, bytes) = chance.pick(&files);
    let Some(identity) = Identity::decode(bytes) else { return };
    let identity_len = Identity::length(bytes).unwrap();
    let is_sealed = Seal::decode(&bytes[identity_len..], identity.epoch, identity.number).is_some();
    let frames = frames(bytes, &identity, identity_len);
    let all = 0..frames.len();
    let (first, len, costs) = match chance.below(6) {
        0 => (0, 60, all),
        1 => (identity_len, 84, if name.ends_with(".sent") { all } else { 0..0 }),
        2 => (identity_len + BLOCK, 60, 0..0),
        _ if frames.is_empty() => return,
        _ => {
            let hit = chance.below(frames.len() as u64) as usize;
            let (offset, header, _) = frames[hit];
            let is_known = frames[hit + 1..].iter().any(|(_, later, _)| later.durable >= header.position);
            let costs = match (is_sealed, is_known) {
                (true, _) => all,
                (false, true) => hit..hit + 1,
                (false, false) => hit..frames.len(),
            };
            for (_, _, id) in frames[costs.clone()].iter().filter(|_| !is_sealed && !is_known) {
                model.records[*id as usize].may_vanish = true;
            }
            (offset, header.len() as usize, costs)
        }
    };
    if first == identity_len {
        model.records.iter_mut().for_each(|record| record.may_vanish |= record.is_damaged);
    }
    for (_, _, id) in &frames[costs] {
        model.records[*id as usize].is_damaged = true;
    }
    let byte = first as u64 + chance.below(len as u64);
    disk.flip(&folder.join(name), byte, chance.below(8) as u8);
}

/// The frames of a segment, with the batch that each holds.
fn frames(bytes: &[u8], identity: &Identity, identity_len: usize) -> Vec<(usize, Header, u32)> {
    let start = frames_start(identity_len as u64) as usize;
    let places = memchr::memmem::find_iter(bytes, MAGIC).filter(|offset| *offset >= start);
    let header = |offset: usize| {
        let place = Place { epoch: identity.epoch, number: identity.number, offset: offset as u64 };
        let header = Header::decode(&bytes[offset..], place)?;
        let payload = bytes.get(offset + HEADER..offset + header.len() as usize)?;
        let (rows, rejected) = payload.split_at(header.rows_bytes as usize);
        // One that is damaged already costs nothing more.
        let is_whole = batch::checksum(rows, rejected, None, &[]) == header.checksum;
        let id = payload.get(1..5).filter(|_| is_whole)?;
        Some((offset, header, u32::from_le_bytes(id.try_into().unwrap())))
    };
    places.filter_map(header).collect()
}
