//! Recovery of the segments that a start finds.
//!
//! A sealed segment is taken over as it is. Its frames are verified when they are sent, so a start
//! takes little time even with a large backlog.
//!
//! The valid frames of an unsealed segment are copied to a new file. The copy is synced, renamed
//! over the old file, and then sealed, so at any moment every frame is in exactly one segment. The
//! old file is neither appended to nor sent: after a failed sync the page cache may show bytes that
//! are not on the disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;

use super::block::{Identity, Seal, frames_start};
use super::frame::{FramePlace, HEADER, Header, MAGIC};
use super::layout::{FileKind, Layout, SpoolError, failed};
use super::metrics::SpoolMetrics;
use super::numbers;
use super::reader::{Sections, read_frame};
use super::repeats::{Identities, Repeats};
use super::sealed::{Opened, SealedSegment};
use super::storage::{StorageFile, read_up_to, write_all};
use crate::batch::{Position, SegmentNumber};

/// The segments that a start found.
#[derive(Debug)]
pub struct Recovered {
    /// The segments that wait for their insert, the oldest first.
    pub segments: Vec<SealedSegment>,
    /// Numbers of the segments whose recovery waits for disk space.
    pub(super) postponed: Vec<SegmentNumber>,
    /// The number of the next segment, higher than that of every file found.
    pub next_number: SegmentNumber,
}

/// A segment that was inspected without recovering it.
#[derive(Debug)]
pub enum Inspected {
    /// A sealed segment, which waits for its insert.
    Sealed(Box<SealedSegment>),
    /// A segment that is open, or was open at a crash.
    Unsealed {
        /// The number of the segment.
        number: SegmentNumber,
        /// The file of the segment.
        path: PathBuf,
    },
    /// A segment with a damaged identity block.
    Unreadable {
        /// The file of the segment.
        path: PathBuf,
    },
}

pub(super) fn inspect(layout: &Arc<Layout>) -> Result<Vec<Inspected>, SpoolError> {
    let whole = |error| failed(format!("reading {}", layout.table_dir().display()))(error);
    let mut found = Vec::new();
    for (number, kind) in layout.list().map_err(whole)? {
        let path = layout.path(number, kind);
        match SealedSegment::open(layout, number, kind) {
            Ok(Opened::Sealed(segment)) => found.push(Inspected::Sealed(segment)),
            Ok(Opened::Unsealed { .. } | Opened::Empty) => found.push(Inspected::Unsealed { number, path }),
            Ok(Opened::Unreadable) => found.push(Inspected::Unreadable { path }),
            // The running server has inserted the segment since the folder was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(format!("reading {}", path.display()))(error)),
        }
    }
    Ok(found)
}

pub(super) fn recover(
    layout: &Arc<Layout>,
    metrics: &SpoolMetrics,
    repeats: &mut Repeats,
) -> Result<Recovered, SpoolError> {
    let whole = |error| failed(format!("recovering {}", layout.table_dir().display()))(error);
    empty_folder(layout, &layout.free_dir()).map_err(whole)?;
    let mut next_number = highest_number(layout, &layout.damaged_dir()).map_err(whole)?.next();
    let (mut segments, mut postponed) = (Vec::new(), Vec::new());
    for (number, kind) in layout.list().map_err(whole)? {
        next_number = next_number.max(number.next());
        let path = layout.path(number, kind);
        let one = |error| failed(format!("recovering {}", path.display()))(error);
        if kind == FileKind::Copy {
            layout.storage().remove(&path).map_err(one)?;
            continue;
        }
        match recover_one(layout, number, kind, repeats) {
            Ok(segment) => segments.extend(segment),
            Err(error) if is_out_of_space(&error) => {
                tracing::warn!(
                    path = %path.display(), %error,
                    "there is too little disk space to recover a segment that a crash left open; recovery is retried"
                );
                postponed.push(number);
            }
            Err(error) => return Err(one(error)),
        }
    }
    remove_leftovers(layout).map_err(whole)?;
    layout.sync_table_dir().map_err(whole)?;
    for segment in &segments {
        metrics.found(segment);
        // What is on the disk of numbers that are gone.
        next_number = next_number.max(segment.open_attempt().map_or(next_number, |open| open.newest.next()));
    }
    for folder in [layout.table_dir(), &layout.keys_dir()] {
        metrics.occupy(occupied(layout, folder).map_err(whole)?);
    }
    Ok(Recovered { segments, postponed, next_number })
}

/// Recovers one segment and returns it sealed; `None` if it has no acknowledged event or is set
/// aside.
pub(super) fn recover_one(
    layout: &Arc<Layout>,
    number: SegmentNumber,
    kind: FileKind,
    repeats: &mut Repeats,
) -> io::Result<Option<SealedSegment>> {
    let path = layout.path(number, kind);
    match SealedSegment::open(layout, number, kind)? {
        Opened::Sealed(segment) => return Ok(Some(*segment)),
        Opened::Unsealed { identity, frames_start } if kind == FileKind::Segment => {
            return recover_unsealed(layout, &path, &identity, frames_start, repeats);
        }
        Opened::Empty if kind == FileKind::Segment => layout.storage().remove(&path)?,
        Opened::Empty | Opened::Unreadable | Opened::Unsealed { .. } => {
            tracing::error!(path = %path.display(), "a segment can't be read; it is moved to damaged/");
            set_aside(layout, &path, false)?;
        }
    }
    Ok(None)
}

/// True if the disk or the quota is full, so that the operation can be retried later.
pub(super) fn is_out_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The valid frames of a segment, each with its offset.
pub(super) struct Scan {
    pub(super) frames: Vec<(u64, Header)>,
    /// True if a frame that was synced can't be read.
    damaged: bool,
}

/// Whether the end of a segment's frames is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tail {
    /// The segment was sealed: an unreadable frame before its end is damage.
    Sealed,
    /// The segment was not sealed: an unreadable frame may be a torn tail.
    MayBeTorn,
}

fn recover_unsealed(
    layout: &Arc<Layout>,
    path: &Path,
    identity: &Identity,
    frames_start: u64,
    repeats: &mut Repeats,
) -> io::Result<Option<SealedSegment>> {
    let file = layout.storage().open(path)?;
    let file = &*file;
    let end = file.len()?;
    let start = FramePlace { epoch: identity.epoch, number: identity.number, offset: frames_start };
    let scan = scan(file, start, identity.first_position, end, Tail::MayBeTorn)?;
    if scan.damaged {
        tracing::error!(
            path = %path.display(), readable_frames = scan.frames.len(),
            "a segment is damaged: frames that were synced can't be read; its file is kept in damaged/, and the \
             readable frames are inserted"
        );
        set_aside(layout, path, true)?;
    }
    if scan.frames.is_empty() {
        layout.storage().remove(path)?;
        return Ok(None);
    }
    let number = identity.number;
    let copy_path = layout.path(number, FileKind::Copy);
    // The copy has the number of the original and the epoch of this start, so its token is new.
    let copy_identity = Identity {
        node_id: layout.node_id().to_owned(),
        epoch: layout.epoch(),
        first_position: Position::new(1),
        ..identity.clone()
    };
    let copy = layout.storage().create(&copy_path)?;
    let written = write_copy(file, &scan.frames, start, end, &copy_identity, &*copy, CopyMode::All).inspect_err(|_| {
        // An unfinished copy only takes disk space. If it can't be removed now, the next start does.
        let _ = layout.storage().remove(&copy_path);
    });
    let Written { identity_len, totals, identities } = written?;
    layout.storage().rename(&copy_path, path)?;
    layout.sync_table_dir()?;
    // Same order as in `OpenSegment::seal`: identities are logged after their events are synced, and
    // before the seal, because a start reads no frames of a sealed segment.
    let sealed_ms = crate::clock::unix_ms();
    repeats.recovered(number, &identities, sealed_ms / 1000)?;
    let seal = Seal { sealed_ms, ..totals };
    write_all(&*copy, &seal.encode(copy_identity.epoch, number), identity_len)?;
    copy.sync()?;
    match SealedSegment::open(layout, number, FileKind::Segment)? {
        Opened::Sealed(segment) => Ok(Some(*segment)),
        _ => Err(io::Error::other("the recovered copy can't be read back")),
    }
}

/// A copy that is complete but for its seal.
pub(super) struct Written {
    pub(super) identity_len: u64,
    pub(super) totals: Seal,
    identities: Identities,
}

/// Which sections of each frame are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyMode {
    /// All sections.
    All,
    /// All sections but the rows, which are inserted and must not be sent under the copy's token.
    AllButRows,
}

/// Writes the identity block and the frames of a copy, and syncs them.
pub(super) fn write_copy(
    from: &dyn StorageFile,
    frames: &[(u64, Header)],
    start: FramePlace,
    end: u64,
    identity: &Identity,
    to: &dyn StorageFile,
    mode: CopyMode,
) -> io::Result<Written> {
    to.set_len(0)?;
    let block = identity.encode();
    write_all(to, &block, 0)?;
    let identity_len = block.len() as u64;
    let mut totals = Seal { end: frames_start(identity_len), ..Seal::default() };
    let (mut payload, mut identities) = (BytesMut::new(), Identities::default());
    for ((offset, header), position) in frames.iter().zip((1..).map(Position::new)) {
        let found = read_frame(from, FramePlace { offset: *offset, ..start }, end, &mut payload)?;
        if found != Some(*header) {
            return Err(io::Error::other("a frame changed while it was read"));
        }
        let (header, payload) = match mode {
            CopyMode::All => (*header, &payload[..]),
            CopyMode::AllButRows => without_rows(header, &payload),
        };
        let header = Header {
            position,
            // The copy gets its name after all its frames are synced.
            durable: Position::new(frames.len() as u64),
            epoch: identity.epoch,
            number: identity.number,
            offset: totals.end,
            ..header
        };
        write_all(to, &header.encode(), totals.end)?;
        write_all(to, payload, totals.end + HEADER as u64)?;
        totals.add(&header);
        if let Some(sections) = Sections::of(&header, payload) {
            identities.add(sections.key(), sections.ids());
        }
    }
    to.sync()?;
    Ok(Written { identity_len, totals, identities })
}

/// The header and the payload of a frame without its rows.
fn without_rows<'a>(header: &Header, payload: &'a [u8]) -> (Header, &'a [u8]) {
    let rest = payload.get(header.rows_bytes as usize..).unwrap_or_default();
    let header = Header { rows: 0, rows_bytes: 0, ..*header };
    let checksum = Sections::of(&header, rest).map_or(0, |sections| sections.checksum());
    (Header { checksum, ..header }, rest)
}

/// Reads the valid frames of a segment.
///
/// Behind an unreadable frame it searches for later frames. If the segment was sealed, every later
/// frame is taken. Otherwise later frames are taken only if one of them proves that the unreadable
/// frame had been synced; else the scan ends.
pub(super) fn scan(
    file: &dyn StorageFile,
    start: FramePlace,
    first_position: Position,
    end: u64,
    tail: Tail,
) -> io::Result<Scan> {
    let mut scan = Scan { frames: Vec::new(), damaged: false };
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
                let Some(next) = next else { return Ok(scan) };
                scan.damaged = true;
                next
            }
        };
        scan.frames.push((offset, header));
        expected = header.position.next();
        place.offset = offset + header.len();
    }
}

/// The next valid frame behind an unreadable one, if the unreadable one had been synced.
///
/// A later frame, not necessarily the next, proves that by its durable mark. `None` if no frame
/// does: the unreadable frame is a torn tail.
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
        // `later_frame` searches behind the given offset, so continue from the frame's last byte.
        let last = FramePlace { offset: offset + header.len() - 1, ..from };
        later = later_frame(file, last, end, payload)?;
    }
    Ok(None)
}

/// The next valid frame behind `from`, searched at every offset.
fn later_frame(
    file: &dyn StorageFile,
    from: FramePlace,
    end: u64,
    payload: &mut BytesMut,
) -> io::Result<Option<(u64, Header)>> {
    const STEP: usize = 1 << 20;
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

/// Links a file into `damaged/` and syncs that folder. Unless `keep`, the file's own name is
/// removed. If an earlier call has linked the file already, no second link is made.
pub(super) fn set_aside(layout: &Layout, path: &Path, keep: bool) -> io::Result<()> {
    let folder = layout.damaged_dir();
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let names = std::iter::once(name.clone()).chain((1..).map(|copy| format!("{name}.{copy}")));
    for aside in names.map(|name| folder.join(name)) {
        match layout.storage().link(path, &aside) {
            Ok(()) => break,
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) if layout.storage().is_same_file(path, &aside)? => break,
            Err(_) => {}
        }
    }
    layout.storage().sync_folder(&folder)?;
    if !keep {
        layout.storage().remove(path)?;
    }
    Ok(())
}

/// Removes the cuts of segments that are gone, and the `.new` files of interrupted writes.
fn remove_leftovers(layout: &Layout) -> io::Result<()> {
    let segments = layout.list()?;
    for entry in layout.storage().list(layout.table_dir())? {
        let (stem, extension) = entry.name.split_once('.').unwrap_or((&entry.name, ""));
        let Ok(number) = stem.parse::<SegmentNumber>() else { continue };
        let of_a_segment = segments.iter().any(|(segment, _)| *segment == number);
        if extension == "new" || (extension == "cut" && !of_a_segment) {
            layout.storage().remove(&layout.table_dir().join(&entry.name))?;
        }
    }
    Ok(())
}

fn empty_folder(layout: &Layout, path: &Path) -> io::Result<()> {
    for entry in layout.storage().list(path)? {
        layout.storage().remove(&path.join(entry.name))?;
    }
    Ok(())
}

/// The highest number of the files in a folder, whatever their extension; 0 if there is none.
fn highest_number(layout: &Layout, path: &Path) -> io::Result<SegmentNumber> {
    let entries = layout.storage().list(path)?;
    let numbers = entries.iter().filter_map(|entry| entry.name.split('.').next()?.parse().ok());
    Ok(numbers.max().unwrap_or_default())
}

/// Bytes of all files in the table's folder and those below it, but for the note of used numbers, which
/// is always there.
fn occupied(layout: &Layout, path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in layout.storage().list(path)?.into_iter().filter(|entry| entry.name != numbers::NAME) {
        bytes += if entry.is_folder { occupied(layout, &path.join(&entry.name))? } else { entry.len };
    }
    Ok(bytes)
}
