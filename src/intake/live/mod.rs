//! What is being accepted or rejected now, for those who watch it on the admin address.
//!
//! ```text
//! request ─▶ sample (a copy of a few lines) ─▶ its batch ─▶ committed ─▶ queue ═lock-free═▶ watchers
//! ```
//!
//! A line is shown once its batch is committed, so what is shown is what was acknowledged. While nobody watches, a
//! request costs a worker one relaxed load. While somebody does, a worker copies at most [`PER_SECOND`] lines a
//! second of each table, and as many rejected ones, never waits, and drops what the queue has no room for. The
//! queue and what is on its way to it hold at most [`limits::LIVE_BYTES_MAX`] bytes. Whoever watches moves lines
//! from the queue to all watchers; each has a bounded list of its own.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam::queue::ArrayQueue;

use super::outbox::Settled;
use crate::batch::{CommitOutcome, TableIndex};
use crate::limits;
use crate::ndjson::{AddressForm, BodyLines, LineCode, Report};

/// The most lines of a table, and the most rejected ones, that are shown in a second.
pub const PER_SECOND: u64 = 100;

/// Time that one line uses up.
const LINE_MICROSECONDS: u64 = 1_000_000 / PER_SECOND;

/// As many lines may come at once after a pause as are shown in a second.
const BURST_MICROSECONDS: u64 = 1_000_000;

/// Lines of a body that are looked at for lines to show.
const LINES_LOOKED_AT: usize = 1000;

/// Lines that the queue holds, and lines that wait for one watcher.
const QUEUE_LINES: usize = 512;

/// Which lines are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    /// Those that became events.
    Accepted,
    /// Those that were rejected.
    Rejected,
}

/// Where workers put lines, and watchers find them.
#[derive(Debug)]
pub struct Live {
    started: Instant,
    /// Number of watchers.
    watchers: AtomicUsize,
    tables: Box<[[Tap; 2]]>,
    queue: ArrayQueue<LiveLine>,
    /// Bytes of the lines in samples, wherever these are.
    bytes: Arc<AtomicUsize>,
    inboxes: Mutex<Vec<Arc<Inbox>>>,
}

/// Accepted or rejected lines of one table.
#[derive(Debug, Default)]
struct Tap {
    watchers: AtomicUsize,
    /// Up to when the lines so far have used up the rate, in microseconds since the start.
    used_until: AtomicU64,
}

/// A copy of a line.
#[derive(Debug)]
pub struct LiveLine {
    table: TableIndex,
    /// The place of its request among those of the batch with a key.
    keyed: Option<usize>,
    /// The line, cut to [`limits::LIVE_LINE_BYTES_MAX`].
    pub line: Box<[u8]>,
    /// True if the line was longer.
    pub is_cut: bool,
    /// What is stored of the client's address.
    pub ip: String,
    /// When the request was read, Unix ns.
    pub server_time_unix_ns: i64,
    /// Why it was rejected; `None` if it was accepted.
    pub rejection: Option<LiveRejection>,
    bytes: Arc<AtomicUsize>,
}

/// Why a line was rejected.
#[derive(Debug)]
pub struct LiveRejection {
    /// The reason as a code.
    pub code: LineCode,
    /// The reason as a sentence.
    pub message: String,
    /// The column whose value is the reason, if a value is.
    pub column: Option<Arc<str>>,
}

impl Drop for LiveLine {
    fn drop(&mut self) {
        self.bytes.fetch_sub(self.line.len(), Relaxed);
    }
}

/// What belongs to one watcher.
#[derive(Debug)]
struct Inbox {
    table: TableIndex,
    watched: Watched,
    lines: Mutex<VecDeque<Arc<LiveLine>>>,
}

/// A request whose lines may be shown.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// Its table.
    pub table: TableIndex,
    /// Its body, decoded.
    pub body: &'a [u8],
    /// What became of its lines.
    pub report: &'a Report,
    /// The client's address.
    pub client_ip: Option<IpAddr>,
    /// When it was read, Unix ns.
    pub server_time_unix_ns: i64,
    /// What may be shown of the address.
    pub form: &'a AddressForm,
}

impl Live {
    /// For so many tables, with nobody watching.
    pub fn new(tables: usize) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            watchers: AtomicUsize::new(0),
            tables: std::iter::repeat_with(Default::default).take(tables).collect(),
            queue: ArrayQueue::new(QUEUE_LINES),
            bytes: Arc::default(),
            inboxes: Mutex::default(),
        })
    }

    /// True while somebody watches any table.
    pub fn is_watched(&self) -> bool {
        self.watchers.load(Relaxed) > 0
    }

    /// Begins to watch a table; `None` if too many do.
    pub fn watch(self: &Arc<Self>, table: TableIndex, watched: Watched) -> Option<Watcher> {
        let mut inboxes = self.inboxes();
        if inboxes.len() >= limits::LIVE_WATCHERS_MAX {
            return None;
        }
        let inbox = Arc::new(Inbox { table, watched, lines: Mutex::default() });
        inboxes.push(inbox.clone());
        self.tap(table, watched)?.watchers.fetch_add(1, Relaxed);
        self.watchers.fetch_add(1, Relaxed);
        Some(Watcher { live: self.clone(), inbox })
    }

    /// Copies lines of a request that are watched, as far as the rate permits.
    #[cold]
    pub fn sample(&self, shown: &Shown<'_>) -> Vec<LiveLine> {
        let Shown { table, body, report, .. } = *shown;
        let watches = |watched| self.tap(table, watched).is_some_and(|tap| tap.watchers.load(Relaxed) > 0);
        let mut wanted = [Watched::Accepted, Watched::Rejected].map(watches);
        let mut samples = Vec::new();
        if report.rejected > limits::BAD_LINES_MAX {
            // Nothing of the request is stored.
            return samples;
        }
        let now = u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let mut errors = report.errors.iter().peekable();
        // Of a line behind the last listed error nothing is known if there are more errors.
        let are_listed = report.errors.len() == report.rejected as usize;
        let known_until = report.errors.last().filter(|_| !are_listed).map_or(u32::MAX, |last| last.line);
        let lines = BodyLines::new(body, report.has_elements);
        for (number, line) in lines.take(LINES_LOOKED_AT).take_while(|(number, _)| *number <= known_until) {
            if wanted == [false; 2] {
                break;
            }
            let error = errors.next_if(|error| error.line == number);
            let watched = if error.is_some() { Watched::Rejected } else { Watched::Accepted };
            let Some(is_wanted) = wanted.get_mut(watched as usize).filter(|wanted| **wanted) else { continue };
            let kept = line.get(..limits::LIVE_LINE_BYTES_MAX).unwrap_or(&line);
            if !self.permits(table, watched, now) || !self.charge(kept.len()) {
                *is_wanted = false;
                continue;
            }
            samples.push(LiveLine {
                table,
                keyed: None,
                line: kept.into(),
                is_cut: kept.len() < line.len(),
                ip: shown.form.text(shown.client_ip),
                server_time_unix_ns: shown.server_time_unix_ns,
                rejection: error.map(|error| LiveRejection {
                    code: error.code,
                    message: error.message.clone(),
                    column: error.column.clone(),
                }),
                bytes: self.bytes.clone(),
            });
        }
        samples
    }

    /// Shows the lines of a settled batch that were stored.
    pub(super) fn publish(&self, settled: &mut Settled) {
        for sample in std::mem::take(&mut settled.samples) {
            let outcome = settled.outcome_of(sample.keyed);
            if matches!(outcome, Some(CommitOutcome::Committed { .. } | CommitOutcome::Deduplicated { .. })) {
                // What finds no room is left out, and counted among those that are not shown.
                let _ = self.queue.push(sample);
            }
        }
    }

    /// Moves what is in the queue to those who watch.
    fn distribute(&self) {
        let inboxes = self.inboxes();
        while let Some(sample) = self.queue.pop() {
            let watched = if sample.rejection.is_some() { Watched::Rejected } else { Watched::Accepted };
            let sample = Arc::new(sample);
            for inbox in inboxes.iter().filter(|inbox| inbox.table == sample.table && inbox.watched == watched) {
                let mut lines = lock(&inbox.lines);
                if lines.len() < QUEUE_LINES {
                    lines.push_back(sample.clone());
                }
            }
        }
    }

    /// True if the rate has room for another line; it is used up then.
    fn permits(&self, table: TableIndex, watched: Watched, now: u64) -> bool {
        let Some(tap) = self.tap(table, watched) else { return false };
        // One try: a worker that loses against another leaves a line out.
        let used = tap.used_until.load(Relaxed);
        let next = used.max(now.saturating_sub(BURST_MICROSECONDS)) + LINE_MICROSECONDS;
        next <= now && tap.used_until.compare_exchange(used, next, Relaxed, Relaxed).is_ok()
    }

    fn charge(&self, bytes: usize) -> bool {
        if self.bytes.fetch_add(bytes, Relaxed).saturating_add(bytes) <= limits::LIVE_BYTES_MAX {
            return true;
        }
        self.bytes.fetch_sub(bytes, Relaxed);
        false
    }

    fn tap(&self, table: TableIndex, watched: Watched) -> Option<&Tap> {
        self.tables.get(table.get())?.get(watched as usize)
    }

    fn inboxes(&self) -> MutexGuard<'_, Vec<Arc<Inbox>>> {
        lock(&self.inboxes)
    }
}

impl LiveLine {
    /// The request has this place among those of its batch with a key.
    pub(super) fn of_keyed(self, keyed: Option<usize>) -> Self {
        let mut sample = self;
        sample.keyed = keyed;
        sample
    }
}

/// Somebody who watches a table. Nothing is kept for them once this is dropped.
#[derive(Debug)]
pub struct Watcher {
    live: Arc<Live>,
    inbox: Arc<Inbox>,
}

impl Watcher {
    /// The lines since the last call, in the order of their commits.
    pub fn take(&self) -> VecDeque<Arc<LiveLine>> {
        self.live.distribute();
        std::mem::take(&mut *lock(&self.inbox.lines))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.live.inboxes().retain(|inbox| !Arc::ptr_eq(inbox, &self.inbox));
        self.live.watchers.fetch_sub(1, Relaxed);
        if let Some(tap) = self.live.tap(self.inbox.table, self.inbox.watched) {
            tap.watchers.fetch_sub(1, Relaxed);
        }
        if !self.live.is_watched() {
            while self.live.queue.pop().is_some() {}
        }
    }
}

// One entry is added or removed at a time: nothing can be left half-changed.
fn lock<T>(guarded: &Mutex<T>) -> MutexGuard<'_, T> {
    guarded.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
