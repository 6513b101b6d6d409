//! The journal: what became of the blocks. Two files, of which one is written to at a time: a
//! checkpoint, which is the state of all blocks, and behind it a record for each change
//! ([`generation`]). A file that is full is followed by the next generation, in the other file; so the
//! former one stays whole until the checkpoint of the next is synced.
//!
//! A record is synced before its change counts, once for all who wait. The state is a pure function of
//! the records ([`Block::apply`]): checkpoint and records behind it give what all records give.
//!
//! Both files have their room on the disk from the start, so on a full disk nothing waits for any. After
//! a write that failed the file may hold a record whose change does not count. It is never written behind:
//! the next record begins the next generation.

mod block;
mod generation;
mod record;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::layout::random;
use super::storage::{Storage, StorageFile, write_all};
use crate::batch::{BlockNumber, Epoch, SegmentNumber};
use crate::limits;
pub use block::OpenAttempt;
pub(super) use block::{Block, BlockId, Change};
use generation::{Generation, Name, Place};

/// Length of each file, and the least on a full disk.
#[cfg(not(test))]
const ROOM: [u64; 2] = [limits::JOURNAL_BYTES, limits::JOURNAL_BYTES >> 5];
/// Little enough for a simulated life to have many generations.
#[cfg(test)]
const ROOM: [u64; 2] = [limits::JOURNAL_BYTES >> 9, limits::JOURNAL_BYTES >> 10];

/// Files as long as this are not made unless so many of them would fit: on the disk, and in what the spool may
/// take of it.
const ROOMY: u64 = 16;

/// Bytes of the journal's two files in a spool that may take so many.
pub(super) fn room(bytes_max: u64) -> u64 {
    let [usual, least] = ROOM;
    2 * if bytes_max / ROOMY >= usual { usual } else { least }
}

/// The journal of a spool.
#[derive(Debug)]
pub(super) struct Journal {
    storage: Arc<dyn Storage>,
    /// The two files.
    paths: [PathBuf; 2],
    /// The folders of the blocks' files.
    folders: Vec<PathBuf>,
    /// What all files of the spool may take together.
    bytes_max: AtomicU64,
    /// What the two files take.
    bytes: AtomicU64,
    queue: Mutex<Queue>,
    /// Locked while the file is written, before `queue`.
    writer: Mutex<Writer>,
}

/// The records that wait to be written.
#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Waiting>,
    /// What will have come of them.
    outcome: Arc<OnceLock<Outcome>>,
}

#[derive(Debug)]
struct Waiting {
    id: BlockId,
    change: Change,
    /// Somebody waits for it. What nobody waits for is written once it can be.
    is_awaited: bool,
}

/// When a record has to be on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    Now,
    /// With a record that has to be.
    Later,
}

/// Kind and code of the error, which is said to all who wait.
type Outcome = Result<(), (io::ErrorKind, Option<i32>)>;

#[derive(Debug)]
struct Writer {
    blocks: BTreeMap<BlockId, Block>,
    /// Proven blocks whose files are gone, though perhaps not yet on the disk.
    gone: Vec<BlockId>,
    /// `None` before [`Journal::begin`]: changes count at once, and the first checkpoint has them.
    file: Option<Box<dyn StorageFile>>,
    name: Name,
    /// Index of the file that `name` is in.
    index: usize,
    /// Of the next group.
    place: Place,
    /// Where the next group begins.
    end: u64,
    capacity: u64,
    /// The file may hold a record whose change does not count.
    has_failed: bool,
    /// A sync has failed: nothing is written any more (invariant 6).
    is_broken: bool,
    /// Records were lost: what is unknown may be anything.
    is_doubtful: bool,
    syncs: u64,
}

impl Journal {
    /// Reads the journal in `dir`, which may be missing. Nothing is written before [`Journal::begin`].
    ///
    /// # Errors
    ///
    /// I/O errors.
    pub(super) fn load(storage: Arc<dyn Storage>, dir: &Path, folders: Vec<PathBuf>) -> io::Result<Self> {
        let paths = [dir.join("0"), dir.join("1")];
        let mut found = Vec::new();
        for path in &paths {
            found.push(match storage.open(path) {
                Ok(file) => generation::read(&*file)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => Generation::default(),
                Err(error) => return Err(error),
            });
        }
        let newest = found.iter().map(|found| found.number).max().unwrap_or(0);
        let whole = (0..).zip(found).filter(|(_, found)| found.is_whole).max_by_key(|(_, found)| found.number);
        let (index, whole) = whole.unwrap_or_default();
        // A later generation whose checkpoint can't be read, and has records behind it, was in use.
        let is_doubtful = whole.is_damaged || newest > whole.number;
        let mut blocks = BTreeMap::<BlockId, Block>::new();
        whole.records.iter().for_each(|(id, change)| blocks.entry(*id).or_default().apply(change));
        let name = Name { generation: newest, salt: 0 };
        let writer = Writer {
            blocks,
            gone: Vec::new(),
            file: None,
            name,
            index,
            place: Place::default(),
            end: 0,
            capacity: 0,
            has_failed: false,
            is_broken: false,
            is_doubtful,
            syncs: 0,
        };
        let (bytes_max, bytes, queue) = (AtomicU64::new(u64::MAX), AtomicU64::default(), Mutex::default());
        let journal = Self { storage, paths, folders, bytes_max, bytes, queue, writer: Mutex::new(writer) };
        journal.measure();
        Ok(journal)
    }

    /// The files of the spool may take so many bytes together.
    pub(super) fn limit(&self, bytes_max: u64) {
        self.bytes_max.store(bytes_max, Relaxed);
    }

    /// Bytes of the two files.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    fn measure(&self) {
        let len = |path| self.storage.open(path).and_then(|file| file.len()).unwrap_or(0);
        self.bytes.store(self.paths.iter().map(|path| len(path)).sum(), Relaxed);
    }

    /// True if there is no whole generation, nor any sign that there was one.
    pub(super) fn is_new(&self) -> bool {
        let writer = self.writer();
        writer.name.generation == 0 && !writer.is_doubtful
    }

    /// Records were lost: a block that the journal does not know may have been sent.
    pub(super) fn is_doubtful(&self) -> bool {
        self.writer().is_doubtful
    }

    pub(super) fn doubt(&self) {
        self.writer().is_doubtful = true;
    }

    /// The state of a block; `None` if there is no record about it.
    pub(super) fn find(&self, id: BlockId) -> Option<Block> {
        self.writer().blocks.get(&id).cloned()
    }

    /// The blocks of a segment that there are records about.
    pub(super) fn of_segment(&self, epoch: Epoch, segment: SegmentNumber) -> Vec<(BlockId, Block)> {
        let id = |index| BlockId { epoch, number: BlockNumber { segment, index } };
        let writer = self.writer();
        writer.blocks.range(id(0)..=id(u16::MAX)).map(|(id, block)| (*id, block.clone())).collect()
    }

    /// The blocks in the files of a folder: of a table's, or of the log's, which has no table.
    pub(super) fn of_table(&self, table: &str) -> Vec<(BlockId, Block)> {
        let writer = self.writer();
        let blocks = writer.blocks.iter().filter(|(_, block)| block.table == table);
        blocks.map(|(id, block)| (*id, block.clone())).collect()
    }

    /// Writes what was read, and what has changed since, as the checkpoint of a new generation. From here on
    /// each change is a record.
    ///
    /// # Errors
    ///
    /// I/O errors. The call may be repeated.
    pub(super) fn begin(&self) -> io::Result<()> {
        let mut writer = self.writer();
        self.reserve(&mut writer)?;
        self.checkpoint(&mut writer, &[])?;
        writer.is_doubtful = false;
        Ok(())
    }

    /// True once changes are records.
    pub(super) fn has_begun(&self) -> bool {
        self.writer().file.is_some()
    }

    /// Gives both files the room that they should have, where they have less since a start found a full disk.
    ///
    /// # Errors
    ///
    /// I/O errors.
    pub(super) fn keep_room(&self) -> io::Result<()> {
        self.reserve(&mut self.writer())
    }

    fn reserve(&self, writer: &mut Writer) -> io::Result<()> {
        if writer.capacity >= room(self.bytes_max.load(Relaxed)) / 2 {
            return Ok(());
        }
        // On a small disk, or a full one, little has to do.
        let [path, _] = &self.paths;
        let free = self.storage.free_bytes(path.parent().unwrap_or(path))?;
        let bytes = room(self.bytes_max.load(Relaxed).min(free)) / 2;
        for path in &self.paths {
            let file = self.storage.create(path)?;
            if file.len()? < bytes {
                file.reserve(bytes)?;
                // Room that is not on the disk is not there on a full one.
                file.sync().inspect_err(|_| writer.is_broken = true)?;
            }
        }
        writer.capacity = writer.capacity.max(bytes);
        self.measure();
        Ok(())
    }

    /// Writes a change durably, together with those of others that wait.
    ///
    /// # Errors
    ///
    /// I/O errors. The change does not count then, whatever the disk has of it.
    pub(super) fn write(&self, id: BlockId, change: Change) -> io::Result<()> {
        let outcome = self.enqueue(Waiting { id, change, is_awaited: true });
        self.write_up_to(&outcome)
    }

    /// Hands a change to the operating system. A loss of power may forget it, and a write that fails puts it
    /// off to the next change.
    pub(super) fn write_unsynced(&self, id: BlockId, change: Change) {
        self.enqueue(Waiting { id, change, is_awaited: false });
        let mut writer = self.writer();
        let mut queue = self.queue();
        // Those who wait for theirs write all of it.
        if queue.waiting.iter().any(|waiting| waiting.is_awaited) {
            return;
        }
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        if let Err(error) = self.write_group(&mut writer, &waiting, Sync::Later) {
            tracing::debug!(%error, "the journal can't be written");
            self.queue().waiting.splice(..0, waiting);
        }
    }

    /// Writes what waits, and makes sure that the file holds nothing whose change does not count.
    ///
    /// # Errors
    ///
    /// I/O errors.
    pub(super) fn flush(&self) -> io::Result<()> {
        let outcome = self.queue().outcome.clone();
        self.write_up_to(&outcome)
    }

    /// Forgets a proven block whose file was removed, once that is on the disk.
    pub(super) fn forget(&self, id: BlockId) {
        self.writer().gone.push(id);
    }

    /// Takes a block out at once, before [`Journal::begin`]: an older release may have changed its state since.
    pub(super) fn discard(&self, id: BlockId) {
        self.writer().blocks.remove(&id);
    }

    /// A sync has failed: the process must end.
    #[cfg(test)]
    pub(super) fn is_broken(&self) -> bool {
        self.writer().is_broken
    }

    /// Number of the generation that is written.
    #[cfg(test)]
    pub(super) fn generation(&self) -> u64 {
        self.writer().name.generation
    }

    /// Goes on in the other file, as it does when this one is full.
    #[cfg(test)]
    pub(super) fn go_on(&self) -> io::Result<()> {
        self.checkpoint(&mut self.writer(), &[])
    }

    /// Number of syncs so far.
    #[cfg(test)]
    pub(super) fn syncs(&self) -> u64 {
        self.writer().syncs
    }

    fn enqueue(&self, waiting: Waiting) -> Arc<OnceLock<Outcome>> {
        let mut queue = self.queue();
        queue.waiting.push(waiting);
        queue.outcome.clone()
    }

    /// Writes the records that have this outcome, unless somebody has while this one waited for its turn.
    fn write_up_to(&self, outcome: &OnceLock<Outcome>) -> io::Result<()> {
        let mut writer = self.writer();
        if let Some(outcome) = outcome.get() {
            return outcome.map_err(|(kind, code)| code.map_or_else(|| kind.into(), io::Error::from_raw_os_error));
        }
        let Queue { waiting, outcome } = std::mem::take(&mut *self.queue());
        let written = self.write_group(&mut writer, &waiting, Sync::Now);
        // Nobody else sets it: the writer is locked.
        let _ = outcome.set(written.as_ref().copied().map_err(|error| (error.kind(), error.raw_os_error())));
        if written.is_err() {
            let left = waiting.into_iter().filter(|waiting| !waiting.is_awaited);
            self.queue().waiting.splice(..0, left);
        }
        written
    }

    fn write_group(&self, writer: &mut Writer, waiting: &[Waiting], sync: Sync) -> io::Result<()> {
        if writer.is_broken {
            return Err(io::Error::other("a sync of the journal has failed"));
        }
        if writer.file.is_some() {
            if waiting.is_empty() && !writer.has_failed {
                return if sync == Sync::Now { writer.sync() } else { Ok(()) };
            }
            let mut records = Vec::new();
            waiting.iter().for_each(|waiting| record::encode(waiting.id, &waiting.change, &mut records));
            let group = generation::encode(writer.name, writer.place, &records, waiting.len() as u32);
            if writer.has_failed || writer.end + group.len() as u64 > writer.capacity {
                self.checkpoint(writer, waiting)?;
            } else {
                writer.append(&group)?;
                if sync == Sync::Now {
                    writer.sync()?;
                }
            }
        }
        for Waiting { id, change, .. } in waiting {
            writer.blocks.entry(*id).or_default().apply(change);
        }
        Ok(())
    }

    /// Writes the states of all blocks, after these records, as a new generation into the other file.
    fn checkpoint(&self, writer: &mut Writer, waiting: &[Waiting]) -> io::Result<()> {
        self.drop_gone(writer);
        let mut blocks = writer.blocks.clone();
        waiting.iter().for_each(|Waiting { id, change, .. }| blocks.entry(*id).or_default().apply(change));
        let (mut records, mut count) = (Vec::new(), 0);
        for (id, block) in blocks.into_iter().filter(|(_, block)| !block.is_fresh()) {
            record::encode(id, &Change::State(block), &mut records);
            count += 1;
        }
        let name = Name { generation: writer.name.generation + 1, salt: random()? };
        let group = generation::encode(name, Place::default(), &records, count);
        let (index, len) = (1 - writer.index, group.len() as u64);
        let [path, folder] = self.other_file(writer);
        let file = self.storage.create(path)?;
        if 2 * len > file.len()? {
            // So many states that they leave no room for records, or a start on a full disk.
            file.reserve(4 * len)?;
            self.measure();
        }
        // The number is used up: nothing that is left of it can be taken for the next generation.
        writer.name.generation = name.generation;
        writer.has_failed = true;
        write_all(&*file, &group, 0)?;
        file.sync().inspect_err(|_| writer.is_broken = true)?;
        self.storage.sync_folder(folder)?;
        writer.syncs += 1;
        writer.capacity = file.len()?;
        (writer.name, writer.file, writer.index) = (name, Some(file), index);
        (writer.place, writer.end, writer.has_failed) = (Place { sequence: 1, synced: 1 }, len, false);
        Ok(())
    }

    /// The file that is not written to, and its folder.
    fn other_file(&self, writer: &Writer) -> [&Path; 2] {
        let [first, second] = &self.paths;
        let path = if writer.index == 0 { second } else { first };
        [path, path.parent().unwrap_or(path)]
    }

    /// Takes the proven blocks out whose files are durably gone.
    fn drop_gone(&self, writer: &mut Writer) {
        if writer.gone.is_empty() {
            return;
        }
        match self.folders.iter().try_for_each(|folder| self.storage.sync_folder(folder)) {
            Ok(()) => {
                for id in std::mem::take(&mut writer.gone) {
                    writer.blocks.remove(&id);
                }
            }
            // They are remembered for another generation.
            Err(error) => tracing::debug!(%error, "the names of inserted segments' files can't be synced"),
        }
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // A panic inside the lock ends the process.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    fn append(&mut self, group: &[u8]) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        if let Err(error) = write_all(&**file, group, self.end) {
            self.has_failed = true;
            return Err(error);
        }
        self.place.sequence += 1;
        self.end += group.len() as u64;
        Ok(())
    }

    /// Makes what was appended durable.
    fn sync(&mut self) -> io::Result<()> {
        let Some(file) = self.file.as_ref().filter(|_| self.place.synced < self.place.sequence) else { return Ok(()) };
        if let Err(error) = file.sync() {
            self.is_broken = true;
            return Err(error);
        }
        self.syncs += 1;
        self.place.synced = self.place.sequence;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
