//! The durable log: one folder a table, a file a segment, a frame a batch.
//!
//! # Folders and files
//!
//! | path | |
//! |---|---|
//! | `<spool-dir>/lock` | held by the process that owns the spool |
//! | `<spool-dir>/node-id` | the node's name in tokens |
//! | `<spool-dir>/keys/<hour>.log` | request keys of sealed segments: see [`repeats`] |
//! | `<spool-dir>/<table>/schema.json` | the last known columns (not ours: [`crate::clickhouse::target`]) |
//! | `<spool-dir>/<table>/<number>.segment` | open, or sealed and never sent |
//! | `<spool-dir>/<table>/<number>.sent` | sealed, and ClickHouse may have it |
//! | `<spool-dir>/<table>/<number>.cut` | how its rows are cut into pieces: JSON and its checksum, see [`Cut`] |
//! | `<spool-dir>/<table>/<number>.new` | to be one of these, and not yet written; nothing in it counts |
//! | `<spool-dir>/<table>/<number>.copy` | a recovery that was interrupted; nothing in it counts |
//! | `<spool-dir>/<table>/seen/<hour>.log` | identities of events in sealed segments: see [`repeats`] |
//! | `<spool-dir>/<table>/damaged/` | what could not be read whole: see [`salvage`] |
//! | `<spool-dir>/<table>/free/` | files of inserted segments, to be overwritten |
//!
//! Files have mode 0600, folders 0700. Numbers have 20 digits and are never used twice.
//!
//! # A segment, version 2, byte by byte
//!
//! All integers are little-endian; every checksum is CRC-32C.
//!
//! ```text
//! identity block, a multiple of 4096 bytes, written when the segment is opened
//!   0  8  "SLUICEG1"            8  4  version = 2        12  4  length I of this block
//!  16  8  epoch                24  8  number             32  8  created, Unix ms
//!  40  8  position of its first frame
//!  48  4  length of node id    52  4  length of frozen   56  4  checksum of bytes 0..56, node id, frozen
//!  60  …  node id, frozen (what the caller fixes for the insert), zeros
//!
//! seal block, 4096 bytes at I, written when the segment is sealed
//!   0  8  "SEALED 1"            8  8  epoch              16  8  number
//!  24  8  end offset           32  8  frames             40  8  rows
//!  48  8  rejected             56  8  bytes of rows      64  8  bytes of rejected
//!  72  8  sealed, Unix ms      80  4  checksum over the frames' payload checksums
//!  84  4  checksum of bytes 0..84
//!
//! progress block, 4096 bytes at I + 4096, overwritten as its inserts come along
//!   0  8  "PROGRESS"            8  8  epoch              16  8  number
//!  24  4  flags: 1 the rows are inserted and the rejected are not, 2 an attempt is open, 4 an operator
//!         wants it sent though ClickHouse may have it, 8 the open attempt may have left its token
//!         without its rows
//!  28  4  tokens that are used up
//!  32  8  when the open attempt began, Unix ms          40  8  the newest segment's number then
//!  48  4  length W of the server's note                 52  W  what the inserter noted of the server
//! 52+W 4  checksum of bytes 0..52+W
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
//! Files are overwritten from their start ([`pool`]), so old bytes lie behind the end, and in the
//! blocks. None of them is believed: every block and frame names the epoch and the number that it
//! belongs to. The *position* counts the frames of an epoch from 1 without a gap; the *durable mark*
//! is the position that was known to be on the disk when the frame was written. So a bad frame
//! below a later frame's mark is damage, and above it a torn tail ([`recovery`]).
//!
//! # What is durable when
//!
//! A segment's identity, and the folder entry that names it, are synced before its first frame is
//! acknowledged; a frame before its batch is (`sync`), or when its segment is sealed (`written`); a
//! seal before the segment is handed to an inserter; the open attempt and the new name `.sent`
//! before its first byte goes out; a cut before any piece of it does; that a token is used up before
//! anything goes out under the next. Of a segment under the name
//! `.sent` without a valid progress block everything is believed possible.

mod block;
mod committer;
mod cut;
mod frame;
mod held;
mod layout;
mod ledger;
mod metrics;
mod pool;
mod reader;
mod recovery;
mod repeats;
mod salvage;
mod sealed;
mod segment;
mod storage;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use block::OpenAttempt;
pub use committer::Committer;
pub use cut::{Cut, Piece, PieceState};
pub use held::{Held, Orders};
pub use layout::SpoolError;
pub use ledger::{Accounts, Events, LedgerSnapshot};
pub use metrics::{COMMIT_SECONDS, SpoolMetrics};
pub use pool::SegmentPool;
pub use reader::{Part, SegmentReader};
pub use recovery::{Inspected, Recovered};
pub use repeats::SECONDS_MAX as KEY_SECONDS_MAX;
pub use salvage::Salvaged;
pub use sealed::SealedSegment;

use layout::Layout;
use repeats::Repeats;
use storage::{Disk, Storage};

use crate::batch::SegmentNumber;
use crate::clock::unix_ms;

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Durability {
    /// On the disk: survives a loss of power.
    Sync,
    /// Handed to the operating system: survives a crash of the process.
    Written,
}

/// How a spool is kept.
#[derive(Debug, Clone)]
pub struct SpoolConfig {
    /// The spool's folder.
    pub dir: PathBuf,
    /// The table whose events it holds.
    pub table: String,
    /// The node's name in tokens; without it one is made once and kept.
    pub node_id: Option<String>,
    /// What all files of the spool may occupy.
    pub spool_bytes_max: u64,
    /// What the disk keeps free.
    pub disk_free_min: u64,
    /// Rows that seal a segment.
    pub batch_rows: u64,
    /// Bytes that seal a segment.
    pub batch_bytes: u64,
    /// Age that seals a segment.
    pub batch_age: Duration,
    /// What an acknowledgement means.
    pub durability: Durability,
    /// Request keys that are remembered.
    pub idempotency_keys_max: usize,
    /// Identities of events that are remembered; `None` when there are none.
    pub dedup_values_max: Option<usize>,
}

/// An open spool: locked, and recovered.
pub struct Spool {
    layout: Arc<Layout>,
    config: SpoolConfig,
    metrics: Arc<SpoolMetrics>,
    pool: Arc<SegmentPool>,
    repeats: Repeats,
    next_number: SegmentNumber,
    postponed: Vec<SegmentNumber>,
}

impl Spool {
    /// Takes the spool, and brings what is in it into order. Quick whatever the backlog: of sealed
    /// segments only the first blocks are read.
    ///
    /// # Errors
    ///
    /// Another process has it, or the file system refuses.
    pub fn open(config: SpoolConfig) -> Result<(Self, Recovered), SpoolError> {
        Self::open_on(Arc::new(Disk), config)
    }

    fn open_on(storage: Arc<dyn Storage>, config: SpoolConfig) -> Result<(Self, Recovered), SpoolError> {
        let layout = Arc::new(Layout::open(storage, &config.dir, &config.table, config.node_id.as_deref())?);
        let metrics = Arc::new(SpoolMetrics::default());
        let repeats =
            Repeats::open(&layout, &metrics, config.idempotency_keys_max, config.dedup_values_max, unix_ms() / 1000);
        let mut repeats = repeats.map_err(layout::failed("reading what was seen lately".to_owned()))?;
        let mut recovered = recovery::recover(&layout, &metrics, &mut repeats)?;
        let damaged = layout.damaged_dir();
        let files =
            layout.storage().list(&damaged).map_err(layout::failed(format!("reading {}", damaged.display())))?;
        metrics.found_damaged(files.len() as u64);
        let pool = Arc::new(SegmentPool::new(layout.clone(), metrics.clone(), config.batch_bytes));
        let next_number = recovered.next_number;
        let postponed = std::mem::take(&mut recovered.postponed);
        Ok((Self { layout, config, metrics, pool, repeats, next_number, postponed }, recovered))
    }

    /// Segments of a former run whose recovery waits for room on the disk.
    pub fn postponed(&self) -> usize {
        self.postponed.len()
    }

    /// Recovers what waited for room, the oldest first, and returns the next segment.
    ///
    /// # Errors
    ///
    /// There is still no room, or the disk fails.
    fn recover_postponed(&mut self) -> io::Result<Option<SealedSegment>> {
        while let Some(number) = self.postponed.first().copied() {
            let recovered = recovery::recover_one(&self.layout, number, layout::FileKind::Segment, &mut self.repeats)?;
            self.postponed.remove(0);
            if let Some(segment) = recovered {
                self.metrics.found(&segment);
                return Ok(Some(segment));
            }
        }
        Ok(None)
    }

    /// What is counted.
    pub fn metrics(&self) -> Arc<SpoolMetrics> {
        self.metrics.clone()
    }

    /// Where the files of inserted segments go.
    pub fn pool(&self) -> Arc<SegmentPool> {
        self.pool.clone()
    }

    /// Where the last known columns are kept.
    pub fn schema_path(&self) -> PathBuf {
        self.layout.table_dir().join("schema.json")
    }
}

/// Looks at a table's segments, the oldest first, and changes nothing: a server may be running.
///
/// # Errors
///
/// The folder can't be read.
pub fn inspect(dir: &Path, table: &str) -> Result<Vec<Inspected>, SpoolError> {
    recovery::inspect(&Arc::new(Layout::look(Arc::new(Disk), dir, table)))
}

/// True while another process owns the spool in this folder. Makes nothing.
///
/// # Errors
///
/// When its lock can't be looked at.
pub fn is_owned(dir: &Path) -> io::Result<bool> {
    let path = dir.join("lock");
    Ok(path.try_exists()? && Disk.lock(&path)?.is_none())
}

#[cfg(test)]
mod tests;
