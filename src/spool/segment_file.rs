//! The file of a segment that is not written to any more, and the blocks in it.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::BytesMut;

use super::adoption;
use super::block::{IDENTITY_BYTES_MAX, Identity, PAGE, Seal, Seals, VERSION, VERSION_BEFORE};
use super::file_name::FileKind;
use super::frame::FramePlace;
use super::journal::{Block, BlockId};
use super::layout::Layout;
use super::reader::read_frame;
use super::scan::next_header;
use super::schema::{self, BlockSchema};
use super::sealed::SealedBlock;
use super::storage::{EntryKind, StorageFile, read_up_to};
use crate::batch::SegmentNumber;

/// A segment's file. It is there until no block in it waits for its insert.
#[derive(Debug)]
pub(super) struct SegmentFile {
    pub(super) layout: Arc<Layout>,
    pub(super) path: PathBuf,
    pub(super) identity: Identity,
    pub(super) identity_len: u64,
    kind: FileKind,
    /// The index of the block whose own the file is.
    own: Option<u16>,
    /// The blocks that wait.
    waiting: Mutex<BTreeSet<BlockId>>,
    /// Something in it could not be read: it is not used again.
    is_damaged: AtomicBool,
    /// Where the frames of each block are, in a file of several.
    offsets: OnceLock<Vec<Arc<[u64]>>>,
}

/// What a segment's file holds.
pub(super) enum Opened {
    /// It is another segment, by what its identity says.
    Misnamed,
    /// Its identity can't be read, nor the copy of that.
    Unreadable,
    /// All of its blocks, those included that are done.
    Sealed(Vec<SealedBlock>),
    /// It has no seal, or that can't be read.
    Unsealed {
        file: Box<SegmentFile>,
        /// What the journal knows of its blocks, or an older release has left.
        states: Vec<(BlockId, Block)>,
    },
}

impl SegmentFile {
    pub(super) fn new(layout: &Arc<Layout>, identity: Identity, identity_len: u64, kind: FileKind) -> Self {
        let own = match kind {
            FileKind::Block(index) => Some(index),
            _ => identity.is_of_one_block().then_some(0),
        };
        Self {
            layout: layout.clone(),
            path: layout.path(identity.number, kind),
            identity,
            identity_len,
            kind,
            own,
            waiting: Mutex::default(),
            is_damaged: AtomicBool::new(false),
            offsets: OnceLock::new(),
        }
    }

    /// Reads what stands in front of the frames, and the blocks' states from the journal.
    pub(super) fn open(layout: &Arc<Layout>, number: SegmentNumber, kind: FileKind) -> io::Result<Opened> {
        let path = layout.path(number, kind);
        let file = layout.storage().open(&path)?;
        let Some(FoundIdentity { identity, len: identity_len, .. }) = read_identity(&*file)? else {
            return Ok(Opened::Unreadable);
        };
        if identity.number != number {
            return Ok(Opened::Misnamed);
        }
        if !(VERSION_BEFORE..=VERSION).contains(&identity.version) {
            let (path, version) = (path.display(), identity.version);
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!(
                    "{path} has format version {version}, not {VERSION}: drain the spool with the release that wrote it"
                ),
            ));
        }
        let found = Self::new(layout, identity, identity_len, kind);
        if found.own.is_some() { found.open_one(&*file, kind) } else { found.open_several(&*file) }
    }

    fn open_several(self, file: &dyn StorageFile) -> io::Result<Opened> {
        let Identity { epoch, number, .. } = self.identity;
        let Some(seals) = Seals::read(file, self.identity_len, epoch, number)? else {
            let states = self.layout.journal().of_segment(epoch, number);
            return Ok(Opened::Unsealed { file: Box::new(self), states });
        };
        let mut schemas = Vec::with_capacity(seals.blocks.len());
        for block in &seals.blocks {
            match self.schema_at(file, block.schema, seals.end)? {
                Some(schema) => schemas.push(schema),
                // Without it nobody knows what the block's rows are; what is of others is salvaged with a scan.
                None => {
                    let states = self.layout.journal().of_segment(epoch, number);
                    return Ok(Opened::Unsealed { file: Box::new(self), states });
                }
            }
        }
        let mut blocks = self.sealed(&seals, schemas, None);
        for block in &mut blocks {
            block.state = block.file.layout.journal().find(block.id).unwrap_or_default();
            // A file that is not the one in `damaged/` was put there by an operator.
            if block.state.is_salvaged && !block.file.is_damaged() && block.file.is_aside()? {
                block.file.found_damage();
            }
        }
        for block in blocks.iter().filter(|block| block.is_over()) {
            block.file.has_no_more(block.id);
        }
        Ok(Opened::Sealed(blocks))
    }

    fn open_one(self, file: &dyn StorageFile, kind: FileKind) -> io::Result<Opened> {
        let mut pages = vec![0; 2 * PAGE];
        let len = read_up_to(file, &mut pages, self.identity_len)?;
        let pages = pages.get(..len).unwrap_or_default();
        let (seal, rest) = pages.split_at_checked(PAGE).unwrap_or((pages, &[]));
        let (layout, identity) = (self.layout.clone(), &self.identity);
        let id = identity.block_id(self.own.unwrap_or(0));
        let known = layout.journal().find(id);
        let is_adopted = known.is_none() && identity.version == VERSION_BEFORE;
        let mut state = match known {
            Some(state) => state,
            None => adoption::read(&layout, identity, kind, rest)?,
        };
        let Some(seal) = Seal::decode(seal, identity.epoch, identity.number) else {
            if is_adopted && state.was_sent {
                let start = identity.name(id) + "-";
                state.cut = adoption::cut(&layout, identity.number, |name| name.starts_with(&start))?;
            }
            return Ok(Opened::Unsealed { file: Box::new(self), states: vec![(id, state)] });
        };
        let Some(mut block) = self.sealed_one(seal) else { return Ok(Opened::Unreadable) };
        block.state = state;
        if is_adopted {
            let whole = block.name();
            block.state.cut = adoption::cut(&layout, block.id.number.segment, |name| name == whole)?;
        }
        Ok(Opened::Sealed(vec![block]))
    }

    /// The blocks of a file of several, all of which wait.
    pub(super) fn sealed(
        self,
        seals: &Seals,
        schemas: Vec<BlockSchema>,
        offsets: Option<Vec<Vec<u64>>>,
    ) -> Vec<SealedBlock> {
        if let Some(offsets) = offsets.filter(|offsets| offsets.len() > 1) {
            let _ = self.offsets.set(offsets.into_iter().map(Arc::from).collect());
        }
        let file = Arc::new(self);
        let blocks = seals.blocks.iter().zip(schemas).zip(0..);
        let blocks: Vec<_> = blocks
            .map(|((seal, schema), index)| file.block(index, schema, Some(seal.schema), seal.first, seal.totals))
            .collect();
        *file.waiting() = blocks.iter().map(|block| block.id).collect();
        blocks
    }

    /// The block of a file that is its own; `None` if its schema is none.
    pub(super) fn sealed_one(self, seal: Seal) -> Option<SealedBlock> {
        let schema = self.own_schema()?;
        let (first, index) = (self.identity.frames_start(self.identity_len), self.own.unwrap_or(0));
        let file = Arc::new(self);
        let block = file.block(index, schema, None, first, seal);
        file.waiting().insert(block.id);
        Some(block)
    }

    /// The schema in the identity of a file that is one block's.
    pub(super) fn own_schema(&self) -> Option<BlockSchema> {
        let Identity { version, created_ms, ref frozen, .. } = self.identity;
        if self.is_shared() {
            return None;
        }
        if version == VERSION_BEFORE {
            let (table, frozen) = (self.layout.table().to_owned(), frozen[..].into());
            return Some(BlockSchema { begun_ms: created_ms, table, frozen });
        }
        BlockSchema::decode(frozen)
    }

    fn block(
        self: &Arc<Self>,
        index: u16,
        schema: BlockSchema,
        schema_offset: Option<u64>,
        first: u64,
        seal: Seal,
    ) -> SealedBlock {
        let id = self.identity.block_id(index);
        SealedBlock {
            file: self.clone(),
            number: self.layout.number_of(id.number),
            id,
            table: self.layout.index_of(&schema.table),
            schema,
            state: Block::default(),
            schema_offset,
            first,
            seal,
        }
    }

    /// The schema that a block begins with, or else its copy behind it.
    pub(super) fn schema_at(&self, file: &dyn StorageFile, first: u64, end: u64) -> io::Result<Option<BlockSchema>> {
        let mut payload = BytesMut::new();
        let mut place = self.place(first);
        for _ in 0..schema::COPIES {
            let Some((offset, header)) = next_header(file, place, end, &mut payload)? else { break };
            place.offset = offset;
            if header.is_schema
                && read_frame(file, place, end, &mut payload)? == Some(header)
                && let Some(schema) = BlockSchema::decode(&payload)
            {
                return Ok(Some(schema));
            }
            place.offset += header.len();
        }
        Ok(None)
    }

    /// The offsets of a block's frames; `None` where all frames of the file are the block's.
    pub(super) fn offsets_of(&self, file: &dyn StorageFile, block: &SealedBlock) -> io::Result<Option<Arc<[u64]>>> {
        if self.own.is_some() {
            return Ok(None);
        }
        let index = usize::from(block.id.number.index);
        if let Some(offsets) = self.offsets.get() {
            return Ok(offsets.get(index).cloned());
        }
        let Identity { epoch, number, .. } = self.identity;
        let unreadable = || io::Error::new(io::ErrorKind::InvalidData, format!("segment {number} has lost its seals"));
        let seals = Seals::read(file, self.identity_len, epoch, number)?.ok_or_else(unreadable)?;
        if seals.blocks.len() <= 1 {
            return Ok(None);
        }
        let found = self.find_offsets(file, &seals)?;
        let offsets = self.offsets.get_or_init(|| found.into_iter().map(Arc::from).collect());
        Ok(offsets.get(index).cloned())
    }

    fn find_offsets(&self, file: &dyn StorageFile, seals: &Seals) -> io::Result<Vec<Vec<u64>>> {
        let mut offsets = vec![Vec::new(); seals.blocks.len()];
        let mut payload = BytesMut::new();
        let mut place = self.place(self.identity.frames_start(self.identity_len));
        while let Some((offset, header)) = next_header(file, place, seals.end, &mut payload)? {
            if let Some(offsets) = offsets.get_mut(usize::from(header.block)).filter(|_| !header.is_schema) {
                offsets.push(offset);
            }
            place.offset = offset + header.len();
        }
        Ok(offsets)
    }

    /// Notes that a block waits for its insert no more. True if none does.
    pub(super) fn has_no_more(&self, id: BlockId) -> bool {
        let mut waiting = self.waiting();
        waiting.remove(&id);
        waiting.is_empty()
    }

    /// True for the own file of a block whose segment is there too, or may be.
    pub(super) fn has_segment(&self) -> bool {
        matches!(self.kind, FileKind::Block(_))
            && !self.layout.is_gone(&self.layout.path(self.identity.number, FileKind::Segment))
    }

    /// The kind of the file.
    pub(super) fn kind(&self) -> FileKind {
        self.kind
    }

    /// The file is of several blocks, or may be.
    pub(super) fn is_shared(&self) -> bool {
        self.own.is_none()
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.is_damaged.load(Relaxed)
    }

    /// True if the file is in `damaged/` too.
    fn is_aside(&self) -> io::Result<bool> {
        let (storage, folder) = (self.layout.storage(), self.layout.damaged_dir());
        for entry in storage.list(&folder)?.into_iter().filter(|entry| entry.kind == EntryKind::File) {
            if storage.is_same_file(&self.path, &folder.join(entry.name))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Something in it could not be read.
    pub(super) fn found_damage(&self) {
        self.is_damaged.store(true, Relaxed);
    }

    pub(super) fn place(&self, offset: u64) -> FramePlace {
        FramePlace { epoch: self.identity.epoch, number: self.identity.number, offset }
    }

    /// Makes the file as short as its frames allow. Returns how many bytes shorter.
    pub(super) fn trim(&self) -> io::Result<u64> {
        let file = self.layout.storage().open(&self.path)?;
        let Identity { epoch, number, .. } = self.identity;
        let end = match self.own {
            None => Seals::read(&*file, self.identity_len, epoch, number)?.map(|seals| seals.end),
            Some(_) => {
                let mut page = vec![0; PAGE];
                let len = read_up_to(&*file, &mut page, self.identity_len)?;
                Seal::decode(page.get(..len).unwrap_or_default(), epoch, number).map(|seal| seal.end)
            }
        };
        let len = file.len()?;
        match end.filter(|end| *end < len) {
            Some(end) => file.set_len(end).map(|()| len - end),
            None => Ok(0),
        }
    }

    /// Length of the file.
    pub(super) fn len(&self) -> io::Result<u64> {
        self.layout.storage().open(&self.path)?.len()
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeSet<BlockId>> {
        // A panic inside the lock ends the process.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The identity of a segment's file.
pub(super) struct FoundIdentity {
    pub(super) identity: Identity,
    /// Bytes that it takes, its copy included.
    pub(super) len: u64,
    /// All of these bytes, where what stands in front of the file is not what was written.
    pub(super) restored: Option<Vec<u8>>,
}

/// Reads the identity in front of a file, or else the copy behind it. `None` when neither is whole.
pub(super) fn read_identity(file: &dyn StorageFile) -> io::Result<Option<FoundIdentity>> {
    if let Some((bytes, len)) = identity_bytes(file, 0)?
        && let Some(identity) = Identity::decode(&bytes)
    {
        return Ok(Some(FoundIdentity { identity, len: len as u64, restored: None }));
    }
    for half in (PAGE..=IDENTITY_BYTES_MAX / 2).step_by(PAGE) {
        if let Some((mut bytes, len)) = identity_bytes(file, half as u64)?.filter(|(_, len)| *len == 2 * half)
            && let Some(identity) = Identity::decode(&bytes)
        {
            bytes.truncate(half);
            return Ok(Some(FoundIdentity { identity, len: len as u64, restored: Some(bytes.repeat(2)) }));
        }
    }
    Ok(None)
}

/// What looks like an identity at this offset, and the length that it says.
fn identity_bytes(file: &dyn StorageFile, offset: u64) -> io::Result<Option<(Vec<u8>, usize)>> {
    let mut start = [0; 16];
    let read = read_up_to(file, &mut start, offset)?;
    let Some(len) = Identity::length(start.get(..read).unwrap_or_default()) else { return Ok(None) };
    let mut bytes = vec![0; len];
    let read = read_up_to(file, &mut bytes, offset)?;
    bytes.truncate(read);
    Ok(Some((bytes, len)))
}
