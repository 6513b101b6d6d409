//! The spool's folders and file names, its lock, and the node id.

use std::any::Any;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::adoption::TRIPWIRE;
use super::file_name::{FileKind, is_like_a_segment, parse_name};
use super::folders::{self, DAMAGED, FREE, KEYS, LOCK, LOG, NODE_ID, RECYCLED, SEEN, SPARE, STATE, table_folder};
use super::journal::{self, Journal};
use super::secret::Secret;
use super::segment_file::{Opened, SegmentFile};
use super::storage::{self, EntryKind, FolderEntry, Storage, is_out_of_space};
use crate::batch::identity::BodyHashing;
use crate::batch::{BlockNumber, Epoch, SegmentNumber, TableIndex};
use crate::limits;

type Lock = Box<dyn Any + Send + Sync>;

/// Where things are, with the lock that makes them ours: of the log, or of what an older release left in the
/// folder of a table.
#[derive(Debug)]
pub(super) struct Layout {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    /// The tables, by the names that their folders have.
    tables: Arc<[String]>,
    /// The table whose folder it is; empty for that of the log.
    table: String,
    /// The folder of the segments.
    folder: PathBuf,
    journal: Arc<Journal>,
    node_id: String,
    node_id_is_kept: AtomicBool,
    secret: Secret,
    spare: AtomicU64,
    /// What all files of the spool may take together.
    bytes_max: u64,
    epoch: Epoch,
    /// `None` for one who only looks.
    _lock: Option<Vec<Lock>>,
}

impl Layout {
    /// Creates the folders, takes the lock, reads or generates the node id, and draws a random
    /// epoch.
    pub(super) fn open(
        storage: Arc<dyn Storage>,
        dir: &Path,
        tables: Vec<String>,
        node_id: Option<&str>,
    ) -> Result<Self, SpoolError> {
        let make = |folder: &Path| storage.make_folder(folder).map_err(failed(format!("making {}", folder.display())));
        make(dir)?;
        let lock = lock(&*storage, dir)?;
        folders::move_tables(&*storage, dir).map_err(failed("moving a table to a folder of its own".to_owned()))?;
        let log = dir.join(LOG);
        for folder in [&log, &log.join(RECYCLED), &dir.join(DAMAGED), &dir.join(KEYS), &dir.join(STATE)] {
            make(folder)?;
        }
        let table_folders: Vec<PathBuf> = tables.iter().map(|table| table_folder(dir, table)).collect();
        for folder in &table_folders {
            for folder in [folder, &folder.join(FREE), &folder.join(DAMAGED), &folder.join(SEEN)] {
                make(folder)?;
            }
        }
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
        let secret = Secret::open(&*storage, &dir.join(KEYS))?;
        for folder in [dir, &log].into_iter().chain(table_folders.iter().map(PathBuf::as_path)) {
            storage.sync_folder(folder).map_err(failed(format!("syncing {}", folder.display())))?;
        }
        // No other folder of a table gets a segment, or loses one.
        let has_segments = |folder: &PathBuf| {
            let is_segment =
                |entry: &FolderEntry| parse_name(&entry.name).is_some_and(|(number, _)| number != TRIPWIRE);
            storage.list(folder).is_ok_and(|entries| entries.iter().any(is_segment))
        };
        let folders = std::iter::once(log.clone()).chain(table_folders.into_iter().filter(has_segments)).collect();
        let journal = Arc::new(load_journal(&storage, dir, folders)?);
        let spare = storage.open(&dir.join(SPARE)).and_then(|file| file.len());
        let spare = AtomicU64::new(spare.unwrap_or(0));
        Ok(Self {
            storage,
            dir: dir.to_owned(),
            tables: tables.into(),
            table: String::new(),
            folder: log,
            journal,
            node_id,
            node_id_is_kept,
            secret,
            spare,
            bytes_max: u64::MAX,
            epoch,
            _lock: Some(lock),
        })
    }

    /// Creates a layout of the log without the lock, which must not be used to write.
    pub(super) fn read_only(storage: Arc<dyn Storage>, dir: &Path) -> Result<Self, SpoolError> {
        let journal = Arc::new(load_journal(&storage, dir, Vec::new())?);
        Ok(Self {
            storage,
            dir: dir.to_owned(),
            tables: Arc::default(),
            table: String::new(),
            folder: dir.join(LOG),
            journal,
            node_id: String::new(),
            node_id_is_kept: AtomicBool::new(true),
            secret: Secret::default(),
            spare: AtomicU64::new(0),
            bytes_max: u64::MAX,
            epoch: Epoch::default(),
            _lock: None,
        })
    }

    /// Where the same spool has what an older release left of a table.
    pub(super) fn of_table(&self, table: &str) -> Self {
        Self {
            storage: self.storage.clone(),
            dir: self.dir.clone(),
            tables: self.tables.clone(),
            table: table.to_owned(),
            folder: table_folder(&self.dir, table),
            journal: self.journal.clone(),
            node_id: self.node_id.clone(),
            node_id_is_kept: AtomicBool::new(true),
            secret: Secret::default(),
            spare: AtomicU64::new(0),
            bytes_max: u64::MAX,
            epoch: self.epoch,
            _lock: None,
        }
    }

    /// The tables that have a folder.
    pub(super) fn table_folders(&self) -> io::Result<Vec<String>> {
        let folders = self.storage.list(&self.dir)?.into_iter().filter(|entry| entry.kind == EntryKind::Folder);
        Ok(folders.filter_map(|folder| folders::table_of(&folder.name).map(str::to_owned)).collect())
    }

    /// The tables that the spool was opened for.
    pub(super) fn tables(&self) -> &[String] {
        &self.tables
    }

    /// The name of a table's folder.
    pub(super) fn label(&self, table: TableIndex) -> &str {
        self.tables.get(table.get()).map_or("", String::as_str)
    }

    /// The table with this label; [`TableIndex::OTHER`] if the spool was not opened for it.
    pub(super) fn index_of(&self, label: &str) -> TableIndex {
        let place = self.tables.iter().position(|table| table == label);
        place.and_then(|place| u16::try_from(place).ok()).map_or(TableIndex::OTHER, TableIndex::new)
    }

    /// The number in this process of the block that has another on the disk: two tables of which an older
    /// release kept segments apart may have the same.
    pub(super) fn number_of(&self, number: BlockNumber) -> BlockNumber {
        let place = self.tables.iter().position(|table| *table == self.table);
        match place.and_then(|place| u16::try_from(place).ok()) {
            Some(place) if place > 0 => BlockNumber { index: OF_OLDER_RELEASE.saturating_add(place), ..number },
            _ => number,
        }
    }

    /// What became of the segments.
    pub(super) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The table whose folder it is.
    pub(super) fn table(&self) -> &str {
        &self.table
    }

    /// True if there is no such file. One that can't be opened for another reason may be there.
    pub(super) fn is_gone(&self, path: &Path) -> bool {
        self.storage.open(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// The file system of the spool.
    pub(super) fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// What bodies are hashed with.
    pub(super) fn bodies(&self) -> &Arc<BodyHashing> {
        self.secret.bodies()
    }

    /// Writes what was drawn to its files: the node id, and the secret. Called before the first segment is created
    /// and not at the start, which must succeed on a full disk too.
    pub(super) fn keep_drawn(&self) -> io::Result<()> {
        self.secret.keep(&*self.storage, &self.keys_dir())?;
        self.keep_node_id()
    }

    fn keep_node_id(&self) -> io::Result<()> {
        if !self.node_id_is_kept.load(Relaxed) {
            storage::replace(&*self.storage, &node_path(&self.dir), self.node_id.as_bytes())?;
            self.storage.sync_folder(&self.dir)?;
            self.node_id_is_kept.store(true, Relaxed);
        }
        Ok(())
    }

    /// Keeps room to spare on the disk, and that of the journal, where they are not kept yet.
    pub(super) fn keep_spare(&self) -> io::Result<()> {
        self.journal.keep_room()?;
        let wanted = spare_bytes(self.bytes_max);
        if self.spare.load(Relaxed) < wanted {
            let file = self.storage.create(&self.dir.join(SPARE))?;
            file.reserve(wanted)?;
            self.spare.store(file.len()?, Relaxed);
        }
        Ok(())
    }

    /// The files of the spool may take so many bytes together.
    pub(super) fn limited_to(self, bytes_max: u64) -> Self {
        self.journal.limit(bytes_max);
        Self { bytes_max, ..self }
    }

    /// Bytes that are kept whatever waits: of the journal, and to spare.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.journal.bytes() + self.spare.load(Relaxed)
    }

    /// Writes what has to be written for anything to leave a full disk: where there is no room, into what
    /// was kept for it.
    pub(super) fn with_spare<T>(&self, mut write: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match write() {
            Err(error) if is_out_of_space(&error) && self.spare.swap(0, Relaxed) > 0 => {
                self.storage.open(&self.dir.join(SPARE))?.set_len(0)?;
                write()
            }
            outcome => outcome,
        }
    }

    /// What an older release left of tables that the spool was not opened for.
    pub(super) fn others(&self) -> io::Result<Vec<OtherTable>> {
        let mut others = Vec::new();
        for name in self.table_folders()?.into_iter().filter(|name| !self.tables.contains(name)) {
            let other = Arc::new(self.of_table(&name));
            // What this user may not read, as a disk's lost+found, is none of the spool's.
            let Ok(Listing { segments, .. }) = other.list() else { continue };
            let mut found = OtherTable { name, segments: 0, events: 0 };
            for (number, kind) in segments {
                found.segments += 1;
                if let Ok(Opened::Sealed(blocks)) = SegmentFile::open(&other, number, kind) {
                    found.events += blocks.iter().map(|block| block.rows() + block.rejected()).sum::<u64>();
                }
            }
            others.extend((found.segments > 0).then_some(found));
        }
        Ok(others)
    }

    /// Makes the names in the folder of the segments durable.
    pub(super) fn sync_folder(&self) -> io::Result<()> {
        self.storage.sync_folder(&self.folder)
    }

    /// The folder of the segments.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of the spool.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn node_id(&self) -> &str {
        &self.node_id
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn free_dir(&self) -> PathBuf {
        self.folder.join(if self.table.is_empty() { RECYCLED } else { FREE })
    }

    /// The folder of the logs of request keys.
    pub(super) fn keys_dir(&self) -> PathBuf {
        self.dir.join(KEYS)
    }

    /// The folder of the logs of a table's event identities.
    pub(super) fn seen_dir(&self, table: TableIndex) -> PathBuf {
        table_folder(&self.dir, self.label(table)).join(SEEN)
    }

    pub(super) fn damaged_dir(&self) -> PathBuf {
        let of_spool = if self.table.is_empty() { &self.dir } else { &self.folder };
        of_spool.join(DAMAGED)
    }

    pub(super) fn path(&self, number: SegmentNumber, kind: FileKind) -> PathBuf {
        self.folder.join(format!("{:020}.{}", number.get(), kind.extension()))
    }

    /// The file with the cut of a segment, by an older release.
    pub(super) fn cut_path(&self, number: SegmentNumber) -> PathBuf {
        self.folder.join(format!("{:020}.cut", number.get()))
    }

    /// What is in the folder.
    pub(super) fn list(&self) -> io::Result<Listing> {
        let (mut segments, mut strange) = (Vec::new(), Vec::new());
        for FolderEntry { name, kind, .. } in self.storage.list(&self.folder)? {
            match parse_name(&name) {
                Some((TRIPWIRE, _)) => {}
                Some(segment) if kind == EntryKind::File => segments.push(segment),
                _ if is_like_a_segment(&name, kind) => strange.push(name),
                _ => {}
            }
        }
        // Of two under one number the one that was sent comes first.
        segments.sort_unstable_by_key(|(number, kind)| (*number, *kind != FileKind::Sent));
        strange.sort_unstable();
        Ok(Listing { segments, strange })
    }
}

/// Segments that an older release left of a table that the spool was not opened for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherTable {
    /// The value of `--table`.
    pub name: String,
    /// How many segments.
    pub segments: u64,
    /// Events in those that are sealed.
    pub events: u64,
}

/// What is in a table's folder.
#[derive(Debug)]
pub(super) struct Listing {
    /// Segments by number.
    pub(super) segments: Vec<(SegmentNumber, FileKind)>,
    /// Names that look like a segment's and are none.
    pub(super) strange: Vec<String>,
}

fn load_journal(storage: &Arc<dyn Storage>, dir: &Path, folders: Vec<PathBuf>) -> Result<Journal, SpoolError> {
    let state = dir.join(STATE);
    Journal::load(storage.clone(), &state, folders).map_err(failed(format!("reading {}", state.display())))
}

/// Bytes that a spool which may take so many keeps of them, whatever waits: for its journal, and to spare.
pub fn kept_bytes(bytes_max: u64) -> u64 {
    journal::room(bytes_max) + spare_bytes(bytes_max)
}

fn spare_bytes(bytes_max: u64) -> u64 {
    limits::SPARE_BYTES.min(bytes_max / 64)
}

/// Blocks of older releases have indices from here on where several tables have some.
const OF_OLDER_RELEASE: u16 = 1 << 15;

/// The reason why a spool can't be opened.
#[derive(Debug)]
pub enum SpoolError {
    /// Another process owns the spool.
    Locked(PathBuf),
    /// No file of a segment's length may be written.
    FileLimit {
        /// Bytes that a file may have.
        limit: u64,
        /// Bytes that one may need.
        needed: u64,
    },
    /// The file system refused.
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
            Self::Locked(path) => write!(f, "another process holds the spool: {} is locked", path.display()),
            Self::FileLimit { limit, needed } => write!(
                f,
                "a file of this process may have {limit} bytes and a segment of the spool may need {needed}: raise the \
                 limit (LimitFSIZE of the unit, ulimit -f), or lower --batch-bytes or --encoded-bytes-max"
            ),
            Self::Io { what, error } => write!(f, "the spool can't be used: {what}: {error}"),
        }
    }
}

impl std::error::Error for SpoolError {}

pub(super) fn failed(what: String) -> impl FnOnce(io::Error) -> SpoolError {
    move |error| SpoolError::Io { what, error }
}

/// Locks the folder itself, which nobody can take away, and the file in it, which is all that a release
/// before knows of.
fn lock(storage: &dyn Storage, dir: &Path) -> Result<Vec<Lock>, SpoolError> {
    let file = dir.join(LOCK);
    let folder = match storage.lock(dir) {
        Ok(lock) => Some(lock.ok_or(SpoolError::Locked(dir.to_owned()))?),
        Err(error) => {
            // As on some network file systems.
            tracing::warn!(%error, dir = %dir.display(), "the spool's folder can't be locked, only the file lock in it");
            None
        }
    };
    let lock = storage.lock(&file).map_err(failed(format!("locking {}", file.display())))?;
    Ok(folder.into_iter().chain([lock.ok_or(SpoolError::Locked(file))?]).collect())
}

fn node_path(dir: &Path) -> PathBuf {
    dir.join(NODE_ID)
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

pub(super) fn random() -> io::Result<u64> {
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
        Layout::open(Arc::new(Disk), dir, vec!["t".into()], node_id)
    }

    #[test]
    fn a_spool_belongs_to_one_process_and_keeps_its_node_id() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("spool");
        let first = open(&dir, None).unwrap();
        assert!(matches!(open(&dir, None), Err(SpoolError::Locked(_))));
        fs::remove_file(dir.join("lock")).unwrap();
        assert!(matches!(open(&dir, None), Err(SpoolError::Locked(_))), "without the file as well");
        first.keep_drawn().unwrap();
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
