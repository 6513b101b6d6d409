//! Recovery of the segments that a start finds.
//!
//! Sealed segments are taken as they are; what is in them is verified when it is sent, so a start
//! is quick whatever the backlog. An unsealed one is sealed first ([`super::unsealed`]), and not appended
//! to. What has a segment's name and is none is set aside ([`super::aside`]).

use bytes::BytesMut;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::adoption::TRIPWIRE;
use super::aside::{set_aside_strange, set_aside_unreadable};
use super::file_name::{FileKind, parse_name};
use super::frame::{HEADER, Header};
use super::layout::{Layout, Listing, SpoolError, failed};
use super::metrics::SpoolMetrics;
use super::numbers;
use super::reader::read_frame;
use super::repeats::IdentityLogs;
use super::scan::{Tail, scan};
use super::schema;
use super::sealed::SealedBlock;
use super::secret;
use super::segment_file::{Opened, SegmentFile, read_identity};
use super::storage::{EntryKind, FolderEntry, is_out_of_space, write_all};
use super::unsealed::Unsealed;
use crate::batch::{Epoch, Position, SegmentNumber};

/// What a start found.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The blocks that wait for their insert, the oldest first.
    pub blocks: Vec<SealedBlock>,
    /// The segments whose recovery waits for disk space.
    pub(super) postponed: Vec<Postponed>,
    /// The number of the next segment, higher than that of every file found.
    pub next_number: SegmentNumber,
}

/// A segment that was inspected without recovering it.
#[derive(Debug)]
pub enum Inspected {
    /// A sealed block, which waits for its insert.
    Sealed(Box<SealedBlock>),
    /// A segment that is open, or was open at a crash.
    Unsealed {
        /// The number of the segment.
        number: SegmentNumber,
        /// The file of the segment.
        path: PathBuf,
    },
    /// What was written in it can't be read, or not all of it; or it has a segment's name and is none.
    Unreadable {
        /// The file of the segment.
        path: PathBuf,
    },
}

pub(super) fn inspect(layout: &Arc<Layout>) -> Result<Vec<Inspected>, SpoolError> {
    let whole = |error| failed(format!("reading {}", layout.folder().display()))(error);
    let Listing { segments, strange } = layout.list().map_err(whole)?;
    let mut found: Vec<_> =
        strange.iter().map(|name| Inspected::Unreadable { path: layout.folder().join(name) }).collect();
    for (number, kind) in segments {
        let path = layout.path(number, kind);
        match inspect_one(layout, number, kind) {
            Ok(inspected) => found.extend(inspected),
            // A server that runs has inserted it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(format!("reading {}", path.display()))(error)),
        }
    }
    Ok(found)
}

fn inspect_one(layout: &Arc<Layout>, number: SegmentNumber, kind: FileKind) -> io::Result<Vec<Inspected>> {
    let path = layout.path(number, kind);
    Ok(match SegmentFile::open(layout, number, kind)? {
        // A copy that was interrupted is nothing, whatever is in it.
        _ if kind == FileKind::Copy => vec![Inspected::Unsealed { number, path }],
        Opened::Sealed(blocks) => {
            let mut waiting = Vec::new();
            for block in blocks.into_iter().filter(|block| !block.is_over()) {
                if own_epoch(layout, &block)?.is_none() {
                    waiting.push(Inspected::Sealed(Box::new(block)));
                }
            }
            waiting
        }
        Opened::Unsealed { file: segment, .. } if matches!(kind, FileKind::Segment | FileKind::Block(_)) => {
            let file = layout.storage().open(&path)?;
            let start = segment.place(segment.identity.frames_start(segment.identity_len));
            let scan = scan(&*file, start, segment.identity.first_position, file.len()?, Tail::MayBeTorn)?;
            match (scan.damaged, scan.frames.is_empty()) {
                (true, _) => vec![Inspected::Unreadable { path }],
                // A server has it ready.
                (false, true) => Vec::new(),
                (false, false) => vec![Inspected::Unsealed { number, path }],
            }
        }
        Opened::Unsealed { .. } | Opened::Misnamed | Opened::Unreadable => vec![Inspected::Unreadable { path }],
    })
}

/// Recovers the segments of a folder: of the log, or of a table that an older release had one for.
pub(super) fn recover(
    layout: &Arc<Layout>,
    metrics: &SpoolMetrics,
    logs: &mut IdentityLogs,
) -> Result<Recovered, SpoolError> {
    let whole = |error| failed(format!("recovering {}", layout.folder().display()))(error);
    let mut next_number = highest_number(layout, &layout.damaged_dir()).map_err(whole)?.next();
    let (mut blocks, mut postponed) = (Vec::new(), Vec::new());
    for (number, kind) in layout.list().map_err(whole)?.segments {
        next_number = next_number.max(number.next());
        let path = layout.path(number, kind);
        let one = |error| failed(format!("recovering {}", path.display()))(error);
        if kind == FileKind::Copy {
            layout.storage().remove(&path).map_err(one)?;
            continue;
        }
        match recover_one(layout, metrics, number, kind, logs) {
            Ok(found) => blocks.extend(found),
            Err(error) if is_out_of_space(&error) => {
                tracing::warn!(
                    path = %path.display(), %error,
                    "a segment that a crash left open waits for room on the disk to be recovered"
                );
                postponed.push(Postponed { layout: layout.clone(), number, kind });
            }
            Err(error) => return Err(one(error)),
        }
    }
    remove_leftovers(layout).map_err(whole)?;
    layout.sync_folder().map_err(whole)?;
    forget_missing(layout).map_err(whole)?;
    for block in &blocks {
        metrics.recovered(block);
        // What is on the disk of numbers that are gone.
        next_number = next_number.max(block.open_attempt().map_or(next_number, |open| open.newest.next()));
    }
    metrics.occupy(occupied(layout, layout.folder()).map_err(whole)?);
    Ok(Recovered { blocks, postponed, next_number })
}

/// Makes a folder's files ready to be looked at: those that were kept for another use go, and what is renamed
/// gets its name.
pub(super) fn prepare(layout: &Layout) -> io::Result<()> {
    empty_folder(layout, &layout.free_dir())?;
    restore_names(layout)
}

/// Gives every file that has a segment's name the right one, which its identity says, and sets aside
/// what is no segment or is there already.
fn restore_names(layout: &Layout) -> io::Result<()> {
    let Listing { segments, mut strange } = layout.list()?;
    let mut numbers = BTreeSet::new();
    for (number, kind) in segments.into_iter().filter(|(_, kind)| *kind != FileKind::Copy) {
        let path = layout.path(number, kind);
        let found = read_identity(&*layout.storage().open(&path)?)?;
        // What can't be read is dealt with under the name that it has.
        let own = match kind {
            FileKind::Block(index) => Some(index),
            _ => None,
        };
        if found.is_some_and(|found| found.identity.number != number) || !numbers.insert((number, own)) {
            strange.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    for name in strange {
        let path = layout.folder().join(&name);
        let kind = if name.ends_with(".sent") { FileKind::Sent } else { FileKind::Segment };
        let found = layout.storage().open(&path).and_then(|file| read_identity(&*file)).ok().flatten();
        let number = found.map(|found| found.identity.number).filter(|number| numbers.insert((*number, None)));
        // Another renamed segment may have that name.
        match number.map(|number| layout.path(number, kind)).filter(|right| is_missing(layout, right)) {
            Some(right) => {
                tracing::error!(path = %path.display(), to = %right.display(), "a segment was renamed; it gets its name back");
                layout.storage().rename(&path, &right)?;
            }
            None => set_aside_strange(layout, &name)?,
        }
    }
    Ok(())
}

fn is_missing(layout: &Layout, path: &Path) -> bool {
    layout.storage().open(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// What is readable of one segment, sealed. Nothing if no frame of it was ever acknowledged.
pub(super) fn recover_one(
    layout: &Arc<Layout>,
    metrics: &SpoolMetrics,
    number: SegmentNumber,
    kind: FileKind,
    logs: &mut IdentityLogs,
) -> io::Result<Vec<SealedBlock>> {
    let path = layout.path(number, kind);
    restore_identity(layout, &path)?;
    let blocks = match SegmentFile::open(layout, number, kind)? {
        Opened::Sealed(blocks) => {
            blocks.iter().try_for_each(restore_schema)?;
            blocks
        }
        Opened::Unsealed { file, states } if !file.is_shared() && states.iter().all(|(_, state)| state.is_done) => {
            Vec::new()
        }
        Opened::Unsealed { file, states } => {
            let was_sent = states.iter().any(|(_, state)| state.was_sent);
            let unsealed = Unsealed { metrics, file };
            let blocks = if was_sent { unsealed.restore_seal(&states)? } else { unsealed.seal(logs)? };
            if blocks.is_empty() {
                return Ok(blocks);
            }
            blocks
        }
        Opened::Misnamed | Opened::Unreadable => {
            set_aside_unreadable(layout, metrics, &path, number, "a segment's identity can't be read")?;
            return Ok(Vec::new());
        }
    };
    let mut waiting = Vec::new();
    for mut block in blocks {
        let own = own_epoch(layout, &block)?;
        // A crash came between the copy of what was readable and the note that there is one.
        if own.is_some_and(|epoch| epoch != block.id().epoch) && !block.is_over() {
            block.has_been_salvaged()?;
            block.file.found_damage();
        }
        if own.is_some() || block.is_over() {
            block.file.has_no_more(block.id());
        } else {
            waiting.push(block);
        }
    }
    if waiting.is_empty() {
        // All of it was proven, or is in files of their own.
        layout.storage().remove(&path)?;
    }
    Ok(waiting)
}

/// The epoch in the own file of a block of a segment: its own if it was moved there, another if it was salvaged.
fn own_epoch(layout: &Layout, block: &SealedBlock) -> io::Result<Option<Epoch>> {
    if !block.file.is_shared() {
        return Ok(None);
    }
    let path = layout.path(block.id().number.segment, FileKind::Block(block.id().number.index));
    match layout.storage().open(&path) {
        Ok(file) => Ok(read_identity(&*file)?.map(|found| found.identity.epoch)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A segment whose recovery waits for room on the disk.
#[derive(Debug)]
pub(super) struct Postponed {
    layout: Arc<Layout>,
    number: SegmentNumber,
    kind: FileKind,
}

/// Recovers the oldest postponed segment that has events, and returns its blocks; none once no segment is
/// postponed.
///
/// # Errors
///
/// If there is still too little disk space, or on another I/O error.
pub(super) fn recover_postponed(
    metrics: &SpoolMetrics,
    postponed: &mut Vec<Postponed>,
    logs: &mut IdentityLogs,
) -> io::Result<Vec<SealedBlock>> {
    while let Some(Postponed { layout, number, kind }) = postponed.first() {
        let recovered = recover_one(layout, metrics, *number, *kind, logs)?;
        postponed.remove(0);
        metrics.set_postponed(postponed.len());
        recovered.iter().for_each(|block| metrics.recovered(block));
        if !recovered.is_empty() {
            return Ok(recovered);
        }
    }
    Ok(Vec::new())
}

/// Forgets the blocks that have no file any more. That of a proven one was removed, and a salvaged one was in
/// `damaged/`; any other was taken away by somebody. What is done in a file that is there is remembered.
fn forget_missing(layout: &Layout) -> io::Result<()> {
    let (segments, damaged) = (layout.list()?.segments, layout.storage().list(&layout.damaged_dir())?);
    // Nothing may be readable of a file that is set aside, but its name.
    let set_aside: BTreeSet<_> = damaged.iter().filter_map(number_of).collect();
    let is_segment = |number| segments.iter().any(|(segment, _)| *segment == number);
    let identity_of = |path: &Path| layout.storage().open(path).and_then(|file| read_identity(&*file)).ok().flatten();
    // Epoch and number, and whether the file is of several blocks.
    let (mut found, mut found_aside) = (BTreeSet::new(), BTreeSet::new());
    for (number, kind) in &segments {
        found.extend(
            identity_of(&layout.path(*number, *kind)).map(|found| (found.identity.epoch, found.identity.number)),
        );
    }
    for entry in &damaged {
        let path = layout.damaged_dir().join(&entry.name);
        found_aside.extend(identity_of(&path).map(|found| (found.identity.epoch, found.identity.number)));
    }
    for (id, block) in layout.journal().of_table(layout.table()) {
        let file = (id.epoch, id.number.segment);
        let is_there = found.contains(&file);
        let is_aside = found_aside.contains(&file) || set_aside.contains(&id.number.segment);
        // In a segment of several blocks one that is done is not sent again while others wait.
        if is_there || is_aside && !block.is_done {
            continue;
        }
        if !block.is_done && !block.is_salvaged && !is_segment(id.number.segment) {
            tracing::error!(
                block = %id.number,
                "the file of a block that was not inserted is gone; what of its events ClickHouse does not have is lost"
            );
        }
        layout.journal().forget(id);
    }
    Ok(())
}

/// Writes a damaged identity again from its copy.
fn restore_identity(layout: &Layout, path: &Path) -> io::Result<()> {
    let file = layout.storage().open(path)?;
    let Some(block) = read_identity(&*file)?.and_then(|found| found.restored) else { return Ok(()) };
    write_all(&*file, &block, 0)?;
    file.sync()?;
    tracing::error!(path = %path.display(), "a segment's identity is damaged; it is written again from its copy");
    Ok(())
}

/// Writes a damaged schema of a block again from its copy, or the copy from it.
fn restore_schema(block: &SealedBlock) -> io::Result<()> {
    let Some(schema) = block.schema_offset else { return Ok(()) };
    let file = block.file.layout.storage().open(block.path())?;
    let mut payload = BytesMut::new();
    let mut read = |offset: u64| read_frame(&*file, block.file.place(offset), block.first, &mut payload);
    // All copies are as long as the first frame is away.
    let len = block.first.saturating_sub(schema) / schema::COPIES as u64;
    let places = (0..schema::COPIES as u64).map(|copy| schema + copy * len);
    let mut whole = None;
    let mut damaged = Vec::new();
    for (offset, copy) in places.zip(0..) {
        match read(offset)?.filter(|header| header.is_schema) {
            Some(header) => whole = Some((header, copy)),
            None => damaged.push((offset, copy)),
        }
    }
    let (Some((header, which)), false) = (whole, damaged.is_empty()) else { return Ok(()) };
    if header.len() != len {
        // A recovery by an earlier build has kept one alone.
        return Ok(());
    }
    read_frame(&*file, block.file.place(header.offset), block.first, &mut payload)?;
    let first = header.position.get().saturating_sub(which);
    for (offset, copy) in damaged {
        let header = Header { offset, position: Position::new(first + copy), ..header };
        write_all(&*file, &header.encode(), offset)?;
        write_all(&*file, &payload, offset + HEADER as u64)?;
    }
    file.sync()?;
    tracing::error!(block = %block.number(), "a block's schema is damaged; it is written again from its copy");
    Ok(())
}

/// Removes cuts whose segment is gone, and small files that were to replace another.
fn remove_leftovers(layout: &Layout) -> io::Result<()> {
    let Listing { segments, .. } = layout.list()?;
    let entries = layout.storage().list(layout.folder())?;
    for entry in entries.into_iter().filter(|entry| entry.kind == EntryKind::File) {
        let (stem, extension) = entry.name.split_once('.').unwrap_or((&entry.name, ""));
        let Ok(number) = stem.parse::<SegmentNumber>() else { continue };
        let of_a_segment = segments.iter().any(|(segment, _)| *segment == number);
        if extension == "new" || extension.ends_with(".copy") || (extension == "cut" && !of_a_segment) {
            layout.storage().remove(&layout.folder().join(&entry.name))?;
        }
    }
    Ok(())
}

fn empty_folder(layout: &Layout, path: &Path) -> io::Result<()> {
    for entry in layout.storage().list(path)? {
        // A folder in it is none of ours.
        if entry.kind != EntryKind::Folder {
            layout.storage().remove(&path.join(entry.name))?;
        }
    }
    Ok(())
}

/// The highest number of the files in a folder, whatever their extension; 0 if there is none.
fn highest_number(layout: &Layout, path: &Path) -> io::Result<SegmentNumber> {
    let entries = layout.storage().list(path)?;
    Ok(entries.iter().filter_map(number_of).max().unwrap_or_default())
}

/// The number that a file's name begins with.
fn number_of(entry: &FolderEntry) -> Option<SegmentNumber> {
    entry.name.split('.').next()?.parse().ok()
}

/// Bytes of all files in the table's folder and those below it, but for the note of used numbers, the secret and
/// the tripwire, which are always there.
pub(super) fn occupied(layout: &Layout, path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in layout.storage().list(path)?.into_iter().filter(|entry| !is_always_there(&entry.name)) {
        bytes += if entry.kind == EntryKind::Folder { occupied(layout, &path.join(&entry.name))? } else { entry.len };
    }
    Ok(bytes)
}

fn is_always_there(name: &str) -> bool {
    [numbers::NAME, secret::NAME].contains(&name) || parse_name(name).is_some_and(|(number, _)| number == TRIPWIRE)
}
