//! The counters of the spool. The committer and the inserters update them a few times per commit or
//! INSERT; the admin address and the health check of the workers read them.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::KEY_SECONDS_MAX;
use super::held::{Delayed, Held};
use super::layout::OtherTable;
use super::ledger::{Events, Ledger, LedgerSnapshot};
use super::refused::RefusalSaid;
use super::sealed::SealedBlock;
use crate::batch::{BlockNumber, CommitRefusal, Position, SegmentNumber, TableIndex};
use crate::clock::monotonic_ms;

/// Upper bounds of the buckets of `commit_seconds`, in seconds.
pub const COMMIT_SECONDS: [f64; 13] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// A failure of one block may be its own; that of two more is the table's.
const TRIED_AT_LEAST: u64 = 2;

/// The accounts and counters of one spool.
#[derive(Debug, Default)]
pub struct SpoolMetrics {
    ledger: Mutex<Ledger>,
    bytes: AtomicU64,
    /// Those of files that are there whatever waits.
    kept_bytes: AtomicU64,
    durable: AtomicU64,
    heartbeat_ms: AtomicU64,
    refusal: AtomicU8,
    refusal_said: RefusalSaid,
    /// Since when the committer does what may wait for the disk, by [`monotonic_ms`]; 0 while it does not.
    busy_since: AtomicU64,
    commit_buckets: [AtomicU64; COMMIT_SECONDS.len() + 1],
    commit_nanoseconds: AtomicU64,
    /// The held blocks.
    pub held: Held,
    newest: AtomicU64,
    keys: AtomicU64,
    /// Age of the oldest remembered request key in seconds, when [`Self::keys_seen_ms`] was; 0 unless the maximum
    /// number of keys is reached.
    keys_age: AtomicU64,
    /// By [`monotonic_ms`].
    keys_seen_ms: AtomicU64,
    damaged: AtomicU64,
    postponed: AtomicU64,
    others: OnceLock<Vec<OtherTable>>,
}

impl SpoolMetrics {
    /// A snapshot of the accounts of all tables together (invariant 5).
    pub fn ledger(&self) -> LedgerSnapshot {
        self.accounts().snapshot()
    }

    /// The same, with the accounts of each table that has some, at the same moment.
    pub fn ledgers(&self) -> (LedgerSnapshot, Vec<(TableIndex, LedgerSnapshot)>) {
        let accounts = self.accounts();
        (accounts.snapshot(), accounts.snapshots())
    }

    /// Bytes of a table's frames that are not inserted.
    pub fn spooled_bytes(&self, table: TableIndex) -> u64 {
        self.accounts().bytes(table)
    }

    /// What waits of a block that is open or waits for its insert, and the bytes of its frames.
    pub fn block(&self, number: BlockNumber) -> Option<(Events, u64)> {
        self.accounts().block(number)
    }

    /// Number of rows that are committed and not yet inserted.
    pub fn spooled_rows(&self) -> u64 {
        self.ledger().rows.spooled
    }

    /// Number of rejected lines that are committed and not yet in the quarantine table.
    pub fn spooled_rejected(&self) -> u64 {
        self.ledger().rejected.spooled
    }

    /// Bytes that the files of the spool occupy.
    pub fn spool_bytes(&self) -> u64 {
        self.bytes.load(Relaxed).saturating_add(self.kept_bytes.load(Relaxed))
    }

    /// The position up to which every frame has the durability that `--durability` asks for.
    pub fn durable_position(&self) -> Position {
        Position::new(self.durable.load(Relaxed))
    }

    /// Creation time of the oldest block that is not inserted, Unix ms; 0 if there is none.
    pub fn oldest_unix_ms(&self) -> u64 {
        self.accounts().oldest_ms()
    }

    /// The same of a table's blocks.
    pub fn oldest_unix_ms_of(&self, table: TableIndex) -> u64 {
        self.accounts().oldest_ms_of(table)
    }

    /// Number of files in `damaged/`, which need operator action.
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Relaxed)
    }

    /// Number of segments of a previous run whose recovery waits for disk space. Their events are in no
    /// account yet.
    pub fn postponed(&self) -> u64 {
        self.postponed.load(Relaxed)
    }

    /// What a start found in the spool for other tables.
    pub fn others(&self) -> &[OtherTable] {
        self.others.get().map_or(&[], Vec::as_slice)
    }

    /// Number of a table's sealed blocks that are not inserted.
    pub fn outstanding(&self, table: TableIndex) -> u64 {
        self.accounts().sealed_of(table)
    }

    /// True when another block of a table, whose columns are those of its blocks since segment `from`, would be
    /// sent soon if age sealed it: fewer of the table wait than there are inserters, and blocks that were tried do
    /// not say that the table takes nothing. Then more segments would only be more files, and more INSERTs when it
    /// is back; but for a second one that finds out. Each inserter with a silent INSERT has a spare one in its
    /// place. What waits of other tables does not count: a free inserter takes the table that has fewest.
    pub(super) fn may_seal_by_age(&self, table: TableIndex, from: SegmentNumber, inserters: u64) -> bool {
        let Delayed { all, of_table, silent } = self.held.delayed(table, from);
        let fresh = self.outstanding(table).saturating_sub(all);
        let silent_spares = silent.saturating_sub(inserters);
        fresh + silent_spares < inserters && fresh + of_table < inserters.max(TRIED_AT_LEAST)
    }

    /// The newest segment's number, whether or not it is still there; 0 before the first.
    pub fn newest(&self) -> SegmentNumber {
        SegmentNumber::new(self.newest.load(Relaxed))
    }

    /// Number of blocks that are open or wait for their insert.
    pub fn not_inserted(&self) -> u64 {
        self.accounts().blocks()
    }

    /// Number of a table's blocks that are open or wait for their insert.
    pub fn not_inserted_of(&self, table: TableIndex) -> u64 {
        self.accounts().blocks_of(table)
    }

    /// True while the block with this number is not inserted.
    pub fn is_waiting(&self, number: BlockNumber) -> bool {
        self.accounts().has(number)
    }

    /// The number of remembered request keys, and for how many seconds a key is remembered now: less than
    /// [`KEY_SECONDS_MAX`](super::KEY_SECONDS_MAX) where the maximum number of keys is reached.
    pub fn request_keys(&self) -> (u64, u64) {
        let since_seen = monotonic_ms().saturating_sub(self.keys_seen_ms.load(Relaxed)) / 1000;
        let horizon = match self.keys_age.load(Relaxed) {
            0 => KEY_SECONDS_MAX,
            age => age.saturating_add(since_seen).min(KEY_SECONDS_MAX),
        };
        (self.keys.load(Relaxed), horizon)
    }

    /// Time of the committer's last turn, Unix ms; 0 before its first.
    pub fn heartbeat_ms(&self) -> u64 {
        self.heartbeat_ms.load(Relaxed)
    }

    /// For how long the committer has been at what it does now: longer than a commit takes when the disk
    /// hangs.
    pub fn busy_for(&self) -> Duration {
        match self.busy_since.load(Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(monotonic_ms().saturating_sub(since)),
        }
    }

    /// Why events would be refused now, if they would.
    pub fn refusal(&self) -> Option<CommitRefusal> {
        match self.refusal.load(Relaxed) {
            0 => None,
            1 => Some(CommitRefusal::SpoolFull),
            2 => Some(CommitRefusal::DiskFull),
            4 => Some(CommitRefusal::NoDescriptors),
            _ => Some(CommitRefusal::WriteFailed),
        }
    }

    /// The number of commits in each bucket of [`COMMIT_SECONDS`] and in one more for longer ones,
    /// and the sum of their durations in seconds.
    pub fn commits(&self) -> (Vec<u64>, f64) {
        let buckets = self.commit_buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        (buckets, self.commit_nanoseconds.load(Relaxed) as f64 / 1e9)
    }

    /// Counts a recovered block that waits for its insert.
    pub(super) fn recovered(&self, block: &SealedBlock) {
        self.opened(block.number(), block.table(), block.created_ms());
        let events = Events { rows: block.rows_undecided(), rejected: block.rejected() };
        let bytes = block.rows_bytes() + block.rejected_bytes();
        self.accounts().recovered(block.number(), events, bytes);
        self.sealed([block.table()]);
    }

    /// A start found events that can only be set aside, with their file.
    pub(super) fn found_aside(&self, events: Events) {
        self.accounts().found_aside(events);
    }

    /// So many files are in `damaged/`.
    pub(super) fn set_damaged(&self, files: u64) {
        self.damaged.store(files, Relaxed);
    }

    pub(super) fn set_postponed(&self, segments: usize) {
        self.postponed.store(segments as u64, Relaxed);
    }

    /// Counts a group that was committed: events and bytes of frames for each block.
    pub(super) fn committed(&self, group: &[(BlockNumber, Events, u64)], position: Position, took: Duration) {
        let mut accounts = self.accounts();
        group.iter().for_each(|(block, events, bytes)| accounts.committed(*block, *events, *bytes));
        drop(accounts);
        self.durable.store(position.get(), Relaxed);
        let seconds = took.as_secs_f64();
        let bucket = COMMIT_SECONDS.iter().take_while(|bound| seconds > **bound).count();
        if let Some(bucket) = self.commit_buckets.get(bucket) {
            bucket.fetch_add(1, Relaxed);
        }
        self.commit_nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    /// Notes the number of remembered request keys, and the age of the oldest if it is the maximum number.
    pub(super) fn keys(&self, count: u64, age: Option<Duration>) {
        self.keys.store(count, Relaxed);
        self.keys_seen_ms.store(monotonic_ms(), Relaxed);
        self.keys_age.store(age.map_or(0, |age| age.as_secs().max(1)), Relaxed);
    }

    /// Counts rows or rejected lines of a block that are proven in their table.
    pub fn inserted(&self, block: BlockNumber, rows: u64, rejected: u64) {
        self.accounts().inserted(block, Events { rows, rejected });
    }

    /// Counts rows of a block that ClickHouse refused and that are proven in the quarantine table.
    pub fn set_aside(&self, block: BlockNumber, rows: u64) {
        self.accounts().set_aside(block, Events { rows, rejected: 0 });
    }

    /// Counts events of a damaged block that can't be read.
    pub(super) fn lost_to_damage(&self, block: BlockNumber, events: Events) {
        self.accounts().set_aside(block, events);
    }

    /// The spool holds this for other tables.
    pub(super) fn found_others(&self, others: Vec<OtherTable>) {
        // Once, by the start.
        let _ = self.others.set(others);
    }

    /// The next segment will have this number.
    pub(super) fn numbered(&self, next: SegmentNumber) {
        self.newest.fetch_max(next.get().saturating_sub(1), Relaxed);
    }

    pub(super) fn opened(&self, number: BlockNumber, table: TableIndex, created_ms: u64) {
        self.accounts().open(number, table, created_ms);
        self.newest.fetch_max(number.segment.get(), Relaxed);
    }

    /// A block of each of these tables is sealed.
    pub(super) fn sealed(&self, tables: impl IntoIterator<Item = TableIndex>) {
        let mut accounts = self.accounts();
        tables.into_iter().for_each(|table| accounts.sealed(table));
    }

    pub(super) fn retired(&self, number: BlockNumber) {
        self.held.release(number);
        self.accounts().close(number);
    }

    pub(super) fn occupy(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Relaxed);
    }

    /// So many bytes are occupied whatever waits.
    pub(super) fn keep(&self, bytes: u64) {
        self.kept_bytes.store(bytes, Relaxed);
    }

    pub(super) fn release(&self, bytes: u64) {
        // Of what was never counted nothing is taken away.
        let _ = self.bytes.fetch_update(Relaxed, Relaxed, |all| Some(all.saturating_sub(bytes)));
    }

    /// The committer begins something that may wait for the disk.
    pub(super) fn begin(&self) {
        self.busy_since.store(monotonic_ms(), Relaxed);
    }

    /// The committer has come through.
    pub(super) fn end(&self) {
        self.busy_since.store(0, Relaxed);
    }

    pub(super) fn beat(&self) {
        self.heartbeat_ms.store(monotonic_ms(), Relaxed);
    }

    pub(super) fn refuse(&self, refusal: Option<CommitRefusal>) {
        let code = match refusal {
            None => 0,
            Some(CommitRefusal::SpoolFull) => 1,
            Some(CommitRefusal::DiskFull) => 2,
            Some(CommitRefusal::WriteFailed) => 3,
            Some(CommitRefusal::NoDescriptors) => 4,
        };
        // With every group that is committed.
        if self.refusal.load(Relaxed) != code && self.refusal.swap(code, Relaxed) != code {
            self.refusal_said.changed(refusal);
        }
    }

    fn accounts(&self) -> MutexGuard<'_, Ledger> {
        // A panic inside the lock ends the process, so no poisoned ledger is ever used.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
