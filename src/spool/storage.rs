//! The file system calls of the spool, as a trait. Tests put a faulty implementation in the place of
//! the disk. No other file of [`super`] accesses the file system directly.

use std::any::Any;
use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::clock;

/// The most slices that the kernel takes in one call (`IOV_MAX`).
const SLICES_MAX: usize = 1024;

/// A file system, and the clock beside it. A file name is durable once its folder has been synced.
pub(super) trait Storage: Debug + Send + Sync {
    /// Creates a folder (mode 0700) and its missing parents, and syncs their names.
    fn make_folder(&self, path: &Path) -> io::Result<()>;
    /// Takes the lock on the file or folder at `path`, which a file is made for that is missing, until the
    /// value is dropped; `None` when another process has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>>;
    /// Opens a file for reading and writing; creates it (mode 0600) if it is missing.
    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>>;
    /// Opens an existing file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn StorageFile>>;
    /// Renames a file; replaces an existing file at `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Creates a hard link `to` the file `from`.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// True if both paths are links to the same file.
    fn is_same_file(&self, one: &Path, other: &Path) -> io::Result<bool>;
    /// Unlinks a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Lists a folder.
    fn list(&self, path: &Path) -> io::Result<Vec<FolderEntry>>;
    /// Syncs a folder, which makes the names in it durable.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Bytes that this user may still write to the disk of `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// The wall clock, in seconds since 1970.
    fn unix_seconds(&self) -> u64 {
        clock::unix_seconds()
    }
}

/// An open file. Written bytes are durable once the file has been synced.
pub(super) trait StorageFile: Debug + Send + Sync {
    /// Reads up to `space.len()` bytes; returns 0 at the end of the file.
    fn read_at(&self, space: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes at least one byte of `slices` and returns how many were written.
    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// Extends the file to at least `len` bytes and allocates disk space for all of them.
    fn reserve(&self, len: u64) -> io::Result<()>;
    /// Sets the length of the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// The length of the file.
    fn len(&self) -> io::Result<u64>;
    /// Makes the written bytes and the length durable.
    fn sync(&self) -> io::Result<()>;
}

/// The error of sealing a segment, or of logging its identities. Only a failed write may be
/// retried.
pub(super) enum SealError {
    Write(io::Error),
    Sync(io::Error),
}

/// The error of a failed sync, which ends the process; see [`end_after_failed_sync`].
#[derive(Debug)]
pub(super) struct SyncFailed(pub(super) io::Error);

impl From<SealError> for io::Error {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Write(error) | SealError::Sync(error) => error,
        }
    }
}

/// What has a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    File,
    Folder,
    /// A link or anything else, which none of the spool's files is.
    Other,
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FolderEntry {
    pub(super) name: String,
    pub(super) kind: EntryKind,
    pub(super) len: u64,
}

/// The disk is full: what failed can be done later.
pub(super) fn is_out_of_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Writes all of `bytes`.
pub(super) fn write_all(file: &dyn StorageFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    write_all_slices(file, &mut [IoSlice::new(bytes)], offset)
}

/// Writes all of `slices` consecutively, with as few system calls as possible.
pub(super) fn write_all_slices(
    file: &dyn StorageFile,
    mut slices: &mut [IoSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    // Removes leading empty slices.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match file.write_at(slices.get(..SLICES_MAX).unwrap_or(slices), offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(len) => {
                offset += len as u64;
                IoSlice::advance_slices(&mut slices, len);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads until `space` is full or the file ends.
pub(super) fn read_up_to(file: &dyn StorageFile, space: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut len = 0;
    while let Some(rest) = space.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + len as u64) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// Replaces the file at `path` atomically: a crash leaves the complete old or the complete new
/// file. The caller must sync the folder.
pub(super) fn replace(storage: &dyn Storage, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let file = storage.create(&beside)?;
    file.set_len(0)?;
    write_all(&*file, bytes, 0)?;
    file.sync()?;
    storage.rename(&beside, path)
}

/// Ends the process after a failed sync (invariant 6).
///
/// The kernel may have dropped the pages that it could not write, and a second sync would report
/// success. This process therefore can't know any more what is on the disk; the next start reads it.
pub(super) fn end_after_failed_sync(error: &io::Error) -> ! {
    tracing::error!(
        %error,
        "a sync of the spool failed; the process ends, so that no event is acknowledged that is not on the disk"
    );
    std::process::exit(74)
}

/// The file system of this machine. A failed sync ends the process instead of returning an error.
#[derive(Debug)]
pub(super) struct Disk;

impl Storage for Disk {
    fn make_folder(&self, path: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = path.ancestors().take_while(|folder| !is_there(folder)).collect();
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        for above in missing.iter().filter_map(|folder| folder.parent()) {
            self.sync_folder(if above == Path::new("") { Path::new(".") } else { above })?;
        }
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>> {
        let file = if path.is_dir() { File::open(path)? } else { open_or_make(path)? };
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(open_or_make(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn StorageFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn is_same_file(&self, one: &Path, other: &Path) -> io::Result<bool> {
        let (one, other) = (fs::metadata(one)?, fs::metadata(other)?);
        Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<FolderEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            // The entry was removed after the folder was read.
            let Ok(metadata) = entry.metadata() else { continue };
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = match metadata.file_type() {
                kind if kind.is_file() => EntryKind::File,
                kind if kind.is_dir() => EntryKind::Folder,
                _ => EntryKind::Other,
            };
            entries.push(FolderEntry { name, kind, len: metadata.len() });
        }
        Ok(entries)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all().or_else(|error| end_after_failed_sync(&error))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(path)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

impl StorageFile for File {
    fn read_at(&self, space: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, space, offset)
    }

    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(self, slices, offset)?)
    }

    #[cfg(target_os = "linux")]
    fn reserve(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(self, rustix::fs::FallocateFlags::empty(), 0, len) {
            // On a file system without fallocate the file only gets its length.
            Err(rustix::io::Errno::OPNOTSUPP) => self.set_len(len),
            outcome => Ok(outcome?),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn reserve(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data().or_else(|error| end_after_failed_sync(&error))
    }
}

/// True if the folder exists. The empty path, the last ancestor of a relative one, is the current
/// folder.
fn is_there(folder: &Path) -> bool {
    folder == Path::new("") || folder.exists()
}

fn open_or_make(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_made_with_its_parents_also_below_the_current_folder() {
        let folder = tempfile::tempdir().unwrap();
        // An unused name in the current folder.
        let relative = tempfile::tempdir_in(".").unwrap().path().file_name().unwrap().to_owned();
        for above in [folder.path(), Path::new(&relative)] {
            let path = above.join("a/b/c");
            for _ in 0..2 {
                Disk.make_folder(&path).unwrap();
                assert!(path.is_dir(), "{}", path.display());
            }
        }
        fs::remove_dir_all(&relative).unwrap();
        fs::write(folder.path().join("file"), b"").unwrap();
        assert!(Disk.make_folder(&folder.path().join("file/a")).is_err());
    }
}
