//! The frames of a segment's file, as far as they can be read, and what is said of the rest.

use std::io;

use bytes::BytesMut;

use super::frame::{FramePlace, HEADER, Header, MAGIC, get_u64};
use super::ledger::Events;
use super::reader::read_frame;
use super::storage::{StorageFile, read_up_to};
use crate::batch::{Epoch, Position, SegmentNumber};

/// Read at once while a frame is looked for.
const STEP: usize = 1 << 20;

/// The valid frames of a segment.
pub(super) struct Scan {
    pub(super) frames: Vec<(u64, Header)>,
    /// A frame that had been durable can't be read.
    pub(super) damaged: bool,
    /// Events of such frames, as far as their headers say.
    pub(super) lost: Events,
    /// Where the last valid frame ends.
    pub(super) end: u64,
}

impl Scan {
    /// Leaves out a schema at the end: nothing of its block came after it.
    fn leave_out_begun(&mut self, tail: Tail) {
        while tail == Tail::MayBeTorn
            && let Some((offset, _)) = self.frames.pop_if(|(_, header)| header.is_schema)
        {
            self.end = offset;
        }
    }
}

/// What is known of a segment's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// It was sealed: whatever is bad before its end is damage.
    Sealed,
    /// Nothing was sealed: what is bad may be a torn tail.
    MayBeTorn,
}

/// Reads frames until one is bad; then looks for later ones: those that say whether that was the
/// end, or any, when that is known.
pub(super) fn scan(
    file: &dyn StorageFile,
    start: FramePlace,
    first_position: Position,
    end: u64,
    tail: Tail,
) -> io::Result<Scan> {
    let mut scan = Scan { frames: Vec::new(), damaged: false, lost: Events::default(), end: start.offset };
    let mut payload = BytesMut::new();
    let (mut place, mut expected) = (start, first_position);
    loop {
        let here = read_frame(file, place, end, &mut payload)?.filter(|header| header.position == expected);
        let (offset, header) = match here {
            Some(header) => (place.offset, header),
            None => {
                let next = match tail {
                    Tail::Sealed => later_frame(file, place, end, &mut payload)?,
                    Tail::MayBeTorn => frame_behind_damage(file, place, end, expected, &mut payload)?,
                };
                let Some(next) = next else {
                    scan.leave_out_begun(tail);
                    return Ok(scan);
                };
                scan.damaged = true;
                scan.lost.add(header_at(file, place)?.map_or(Events::default(), |header| header.events()));
                next
            }
        };
        scan.frames.push((offset, header));
        expected = header.position.next();
        place.offset = offset + header.len();
        scan.end = place.offset;
    }
}

/// The next correct frame behind a bad one that was on the disk: a later one, not always the next,
/// says that it was. `None` when none does: what was bad is a torn tail.
fn frame_behind_damage(
    file: &dyn StorageFile,
    from: FramePlace,
    end: u64,
    expected: Position,
    payload: &mut BytesMut,
) -> io::Result<Option<(u64, Header)>> {
    let first = later_frame(file, from, end, payload)?;
    let mut later = first;
    while let Some((offset, header)) = later {
        if header.durable >= expected {
            return Ok(first);
        }
        // From its last byte: it may be followed without a gap.
        let last = FramePlace { offset: offset + header.len() - 1, ..from };
        later = later_frame(file, last, end, payload)?;
    }
    Ok(None)
}

/// The next correct frame behind `from`, searched byte by byte.
fn later_frame(
    file: &dyn StorageFile,
    from: FramePlace,
    end: u64,
    payload: &mut BytesMut,
) -> io::Result<Option<(u64, Header)>> {
    let mut window = vec![0; STEP + HEADER];
    let mut offset = from.offset + 1;
    while offset < end {
        let len = read_up_to(file, &mut window, offset)?;
        let bytes = window.get(..len).unwrap_or_default();
        for at in memchr::memmem::find_iter(bytes, MAGIC).take_while(|at| *at < STEP) {
            let place = FramePlace { offset: offset + at as u64, ..from };
            let looks_right = bytes.get(at..).is_some_and(|rest| Header::decode(rest, place).is_some());
            if looks_right && let Some(header) = read_frame(file, place, end, payload)? {
                return Ok(Some((place.offset, header)));
            }
        }
        offset += STEP as u64;
    }
    Ok(None)
}

/// The header that stands at a place, whatever its payload is.
fn header_at(file: &dyn StorageFile, place: FramePlace) -> io::Result<Option<Header>> {
    let mut bytes = [0; HEADER];
    let len = read_up_to(file, &mut bytes, place.offset)?;
    Ok(Header::decode(bytes.get(..len).unwrap_or_default(), place))
}

/// The header at a place, whatever its payload is; or that of the next correct frame behind it, where none can
/// be read. `None` at the end.
pub(super) fn next_header(
    file: &dyn StorageFile,
    place: FramePlace,
    end: u64,
    payload: &mut BytesMut,
) -> io::Result<Option<(u64, Header)>> {
    if place.offset >= end {
        return Ok(None);
    }
    match header_at(file, place)?.filter(|header| place.offset + header.len() <= end) {
        Some(header) => Ok(Some((place.offset, header))),
        None => later_frame(file, place, end, payload),
    }
}

/// What begins where a segment's frames end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// Nothing of this segment.
    Nothing,
    /// A frame of it that can't be read, of so many events if its header can.
    Frame(Option<Events>),
}

/// Looks at what follows the last valid frame. A file is overwritten from its start, so frames of its
/// former life are no news; one that was begun for this segment is.
pub(super) fn behind(file: &dyn StorageFile, place: FramePlace) -> io::Result<Behind> {
    let mut bytes = [0; HEADER];
    let len = read_up_to(file, &mut bytes, place.offset)?;
    let bytes = bytes.get(..len).unwrap_or_default();
    if let Some(header) = Header::decode(bytes, place) {
        return Ok(Behind::Frame(Some(header.events())));
    }
    // A file has room for frames behind the last one, unless it was cut.
    let is_cut = len < HEADER && bytes.iter().any(|byte| *byte != 0);
    // The former life of the file may be of this epoch too.
    let is_ours = get_u64(bytes, 48) == Some(place.epoch.get()) && get_u64(bytes, 56) == Some(place.number.get());
    let is_torn = bytes.starts_with(MAGIC) && !Header::is_whole(bytes);
    Ok(if is_cut || is_ours || is_torn { Behind::Frame(None) } else { Behind::Nothing })
}

/// Events in the frames of segment `number` that can be read in a file whose identity can't: there
/// is no other way to know their epoch.
pub(super) fn events_without_identity(file: &dyn StorageFile, number: SegmentNumber) -> io::Result<Events> {
    let (mut events, mut payload, end) = (Events::default(), BytesMut::new(), file.len()?);
    let mut window = vec![0; STEP + HEADER];
    let (mut offset, mut from) = (0, 0);
    while offset < end {
        let len = read_up_to(file, &mut window, offset)?;
        let bytes = window.get(..len).unwrap_or_default();
        for at in memchr::memmem::find_iter(bytes, MAGIC).take_while(|at| *at < STEP) {
            let here = offset + at as u64;
            let epoch = bytes.get(at..).and_then(|rest| get_u64(rest, 48)).map(Epoch::new);
            let Some(epoch) = epoch.filter(|_| here >= from) else { continue };
            let place = FramePlace { epoch, number, offset: here };
            if let Some(header) = read_frame(file, place, end, &mut payload)? {
                events.add(header.events());
                from = here + header.len();
            }
        }
        offset += STEP as u64;
    }
    Ok(events)
}
