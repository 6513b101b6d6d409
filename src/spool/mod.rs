//! The durable log: one folder per table, one file per segment, one frame per batch.
//!
//! # Folders and files
//!
//! | path | contents |
//! |---|---|
//! | `<spool-dir>` itself, `<spool-dir>/lock` | locked by the process that owns the spool; the file is empty |
//! | `<spool-dir>/node-id` | the node id that deduplication tokens begin with |
//! | `<spool-dir>/spare` | disk space for the records that a full disk still has to take; the contents do not count |
//! | `<spool-dir>/state/0`, `<spool-dir>/state/1` | what became of the segments; see [`journal`] |
//! | `<spool-dir>/keys/<hour>.log` | request keys of sealed segments; see [`repeats`] |
//! | `<spool-dir>/<table>` | a table; `table=<table>` where the spool has a name for itself ([`folders`]) |
//! | `<spool-dir>/<table>/schema.json` | the last known columns of the table; written by `server` and `clickhouse` |
//! | `<spool-dir>/<table>/numbers` | the segment numbers that may have been used; see [`numbers`] |
//! | `<spool-dir>/<table>/<number>.segment` | a segment that is open, or sealed |
//! | `<spool-dir>/<table>/00000000000000000000.segment` | keeps releases before this one out; see [`adoption`] |
//! | `<spool-dir>/<table>/<number>.new` | a segment that is being made; ignored after a crash |
//! | `<spool-dir>/<table>/<number>.copy` | the copy that a recovery is writing; ignored after a crash |
//! | `<spool-dir>/<table>/seen/<hour>.log` | event identities of sealed segments; see [`repeats`] |
//! | `<spool-dir>/<table>/damaged/` | files that could not be read completely, or are no segments; see [`salvage`], [`aside`] |
//! | `<spool-dir>/<table>/free/` | files of inserted segments, kept for reuse; see [`pool`] |
//!
//! Files have mode 0600, folders 0700. A segment number is written with 20 digits, and is never used
//! twice.
//!
//! # A segment, version 3, byte by byte
//!
//! All integers are little-endian; every checksum is CRC-32C.
//!
//! ```text
//! identity block, a multiple of 8192 bytes, written when the segment is opened: its second half is a
//! copy of the first (without it, a multiple of 4096, in files of releases before)
//!   0  8  "SLUICEG1"            8  4  version = 3        12  4  length I of this block
//!  16  8  epoch                24  8  number             32  8  created, Unix ms
//!  40  8  position of the first frame
//!  48  4  length of node id    52  4  length of frozen   56  4  checksum of bytes 0..56, node id, frozen
//!  60  …  node id, frozen (columns, types and INSERT settings, opaque to the spool), zeros
//!
//! seal block, 4096 bytes at I, written when the segment is sealed
//!   0  8  "SEALED 1"            8  8  epoch              16  8  number
//!  24  8  end offset           32  8  frames             40  8  rows
//!  48  8  rejected             56  8  bytes of rows      64  8  bytes of rejected
//!  72  8  sealed, Unix ms      80  4  checksum over the frames' payload checksums
//!  84  4  checksum of bytes 0..84
//!
//! 4096 bytes at I + 4096 that do not count (in version 2, what [`adoption`] reads)
//!
//! frames from I + 8192 to the end offset
//!   0  4  "FRAM"                4  4  rows                8  4  rejected
//!  12  4  bytes of rows        16  4  bytes of rejected  20  4  request keys: 0 or 1
//!  24  4  identities of events                           28  4  checksum of the payload
//!  32  8  position             40  8  durable mark       48  8  epoch
//!  56  8  number               64  8  offset of this frame in the file
//!  72  4  checksum of bytes 0..72
//!  76  …  rows, rejected, request key of 36 bytes, identities of 16 bytes each
//! ```
//!
//! Segment files are reused ([`pool`]): a new segment overwrites an old one from the start of the
//! file. Bytes of the old segment therefore remain behind the last frame and inside the blocks.
//! They are never mistaken for current ones, because every block and frame names its epoch and
//! segment number.
//!
//! The *position* of a frame counts the frames of its segment from 1 without gaps (in version 2, those of
//! an epoch). The *durable mark*
//! of a frame is the highest position that was known to be synced when the frame was written. An
//! unreadable frame whose position is at or below the mark of a later frame is damage; otherwise it
//! is a torn tail ([`unsealed`]).
//!
//! # Who does what
//!
//! The committer ([`committer`]) writes frames and syncs them, and nothing else. The keeper ([`keeper`]) makes
//! the next segment before it is wanted, and seals those that are full; they meet at the [`shelf`]. With
//! `written`, at most two segments are not synced: the committer waits before it begins a third. The
//! inserters write the [`journal`], which syncs once for all who wait.
//!
//! # Order of syncs
//!
//! | what | is synced before |
//! |---|---|
//! | the identity block, and the folder entry of the segment | the first frame of the segment is acknowledged |
//! | a frame | its batch is acknowledged (`sync`), or its segment is sealed (`written`) |
//! | the seal | the segment is handed to an inserter |
//! | the record of an attempt | the first byte of the INSERT is sent |
//! | the record of a cut | the first piece of the cut is sent |
//! | the record of a used-up token | anything is sent under the next token |
//! | the record that all is proven | the segment's file is removed or reused |
//!
//! When records of the journal were lost, any sealed segment may have been sent, to any server at any time.

mod adoption;
mod aside;
mod block;
mod committer;
mod copying;
mod cut;
mod folders;
mod frame;
mod held;
mod journal;
mod keeper;
mod layout;
mod ledger;
mod metrics;
mod numbers;
mod pool;
mod reader;
mod recovery;
mod repeats;
mod salvage;
mod scan;
mod sealed;
mod segment;
mod shelf;
mod storage;
mod unsealed;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use committer::Committer;
pub use cut::{Cut, Piece, PieceState};
pub use folders::table_folder;
pub use held::{Cause, Held, Orders};
pub use journal::OpenAttempt;
pub use keeper::Keeper;
pub use layout::{OtherTable, SpoolError};
pub use ledger::{Accounts, Events, LedgerSnapshot};
pub use metrics::{COMMIT_SECONDS, SpoolMetrics};
pub use pool::SegmentPool;
pub use reader::{Part, SegmentReader};
pub use recovery::{Inspected, Recovered};
pub use repeats::SECONDS_MAX as KEY_SECONDS_MAX;
pub use salvage::Salvaged;
pub use sealed::SealedSegment;

use layout::Layout;
use numbers::Numbers;
use repeats::{IdentityLogs, Repeats};
use storage::{Disk, Storage};

use crate::batch::SegmentNumber;
use crate::limits;

/// The durability that an acknowledgement promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Durability {
    /// On the disk: survives a loss of power.
    Sync,
    /// Handed to the operating system: survives a crash of the process.
    Written,
}

/// The settings of a spool.
#[derive(Debug, Clone)]
pub struct SpoolConfig {
    /// The spool's folder.
    pub dir: PathBuf,
    /// The table whose events the spool holds.
    pub table: String,
    /// The node id in deduplication tokens; `None` generates one and keeps it in the spool.
    pub node_id: Option<String>,
    /// The most bytes that the files of the spool may occupy together.
    pub spool_bytes_max: u64,
    /// Free bytes below which the spool makes no new file on the disk.
    pub disk_free_min: u64,
    /// Number of rows that seals a segment.
    pub batch_rows: u64,
    /// Number of bytes that seals a segment.
    pub batch_bytes: u64,
    /// Age that seals a segment.
    pub batch_age: Duration,
    /// The durability that an acknowledgement promises.
    pub durability: Durability,
    /// The most request keys that are remembered.
    pub idempotency_keys_max: usize,
    /// The most event identities that are remembered; `None` without `--dedup-field`.
    pub dedup_values_max: Option<usize>,
}

/// A table's spool that this process has locked and recovered.
pub struct Spool {
    layout: Arc<Layout>,
    config: SpoolConfig,
    metrics: Arc<SpoolMetrics>,
    pool: Arc<SegmentPool>,
    repeats: Repeats,
    logs: IdentityLogs,
    numbers: Numbers,
    next_number: SegmentNumber,
    postponed: Vec<SegmentNumber>,
}

impl Spool {
    /// Locks the spool and recovers its segments. Takes little time even with a large backlog: of a
    /// sealed segment only the blocks in front of the frames are read.
    ///
    /// # Errors
    ///
    /// If another process owns the spool, or on an I/O error.
    pub fn open(config: SpoolConfig) -> Result<(Self, Recovered), SpoolError> {
        Self::open_on(Arc::new(Disk), config)
    }

    fn open_on(storage: Arc<dyn Storage>, config: SpoolConfig) -> Result<(Self, Recovered), SpoolError> {
        let layout = Arc::new(Layout::open(storage, &config.dir, &config.table, config.node_id.as_deref())?);
        let metrics = Arc::new(SpoolMetrics::default());
        let repeats = Repeats::open(&layout, &metrics, config.idempotency_keys_max, config.dedup_values_max);
        let (mut repeats, mut logs) = repeats.map_err(layout::failed("reading what was seen lately".to_owned()))?;
        let (mut numbers, next_number) =
            Numbers::open(&layout).map_err(layout::failed("reading which numbers were used".to_owned()))?;
        let mut recovered = recovery::recover(&layout, &metrics, &mut logs)?;
        repeats.remember(logs.take_recovered());
        let next_number = recovered.next_number.max(next_number);
        recovered.next_number = next_number;
        metrics.numbered(next_number);
        if let Err(error) = numbers.note(&layout, next_number) {
            // Before the first of them is used it is tried again.
            tracing::warn!(%error, "which numbers were used can't be noted yet");
        }
        let damaged = layout.damaged_dir();
        let files =
            layout.storage().list(&damaged).map_err(layout::failed(format!("reading {}", damaged.display())))?;
        metrics.set_damaged(files.len() as u64);
        let free = layout.storage().free_bytes(layout.table_dir()).unwrap_or(0);
        if free >= config.disk_free_min.saturating_add(limits::SPARE_BYTES)
            && let Err(error) = layout.keep_spare()
        {
            tracing::debug!(%error, "there is no room to spare");
        }
        let others = layout.others().map_err(layout::failed("looking for other tables".to_owned()))?;
        for OtherTable { name, segments, events } in &others {
            tracing::warn!(
                table = name,
                segments,
                events,
                "the spool holds events of another --table, which are not sent: `sluicegate drain --table {name}` sends them"
            );
        }
        metrics.found_others(others);
        let pool = Arc::new(SegmentPool::new(layout.clone(), metrics.clone(), config.batch_bytes));
        let postponed = std::mem::take(&mut recovered.postponed);
        metrics.set_postponed(postponed.len());
        Ok((Self { layout, config, metrics, pool, repeats, logs, numbers, next_number, postponed }, recovered))
    }

    /// Number of segments of a previous run whose recovery waits for disk space.
    pub fn postponed(&self) -> usize {
        self.postponed.len()
    }

    #[cfg(test)]
    fn recover_postponed(&mut self) -> io::Result<Option<SealedSegment>> {
        let recovered = recovery::recover_postponed(&self.layout, &self.metrics, &mut self.postponed, &mut self.logs);
        self.repeats.remember(self.logs.take_recovered());
        recovered
    }

    /// The accounts and counters of the spool.
    pub fn metrics(&self) -> Arc<SpoolMetrics> {
        self.metrics.clone()
    }

    /// The pool that takes the files of inserted segments.
    pub fn pool(&self) -> Arc<SegmentPool> {
        self.pool.clone()
    }

    /// The node's name in tokens.
    pub fn node_id(&self) -> &str {
        self.layout.node_id()
    }

    /// The file that keeps the last known columns of the table.
    pub fn schema_path(&self) -> PathBuf {
        self.layout.table_dir().join("schema.json")
    }
}

/// Reads a table's segments, the oldest first. Writes nothing and takes no lock, so a server may be
/// running.
///
/// # Errors
///
/// If the folder can't be read.
pub fn inspect(dir: &Path, table: &str) -> Result<Vec<Inspected>, SpoolError> {
    recovery::inspect(&Arc::new(Layout::read_only(Arc::new(Disk), dir, table)?))
}

/// Says whether a file may become so long, where the process's limits allow less.
///
/// # Errors
///
/// With the sentence that names the limit.
pub fn require_file_bytes(needed: u64) -> Result<(), SpoolError> {
    match rustix::process::getrlimit(rustix::process::Resource::Fsize).current {
        Some(limit) if limit < needed => Err(SpoolError::FileLimit { limit, needed }),
        _ => Ok(()),
    }
}

/// True while another process owns the spool in this folder. Makes nothing.
///
/// # Errors
///
/// If the lock file can't be opened or tested.
pub fn is_owned(dir: &Path) -> io::Result<bool> {
    let is_locked = |path: &Path| Ok::<_, io::Error>(path.try_exists()? && Disk.lock(path)?.is_none());
    // What can't be locked as a folder is not owned by that.
    Ok(is_locked(dir).unwrap_or(false) || is_locked(&dir.join("lock"))?)
}

#[cfg(test)]
mod tests;
