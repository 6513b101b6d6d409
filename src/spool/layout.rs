//! Folders, names, the lock, and the node's id.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::SpoolError;

/// A file's name by what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Open, or sealed and never sent.
    Segment,
    /// Sealed, and ClickHouse may have it.
    Sent,
    /// An interrupted recovery.
    Copy,
}

impl Kind {
    const ALL: [(Self, &'static str); 3] = [(Self::Segment, "segment"), (Self::Sent, "sent"), (Self::Copy, "copy")];

    fn extension(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, extension)| extension)
    }
}

/// Where things are, with the lock that makes them ours.
#[derive(Debug)]
pub(super) struct Layout {
    table_dir: PathBuf,
    node_id: String,
    epoch: u64,
    /// `None` for one who only looks.
    _lock: Option<File>,
}

impl Layout {
    /// Makes the folders, takes the lock, reads or makes the node's id, and draws an epoch.
    pub(super) fn open(dir: &Path, table: &str, node_id: Option<&str>) -> Result<Self, SpoolError> {
        let table_dir = dir.join(table);
        for folder in [dir, &table_dir, &table_dir.join("free"), &table_dir.join("damaged")] {
            make_folder(folder).map_err(failed(format!("making {}", folder.display())))?;
        }
        let lock_path = dir.join("lock");
        let lock = create(&lock_path).map_err(failed(format!("opening {}", lock_path.display())))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| SpoolError::Locked(lock_path))?;
        let node_path = dir.join("node-id");
        let node_id = match node_id {
            Some(node_id) => node_id.to_owned(),
            None => kept_node_id(&node_path).map_err(failed(format!("reading {}", node_path.display())))?,
        };
        let epoch = random().map_err(failed("drawing a random number".to_owned()))?;
        for folder in [dir, &table_dir] {
            sync_folder(folder).map_err(failed(format!("syncing {}", folder.display())))?;
        }
        Ok(Self { table_dir, node_id, epoch, _lock: Some(lock) })
    }

    /// A layout to look at, without the lock: nothing may be changed through it.
    pub(super) fn look(dir: &Path, table: &str) -> Self {
        Self { table_dir: dir.join(table), node_id: String::new(), epoch: 0, _lock: None }
    }

    pub(super) fn table_dir(&self) -> &Path {
        &self.table_dir
    }

    pub(super) fn node_id(&self) -> &str {
        &self.node_id
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(super) fn free_dir(&self) -> PathBuf {
        self.table_dir.join("free")
    }

    pub(super) fn damaged_dir(&self) -> PathBuf {
        self.table_dir.join("damaged")
    }

    pub(super) fn path(&self, number: u64, kind: Kind) -> PathBuf {
        self.table_dir.join(format!("{number:020}.{}", kind.extension()))
    }

    /// Segments in the table's folder, by number.
    pub(super) fn list(&self) -> io::Result<Vec<(u64, Kind)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.table_dir)? {
            found.extend(entry?.file_name().to_str().and_then(parse_name));
        }
        found.sort_unstable_by_key(|(number, _)| *number);
        Ok(found)
    }
}

/// Number and kind of a segment's file; `None` for any other.
pub(super) fn parse_name(name: &str) -> Option<(u64, Kind)> {
    let (stem, extension) = name.split_once('.')?;
    let (kind, _) = Kind::ALL.iter().find(|(_, known)| *known == extension)?;
    Some((stem.parse().ok()?, *kind))
}

/// A file of ours, made if it is missing, for reading and writing.
pub(super) fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Makes a folder's entries durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

pub(super) fn failed(what: String) -> impl FnOnce(io::Error) -> SpoolError {
    move |error| SpoolError::Io { what, error }
}

fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn kept_node_id(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let node_id = format!("{:016x}", random()?);
    let beside = path.with_extension("new");
    let mut file = create(&beside)?;
    file.set_len(0)?;
    file.write_all(node_id.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    Ok(node_id)
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn names_are_read_back_and_others_are_not() {
        assert_eq!(parse_name("00000000000000000007.sent"), Some((7, Kind::Sent)));
        for other in ["schema.json", "7", "x.segment", "7.segment.new", "free", ".segment"] {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_spool_belongs_to_one_process_and_keeps_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("spool");
        let first = Layout::open(&dir, "t", None).unwrap();
        assert!(matches!(Layout::open(&dir, "t", None), Err(SpoolError::Locked(_))));
        let (node_id, epoch) = (first.node_id().to_owned(), first.epoch());
        drop(first);
        let second = Layout::open(&dir, "t", None).unwrap();
        assert_eq!(second.node_id(), node_id);
        assert_ne!(second.epoch(), epoch);
        drop(second);
        assert_eq!(Layout::open(&dir, "t", Some("given")).unwrap().node_id(), "given");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join("t/free")), mode(&dir.join("node-id"))), (0o700, 0o700, 0o600));
    }
}
