//! The open segment, which the committer appends frames to until it is sealed.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use super::block::{Identity, Seal, VERSION, frames_start};
use super::frame::{FramePlace, HEADER, Header};
use super::layout::{FileKind, Layout};
use super::repeats::{Identities, IdentityLogs};
use super::sealed::SealedSegment;
use super::storage::{SealError, StorageFile, write_all, write_all_slices};
use crate::batch::identity::REQUEST_KEY_BYTES;
use crate::batch::{Batch, Position, SegmentNumber};
use crate::clock::unix_ms;

/// The one segment that frames are appended to.
pub(super) struct OpenSegment {
    layout: Arc<Layout>,
    file: Box<dyn StorageFile>,
    identity: Identity,
    identity_len: u64,
    /// Length of the file; frames up to it need no new disk space.
    pub(super) capacity: u64,
    /// Totals of the frames that were appended; written as the seal.
    pub(super) totals: Seal,
    identities: Identities,
    /// The last position that is known to be synced.
    durable: Position,
}

impl OpenSegment {
    /// Opens a segment in a new file of `capacity` bytes, or in the `recycled` file, which is
    /// overwritten.
    ///
    /// The file gets its segment name after the identity block is synced, so every file with a
    /// segment name has an identity. Both the file and the folder are synced before the segment is
    /// returned. Without the sync of the folder, a crash could leave acknowledged frames in a file
    /// that still has its old name.
    pub(super) fn create(
        layout: &Arc<Layout>,
        number: SegmentNumber,
        frozen: &[u8],
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
            frozen: frozen.to_vec(),
        };
        layout.keep_node_id()?;
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
            layout.sync_table_dir()?;
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
        layout.sync_table_dir()?;
        let identity_len = block.len() as u64;
        Ok(Self {
            layout: layout.clone(),
            file,
            identity,
            identity_len,
            capacity,
            totals: Seal { end: frames_start(identity_len), ..Seal::default() },
            identities: Identities::default(),
            durable: Position::default(),
        })
    }

    pub(super) fn number(&self) -> SegmentNumber {
        self.identity.number
    }

    /// Serialized columns and settings of its rows.
    pub(super) fn frozen(&self) -> &[u8] {
        &self.identity.frozen
    }

    pub(super) fn created_ms(&self) -> u64 {
        self.identity.created_ms
    }

    pub(super) fn is_empty(&self) -> bool {
        self.totals.frames == 0
    }

    /// Appends one frame per batch, with as few system calls as possible. `headers` is scratch
    /// memory for the headers.
    ///
    /// After an error the segment's totals are unchanged, and the first new header is overwritten
    /// with zeros, so that recovery finds no frame of a refused batch.
    pub(super) fn append<'a>(
        &mut self,
        batches: impl Iterator<Item = &'a Batch> + Clone,
        headers: &mut Vec<[u8; HEADER]>,
    ) -> io::Result<()> {
        let mut totals = self.totals;
        let first_position = Position::new(totals.frames + 1);
        headers.clear();
        for (batch, more) in batches.clone().zip(0..) {
            let place = FramePlace { epoch: self.identity.epoch, number: self.identity.number, offset: totals.end };
            let header = Header::of(batch, first_position.plus(more), self.durable, place)
                .ok_or_else(|| io::Error::other("a batch is longer than a frame can be"))?;
            headers.push(header.encode());
            totals.add(&header);
        }
        let keys: Vec<[u8; REQUEST_KEY_BYTES]> = batches.clone().filter_map(Batch::encoded_key).collect();
        let mut next_key = keys.iter();
        let mut slices = Vec::with_capacity(headers.len() * 3);
        for (batch, header) in batches.clone().zip(headers.iter()) {
            slices.push(IoSlice::new(header));
            let key = batch.key.and_then(|_| next_key.next()).map_or(&[][..], |key| key);
            for section in [&batch.rows.bytes, &batch.rejected.bytes, key, batch.ids.as_flattened()] {
                if !section.is_empty() {
                    slices.push(IoSlice::new(section));
                }
            }
        }
        if let Err(error) = write_all_slices(&*self.file, &mut slices, self.totals.end) {
            let _ = write_all(&*self.file, &[0; HEADER], self.totals.end);
            return Err(error);
        }
        self.totals = totals;
        for batch in batches {
            self.identities.add(batch.key, &batch.ids);
        }
        Ok(())
    }

    /// Makes the appended frames durable.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        self.durable = Position::new(self.totals.frames);
        Ok(())
    }

    /// Syncs the frames, logs the segment's identities, then writes and syncs the seal. Nothing is
    /// read behind the end that the seal names.
    pub(super) fn seal(mut self, logs: &mut IdentityLogs) -> Result<SealedSegment, Box<(Self, SealError)>> {
        self.totals.sealed_ms = unix_ms();
        let block = self.totals.encode(self.identity.epoch, self.identity.number);
        // The frames come first: a seal on the disk promises that all of them are there.
        if let Err(error) = self.file.sync() {
            return Err(Box::new((self, SealError::Sync(error))));
        }
        // Then the identities: no start reads the frames of what is sealed.
        if let Err(error) = logs.log(self.identity.number, &self.identities) {
            return Err(Box::new((self, error)));
        }
        if let Err(error) = write_all(&*self.file, &block, self.identity_len) {
            return Err(Box::new((self, SealError::Write(error))));
        }
        if let Err(error) = self.file.sync() {
            return Err(Box::new((self, SealError::Sync(error))));
        }
        Ok(SealedSegment::new(self.layout, self.identity, self.identity_len, self.totals))
    }
}

impl Seal {
    /// Adds a frame to the totals.
    pub(super) fn add(&mut self, header: &Header) {
        self.end += header.len();
        self.frames += 1;
        self.rows += u64::from(header.rows);
        self.rejected += u64::from(header.rejected);
        self.rows_bytes += u64::from(header.rows_bytes);
        self.rejected_bytes += u64::from(header.rejected_bytes);
        self.checksum = crc32c::crc32c_append(self.checksum, &header.checksum.to_le_bytes());
    }
}
