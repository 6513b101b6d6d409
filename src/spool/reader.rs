//! Streams one part of a sealed segment, frame by frame, and gives out no byte of a frame before
//! all of it is checked.

use std::fs::File;
use std::io::{self, Read};

use super::frame::{HEADER, Header, Place};
use super::segment::read_up_to;
use crate::batch;

/// Which rows of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Those for the target table.
    Rows,
    /// Those for the quarantine table.
    Rejected,
}

/// Yields the part's bytes; an error of kind `InvalidData` when the segment is not what was
/// sealed. Holds one frame in memory.
#[derive(Debug)]
pub struct SegmentReader {
    file: File,
    part: Part,
    place: Place,
    end: u64,
    position: Option<u64>,
    payload: Vec<u8>,
    /// What of `payload` is still to be given out.
    due: std::ops::Range<usize>,
}

impl SegmentReader {
    pub(super) fn new(file: File, part: Part, place: Place, end: u64) -> Self {
        Self { file, part, place, end, position: None, payload: Vec::new(), due: 0..0 }
    }

    /// Loads the next frame; false at the end.
    fn next_frame(&mut self) -> io::Result<bool> {
        let offset = self.place.offset;
        if offset >= self.end {
            return Ok(false);
        }
        let damaged = |what: &str| {
            let number = self.place.number;
            io::Error::new(io::ErrorKind::InvalidData, format!("segment {number} is damaged at byte {offset}: {what}"))
        };
        let header = read_frame(&self.file, self.place, self.end, &mut self.payload)?
            .ok_or_else(|| damaged("there is no valid frame"))?;
        if self.position.is_some_and(|position| header.position != position + 1) {
            return Err(damaged("a frame is missing"));
        }
        self.position = Some(header.position);
        self.place.offset += header.len();
        let rows = header.rows_bytes as usize;
        self.due = match self.part {
            Part::Rows => 0..rows,
            Part::Rejected => rows..self.payload.len(),
        };
        Ok(true)
    }
}

impl Read for SegmentReader {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        while self.due.is_empty() {
            if !self.next_frame()? {
                return Ok(0);
            }
        }
        let due = self.payload.get(self.due.clone()).unwrap_or_default();
        let len = due.len().min(space.len());
        for (place, byte) in space.iter_mut().zip(due) {
            *place = *byte;
        }
        self.due.start += len;
        Ok(len)
    }
}

/// Reads the frame at a place into `payload`. `None` when no whole, correct frame of this segment
/// stands there before `end`.
pub(super) fn read_frame(file: &File, place: Place, end: u64, payload: &mut Vec<u8>) -> io::Result<Option<Header>> {
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
    let (rows, rejected) = payload.split_at_checked(header.rows_bytes as usize).unwrap_or_default();
    Ok((batch::checksum(rows, rejected) == header.checksum).then_some(header))
}
