//! The open segment, which the committer appends frames to until it is sealed.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use super::block::{BlockSeal, Identity, Seal, Seals, VERSION};
use super::file_name::FileKind;
use super::frame::{FramePlace, HEADER, Header};
use super::layout::Layout;
use super::repeats::{Identities, IdentityLogs};
use super::schema::{self, BlockSchema};
use super::sealed::SealedBlock;
use super::segment_file::SegmentFile;
use super::storage::{SealError, StorageFile, write_all, write_all_slices};
use crate::batch::{Batch, BlockNumber, Position, SegmentNumber, TableIndex};
use crate::clock::unix_ms;

/// The one segment that frames are appended to.
pub(super) struct OpenSegment {
    layout: Arc<Layout>,
    file: Box<dyn StorageFile>,
    identity: Identity,
    identity_len: u64,
    /// Length of the file; frames up to it need no new disk space.
    pub(super) capacity: u64,
    /// Behind the last frame.
    pub(super) end: u64,
    /// Frames of all blocks, their schemas included.
    frames: u64,
    blocks: Vec<OpenBlock>,
    /// The last position that is known to be synced.
    durable: Position,
}

/// The frames of one table in the open segment.
pub(super) struct OpenBlock {
    pub(super) table: TableIndex,
    schema: BlockSchema,
    schema_offset: u64,
    /// Totals of the frames that were appended; written as the seal.
    pub(super) totals: Seal,
    offsets: Vec<u64>,
    identities: Identities,
}

/// Memory for the headers of a group, and for what is noted of them once they are written.
#[derive(Default)]
pub(super) struct Scratch {
    headers: Vec<[u8; HEADER]>,
    placed: Vec<Header>,
}

impl OpenSegment {
    /// Opens a segment in a new file of `capacity` bytes, or in the `recycled` file, which is
    /// overwritten.
    ///
    /// The file gets its segment name after the identity is synced, so every file with a
    /// segment name has an identity. Both the file and the folder are synced before the segment is
    /// returned. Without the sync of the folder, a crash could leave acknowledged frames in a file
    /// that still has its old name.
    pub(super) fn create(
        layout: &Arc<Layout>,
        number: SegmentNumber,
        capacity: u64,
        recycled: Option<(&Path, u64)>,
    ) -> io::Result<Self> {
        let identity = Identity {
            version: VERSION,
            node_id: layout.node_id().to_owned(),
            epoch: layout.epoch(),
            number,
            created_ms: unix_ms(),
            first_position: Position::new(1),
            frozen: Vec::new(),
        };
        layout.keep_drawn()?;
        let path = layout.path(number, FileKind::Segment);
        let beside = path.with_extension("new");
        Self::prepare(layout, &beside, &path, identity, capacity, recycled).inspect_err(|_| {
            // No frame in the file was acknowledged. If it can't be removed either, the next start
            // treats it as an empty segment.
            let _ = layout.storage().remove(&beside).or_else(|_| layout.storage().remove(&path));
        })
    }

    fn prepare(
        layout: &Arc<Layout>,
        beside: &Path,
        path: &Path,
        identity: Identity,
        capacity: u64,
        recycled: Option<(&Path, u64)>,
    ) -> io::Result<Self> {
        if let Some((from, _)) = recycled {
            layout.storage().rename(from, beside)?;
            // Sync the new name before overwriting the file: a half-overwritten file under its old
            // segment name would look damaged.
            layout.storage().sync_folder(&layout.free_dir())?;
            layout.sync_folder()?;
        }
        let file = layout.storage().create(beside)?;
        let block = identity.encode();
        let capacity = match recycled {
            Some((_, len)) => len,
            None => {
                file.reserve(capacity)?;
                capacity
            }
        };
        write_all(&*file, &block, 0)?;
        file.sync()?;
        layout.storage().rename(beside, path)?;
        layout.sync_folder()?;
        let identity_len = block.len() as u64;
        let end = identity.frames_start(identity_len);
        Ok(Self {
            layout: layout.clone(),
            file,
            identity,
            identity_len,
            capacity,
            end,
            frames: 0,
            blocks: Vec::new(),
            durable: Position::default(),
        })
    }

    pub(super) fn number(&self) -> SegmentNumber {
        self.identity.number
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// The blocks, in the order of their indices.
    pub(super) fn blocks(&self) -> &[OpenBlock] {
        &self.blocks
    }

    /// The number of the block with this index.
    pub(super) fn block_number(&self, index: usize) -> BlockNumber {
        BlockNumber { segment: self.number(), index: index as u16 }
    }

    /// The block of a table, whatever its schema.
    pub(super) fn block_of(&self, table: TableIndex) -> Option<(usize, &OpenBlock)> {
        self.blocks.iter().enumerate().find(|(_, block)| block.table == table)
    }

    /// Bytes that a batch takes where its table has a block already, or has none.
    pub(super) fn bytes_of(&self, batch: &Batch) -> u64 {
        let schema = if self.block_of(batch.table).is_some() { 0 } else { schema_bytes(&self.layout, batch) };
        batch.frame_payload() + HEADER as u64 + schema
    }

    /// Appends one frame per batch, with as few system calls as possible, each in the block of its table, and
    /// before the first of a block its schema.
    ///
    /// After an error the segment is unchanged, and the first new header is overwritten
    /// with zeros, so that recovery finds no frame of a refused batch.
    pub(super) fn append<'a>(
        &mut self,
        batches: impl Iterator<Item = &'a Batch> + Clone,
        scratch: &mut Scratch,
    ) -> io::Result<()> {
        let known = self.blocks.len();
        let written = self.write(batches.clone(), scratch);
        if let Err(error) = written {
            self.blocks.truncate(known);
            let _ = write_all(&*self.file, &[0; HEADER], self.end);
            return Err(error);
        }
        for header in &scratch.placed {
            if let Some(block) = self.blocks.get_mut(usize::from(header.block)).filter(|_| !header.is_schema) {
                block.offsets.push(header.offset);
                block.totals.add(header);
            }
            self.end = header.offset + header.len();
        }
        self.frames += scratch.placed.len() as u64;
        for batch in batches {
            if let Some(block) = self.blocks.iter_mut().find(|block| block.table == batch.table) {
                block.identities.add(batch.encoded_keys(), &batch.ids);
            }
        }
        Ok(())
    }

    fn write<'a>(&mut self, batches: impl Iterator<Item = &'a Batch> + Clone, scratch: &mut Scratch) -> io::Result<()> {
        let too_long = || io::Error::other("a batch is longer than a frame can be");
        let known = self.blocks.len();
        scratch.headers.clear();
        scratch.placed.clear();
        let mut offset = self.end;
        let mut place = |header: Option<Header>| {
            let header = header.ok_or_else(too_long)?;
            offset += header.len();
            scratch.headers.push(header.encode());
            scratch.placed.push(header);
            Ok::<_, io::Error>(FramePlace { epoch: header.epoch, number: header.number, offset })
        };
        let mut next = FramePlace { epoch: self.identity.epoch, number: self.identity.number, offset: self.end };
        let mut positions = (self.frames + 1..).map(Position::new);
        let mut position = || positions.next().unwrap_or_default();
        // The schemas of new blocks, each in front of the first batch of its table.
        let mut schemas: Vec<Vec<u8>> = Vec::new();
        for batch in batches.clone() {
            let index = match self.blocks.iter().position(|block| block.table == batch.table) {
                Some(index) => index,
                None => {
                    let index = self.blocks.len();
                    let schema = BlockSchema {
                        begun_ms: unix_ms(),
                        table: self.layout.label(batch.table).to_owned(),
                        frozen: batch.frozen.clone(),
                    };
                    let bytes = schema.encode();
                    self.blocks.push(OpenBlock::new(batch.table, schema, next.offset));
                    for _ in 0..schema::COPIES {
                        next = place(Header::of_schema(&bytes, index as u16, position(), self.durable, next))?;
                    }
                    schemas.push(bytes);
                    index
                }
            };
            next = place(Header::of(batch, index as u16, position(), self.durable, next))?;
        }
        let mut slices = Vec::with_capacity(scratch.headers.len() * 3);
        let mut batches = batches;
        for (header, bytes) in scratch.placed.iter().zip(&scratch.headers) {
            slices.push(IoSlice::new(bytes));
            if header.is_schema {
                let schema = schemas.get(usize::from(header.block).saturating_sub(known));
                slices.push(IoSlice::new(schema.map_or(&[][..], |schema| schema)));
                continue;
            }
            let Some(batch) = batches.next() else { break };
            let (keys, ids) = (batch.encoded_keys().as_flattened(), batch.ids.as_flattened());
            for section in [&batch.rows.bytes, &batch.rejected.bytes, keys, ids] {
                if !section.is_empty() {
                    slices.push(IoSlice::new(section));
                }
            }
        }
        write_all_slices(&*self.file, &mut slices, self.end)
    }

    /// Makes the appended frames durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        self.durable = Position::new(self.frames);
        Ok(())
    }

    /// Syncs the frames, logs the segment's identities, then writes and syncs the seals. Nothing is
    /// read behind the end that they name.
    pub(super) fn seal(self, logs: &mut IdentityLogs) -> Result<Vec<SealedBlock>, Box<(Self, SealError)>> {
        let sealed_ms = unix_ms();
        let seal_of = |block: &OpenBlock| BlockSeal {
            schema: block.schema_offset,
            first: block.offsets.first().copied().unwrap_or_default(),
            totals: Seal { sealed_ms, ..block.totals },
        };
        let blocks: Vec<BlockSeal> = self.blocks.iter().map(seal_of).collect();
        let seals = Seals { end: self.end, frames: self.frames, sealed_ms, blocks };
        let bytes = seals.encode(self.identity.epoch, self.identity.number);
        // The frames come first: a seal on the disk promises that all of them are there.
        if let Err(error) = self.file.sync() {
            return Err(Box::new((self, SealError::Sync(error))));
        }
        // Then the identities: no start reads the frames of what is sealed.
        for (index, block) in self.blocks.iter().enumerate() {
            if let Err(error) = logs.log(self.block_number(index), block.table, &block.identities) {
                return Err(Box::new((self, error)));
            }
        }
        if let Err(error) = write_all(&*self.file, &bytes, self.identity_len) {
            return Err(Box::new((self, SealError::Write(error))));
        }
        if let Err(error) = self.file.sync() {
            return Err(Box::new((self, SealError::Sync(error))));
        }
        let (schemas, offsets) = self.blocks.into_iter().map(|block| (block.schema, block.offsets)).unzip();
        let file = SegmentFile::new(&self.layout, self.identity, self.identity_len, FileKind::Segment);
        Ok(file.sealed(&seals, schemas, Some(offsets)))
    }
}

impl OpenBlock {
    fn new(table: TableIndex, schema: BlockSchema, schema_offset: u64) -> Self {
        let (totals, identities) = (Seal::default(), Identities::default());
        Self { table, schema, schema_offset, totals, offsets: Vec::new(), identities }
    }

    /// Time of the block's first frame, Unix ms.
    pub(super) fn begun_ms(&self) -> u64 {
        self.schema.begun_ms
    }

    pub(super) fn has_schema_of(&self, batch: &Batch) -> bool {
        Arc::ptr_eq(&self.schema.frozen, &batch.frozen) || self.schema.frozen == batch.frozen
    }

    /// Rows or rejected lines, of which there are more.
    pub(super) fn events(&self) -> u64 {
        self.totals.rows.max(self.totals.rejected)
    }
}

/// Bytes of the schema in front of the first frame of a batch's table.
pub(super) fn schema_bytes(layout: &Layout, batch: &Batch) -> u64 {
    schema::COPIES as u64 * (HEADER as u64 + BlockSchema::bytes(layout.label(batch.table), &batch.frozen))
}

impl Seal {
    /// Adds a frame to the totals, in which no schema counts.
    pub(super) fn add(&mut self, header: &Header) {
        self.end = header.offset + header.len();
        self.frames += 1;
        self.checksum = crc32c::crc32c_append(self.checksum, &header.checksum.to_le_bytes());
        self.rows += u64::from(header.rows);
        self.rejected += u64::from(header.rejected);
        self.rows_bytes += u64::from(header.rows_bytes);
        self.rejected_bytes += u64::from(header.rejected_bytes);
    }
}
