//! The machine under the faulty disk: files, names, the planned fault, and the state that a loss of
//! power leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::super::chance::Chance;
use super::file::File;
use super::{End, Fault};

/// Identifies a file independently of its names.
pub(super) type Inode = usize;

type Names = BTreeMap<String, Inode>;

#[derive(Debug, Clone, Default)]
pub(super) struct Folder {
    pub(super) cached: Names,
    stored: Names,
}

/// An atomic change of names in folders.
type Change = Vec<(PathBuf, String, Option<Inode>)>;

#[derive(Debug, Clone)]
pub(super) struct Machine {
    pub(super) chance: Chance,
    pub(super) files: Vec<File>,
    pub(super) folders: BTreeMap<PathBuf, Folder>,
    /// Changes of names that are not synced.
    pub(super) changes: Vec<Change>,
    /// Number of the running process.
    pub(super) life: u64,
    pub(super) ended: Option<End>,
    pub(super) locked: bool,
    pub(super) calls: u64,
    /// Calls that make, name or lengthen a file, or sync a folder.
    pub(super) namings: u64,
    /// Syncs of files.
    pub(super) syncs: u64,
    pub(super) planned: Option<(u64, Fault)>,
    /// The same, counted from now in calls that may change what is on the disk.
    pub(super) planned_change: Option<(u64, Fault)>,
    pub(super) is_full: bool,
    /// Bytes that a full disk still takes; `None` if it takes none, whatever becomes free.
    pub(super) room: Option<u64>,
    pub(super) read_only: bool,
    /// True once a call was made to fail.
    pub(super) failed: bool,
    /// What the wall clock shows, in seconds since 1970.
    pub(super) unix_seconds: u64,
}

/// The kind of a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Look,
    Read,
    Write,
    Change,
    SyncFile,
    SyncFolder,
}

/// How much of a call is executed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    Whole,
    Part,
    /// A part, then the process ends.
    LastPart,
}

impl Machine {
    pub(super) fn new(chance: Chance) -> Self {
        Self {
            chance,
            files: Vec::new(),
            folders: BTreeMap::new(),
            changes: Vec::new(),
            life: 0,
            ended: None,
            locked: false,
            calls: 0,
            namings: 0,
            syncs: 0,
            planned: None,
            planned_change: None,
            is_full: false,
            room: None,
            read_only: false,
            failed: false,
            unix_seconds: 1_000_000_000,
        }
    }

    pub(super) fn lose_power(&mut self) {
        for file in &mut self.files {
            file.lose_power(&mut self.chance);
        }
        let odds = 1 + self.chance.below(6);
        let mut cut = BTreeSet::new();
        for change in std::mem::take(&mut self.changes) {
            let touches_cut = change.iter().any(|(folder, ..)| cut.contains(folder));
            if touches_cut || self.chance.one_in(odds) {
                cut.extend(change.into_iter().map(|(folder, ..)| folder));
            } else {
                self.store(change);
            }
        }
        for folder in self.folders.values_mut() {
            folder.cached = folder.stored.clone();
        }
    }

    pub(super) fn free_nameless(&mut self) {
        let named = self.folders.values().flat_map(|folder| folder.cached.values().chain(folder.stored.values()));
        let changed = self.changes.iter().flatten().filter_map(|(_, _, inode)| inode.as_ref());
        let kept: BTreeSet<Inode> = named.chain(changed).copied().collect();
        for (_, file) in (0..).zip(&mut self.files).filter(|(inode, _)| !kept.contains(inode)) {
            *file = File::default();
        }
    }

    /// Takes room for more bytes on a full disk. False if there is too little.
    pub(super) fn takes(&mut self, more: u64) -> bool {
        let left = self.room.unwrap_or(0).checked_sub(more);
        if let (Some(room), Some(left)) = (&mut self.room, left) {
            *room = left;
        }
        !self.is_full || left.is_some()
    }

    fn store(&mut self, change: Change) {
        for (folder, name, inode) in change {
            let stored = &mut self.folders.get_mut(&folder).unwrap().stored;
            match inode {
                Some(inode) => stored.insert(name, inode),
                None => stored.remove(&name),
            };
        }
    }

    pub(super) fn apply(&mut self, change: Change) {
        for (folder, name, inode) in &change {
            let cached = &mut self.folders.get_mut(folder).unwrap().cached;
            match inode {
                Some(inode) => cached.insert(name.clone(), *inode),
                None => cached.remove(name),
            };
        }
        self.changes.push(change);
    }

    /// Makes the changes of a folder durable, and the changes that each of them depends on.
    pub(super) fn store_folder(&mut self, folder: &Path) {
        let mut wanted = BTreeSet::from([folder.to_owned()]);
        let (mut stored, mut left) = (Vec::new(), Vec::new());
        for change in std::mem::take(&mut self.changes).into_iter().rev() {
            if change.iter().any(|(folder, ..)| wanted.contains(folder)) {
                wanted.extend(change.iter().map(|(folder, ..)| folder.clone()));
                stored.push(change);
            } else {
                left.push(change);
            }
        }
        left.reverse();
        self.changes = left;
        for change in stored.into_iter().rev() {
            self.store(change);
        }
    }

    pub(super) fn inode(&self, path: &Path) -> io::Result<Inode> {
        let (folder, name) = split(path);
        let folder = self.folders.get(&folder);
        folder.and_then(|folder| folder.cached.get(&name)).copied().ok_or(io::ErrorKind::NotFound.into())
    }

    /// Called at the start of every call: applies random background effects and the planned fault.
    pub(super) fn enter(&mut self, life: u64, call: Call) -> io::Result<Extent> {
        if self.ended.is_some() || life != self.life {
            return Err(io::Error::other("the process has ended"));
        }
        self.calls += 1;
        self.namings += u64::from(matches!(call, Call::Change | Call::SyncFolder));
        self.syncs += u64::from(call == Call::SyncFile);
        self.write_back_some();
        if let Some((left, fault)) = self.planned_change.filter(|_| !matches!(call, Call::Look | Call::Read)) {
            self.planned_change = (left > 1).then_some((left - 1, fault));
            self.planned = self.planned.or((left <= 1).then_some((self.calls, fault)));
        }
        let fault = match self.planned {
            Some((at, fault)) if at <= self.calls => {
                self.planned = None;
                self.failed = true;
                Some(fault)
            }
            _ => None,
        };
        let is_transfer = matches!(call, Call::Read | Call::Write);
        match fault {
            Some(Fault::Kill | Fault::PowerLoss) => {
                self.ended = Some(if fault == Some(Fault::Kill) { End::Killed } else { End::PowerLost });
                // The call is executed or not; either way the process ends before it returns.
                return match call {
                    Call::Write => Ok(Extent::LastPart),
                    Call::Change if self.chance.one_in(2) => Ok(Extent::LastPart),
                    _ => Err(io::Error::other("the process has ended")),
                };
            }
            Some(Fault::Short) if is_transfer => return Ok(Extent::Part),
            Some(Fault::Interrupted) if is_transfer => return Err(io::ErrorKind::Interrupted.into()),
            Some(Fault::ShortThenFails) if call == Call::Write => {
                self.planned = Some((self.calls + 1, Fault::Fails));
                return Ok(Extent::Part);
            }
            Some(Fault::Fails | Fault::ShortThenFails) => return Err(self.error_of(call)),
            Some(Fault::Short | Fault::Interrupted) | None => {}
        }
        if self.read_only && !matches!(call, Call::Look | Call::Read) {
            self.failed = true;
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        Ok(Extent::Whole)
    }

    fn error_of(&mut self, call: Call) -> io::Error {
        let broken = || io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error());
        match call {
            Call::SyncFolder => {
                self.read_only |= self.chance.one_in(2);
                broken()
            }
            Call::Look | Call::Read | Call::SyncFile => broken(),
            Call::Write | Call::Change if self.chance.one_in(2) => broken(),
            Call::Write | Call::Change => io::ErrorKind::StorageFull.into(),
        }
    }

    /// The kernel writes pages whenever it likes.
    fn write_back_some(&mut self) {
        if !self.files.is_empty() && self.chance.one_in(3) {
            let place = self.chance.below(self.files.len() as u64) as usize;
            let file = &mut self.files[place];
            let dirty: Vec<u64> = file.dirty.iter().copied().collect();
            if !dirty.is_empty() {
                let page = *self.chance.pick(&dirty);
                file.write_back(page);
            }
        }
    }
}

pub(super) fn split(path: &Path) -> (PathBuf, String) {
    (path.parent().unwrap().to_owned(), path.file_name().unwrap().to_str().unwrap().to_owned())
}
