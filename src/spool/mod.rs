//! The durable log: one for all tables, one file per segment, one frame per batch.
//!
//! A *block* is the frames of one table in one segment. It goes out as one INSERT, under one token.
//!
//! # Folders and files
//!
//! | path | contents |
//! |---|---|
//! | `<spool-dir>` itself, `<spool-dir>/lock` | locked by the process that owns the spool; the file is empty |
//! | `<spool-dir>/node-id` | the node id that deduplication tokens begin with |
//! | `<spool-dir>/spare` | disk space for the records that a full disk still has to take; the contents do not count |
//! | `<spool-dir>/state/0`, `<spool-dir>/state/1` | what became of the blocks; see [`journal`] |
//! | `<spool-dir>/keys/secret` | what bodies are hashed with; see [`secret`] |
//! | `<spool-dir>/keys/<hour>.log` | request keys of sealed blocks; see [`repeats`] |
//! | `<spool-dir>/log/<number>.segment` | a segment that is open, or sealed |
//! | `<spool-dir>/log/<number>.<index>.segment` | what was readable of a damaged block; see [`salvage`] |
//! | `<spool-dir>/log/numbers` | the segment numbers that may have been used; see [`numbers`] |
//! | `<spool-dir>/log/<number>.new` | a segment that is being made; ignored after a crash |
//! | `<spool-dir>/log/<number>.copy` | the copy that a recovery is writing; ignored after a crash |
//! | `<spool-dir>/log/recycled/` | files of inserted segments, kept for reuse; see [`pool`] |
//! | `<spool-dir>/damaged/` | files that could not be read completely, or are no segments; see [`salvage`], [`aside`] |
//! | `<spool-dir>/<table>` | a table; `table=<table>` where the spool has a name for itself ([`folders`]) |
//! | `<spool-dir>/<table>/schema.json` | the last known columns of the table; written by `server` and `clickhouse` |
//! | `<spool-dir>/<table>/seen/<hour>.log` | event identities of sealed blocks; see [`repeats`] |
//! | `<spool-dir>/<table>/<number>.segment`, `numbers`, `damaged/` | what an older release left; see [`adoption`] |
//! | `<spool-dir>/<table>/00000000000000000000.segment` | keeps releases before this one out; see [`adoption`] |
//!
//! Files have mode 0600, folders 0700. A segment number is written with 20 digits, and is never used
//! twice. The number of a block is that of its segment and its index there.
//!
//! # A segment, version 3, byte by byte
//!
//! All integers are little-endian; every checksum is CRC-32C.
//!
//! ```text
//! identity, a multiple of 8192 bytes, written when the segment is opened: its second half is a
//! copy of the first (without it, a multiple of 4096, in files of releases before)
//!   0  8  "SLUICEG1"            8  4  version = 3        12  4  length I of this
//!  16  8  epoch                24  8  number             32  8  created, Unix ms
//!  40  8  position of the first frame
//!  48  4  length of node id    52  4  length of frozen   56  4  checksum of bytes 0..56, node id, frozen
//!  60  …  node id, frozen (empty), zeros
//!
//! seals, 16384 bytes at I, written when the segment is sealed
//!   0  8  "SEALED 3"            8  8  epoch              16  8  number
//!  24  8  end offset           32  8  frames, schemas included
//!  40  8  sealed, Unix ms      48  4  number B of blocks
//!  52  …  of each block, by its index: 8 offset of its schema, 8 of its first frame, 8 end of its last, 8 frames,
//!         8 rows, 8 rejected, 8 bytes of rows, 8 bytes of rejected, 4 checksum over the frames' payload checksums;
//!         no schema counts
//!   …  4  checksum of all of it
//!
//! frames from I + 16384 to the end offset; of each block its schema first, twice ([`schema`])
//!   0  4  "FRAM"                4  4  rows                8  4  rejected
//!  12  4  bytes of rows        16  4  bytes of rejected
//!  20  2  request keys         22  2  index of the block, and 32768 for its schema (then "bytes of rows" is
//!                                     the length of the schema, and the other numbers are 0)
//!  24  4  identities of events                           28  4  checksum of the payload
//!  32  8  position             40  8  durable mark       48  8  epoch
//!  56  8  number               64  8  offset of this frame in the file
//!  72  4  checksum of bytes 0..72
//!  76  …  rows, rejected, request keys of 36 bytes each, identities of 16 bytes each
//! ```
//!
//! A file that is one block's, which salvage makes, has the block's schema in the place of *frozen*, and in
//! the place of the seals one seal, and 4096 bytes that do not count; its frames begin at I + 8192. So has a file
//! of version 2, but that *frozen* is what its name says, that its seal is followed by what [`adoption`] reads,
//! and that positions count the frames of an epoch:
//!
//! ```text
//! seal, 4096 bytes at I
//!   0  8  "SEALED 1"            8  8  epoch              16  8  number
//!  24  8  end offset           32  8  frames             40  8  rows
//!  48  8  rejected             56  8  bytes of rows      64  8  bytes of rejected
//!  72  8  sealed, Unix ms      80  4  checksum over the frames' payload checksums
//!  84  4  checksum of bytes 0..84
//! ```
//!
//! Segment files are reused ([`pool`]): a new segment overwrites an old one from the start of the
//! file. Bytes of the old segment therefore remain behind the last frame and inside the first pages.
//! They are never mistaken for current ones, because every page and frame names its epoch and
//! segment number. Only a few files wait for their inserts at their whole length, to be reused; all others are
//! cut off behind their last frame.
//!
//! The *position* of a frame counts the frames of its segment from 1 without gaps. The *durable mark*
//! of a frame is the highest position that was known to be synced when the frame was written. An
//! unreadable frame whose position is at or below the mark of a later frame is damage; otherwise it
//! is a torn tail ([`unsealed`]).
//!
//! # Who does what
//!
//! The committer ([`committer`]) writes frames and syncs them, once for a group whatever its tables, and nothing
//! else. The keeper ([`keeper`]) makes
//! the next segment before it is wanted, and seals those that are full; they meet at the [`shelf`]. With
//! `written`, at most two segments are not synced: the committer waits before it begins a third. The
//! inserters write the [`journal`], which syncs once for all who wait.
//!
//! # Order of syncs
//!
//! | what | is synced before |
//! |---|---|
//! | the identity, and the folder entry of the segment | the first frame of the segment is acknowledged |
//! | a frame | its batch is acknowledged (`sync`), or its segment is sealed (`written`) |
//! | the seals | the blocks are handed to the inserters |
//! | the record of an attempt | the first byte of the INSERT is sent |
//! | the record of a cut | the first piece of the cut is sent |
//! | the record of a used-up token | anything is sent under the next token |
//! | the records that all blocks of a segment are proven | its file is removed or reused |
//! | the copy of a damaged block | the record that it has taken the block's place |
//!
//! When records of the journal were lost, any sealed block may have been sent, to any server at any time.

mod adoption;
mod aside;
mod block;
mod committer;
mod copying;
mod cut;
mod file_name;
mod folders;
mod frame;
mod held;
mod journal;
mod keeper;
mod layout;
mod ledger;
mod metrics;
mod moving;
mod numbers;
mod pool;
mod reader;
mod recovery;
mod refused;
mod repeats;
mod salvage;
mod scan;
mod schema;
mod sealed;
mod secret;
mod segment;
mod segment_file;
mod shelf;
mod storage;
mod tables;
mod unsealed;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use committer::Committer;
pub use cut::{Cut, Piece, PieceState};
pub use folders::table_folder;
pub use held::{Cause, Held, HeldBlock, Orders, Reason};
pub use journal::OpenAttempt;
pub use keeper::Keeper;
pub use layout::{OtherTable, SpoolError, kept_bytes};
pub use ledger::{Accounts, Events, LedgerSnapshot};
pub use metrics::{COMMIT_SECONDS, SpoolMetrics};
pub use pool::SegmentPool;
pub use reader::{BlockReader, Part};
pub use recovery::{Inspected, Recovered};
pub use refused::reason as reason_of_refusal;
pub use repeats::SECONDS_MAX as KEY_SECONDS_MAX;
pub use salvage::Salvaged;
pub use sealed::SealedBlock;

use layout::Layout;
use numbers::Numbers;
use recovery::Postponed;
use repeats::{IdentityLogs, Repeats};
use storage::{Disk, Storage};

use crate::batch::identity::BodyHashing;
use crate::batch::{SegmentNumber, TableIndex};
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
    /// The tables whose events the spool holds, in the order of [`TableIndex`].
    pub tables: Vec<SpoolTable>,
    /// The node id in deduplication tokens; `None` generates one and keeps it in the spool.
    pub node_id: Option<String>,
    /// The most bytes that the files of the spool may occupy together.
    pub spool_bytes_max: u64,
    /// Free bytes below which the spool makes no new file on the disk.
    pub disk_free_min: u64,
    /// The durability that an acknowledgement promises.
    pub durability: Durability,
    /// The most request keys that are remembered, of all tables.
    pub idempotency_keys_max: usize,
    /// The most event identities that are remembered, of all tables.
    pub dedup_values_max: usize,
}

/// The settings of one table.
#[derive(Debug, Clone)]
pub struct SpoolTable {
    /// The name of its folder, in the log, and for people.
    pub label: String,
    /// Number of rows that seals a block.
    pub batch_rows: u64,
    /// Number of bytes that seals a block.
    pub batch_bytes: u64,
    /// Age that seals a block.
    pub batch_age: Duration,
    /// Its events have identities (`--dedup-field`).
    pub has_identities: bool,
    /// The most bytes of its rows that may wait for their insert; `None` for as many as the spool may have.
    pub bytes_max: Option<u64>,
}

impl SpoolConfig {
    /// Bytes of the largest block.
    fn batch_bytes_max(&self) -> u64 {
        self.tables.iter().map(|table| table.batch_bytes).max().unwrap_or(0)
    }

    /// Length of a segment's file: room for the largest block, and for what stands in front of the frames.
    fn segment_bytes(&self) -> u64 {
        self.batch_bytes_max().saturating_add(limits::SEGMENT_BLOCKS_BYTES)
    }
}

/// A spool that this process has locked and recovered.
pub struct Spool {
    layout: Arc<Layout>,
    config: SpoolConfig,
    metrics: Arc<SpoolMetrics>,
    pool: Arc<SegmentPool>,
    repeats: Repeats,
    logs: IdentityLogs,
    numbers: Numbers,
    next_number: SegmentNumber,
    postponed: Vec<Postponed>,
}

impl Spool {
    /// Locks the spool and recovers its segments. Takes little time even with a large backlog: of a
    /// sealed segment only what stands in front of the frames is read, and the schemas.
    ///
    /// # Errors
    ///
    /// If another process owns the spool, or on an I/O error.
    pub fn open(config: SpoolConfig) -> Result<(Self, Recovered), SpoolError> {
        Self::open_on(Arc::new(Disk), config)
    }

    fn open_on(storage: Arc<dyn Storage>, config: SpoolConfig) -> Result<(Self, Recovered), SpoolError> {
        let labels = config.tables.iter().map(|table| table.label.clone()).collect();
        let layout = Layout::open(storage, &config.dir, labels, config.node_id.as_deref())?;
        let layout = Arc::new(layout.limited_to(config.spool_bytes_max));
        let metrics = Arc::new(SpoolMetrics::default());
        let identified: Vec<TableIndex> = (0..)
            .map(TableIndex::new)
            .zip(&config.tables)
            .filter(|(_, table)| table.has_identities)
            .map(|(index, _)| index)
            .collect();
        let repeats =
            Repeats::open(&layout, &metrics, config.idempotency_keys_max, config.dedup_values_max, &identified);
        let (mut repeats, mut logs) = repeats.map_err(layout::failed("reading what was seen lately".to_owned()))?;
        let (mut numbers, next_number) =
            Numbers::open(&layout).map_err(layout::failed("reading which numbers were used".to_owned()))?;
        let mut recovered = recover_all(&layout, &metrics, &mut logs)?;
        repeats.remember(logs.take_recovered());
        let next_number = recovered.next_number.max(next_number);
        recovered.next_number = next_number;
        metrics.numbered(next_number);
        if let Err(error) = numbers.note(&layout, next_number) {
            // Before the first of them is used it is tried again.
            tracing::warn!(%error, "which numbers were used can't be noted yet");
        }
        let free = layout.storage().free_bytes(layout.folder()).unwrap_or(0);
        if free >= config.disk_free_min.saturating_add(limits::SPARE_BYTES)
            && let Err(error) = layout.keep_spare()
        {
            tracing::debug!(%error, "there is no room to spare");
        }
        metrics.keep(layout.kept_bytes());
        let others = layout.others().map_err(layout::failed("looking for other tables".to_owned()))?;
        for OtherTable { name, segments, events } in &others {
            tracing::warn!(
                table = name,
                segments,
                events,
                "an older release left events of a table that is not configured, which are not sent: `sluicegate drain --table {name}` sends them"
            );
        }
        metrics.found_others(others);
        let pool = Arc::new(SegmentPool::new(layout.clone(), metrics.clone(), config.segment_bytes()));
        pool.begin_waiting(&recovered.blocks);
        let postponed = std::mem::take(&mut recovered.postponed);
        metrics.set_postponed(postponed.len());
        Ok((Self { layout, config, metrics, pool, repeats, logs, numbers, next_number, postponed }, recovered))
    }

    /// Number of segments of a previous run whose recovery waits for disk space.
    pub fn postponed(&self) -> usize {
        self.postponed.len()
    }

    #[cfg(test)]
    fn recover_postponed(&mut self) -> io::Result<Vec<SealedBlock>> {
        let recovered = recovery::recover_postponed(&self.metrics, &mut self.postponed, &mut self.logs);
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

    /// What the bodies of requests with a key are hashed with.
    pub fn bodies(&self) -> Arc<BodyHashing> {
        self.layout.bodies().clone()
    }

    /// The node's name in tokens.
    pub fn node_id(&self) -> &str {
        self.layout.node_id()
    }

    /// The file that keeps the last known columns of a table.
    pub fn schema_path(&self, table: TableIndex) -> PathBuf {
        table_folder(self.layout.dir(), self.layout.label(table)).join("schema.json")
    }
}

/// Recovers the log, and what an older release left of the tables.
fn recover_all(layout: &Arc<Layout>, metrics: &SpoolMetrics, logs: &mut IdentityLogs) -> Result<Recovered, SpoolError> {
    let tables: Vec<Arc<Layout>> = layout.tables().iter().map(|table| Arc::new(layout.of_table(table))).collect();
    let all = || std::iter::once(layout).chain(&tables);
    let whole = |error| layout::failed("taking over what an earlier run left".to_owned())(error);
    all().try_for_each(|folder| recovery::prepare(folder)).map_err(whole)?;
    adoption::adopt(layout, &tables).map_err(whole)?;
    let mut found = Recovered::default();
    let mut damaged = 0;
    for folder in all() {
        let Recovered { blocks, postponed, next_number } = recovery::recover(folder, metrics, logs)?;
        found.blocks.extend(blocks);
        found.postponed.extend(postponed);
        let (_, noted) = Numbers::open(folder).map_err(whole)?;
        found.next_number = found.next_number.max(next_number).max(noted);
        damaged += layout.storage().list(&folder.damaged_dir()).map_err(whole)?.len() as u64;
    }
    for folder in [layout.damaged_dir(), layout.keys_dir()] {
        metrics.occupy(recovery::occupied(layout, &folder).map_err(whole)?);
    }
    // Those of older releases go first.
    found.blocks.sort_by_key(SealedBlock::number);
    metrics.set_damaged(damaged);
    Ok(found)
}

/// Reads the segments of the log, and those that an older release left of these tables, the oldest first. Writes
/// nothing and takes no lock, so a server may be running.
///
/// # Errors
///
/// If a folder can't be read.
pub fn inspect(dir: &Path, tables: &[&str]) -> Result<Vec<Inspected>, SpoolError> {
    let log = Arc::new(Layout::read_only(Arc::new(Disk), dir)?);
    let mut found = Vec::new();
    for table in tables {
        found.extend(recovery::inspect(&Arc::new(log.of_table(table)))?);
    }
    found.extend(recovery::inspect(&log)?);
    Ok(found)
}

/// True if there is a spool in this folder, of the tables or of an older release.
pub fn exists(dir: &Path, tables: &[&str]) -> bool {
    dir.join(folders::LOG).is_dir() || tables.iter().any(|table| table_folder(dir, table).is_dir())
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

/// Free bytes of the disk that a folder is on, as far as this process may use them.
///
/// # Errors
///
/// If the system does not say.
pub fn free_bytes(dir: &Path) -> io::Result<u64> {
    Disk.free_bytes(dir)
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
