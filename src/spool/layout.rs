//! The spool's folders and file names, its lock, and the node id.

use std::any::Any;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::storage::{self, EntryKind, FolderEntry, Storage};
use crate::batch::{Epoch, SegmentNumber};

/// The kind of a segment's file, which is its file name extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    /// A segment that is open, or sealed and never sent.
    Segment,
    /// A sealed segment whose rows ClickHouse may have.
    Sent,
    /// The copy that a recovery is writing.
    Copy,
}

impl FileKind {
    const ALL: [(Self, &'static str); 3] = [(Self::Segment, "segment"), (Self::Sent, "sent"), (Self::Copy, "copy")];

    fn extension(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, extension)| extension)
    }
}

/// The paths of a table's spool, with the lock on the spool and the identity of this process.
#[derive(Debug)]
pub(super) struct Layout {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    table_dir: PathBuf,
    node_id: String,
    node_id_is_kept: AtomicBool,
    epoch: Epoch,
    /// `None` if the layout is read-only.
    _lock: Option<Box<dyn Any + Send + Sync>>,
}

impl Layout {
    /// Creates the folders, takes the lock, reads or generates the node id, and draws a random
    /// epoch.
    pub(super) fn open(
        storage: Arc<dyn Storage>,
        dir: &Path,
        table: &str,
        node_id: Option<&str>,
    ) -> Result<Self, SpoolError> {
        let table_dir = dir.join(table);
        for folder in [
            dir,
            &table_dir,
            &table_dir.join("free"),
            &table_dir.join("damaged"),
            &dir.join("keys"),
            &table_dir.join("seen"),
        ] {
            storage.make_folder(folder).map_err(failed(format!("making {}", folder.display())))?;
        }
        let lock_path = dir.join("lock");
        let lock = storage.lock(&lock_path).map_err(failed(format!("locking {}", lock_path.display())))?;
        let lock = lock.ok_or(SpoolError::Locked(lock_path))?;
        let node_path = node_path(dir);
        let kept = match node_id {
            Some(node_id) => Some(node_id.to_owned()),
            None => kept_node_id(&*storage, &node_path).map_err(failed(format!("reading {}", node_path.display())))?,
        };
        let unrandom = |error| failed("drawing a random number".to_owned())(error);
        let node_id_is_kept = AtomicBool::new(kept.is_some());
        let node_id = match kept {
            Some(node_id) => node_id,
            None => format!("{:016x}", random().map_err(unrandom)?),
        };
        let epoch = Epoch::new(random().map_err(unrandom)?);
        for folder in [dir, &table_dir] {
            storage.sync_folder(folder).map_err(failed(format!("syncing {}", folder.display())))?;
        }
        Ok(Self { storage, dir: dir.to_owned(), table_dir, node_id, node_id_is_kept, epoch, _lock: Some(lock) })
    }

    /// Creates a layout without the lock, which must not be used to write.
    pub(super) fn read_only(storage: Arc<dyn Storage>, dir: &Path, table: &str) -> Self {
        Self {
            storage,
            dir: dir.to_owned(),
            table_dir: dir.join(table),
            node_id: String::new(),
            node_id_is_kept: AtomicBool::new(true),
            epoch: Epoch::default(),
            _lock: None,
        }
    }

    /// The file system of the spool.
    pub(super) fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// Writes a generated node id to its file. Called before the first segment is created and not at
    /// the start, which must succeed on a full disk too.
    pub(super) fn keep_node_id(&self) -> io::Result<()> {
        if !self.node_id_is_kept.load(Relaxed) {
            storage::replace(&*self.storage, &node_path(&self.dir), self.node_id.as_bytes())?;
            self.storage.sync_folder(&self.dir)?;
            self.node_id_is_kept.store(true, Relaxed);
        }
        Ok(())
    }

    /// Syncs the table's folder, which makes the names in it durable.
    pub(super) fn sync_table_dir(&self) -> io::Result<()> {
        self.storage.sync_folder(&self.table_dir)
    }

    pub(super) fn table_dir(&self) -> &Path {
        &self.table_dir
    }

    pub(super) fn node_id(&self) -> &str {
        &self.node_id
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn free_dir(&self) -> PathBuf {
        self.table_dir.join("free")
    }

    /// The folder of the logs of request keys.
    pub(super) fn keys_dir(&self) -> PathBuf {
        self.dir.join("keys")
    }

    /// The folder of the logs of event identities.
    pub(super) fn seen_dir(&self) -> PathBuf {
        self.table_dir.join("seen")
    }

    pub(super) fn damaged_dir(&self) -> PathBuf {
        self.table_dir.join("damaged")
    }

    pub(super) fn path(&self, number: SegmentNumber, kind: FileKind) -> PathBuf {
        self.table_dir.join(format!("{:020}.{}", number.get(), kind.extension()))
    }

    /// The file with the cut of a segment.
    pub(super) fn cut_path(&self, number: SegmentNumber) -> PathBuf {
        self.table_dir.join(format!("{:020}.cut", number.get()))
    }

    /// Segments in the table's folder, by number; and the names there that look like one and are none.
    pub(super) fn list(&self) -> io::Result<(Vec<(SegmentNumber, FileKind)>, Vec<String>)> {
        let (mut found, mut strange) = (Vec::new(), Vec::new());
        for FolderEntry { name, kind, .. } in self.storage.list(&self.table_dir)? {
            match parse_name(&name) {
                Some(segment) if kind == EntryKind::File => found.push(segment),
                _ if is_like_a_segment(&name, kind) => strange.push(name),
                _ => {}
            }
        }
        // Of two under one number the one that was sent comes first.
        found.sort_unstable_by_key(|(number, kind)| (*number, *kind != FileKind::Sent));
        strange.sort_unstable();
        Ok((found, strange))
    }
}

/// True for the name of a segment that no segment has: its number is not written as numbers are; or the
/// name is one of the spool's, of a folder or a link.
fn is_like_a_segment(name: &str, kind: EntryKind) -> bool {
    let Some((stem, extension)) = name.split_once('.') else { return false };
    let is_ours = stem.bytes().all(|byte| byte.is_ascii_digit())
        && ["segment", "sent", "copy", "new", "cut"].contains(&extension);
    match kind {
        EntryKind::File => ["segment", "sent"].contains(&extension),
        EntryKind::Folder | EntryKind::Other => is_ours,
    }
}

/// Numbers beyond this one are not believed: there would be none left.
const NUMBER_MAX: SegmentNumber = SegmentNumber::new(1 << 62);

/// Number and kind of a segment's file; `None` for any other.
pub(super) fn parse_name(name: &str) -> Option<(SegmentNumber, FileKind)> {
    let (stem, extension) = name.split_once('.')?;
    let (kind, _) = FileKind::ALL.iter().find(|(_, known)| *known == extension)?;
    let number = stem.parse().ok().filter(|number| *number <= NUMBER_MAX)?;
    (stem == format!("{number:020}")).then_some((number, *kind))
}

/// The reason why a spool can't be opened.
#[derive(Debug)]
pub enum SpoolError {
    /// Another process owns the spool.
    Locked(PathBuf),
    /// An I/O error.
    Io {
        /// The step that failed.
        what: String,
        /// The error.
        error: io::Error,
    },
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked(path) => write!(f, "another process owns the spool: {} is locked", path.display()),
            Self::Io { what, error } => write!(f, "the spool can't be used: {what}: {error}"),
        }
    }
}

impl std::error::Error for SpoolError {}

pub(super) fn failed(what: String) -> impl FnOnce(io::Error) -> SpoolError {
    move |error| SpoolError::Io { what, error }
}

fn node_path(dir: &Path) -> PathBuf {
    dir.join("node-id")
}

fn kept_node_id(storage: &dyn Storage, path: &Path) -> io::Result<Option<String>> {
    const BYTES_MAX: usize = 256;
    let file = match storage.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = [0; BYTES_MAX];
    let len = storage::read_up_to(&*file, &mut text, 0)?;
    let text = String::from_utf8_lossy(text.get(..len).unwrap_or_default());
    Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::storage::Disk;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn open(dir: &Path, node_id: Option<&str>) -> Result<Layout, SpoolError> {
        Layout::open(Arc::new(Disk), dir, "t", node_id)
    }

    #[test]
    fn the_name_of_a_segment_is_parsed_and_other_names_are_not() {
        assert_eq!(parse_name("00000000000000000007.sent"), Some((SegmentNumber::new(7), FileKind::Sent)));
        for other in ["schema.json", "7", "x.segment", "7.segment", "7.segment.new", "free", ".segment"] {
            assert_eq!(parse_name(other), None, "{other}");
        }
        assert_eq!(parse_name(&format!("{}.sent", u64::MAX)), None, "no number would be left");
    }

    #[test]
    fn a_spool_belongs_to_one_process_and_keeps_its_node_id() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("spool");
        let first = open(&dir, None).unwrap();
        assert!(matches!(open(&dir, None), Err(SpoolError::Locked(_))));
        first.keep_node_id().unwrap();
        let (node_id, epoch) = (first.node_id().to_owned(), first.epoch());
        drop(first);
        let second = open(&dir, None).unwrap();
        assert_eq!(second.node_id(), node_id);
        assert_ne!(second.epoch(), epoch);
        drop(second);
        assert_eq!(open(&dir, Some("given")).unwrap().node_id(), "given");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join("t/free")), mode(&dir.join("node-id"))), (0o700, 0o700, 0o600));
    }
}
