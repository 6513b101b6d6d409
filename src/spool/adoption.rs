//! What a release before the journal left (version 2). It kept the state of a segment in the name of its
//! file (`.sent`), in a page of the file, and in a `.cut` beside it:
//!
//! ```text
//! progress page, 4096 bytes behind the seal
//!   0  8  "PROGRESS"            8  8  epoch              16  8  number
//!  24  4  flags: 1 = the rows are inserted and the rejected lines are not; 2 = an attempt is open;
//!         4 = forced; 8 = suspect
//!  28  4  number of used-up tokens
//!  32  8  start of the open attempt, Unix ms            40  8  newest segment number at that time
//!  48  4  length W of the note about the server         52  W  the note
//! 52+W 4  checksum of bytes 0..52+W
//!
//! <number>.cut: a line of JSON, and a line with its checksum as 8 hex digits
//! ```
//!
//! All of it goes into the journal, and only then do the files get the names that they have now. A segment
//! 0 of version 3, the tripwire, lets an older release refuse the folder instead of sending again what it
//! takes for never sent.

use std::io;
use std::sync::Arc;

use serde::Deserialize;

use super::block::{self, Identity, VERSION, VERSION_BEFORE};
use super::cut::{Cut, Piece};
use super::file_name::FileKind;
use super::frame::{get, get_u32, get_u64};
use super::journal::{Block, BlockId, Change, OpenAttempt};
use super::layout::{Layout, Listing};
use super::segment_file::{Opened, SegmentFile, read_identity};
use super::storage::{self, is_out_of_space, read_up_to};
use crate::batch::{Position, SegmentNumber};
use crate::clock::unix_ms;

const PROGRESS_MAGIC: &[u8; 8] = b"PROGRESS";
const PROGRESS_FIXED: usize = 52;
const NOTE_BYTES_MAX: usize = 1024;

/// The longest file of a cut that is read. A cut of some thousand pieces with their reasons is far shorter.
const CUT_BYTES_MAX: usize = 64 << 20;

/// The number of the tripwire, which no segment has.
pub(super) const TRIPWIRE: SegmentNumber = SegmentNumber::new(0);

/// The cut in a `.cut` file.
#[derive(Debug, Deserialize)]
struct CutFile {
    token: String,
    pieces: Vec<Piece>,
    refused_are_sent: bool,
    refused_are_stored: bool,
}

/// Takes over what older releases left of these tables, begins the journal with it, and gives the files their
/// names.
pub(super) fn adopt(log: &Arc<Layout>, tables: &[Arc<Layout>]) -> io::Result<()> {
    let journal = log.journal();
    if journal.is_new() && has_segments_of_this_version(log)? {
        // Its files are gone.
        journal.doubt();
    }
    let mut has_some = !log.list()?.segments.is_empty();
    for table in tables {
        let Listing { segments, .. } = table.list()?;
        has_some |= !segments.is_empty();
        if !has_tripwire(table)? {
            forget_sent(table, &segments)?;
        }
        for (number, kind) in segments.into_iter().filter(|(_, kind)| *kind != FileKind::Copy) {
            adopt_one(table, number, kind)?;
        }
    }
    if journal.is_doubtful() {
        tracing::error!(
            "the journal of the spool can't be read, or not all of it: what became of the blocks is looked up in \
             ClickHouse, and those that can't be looked up are held"
        );
        doubt_all(log)?;
    }
    match begin(log) {
        // Nothing is to be sent, and nothing is taken before there is room.
        Err(error) if is_out_of_space(&error) && !has_some => {
            tracing::debug!(%error, "there is no room for the journal");
        }
        begun => begun?,
    }
    tables.iter().try_for_each(|table| give_names(table))
}

/// Begins the journal, and keeps older releases out.
pub(super) fn begin(log: &Layout) -> io::Result<()> {
    log.with_spare(|| log.journal().begin())?;
    log.tables().iter().try_for_each(|table| log.with_spare(|| set_tripwire(&log.of_table(table))))
}

/// Gives the files that an older release has sent the names that they have now.
fn give_names(layout: &Layout) -> io::Result<()> {
    for (number, kind) in layout.list()?.segments {
        if kind == FileKind::Sent {
            layout.storage().rename(&layout.path(number, kind), &layout.path(number, FileKind::Segment))?;
        }
    }
    layout.sync_folder()?;
    for (number, _) in layout.list()?.segments {
        match layout.storage().remove(&layout.cut_path(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The state in which an older release left a segment.
fn adopt_one(layout: &Arc<Layout>, number: SegmentNumber, kind: FileKind) -> io::Result<()> {
    let states = match SegmentFile::open(layout, number, kind)? {
        Opened::Sealed(blocks) => blocks.iter().map(|block| (block.id(), block.block().clone())).collect(),
        Opened::Unsealed { states, .. } => states,
        Opened::Misnamed | Opened::Unreadable => Vec::new(),
    };
    for (id, state) in states {
        if layout.journal().find(id).is_none() && state != Block::default() {
            layout.journal().write(id, Change::State(state))?;
        }
    }
    Ok(())
}

/// Forgets what the journal says of segments that have the name which an older release gave them: a start
/// that failed before it had set the tripwire may have been followed by that release.
fn forget_sent(layout: &Layout, segments: &[(SegmentNumber, FileKind)]) -> io::Result<()> {
    for (number, kind) in segments.iter().copied().filter(|(_, kind)| *kind == FileKind::Sent) {
        if let Some(found) = read_identity(&*layout.storage().open(&layout.path(number, kind))?)? {
            layout.journal().discard(found.identity.block_id(0));
        }
    }
    Ok(())
}

/// True if there are segments, or were, of a release with a journal.
fn has_segments_of_this_version(log: &Layout) -> io::Result<bool> {
    if !log.list()?.segments.is_empty() {
        return Ok(true);
    }
    for table in log.table_folders()? {
        // As in a disk's lost+found.
        let layout = log.of_table(&table);
        if layout.list().is_ok() && has_tripwire(&layout)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_tripwire(layout: &Layout) -> io::Result<bool> {
    match layout.storage().open(&layout.path(TRIPWIRE, FileKind::Segment)) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Notes of every sealed block, of any table, that what was tried is unknown.
fn doubt_all(log: &Arc<Layout>) -> io::Result<()> {
    let tables = log.table_folders()?.into_iter().map(|table| Arc::new(log.of_table(&table)));
    for layout in std::iter::once(log.clone()).chain(tables) {
        let Ok(Listing { segments, .. }) = layout.list() else { continue };
        for (number, kind) in segments.into_iter().filter(|(_, kind)| *kind != FileKind::Copy) {
            let Opened::Sealed(blocks) = SegmentFile::open(&layout, number, kind)? else { continue };
            for block in blocks.iter().filter(|block| !block.is_over()) {
                let attempt = OpenAttempt::unknown(block.created_ms(), number);
                let doubtful = Block {
                    table: layout.table().to_owned(),
                    was_sent: true,
                    // The order may have been carried out.
                    forced: false,
                    open: Some(attempt),
                    ..block.block().clone()
                };
                layout.journal().write(block.id(), Change::State(doubtful))?;
            }
        }
    }
    Ok(())
}

/// Makes the segment that no older release reads.
fn set_tripwire(layout: &Layout) -> io::Result<()> {
    if has_tripwire(layout)? {
        return Ok(());
    }
    let identity = Identity {
        version: VERSION,
        node_id: layout.node_id().to_owned(),
        epoch: layout.epoch(),
        number: TRIPWIRE,
        created_ms: unix_ms(),
        first_position: Position::new(1),
        frozen: Vec::new(),
    };
    storage::replace(layout.storage(), &layout.path(TRIPWIRE, FileKind::Segment), &identity.encode())?;
    layout.sync_folder()
}

/// The state that the files of an older release say. `rest` follows the seal.
pub(super) fn read(layout: &Layout, identity: &Identity, kind: FileKind, rest: &[u8]) -> io::Result<Block> {
    if identity.version != VERSION_BEFORE {
        return Ok(Block::default());
    }
    let was_sent = kind == FileKind::Sent;
    // Without a valid progress page, the segment may have been sent to any server.
    let unknown = OpenAttempt::unknown(identity.created_ms, identity.number);
    let block = progress(rest, identity.block_id(0))
        .unwrap_or_else(|| Block { open: was_sent.then_some(unknown), ..Block::default() });
    if !was_sent && block == Block::default() {
        return Ok(block);
    }
    Ok(Block { table: layout.table().to_owned(), was_sent, ..block })
}

fn progress(bytes: &[u8], id: BlockId) -> Option<Block> {
    let note_len = (get_u32(bytes, 48)? as usize).min(NOTE_BYTES_MAX);
    let whole = block::check(bytes, PROGRESS_MAGIC, PROGRESS_FIXED + note_len)?;
    if get_u64(whole, 8)? != id.epoch.get() || get_u64(whole, 16)? != id.number.packed() {
        return None;
    }
    let flags = get_u32(whole, 24)?;
    let open = (flags & 2 != 0).then_some(OpenAttempt {
        since_ms: get_u64(whole, 32)?,
        newest: SegmentNumber::new(get_u64(whole, 40)?),
        server: String::from_utf8_lossy(get(whole, PROGRESS_FIXED, note_len)?).into_owned(),
    });
    Some(Block {
        rows_inserted: flags & 1 != 0,
        forced: flags & 4 != 0,
        suspect: flags & 8 != 0,
        generation: get_u32(whole, 28)?,
        open,
        ..Block::default()
    })
}

/// The cut of the segment with this number and a name that `is_its`, as an older release left it; `None` if
/// it is not cut. A damaged one has no pieces: the segment may be sent neither whole nor in pieces.
pub(super) fn cut(layout: &Layout, number: SegmentNumber, is_its: impl Fn(&str) -> bool) -> io::Result<Option<Cut>> {
    let file = match layout.storage().open(&layout.cut_path(number)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = vec![0; usize::try_from(file.len()?).unwrap_or(CUT_BYTES_MAX).min(CUT_BYTES_MAX)];
    let len = read_up_to(&*file, &mut text, 0)?;
    let json = checked(text.get(..len).unwrap_or_default());
    let found = json.and_then(|json| sonic_rs::from_slice::<CutFile>(json).ok()).filter(|cut| is_its(&cut.token));
    Ok(Some(match found {
        Some(CutFile { pieces, refused_are_sent, refused_are_stored, .. }) => {
            Cut { pieces, refused_are_sent, refused_are_stored }
        }
        None => Cut { pieces: Vec::new(), refused_are_sent: false, refused_are_stored: false },
    }))
}

/// The JSON of a file; `None` if its checksum is wrong.
fn checked(text: &[u8]) -> Option<&[u8]> {
    let line = |json: &[u8]| format!("\n{:08x}\n", crc32c::crc32c(json));
    let (json, check) = text.split_at_checked(text.len().checked_sub(line(&[]).len())?)?;
    (check == line(json).as_bytes()).then_some(json)
}
