//! The committer, the only thread that appends to the log. It gathers the batches of all workers,
//! appends them as frames with one write, syncs once for all of them, and returns every batch to its
//! worker with its outcome.

mod space;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;

use super::frame::HEADER;
use super::ledger::Events;
use super::repeats::OutcomeRule;
use super::sealed::SealedSegment;
use super::segment::OpenSegment;
use super::storage::{SealError, end_after_failed_sync};
use super::{Durability, Spool};
use crate::batch::{Batch, CommitOutcome, CommitRefusal, Exchange, Position, Returned, SegmentNumber};
use crate::limits;
use space::refusal_of;

/// The longest sleep of the idle committer. Each wake-up sets the heartbeat and checks the free
/// disk space.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Pause between two attempts to write to a disk that failed or is full.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Pause between two checks for a free inserter, once the age of the open segment is over.
const INSERTER_POLL_PAUSE: Duration = Duration::from_millis(10);

/// The state of the committer thread: the spool, the source of batches, and the open segment.
pub struct Committer<E> {
    spool: Spool,
    exchange: Arc<E>,
    /// Serialized columns and settings of the open segment; of the last one if none is open.
    frozen: Arc<[u8]>,
    /// Number of the first segment with this `frozen`.
    frozen_from: SegmentNumber,
    sealed: Sender<SealedSegment>,
    inserters: u64,
    open: Option<OpenSegment>,
    age_from: Instant,
    /// The last position that was assigned.
    position: Position,
    /// The last position that is known to be synced.
    durable: Position,
    group: Vec<Member>,
    headers: Vec<[u8; HEADER]>,
    /// Duration of the last commit, from the first byte written to the end of the sync.
    last_commit: Duration,
    /// The open segment must be sealed before anything is appended to it.
    must_seal: bool,
    /// Time of the last attempt to recover the postponed segments.
    tried_postponed: Instant,
    /// What the disk said when it last refused a write, unless one has succeeded since; and when.
    refused: Option<CommitRefusal>,
    tried_writing: Instant,
}

/// A batch of the group that is committed together.
struct Member {
    batch: Batch,
    /// True if the batch becomes a frame.
    is_stored: bool,
    rule: OutcomeRule,
}

impl<E: Exchange> Committer<E> {
    /// A committer that expects `frozen` in the first batches, sends sealed segments to `sealed`,
    /// and seals by age only while one of `inserters` is free and the table takes rows.
    pub fn new(
        spool: Spool,
        exchange: Arc<E>,
        frozen: impl Into<Arc<[u8]>>,
        sealed: Sender<SealedSegment>,
        inserters: usize,
    ) -> Self {
        Self {
            frozen: frozen.into(),
            frozen_from: spool.next_number,
            spool,
            exchange,
            sealed,
            inserters: inserters as u64,
            open: None,
            age_from: Instant::now(),
            position: Position::default(),
            durable: Position::default(),
            group: Vec::with_capacity(limits::GROUP_BATCHES_MAX),
            headers: Vec::with_capacity(limits::GROUP_BATCHES_MAX),
            must_seal: false,
            last_commit: Duration::ZERO,
            tried_postponed: Instant::now(),
            refused: None,
            tried_writing: Instant::now(),
        }
    }

    /// Commits until the hand-off is finished and empty, then seals the open segment.
    pub fn run(mut self) {
        self.exchange.register_committer();
        loop {
            match self.turn() {
                Ok(Turn::Busy) => {}
                Ok(Turn::Idle) => self.exchange.wait(self.wait()),
                Ok(Turn::Finished) => return,
                Err(SyncFailed(error)) => end_after_failed_sync(&error),
            }
        }
    }

    /// One turn: commits the batches that are queued, and seals the open segment if it is due.
    pub(super) fn turn(&mut self) -> Result<Turn, SyncFailed> {
        self.spool.metrics.begin();
        let outcome = self.work();
        self.spool.metrics.end();
        outcome
    }

    fn work(&mut self) -> Result<Turn, SyncFailed> {
        // Read before the queue is drained: what is submitted afterwards isn't lost.
        let finished = self.exchange.is_finished();
        let mut pending = self.exchange.next();
        let idle = pending.is_none();
        while let Some(batch) = pending.take() {
            self.spool.metrics.begin();
            pending = self.commit_group(batch)?;
        }
        self.spool.metrics.beat();
        self.spool.repeats.forget_old();
        self.seal_if_due()?;
        if !idle {
            return Ok(Turn::Busy);
        }
        if !finished {
            self.update_refusal()?;
            return Ok(Turn::Idle);
        }
        if self.open.as_ref().is_some_and(|open| !open.is_empty()) {
            self.seal()?;
        }
        if let Err(error) = self.spool.numbers.note(&self.spool.layout, self.spool.next_number) {
            tracing::debug!(%error, "the next start skips a few segment numbers");
        }
        Ok(Turn::Finished)
    }

    /// Commits `first` and the queued batches that fit into the same segment. Returns the batch that
    /// was taken from the queue and does not fit.
    fn commit_group(&mut self, first: Batch) -> Result<Option<Batch>, SyncFailed> {
        if let OutcomeRule::Fixed(outcome) = self.spool.repeats.rule(&first) {
            // A repeat of an earlier request stores nothing, so it needs no disk space.
            self.return_batch(first, outcome);
            return Ok(None);
        }
        self.make_way(&first)?;
        let mut left_over = None;
        let (mut rows, mut bytes, segment) = (0, 0, self.number());
        let mut next = Some(first);
        let mut gathered = false;
        while let Some(mut batch) = next.take() {
            let mut rule = self.spool.repeats.rule(&batch);
            let mut is_stored = false;
            if rule == OutcomeRule::OfGroup {
                if !self.group.is_empty() && !self.fits(rows, bytes, &batch) {
                    left_over = Some(batch);
                    break;
                }
                rows += u64::from(batch.rows.count.max(batch.rejected.count));
                bytes += batch.frame_payload() + HEADER as u64;
                rule = self.spool.repeats.begin(&mut batch, segment);
                is_stored = !batch.is_empty();
            }
            // Batches that store nothing join too: the batches of a worker return in order.
            self.group.push(Member { batch, is_stored, rule });
            if self.group.len() < limits::GROUP_BATCHES_MAX {
                next = self.exchange.next();
                if next.is_none() && !gathered {
                    gathered = true;
                    next = self.gather();
                }
            }
        }
        if !self.group.iter().any(|member| member.is_stored) {
            // A group of repeats stores nothing and needs no segment.
            self.return_group(CommitOutcome::Committed { segment });
        } else if let Err(refusal) = self.open_segment() {
            self.refuse_group(refusal);
        } else {
            self.write_group(bytes)?;
        }
        Ok(left_over)
    }

    /// Waits for more batches to join the group while any worker is awake.
    ///
    /// A sync costs the same for one batch and for many, so the group waits up to the duration of
    /// the last commit. Once all workers sleep, no more batches can come and the wait ends.
    fn gather(&mut self) -> Option<Batch> {
        if self.spool.config.durability == Durability::Written || self.last_commit < limits::GATHER_MIN {
            return None;
        }
        self.exchange.gather(self.last_commit.min(limits::GATHER_MAX));
        self.exchange.next()
    }

    fn write_group(&mut self, bytes: u64) -> Result<(), SyncFailed> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let begun = Instant::now();
        let grows = (open.totals.end + bytes).saturating_sub(open.capacity);
        let first_position = self.position.next();
        let was_empty = open.is_empty();
        let stored = self.group.iter().filter(|member| member.is_stored).map(|member| &member.batch);
        let frames = stored.clone().count() as u64;
        let outcome = open.append(stored.clone(), first_position, self.durable, &mut self.headers);
        if let Err(error) = outcome {
            let refusal = self.failed(&error, "a write to the spool failed; requests are answered with 503");
            // The bytes behind the last frame are unknown: nothing may be appended after them.
            self.must_seal = true;
            self.refuse_group(refusal);
            return Ok(());
        }
        if self.spool.config.durability == Durability::Sync {
            open.sync().map_err(SyncFailed)?;
            self.durable = self.position.plus(frames);
        }
        open.capacity += grows;
        self.spool.metrics.occupy(grows);
        self.position = self.position.plus(frames);
        if was_empty {
            self.age_from = begun;
            self.spool.metrics.opened(open.number(), open.created_ms());
        }
        let rows = stored.clone().map(|batch| u64::from(batch.rows.count)).sum();
        let rejected = stored.map(|batch| u64::from(batch.rejected.count)).sum();
        self.spool.repeats.committed();
        let segment = self.number();
        self.last_commit = begun.elapsed();
        self.spool.metrics.committed(segment, Events { rows, rejected }, self.position, self.last_commit);
        self.refused = None;
        self.spool.metrics.refuse(None);
        self.return_group(CommitOutcome::Committed { segment });
        Ok(())
    }

    /// Returns the group's batches to their workers, and wakes each worker once.
    fn return_group(&mut self, of_the_group: CommitOutcome) {
        let mut wake = 0u128;
        for Member { batch, rule, .. } in self.group.drain(..) {
            let worker = batch.worker;
            let outcome = match (rule, of_the_group) {
                (OutcomeRule::Fixed(outcome), _)
                | (OutcomeRule::IfCommitted(outcome), CommitOutcome::Committed { .. }) => outcome,
                (OutcomeRule::OfGroup | OutcomeRule::IfCommitted(_), of_the_group) => of_the_group,
            };
            self.exchange.give_back(Returned { batch, outcome });
            if worker < 128 {
                wake |= 1 << worker;
            } else {
                self.exchange.wake(worker);
            }
        }
        while wake != 0 {
            self.exchange.wake(wake.trailing_zeros() as usize);
            wake &= wake - 1;
        }
    }

    fn return_batch(&self, batch: Batch, outcome: CommitOutcome) {
        let worker = batch.worker;
        self.exchange.give_back(Returned { batch, outcome });
        self.exchange.wake(worker);
    }

    fn refuse_group(&mut self, refusal: CommitRefusal) {
        self.spool.metrics.refuse(Some(refusal));
        self.spool.repeats.refused();
        self.return_group(CommitOutcome::Refused(refusal));
    }

    /// The number of the open segment; of the next one if none is open.
    fn number(&self) -> SegmentNumber {
        self.open.as_ref().map_or(self.spool.next_number, OpenSegment::number)
    }

    /// True if `batch` still fits after `rows` and `bytes` more have been added to the open segment,
    /// or to a new one if none is open.
    fn fits(&self, rows: u64, bytes: u64, batch: &Batch) -> bool {
        let config = &self.spool.config;
        let (has_rows, left) = match &self.open {
            Some(open) => (open.totals.rows.max(open.totals.rejected), open.capacity.saturating_sub(open.totals.end)),
            None => (0, config.batch_bytes),
        };
        let more = u64::from(batch.rows.count.max(batch.rejected.count));
        self.is_of_the_open_schema(batch)
            && has_rows + rows + more <= config.batch_rows
            && bytes + batch.frame_payload() + HEADER as u64 <= left
    }

    /// Opens a segment unless one is open.
    fn open_segment(&mut self) -> Result<(), CommitRefusal> {
        if self.must_seal {
            // The reason why sealing failed is the reason for the refusal.
            return Err(self.spool.metrics.refusal().unwrap_or(CommitRefusal::WriteFailed));
        }
        if self.open.is_some() {
            return Ok(());
        }
        self.recover_postponed()?;
        let recycled = match self.check_space() {
            Ok(()) => self.spool.pool.take(),
            // A recycled file occupies its disk space already.
            Err(refusal) => Some(self.spool.pool.take().ok_or(refusal)?),
        };
        let capacity = self.capacity();
        let number = self.spool.next_number;
        let from = recycled.as_ref().map(|(path, len)| (path.as_path(), *len));
        let created = self.spool.numbers.allow(&self.spool.layout, number).and_then(|()| {
            self.spool.next_number = number.next();
            OpenSegment::create(&self.spool.layout, number, self.position.next(), &self.frozen, capacity, from)
        });
        match created {
            Ok(open) => {
                if recycled.is_none() {
                    self.spool.metrics.occupy(capacity);
                }
                self.open = Some(open);
                self.refused = None;
                Ok(())
            }
            Err(error) => {
                let refusal = self.failed(&error, "a new segment can't be opened; requests are answered with 503");
                if let Some((path, len)) = recycled {
                    self.spool.pool.give_up(number, &path, len);
                }
                Err(refusal)
            }
        }
    }

    /// From now on events are refused. Said when it begins, not for each request that meets it: the
    /// log may be on the same disk.
    fn failed(&mut self, error: &io::Error, what: &str) -> CommitRefusal {
        if self.refused.is_none() {
            tracing::error!(%error, "{what}");
        } else {
            tracing::debug!(%error, "{what}");
        }
        let refusal = refusal_of(error);
        self.spool.metrics.refuse(Some(refusal));
        (self.refused, self.tried_writing) = (Some(refusal), Instant::now());
        refusal
    }

    /// Seals the open segment if `next` can't be appended to it.
    ///
    /// At most one segment is open, and all its frames have one schema. After a change of the table
    /// every worker switches to the new schema within one turn, so batches of both schemas alternate
    /// only briefly. Sealing at each alternation makes a few small segments and keeps the rule
    /// simple.
    fn make_way(&mut self, next: &Batch) -> Result<(), SyncFailed> {
        let same = self.is_of_the_open_schema(next);
        let holds_rows = self.open.as_ref().is_some_and(|open| !open.is_empty());
        if self.must_seal || holds_rows && !self.fits(0, 0, next) || !same && self.open.is_some() {
            self.seal()?;
        }
        if !same && self.open.is_none() {
            self.frozen = next.frozen.clone();
            self.frozen_from = self.spool.next_number;
        }
        Ok(())
    }

    fn is_of_the_open_schema(&self, batch: &Batch) -> bool {
        Arc::ptr_eq(&self.frozen, &batch.frozen) || self.frozen == batch.frozen
    }

    fn seal_if_due(&mut self) -> Result<(), SyncFailed> {
        let Some(open) = self.open.as_ref().filter(|open| !open.is_empty()) else { return Ok(()) };
        let config = &self.spool.config;
        let full = open.totals.rows.max(open.totals.rejected) >= config.batch_rows || open.totals.end >= open.capacity;
        let old = self.age_from.elapsed() >= config.batch_age
            && self.spool.metrics.may_seal_by_age(self.frozen_from, self.inserters);
        if full || old { self.seal() } else { Ok(()) }
    }

    fn seal(&mut self) -> Result<(), SyncFailed> {
        let Some(open) = self.open.take() else {
            self.must_seal = false;
            return Ok(());
        };
        if open.is_empty() {
            // An empty segment is sealed only after a failed write. It has no valid frame.
            self.abandon(&open);
            return Ok(());
        }
        match open.seal(&mut self.spool.repeats) {
            Ok(segment) => {
                self.must_seal = false;
                self.spool.metrics.sealed();
                // The inserters own the receiver while they run. Without them the segment stays on
                // the disk until the next start.
                let _ = self.sealed.send(segment);
            }
            Err(failure) => match *failure {
                (open, SealError::Write(error)) => {
                    self.failed(&error, "the open segment can't be sealed; sealing is retried");
                    self.must_seal = true;
                    self.open = Some(open);
                }
                (_, SealError::Sync(error)) => return Err(SyncFailed(error)),
            },
        }
        Ok(())
    }

    fn abandon(&mut self, open: &OpenSegment) {
        let path = self.spool.layout.path(open.number(), super::layout::FileKind::Segment);
        if let Err(error) = self.spool.layout.storage().remove(&path) {
            tracing::warn!(%error, path = %path.display(), "an unused segment can't be removed");
        }
        self.spool.metrics.release(open.capacity);
        self.spool.metrics.abandoned(open.number());
        self.must_seal = false;
    }

    fn wait(&self) -> Duration {
        let Some(open) = &self.open else { return SLEEP_MAX };
        if open.is_empty() {
            return SLEEP_MAX;
        }
        let left = self.spool.config.batch_age.saturating_sub(self.age_from.elapsed());
        if left.is_zero() { INSERTER_POLL_PAUSE } else { left.min(SLEEP_MAX) }
    }
}

/// The result of one turn of the committer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// At least one batch was queued.
    Busy,
    /// No batch was queued.
    Idle,
    /// The hand-off is finished and empty, and no segment is open.
    Finished,
}

/// The error of a failed sync, which ends the process; see [`end_after_failed_sync`].
#[derive(Debug)]
pub(super) struct SyncFailed(io::Error);
