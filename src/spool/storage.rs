//! What the spool asks of a file system, as one small trait, so that a faulty one can stand in for
//! the disk in the tests. Nothing else in [`super`] touches files.

use std::any::Any;
use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// What the kernel takes in one call (`IOV_MAX`).
const SLICES_MAX: usize = 1024;

/// A file system. A name is durable once its folder is synced after it was given.
pub(super) trait Storage: Debug + Send + Sync {
    /// Makes a folder (0700) and those above it, where they are missing. Their names are durable.
    fn make_folder(&self, path: &Path) -> io::Result<()>;
    /// Takes the lock at `path` until the value is dropped; `None` when another process has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Any + Send + Sync>>>;
    /// A file for reading and writing, made (0600) if it is missing.
    fn create(&self, path: &Path) -> io::Result<Box<dyn StorageFile>>;
    /// A file that is there, for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn StorageFile>>;
    /// Gives a file another name, over a file that has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// True when both names are of one file.
    fn is_same_file(&self, one: &Path, other: &Path) -> io::Result<bool>;
    /// Takes a name away.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// What is in a folder.
    fn list(&self, path: &Path) -> io::Result<Vec<FolderEntry>>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, path: &Path) -> io::Result<()>;
    /// Bytes that this user may still write to the disk that has `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// An open file. What is written is durable once it is synced.
pub(super) trait StorageFile: Debug + Send + Sync {
    /// Reads what fits into `space`, or less; nothing at the end.
    fn read_at(&self, space: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some of `slices`, at least one byte.
    fn write_at(&self, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// Makes the file at least `len` bytes long, with room on the disk for all of them.
    fn reserve(&self, len: u64) -> io::Result<()>;
    /// Makes it exactly `len` bytes long.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// How long it is.
    fn len(&self) -> io::Result<u64>;
    /// Makes what was written durable, and the length.
    fn sync(&self) -> io::Result<()>;
}

/// Why a segment is not sealed, or what belongs to its seal not written. Only the write may be tried
/// again.
pub(super) enum SealError {
    Write(io::Error),
    Sync(io::Error),
}

impl From<SealError> for io::Error {
    fn from(error: SealError) -> Self {
        match error {
            SealError::Write(error) | SealError::Sync(error) => error,
        }
    }
}

/// A name in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FolderEntry {
    pub(super) name: String,
    pub(super) is_folder: bool,
    pub(super) len: u64,
}

/// Writes all of `bytes`.
pub(super) fn write_all(file: &dyn StorageFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    write_all_slices(file, &mut [IoSlice::new(bytes)], offset)
}

/// Writes all of `slices`, one behind the other, with as few calls as the kernel allows.
pub(super) fn write_all_slices(
    file: &dyn StorageFile,
    mut slices: &mut [IoSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    // Takes empty slices away from the front.
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

/// Puts a small file under `path` in one step: a crash leaves the old one or the new one, whole.
/// The name is durable when the folder is synced.
pub(super) fn replace(storage: &dyn Storage, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let file = storage.create(&beside)?;
    file.set_len(0)?;
    write_all(&*file, bytes, 0)?;
    file.sync()?;
    storage.rename(&beside, path)
}

/// Ends the process. After a failed sync the kernel may have dropped what it could not write, and
/// would say nothing the next time: whoever asked for the sync, nobody may believe this process any
/// more. The next start reads the disk (invariant 6).
pub(super) fn end_after_failed_sync(error: &io::Error) -> ! {
    tracing::error!(%error, "a sync of the spool failed: ending, so that nothing is acknowledged that the disk does not have");
    std::process::exit(74)
}

/// The file system of this machine. None of its syncs returns an error.
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
        let file = open_or_make(path)?;
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
            // What is taken away meanwhile is not there.
            let Ok(metadata) = entry.metadata() else { continue };
            let name = entry.file_name().to_string_lossy().into_owned();
            entries.push(FolderEntry { name, is_folder: metadata.is_dir(), len: metadata.len() });
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
            // A file system that can't reserve gets a file that grows.
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

/// The folder that a relative path begins in has no name.
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
    fn folders_are_made_with_those_above_them_also_below_the_current_one() {
        let folder = tempfile::tempdir().unwrap();
        // A name that nobody has, in the current folder.
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
