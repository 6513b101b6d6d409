//! A reader that streams one part of a sealed block frame by frame. It returns no byte of a frame
//! before it has verified the whole frame.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::block::Seal;
use super::frame::{FramePlace, HEADER, Header};
use super::storage::{StorageFile, read_up_to};
use crate::batch;
use crate::batch::Position;
use crate::batch::identity::{Id, REQUEST_KEY_BYTES};

/// One of the two parts of a block, each of which is an INSERT of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The rows for the target table.
    Rows,
    /// The rejected lines, for the quarantine table.
    Rejected,
}

/// A stream of the bytes of one part, which keeps one frame in memory.
///
/// If the frames are not those that were sealed, the stream ends with an error of kind
/// `InvalidData` before it has returned all bytes.
#[derive(Debug)]
pub struct BlockReader {
    file: Box<dyn StorageFile>,
    part: Part,
    place: FramePlace,
    seal: Seal,
    block: u16,
    /// Where the frames are; `None` when they follow each other.
    offsets: Option<Arc<[u64]>>,
    /// Totals of the frames read so far; at the end they must equal the seal.
    read: Seal,
    position: Option<Position>,
    payload: BytesMut,
}

impl BlockReader {
    pub(super) fn new(
        file: Box<dyn StorageFile>,
        part: Part,
        place: FramePlace,
        seal: Seal,
        block: u16,
        offsets: Option<Arc<[u64]>>,
    ) -> Self {
        let read = Seal { end: place.offset, sealed_ms: seal.sealed_ms, ..Seal::default() };
        Self { file, part, place, seal, block, offsets, read, position: None, payload: BytesMut::new() }
    }

    /// The bytes of the part in the next frame that has any; `None` at the end.
    ///
    /// # Errors
    ///
    /// If the block is damaged, or on an I/O error.
    pub fn next_rows(&mut self) -> io::Result<Option<Bytes>> {
        while let Some(header) = self.next_frame()? {
            let mut rows = self.payload.split();
            let mut rejected = rows.split_off(rows.len().min(header.rows_bytes as usize));
            rejected.truncate(header.rejected_bytes as usize);
            let rows = match self.part {
                Part::Rows => rows,
                Part::Rejected => rejected,
            };
            if !rows.is_empty() {
                return Ok(Some(rows.freeze()));
            }
        }
        Ok(None)
    }

    /// Reads the next frame; its payload is in `self.payload` afterwards.
    fn next_frame(&mut self) -> io::Result<Option<Header>> {
        if self.read.frames >= self.seal.frames {
            return Ok(None);
        }
        let next = self.offsets.as_ref().and_then(|offsets| offsets.get(usize::try_from(self.read.frames).ok()?));
        let offset = match &self.offsets {
            None => self.place.offset,
            // Behind the end nothing is found.
            Some(_) => next.copied().unwrap_or(self.seal.end),
        };
        self.place.offset = offset;
        let damaged = |what: &str| {
            let number = self.place.number;
            io::Error::new(io::ErrorKind::InvalidData, format!("segment {number} is damaged at byte {offset}: {what}"))
        };
        let header = read_frame(&*self.file, self.place, self.seal.end, &mut self.payload)?
            .filter(|header| header.block == self.block && !header.is_schema)
            .ok_or_else(|| damaged("there is no valid frame"))?;
        if self.offsets.is_none() && self.position.is_some_and(|position| header.position != position.next()) {
            return Err(damaged("a frame is missing"));
        }
        self.position = Some(header.position);
        self.place.offset += header.len();
        self.read.add(&header);
        if self.read.frames == self.seal.frames && self.read != self.seal {
            return Err(damaged("the frames are not those that were sealed"));
        }
        Ok(Some(header))
    }
}

/// Reads the payload of the frame at `place`. `None` if there is no complete, valid frame of this
/// segment before `end`.
pub(super) fn read_frame(
    file: &dyn StorageFile,
    place: FramePlace,
    end: u64,
    payload: &mut BytesMut,
) -> io::Result<Option<Header>> {
    let mut bytes = [0; HEADER];
    if read_up_to(file, &mut bytes, place.offset)? < HEADER {
        return Ok(None);
    }
    let Some(header) = Header::decode(&bytes, place).filter(|header| place.offset + header.len() <= end) else {
        return Ok(None);
    };
    let Ok(len) = usize::try_from(header.payload()) else {
        return Ok(None);
    };
    payload.resize(len, 0);
    if read_up_to(file, payload, place.offset + HEADER as u64)? < len {
        return Ok(None);
    }
    let whole = Sections::of(&header, payload).is_some_and(|sections| sections.checksum() == header.checksum);
    Ok(whole.then_some(header))
}

/// The sections of a frame's payload.
pub(super) struct Sections<'a> {
    rows: &'a [u8],
    rejected: &'a [u8],
    keys: &'a [[u8; REQUEST_KEY_BYTES]],
    ids: &'a [Id],
}

impl<'a> Sections<'a> {
    /// Splits a payload. `None` if its length differs from the header.
    pub(super) fn of(header: &Header, payload: &'a [u8]) -> Option<Self> {
        let (rows, rest) = payload.split_at_checked(header.rows_bytes as usize)?;
        let (rejected, rest) = rest.split_at_checked(header.rejected_bytes as usize)?;
        let (keys, rest) = rest.split_at_checked((header.keys as usize).checked_mul(REQUEST_KEY_BYTES)?)?;
        let ((keys, _), (ids, rest)) = (keys.as_chunks(), rest.as_chunks());
        (rest.is_empty() && ids.len() == header.ids as usize).then_some(Self { rows, rejected, keys, ids })
    }

    pub(super) fn keys(&self) -> &'a [[u8; REQUEST_KEY_BYTES]] {
        self.keys
    }

    pub(super) fn ids(&self) -> &'a [Id] {
        self.ids
    }

    pub(super) fn checksum(&self) -> u32 {
        batch::checksum(self.rows, self.rejected, self.keys.as_flattened(), self.ids.as_flattened())
    }
}
