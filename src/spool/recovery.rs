//! Recovery of the segments that a start finds.
//!
//! Sealed segments are taken as they are; what is in them is verified when it is sent, so a start
//! is quick whatever the backlog. An unsealed one is sealed first ([`super::unsealed`]), and not appended
//! to. What has a segment's name and is none is set aside ([`super::aside`]).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::adoption;
use super::aside::{set_aside_strange, set_aside_unreadable};
use super::block::frames_start;
use super::frame::FramePlace;
use super::layout::{FileKind, Layout, Listing, SpoolError, failed, parse_name};
use super::metrics::SpoolMetrics;
use super::numbers;
use super::repeats::IdentityLogs;
use super::scan::{Tail, scan};
use super::sealed::{Opened, SealedSegment, read_identity};
use super::storage::{EntryKind, FolderEntry, is_out_of_space, write_all};
use super::unsealed::Unsealed;
use crate::batch::SegmentNumber;

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
    /// What was written in it can't be read, or not all of it; or it has a segment's name and is none.
    Unreadable {
        /// The file of the segment.
        path: PathBuf,
    },
}

pub(super) fn inspect(layout: &Arc<Layout>) -> Result<Vec<Inspected>, SpoolError> {
    let whole = |error| failed(format!("reading {}", layout.table_dir().display()))(error);
    let Listing { segments, strange } = layout.list().map_err(whole)?;
    let mut found: Vec<_> =
        strange.iter().map(|name| Inspected::Unreadable { path: layout.table_dir().join(name) }).collect();
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

fn inspect_one(layout: &Arc<Layout>, number: SegmentNumber, kind: FileKind) -> io::Result<Option<Inspected>> {
    let path = layout.path(number, kind);
    Ok(Some(match SealedSegment::open(layout, number, kind)? {
        // A copy that was interrupted is nothing, whatever is in it.
        _ if kind == FileKind::Copy => Inspected::Unsealed { number, path },
        Opened::Sealed(segment) => Inspected::Sealed(segment),
        Opened::Unsealed { identity, identity_len, .. } if kind == FileKind::Segment => {
            let file = layout.storage().open(&path)?;
            let start = FramePlace { epoch: identity.epoch, number, offset: frames_start(identity_len) };
            let scan = scan(&*file, start, identity.first_position, file.len()?, Tail::MayBeTorn)?;
            match (scan.damaged, scan.frames.is_empty()) {
                (true, _) => Inspected::Unreadable { path },
                // A server has it ready.
                (false, true) => return Ok(None),
                (false, false) => Inspected::Unsealed { number, path },
            }
        }
        Opened::Unsealed { .. } | Opened::Misnamed | Opened::Unreadable => Inspected::Unreadable { path },
    }))
}

pub(super) fn recover(
    layout: &Arc<Layout>,
    metrics: &SpoolMetrics,
    logs: &mut IdentityLogs,
) -> Result<Recovered, SpoolError> {
    let whole = |error| failed(format!("recovering {}", layout.table_dir().display()))(error);
    empty_folder(layout, &layout.free_dir()).map_err(whole)?;
    let mut next_number = highest_number(layout, &layout.damaged_dir()).map_err(whole)?.next();
    let (mut segments, mut postponed) = (Vec::new(), Vec::new());
    restore_names(layout).map_err(whole)?;
    adoption::adopt(layout).map_err(whole)?;
    for (number, kind) in layout.list().map_err(whole)?.segments {
        next_number = next_number.max(number.next());
        let path = layout.path(number, kind);
        let one = |error| failed(format!("recovering {}", path.display()))(error);
        if kind == FileKind::Copy {
            layout.storage().remove(&path).map_err(one)?;
            continue;
        }
        match recover_one(layout, metrics, number, logs) {
            Ok(segment) => segments.extend(segment),
            Err(error) if is_out_of_space(&error) => {
                tracing::warn!(
                    path = %path.display(), %error,
                    "a segment that a crash left open waits for room on the disk to be recovered"
                );
                postponed.push(number);
            }
            Err(error) => return Err(one(error)),
        }
    }
    remove_leftovers(layout).map_err(whole)?;
    layout.sync_table_dir().map_err(whole)?;
    forget_missing(layout).map_err(whole)?;
    for segment in &segments {
        metrics.recovered(segment);
        // What is on the disk of numbers that are gone.
        next_number = next_number.max(segment.open_attempt().map_or(next_number, |open| open.newest.next()));
    }
    for folder in [layout.table_dir(), &layout.keys_dir()] {
        metrics.occupy(occupied(layout, folder).map_err(whole)?);
    }
    Ok(Recovered { segments, postponed, next_number })
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
        if found.is_some_and(|found| found.identity.number != number) || !numbers.insert(number) {
            strange.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    for name in strange {
        let path = layout.table_dir().join(&name);
        let kind = if name.ends_with(".sent") { FileKind::Sent } else { FileKind::Segment };
        let found = layout.storage().open(&path).and_then(|file| read_identity(&*file)).ok().flatten();
        let number = found.map(|found| found.identity.number).filter(|number| numbers.insert(*number));
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
    logs: &mut IdentityLogs,
) -> io::Result<Option<SealedSegment>> {
    let path = layout.path(number, FileKind::Segment);
    restore_identity(layout, &path)?;
    match SealedSegment::open(layout, number, FileKind::Segment)? {
        Opened::Sealed(segment) if segment.block().is_done => remove_done(layout, &path),
        Opened::Unsealed { block, .. } if block.is_done => remove_done(layout, &path),
        Opened::Sealed(segment) => Ok(Some(*segment)),
        Opened::Unsealed { identity, identity_len, block } => {
            let unsealed = Unsealed { layout, metrics, path: &path, identity, identity_len };
            if block.was_sent { unsealed.restore_seal(&block) } else { unsealed.seal(logs) }
        }
        Opened::Misnamed | Opened::Unreadable => {
            set_aside_unreadable(layout, metrics, &path, number, "a segment's first block can't be read")?;
            Ok(None)
        }
    }
}

/// Recovers the oldest postponed segment that has events, and returns it; `None` once no segment is
/// postponed.
///
/// # Errors
///
/// If there is still too little disk space, or on another I/O error.
pub(super) fn recover_postponed(
    layout: &Arc<Layout>,
    metrics: &SpoolMetrics,
    postponed: &mut Vec<SegmentNumber>,
    logs: &mut IdentityLogs,
) -> io::Result<Option<SealedSegment>> {
    while let Some(number) = postponed.first().copied() {
        let recovered = recover_one(layout, metrics, number, logs)?;
        postponed.remove(0);
        metrics.set_postponed(postponed.len());
        if let Some(segment) = recovered {
            metrics.recovered(&segment);
            return Ok(Some(segment));
        }
    }
    Ok(None)
}

/// Removes the file of a segment that the process before has proven.
fn remove_done(layout: &Layout, path: &Path) -> io::Result<Option<SealedSegment>> {
    layout.storage().remove(path)?;
    Ok(None)
}

/// Forgets the blocks that have no file any more. That of a proven one was removed, and a salvaged one was in
/// `damaged/`; any other was taken away by somebody.
fn forget_missing(layout: &Layout) -> io::Result<()> {
    let mut found = BTreeSet::new();
    let (segments, damaged) = (layout.list()?.segments, layout.storage().list(&layout.damaged_dir())?);
    // Nothing may be readable of a file that is set aside, but its name.
    let set_aside: BTreeSet<_> = damaged.iter().filter_map(number_of).collect();
    let paths = segments.iter().map(|(number, kind)| layout.path(*number, *kind));
    for path in paths.chain(damaged.iter().map(|entry| layout.damaged_dir().join(&entry.name))) {
        let identity = layout.storage().open(&path).and_then(|file| read_identity(&*file)).ok().flatten();
        found.extend(identity.map(|found| found.identity.block_id()));
    }
    for (id, block) in layout.journal().of_table(layout.table()) {
        let number = id.number;
        if (found.contains(&id) || set_aside.contains(&number)) && !block.is_done {
            continue;
        }
        if !block.is_done && !block.is_salvaged && !segments.iter().any(|(segment, _)| *segment == number) {
            tracing::error!(
                segment = %number,
                "the file of a segment that was not inserted is gone; what of its events ClickHouse does not have is lost"
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
    tracing::error!(path = %path.display(), "a segment's first block is damaged; it is written again from its copy");
    Ok(())
}

/// Removes cuts whose segment is gone, and small files that were to replace another.
fn remove_leftovers(layout: &Layout) -> io::Result<()> {
    let Listing { segments, .. } = layout.list()?;
    let entries = layout.storage().list(layout.table_dir())?;
    for entry in entries.into_iter().filter(|entry| entry.kind == EntryKind::File) {
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

/// Bytes of all files in the table's folder and those below it, but for the note of used numbers and the
/// tripwire, which are always there.
fn occupied(layout: &Layout, path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in layout.storage().list(path)?.into_iter().filter(|entry| !is_always_there(&entry.name)) {
        bytes += if entry.kind == EntryKind::Folder { occupied(layout, &path.join(&entry.name))? } else { entry.len };
    }
    Ok(bytes)
}

fn is_always_there(name: &str) -> bool {
    name == numbers::NAME || parse_name(name).is_some_and(|(number, _)| number == adoption::TRIPWIRE)
}
