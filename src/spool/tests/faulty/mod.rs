//! A file system in memory that fails as real ones do.
//!
//! # The fault model
//!
//! **Files.** A write changes the page cache. A sync makes the file's pages durable; before that,
//! any 4 KiB page may reach the disk at any time, in its state of that moment. A loss of power keeps
//! any subset of the pages written since the last sync, any subset of the 512-byte sectors of each
//! page, and any of the lengths that the file has had since. Bytes that were never written read as
//! zeros.
//!
//! **Names.** Creating, renaming and unlinking change a folder. A rename between two folders is one
//! atomic change of both. Of the changes of a folder since its last sync, a loss of power keeps those
//! up to any point of their order. Folders are independent of each other, and the sync of a file
//! does not make its name durable. A folder itself is durable when it is created.
//!
//! **A failed sync of a file** writes some of the dirty pages and marks the others as clean: reads
//! still return them, and they never reach the disk. A failed sync of a folder leaves its changes
//! undecided, and often makes the file system read-only until the next boot.
//!
//! **Other calls** fail without effect, write only a part, or are interrupted. A full disk accepts
//! writes that need no new space.
//!
//! **A kill** ends the process within a call: a write may be executed in part. The page cache stays,
//! including pages that the disk does not have. **A loss of power** ends the process and clears the
//! page cache.

mod file;
mod machine;

use std::any::Any;
use std::fmt;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use super::chance::Chance;
use crate::spool::storage::{EntryKind, FolderEntry, Storage, StorageFile};
use file::File;
use machine::{Call, Extent, Inode, Machine, split};

/// A fault at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::spool) enum Fault {
    /// The call fails with an error that such a call can return.
    Fails,
    /// A read or a write is executed in part.
    Short,
    /// A write is executed in part, and the next call fails.
    ShortThenFails,
    /// A read or a write is interrupted before it began.
    Interrupted,
    /// The process ends.
    Kill,
    /// The machine ends.
    PowerLoss,
}

impl Fault {
    pub(in crate::spool) const ALL: [Self; 6] =
        [Self::Fails, Self::Short, Self::ShortThenFails, Self::Interrupted, Self::Kill, Self::PowerLoss];
}

/// The reason why every further call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::spool) enum End {
    Killed,
    PowerLost,
}

/// A file system in memory with planned and random faults. Clones share its state.
#[derive(Clone)]
pub(in crate::spool) struct FaultyDisk {
    machine: Arc<Mutex<Machine>>,
    life: u64,
}

impl fmt::Debug for FaultyDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a faulty disk")
    }
}

impl FaultyDisk {
    pub(in crate::spool) fn new(seed: u64) -> Self {
        Self { machine: Arc::new(Mutex::new(Machine::new(Chance::new(seed)))), life: 0 }
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap()
    }

    /// Number of calls so far.
    pub(in crate::spool) fn calls(&self) -> u64 {
        self.machine().calls
    }

    /// Number of calls so far that make, name or lengthen a file or sync a folder; and of syncs of files.
    pub(in crate::spool) fn namings_and_syncs(&self) -> (u64, u64) {
        let machine = self.machine();
        (machine.namings, machine.syncs)
    }

    /// Plans a fault at the `nth` call from now.
    pub(in crate::spool) fn plan(&self, nth: u64, fault: Fault) {
        let mut machine = self.machine();
        machine.planned = Some((machine.calls.saturating_add(nth), fault));
    }

    /// Plans a fault at the `nth` call from now that may change what is on the disk.
    pub(in crate::spool) fn plan_change(&self, nth: u64, fault: Fault) {
        self.machine().planned_change = Some((nth, fault));
    }

    /// True if a planned fault has not come.
    pub(in crate::spool) fn is_planned(&self) -> bool {
        let machine = self.machine();
        machine.planned.is_some() || machine.planned_change.is_some()
    }

    /// Ends all faults.
    pub(in crate::spool) fn heal(&self) {
        let mut machine = self.machine();
        machine.planned_change = None;
        (machine.planned, machine.is_full) = (None, false);
    }

    pub(in crate::spool) fn fill(&self, is_full: bool) {
        let mut machine = self.machine();
        (machine.is_full, machine.room) = (is_full, None);
    }

    /// Fills the disk, but for what becomes free of files that are made shorter.
    pub(in crate::spool) fn fill_up(&self) {
        let mut machine = self.machine();
        (machine.is_full, machine.room) = (true, Some(0));
    }

    pub(in crate::spool) fn is_full(&self) -> bool {
        self.machine().is_full
    }

    /// True if a call was made to fail since this function was last called.
    pub(in crate::spool) fn has_failed(&self) -> bool {
        std::mem::take(&mut self.machine().failed)
    }

    /// Suspends the plan.
    pub(in crate::spool) fn pause(&self) -> Option<(u64, Fault)> {
        let mut machine = self.machine();
        let calls = machine.calls;
        machine.planned.take().map(|(at, fault)| (at - calls.min(at), fault))
    }

    /// Restores the plan that [`FaultyDisk::pause`] returned.
    pub(in crate::spool) fn resume(&self, planned: Option<(u64, Fault)>) {
        if let Some((nth, fault)) = planned {
            self.plan(nth, fault);
        }
    }

    /// True if the process or the machine has ended within a call.
    pub(in crate::spool) fn ended(&self) -> Option<End> {
        self.machine().ended
    }

    pub(in crate::spool) fn is_read_only(&self) -> bool {
        self.machine().read_only
    }

    /// The view of the next process, after this one has ended.
    pub(in crate::spool) fn restart(&mut self, end: End) {
        let mut guard = self.machine();
        let machine = &mut *guard;
        machine.life += 1;
        (machine.ended, machine.locked) = (None, false);
        if end == End::PowerLost {
            machine.read_only = false;
            machine.lose_power();
        }
        machine.free_nameless();
        let life = machine.life;
        drop(guard);
        self.life = life;
    }

    /// The contents of a folder's files, as reads see them now.
    pub(in crate::spool) fn files_in(&self, folder: &Path) -> Vec<(String, Vec<u8>)> {
        let machine = self.machine();
        let names = machine.folders.get(folder).into_iter().flat_map(|folder| &folder.cached);
        let read = |inode: &Inode| {
            let file = &machine.files[*inode];
            let mut bytes = vec![0; file.cached.len as usize];
            file.read(&mut bytes, 0);
            bytes
        };
        names.map(|(name, inode)| (name.clone(), read(inode))).collect()
    }

    /// A copy of the machine, with its disk, while no process runs on it.
    pub(in crate::spool) fn copy(&self) -> Self {
        Self { machine: Arc::new(Mutex::new(self.machine().clone())), life: self.life }
    }

    /// Moves the wall clock by these seconds.
    pub(in crate::spool) fn step_clock(&self, by: i64) {
        let mut machine = self.machine();
        machine.unix_seconds = machine.unix_seconds.saturating_add_signed(by);
    }

    /// Flips one bit of a file at rest.
    pub(in crate::spool) fn flip(&self, path: &Path, byte: u64, bit: u8) {
        let mut machine = self.machine();
        let inode = machine.inode(path).unwrap();
        machine.files[inode].flip(byte, bit);
    }

    fn handle(&self, inode: Inode) -> Box<dyn StorageFile> {
        Box::new(Handle { disk: self.clone(), inode })
    }
}

/// The outcome of a call that may have been the process's last.
fn done<T>(extent: Extent, value: T) -> io::Result<T> {
    if extent == Extent::LastPart { Err(io::Error::other("the process has ended")) } else { Ok(value) }
}

impl Storage for FaultyDisk {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.machine();
        if machine.folders.contains_key(path) {
            machine.enter(self.life, Call::Look)?;
            return Ok(());
        }
        let extent = machine.enter(self.life, Call::Change)?;
        for folder in path.ancestors() {
            machine.folders.entry(folder.to_owned()).or_default();
        }
        done(extent, ())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        if self.machine().folders.contains_key(path) {
            return Ok(Some(Box::new(())));
        }
        drop(self.create(path)?);
        let mut machine = self.machine();
        if std::mem::replace(&mut machine.locked, true) {
            return Ok(None);
        }
        Ok(Some(Box::new(Lock(self.clone()))))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let mut machine = self.machine();
        if machine.inode(path).is_ok() {
            drop(machine);
            return self.open(path);
        }
        let extent = machine.enter(self.life, Call::Change)?;
        if machine.is_full && machine.room.unwrap_or(0) == 0 && machine.chance.one_in(2) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = machine.files.len();
        machine.files.push(File::default());
        let (folder, name) = split(path);
        machine.apply(vec![(folder, name, Some(inode))]);
        drop(machine);
        done(extent, self.handle(inode))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        let mut machine = self.machine();
        machine.enter(self.life, Call::Look)?;
        let inode = machine.inode(path)?;
        drop(machine);
        Ok(self.handle(inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut machine = self.machine();
        let extent = machine.enter(self.life, Call::Change)?;
        let inode = machine.inode(from)?;
        let ((from, old), (to, new)) = (split(from), split(to));
        machine.apply(vec![(from, old, None), (to, new, Some(inode))]);
        done(extent, ())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut machine = self.machine();
        let extent = machine.enter(self.life, Call::Change)?;
        let inode = machine.inode(from)?;
        if machine.inode(to).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (folder, name) = split(to);
        machine.apply(vec![(folder, name, Some(inode))]);
        done(extent, ())
    }

    fn is_same_file(&self, one: &Path, other: &Path) -> io::Result<bool> {
        let mut machine = self.machine();
        machine.enter(self.life, Call::Look)?;
        Ok(machine.inode(one)? == machine.inode(other)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.machine();
        let extent = machine.enter(self.life, Call::Change)?;
        machine.inode(path)?;
        let (folder, name) = split(path);
        machine.apply(vec![(folder, name, None)]);
        done(extent, ())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<FolderEntry>> {
        let mut machine = self.machine();
        machine.enter(self.life, Call::Look)?;
        let folder = machine.folders.get(path).ok_or(io::ErrorKind::NotFound)?;
        let names =
            folder.cached.iter().map(|(name, inode)| (name.clone(), EntryKind::File, machine.files[*inode].cached.len));
        let below = machine.folders.keys().filter(|folder| folder.parent() == Some(path));
        let below = below.map(|folder| (split(folder).1, EntryKind::Folder, 0));
        Ok(names.chain(below).map(|(name, kind, len)| FolderEntry { name, kind, len }).collect())
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        let mut machine = self.machine();
        machine.enter(self.life, Call::SyncFolder)?;
        machine.store_folder(path);
        Ok(())
    }

    fn free_bytes(&self, _: &Path) -> io::Result<u64> {
        let mut machine = self.machine();
        machine.enter(self.life, Call::Look)?;
        Ok(if machine.is_full { machine.room.unwrap_or(0) } else { 1 << 40 })
    }

    fn unix_seconds(&self) -> u64 {
        self.machine().unix_seconds
    }
}

struct Lock(FaultyDisk);

impl Drop for Lock {
    fn drop(&mut self) {
        let mut machine = self.0.machine();
        if machine.life == self.0.life {
            machine.locked = false;
        }
    }
}

#[derive(Debug)]
struct Handle {
    disk: FaultyDisk,
    inode: Inode,
}

impl Handle {
    fn enter(&self, call: Call) -> io::Result<(MutexGuard<'_, Machine>, Extent)> {
        let mut machine = self.disk.machine();
        let extent = machine.enter(self.disk.life, call)?;
        Ok((machine, extent))
    }
}

impl StorageFile for Handle {
    fn read_at(&self, space: &mut [u8], offset: u64) -> io::Result<usize> {
        let (mut machine, extent) = self.enter(Call::Read)?;
        let mut len = space.len();
        if extent != Extent::Whole && len > 1 {
            len = 1 + machine.chance.below(len as u64 - 1) as usize;
        }
        Ok(machine.files[self.inode].read(&mut space[..len], offset))
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let (mut machine, extent) = self.enter(Call::Write)?;
        let mut bytes = Vec::new();
        slices.iter().for_each(|slice| bytes.extend_from_slice(slice));
        if extent != Extent::Whole {
            let least = usize::from(extent == Extent::Part);
            bytes.truncate(least + machine.chance.below(bytes.len() as u64 + 1 - least as u64) as usize);
        }
        let reserved = machine.files[self.inode].reserved;
        let more = (offset + bytes.len() as u64).saturating_sub(reserved);
        if more > 0 && !machine.takes(more) {
            let room = reserved.saturating_sub(offset) as usize;
            if room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            bytes.truncate(room);
        }
        let file = &mut machine.files[self.inode];
        file.write(&bytes, offset);
        done(extent, bytes.len())
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        let (mut machine, extent) = self.enter(Call::Change)?;
        let more = len.saturating_sub(machine.files[self.inode].reserved);
        if more > 0 && !machine.takes(more) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = &mut machine.files[self.inode];
        if len > file.cached.len {
            file.set_len(len);
        }
        file.reserved = file.reserved.max(len);
        done(extent, ())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (mut machine, extent) = self.enter(Call::Change)?;
        let freed = machine.files[self.inode].reserved.saturating_sub(len);
        machine.room = machine.room.map(|room| room + freed);
        machine.files[self.inode].set_len(len);
        done(extent, ())
    }

    fn len(&self) -> io::Result<u64> {
        let (machine, _) = self.enter(Call::Look)?;
        Ok(machine.files[self.inode].cached.len)
    }

    fn sync(&self) -> io::Result<()> {
        let mut guard = self.disk.machine();
        let machine = &mut *guard;
        let file = self.inode;
        let was_ended = machine.ended.is_some();
        let outcome = machine.enter(self.disk.life, Call::SyncFile);
        if outcome.is_ok() {
            machine.files[file].write_back_all();
        } else if !was_ended && machine.ended.is_none() && !machine.read_only && machine.life == self.disk.life {
            machine.files[file].forget_dirty(&mut machine.chance);
        }
        outcome.map(|_| ())
    }
}
