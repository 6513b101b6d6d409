//! The committer, the only thread that appends to the log. It gathers the batches of all workers,
//! appends them as frames with one write, syncs once for all of them, and returns every batch to its
//! worker with its outcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;

use super::keeper::{Keeper, refusal_of};
use super::ledger::Events;
use super::metrics::SpoolMetrics;
use super::repeats::Repeats;
use super::sealed::SealedBlock;
use super::segment::{OpenSegment, Scratch};
use super::shelf::{Next, Shelf};
use super::storage::{SyncFailed, end_after_failed_sync};
use super::tables::Tables;
use super::{Durability, Spool, SpoolConfig};
use crate::batch::{
    Batch, BlockNumber, CommitOutcome, CommitRefusal, Exchange, OutcomeRule, Position, Returned, SegmentNumber,
};
use crate::limits;

/// The longest sleep of the idle committer. Each wake-up sets the heartbeat.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// Pause between two checks for a free inserter, once the age of the open segment is over.
const INSERTER_POLL_PAUSE: Duration = Duration::from_millis(10);

/// The state of the committer thread: the source of batches, and the open segment.
pub struct Committer<E> {
    config: SpoolConfig,
    metrics: Arc<SpoolMetrics>,
    repeats: Repeats,
    shelf: Arc<Shelf>,
    exchange: Arc<E>,
    /// What is known of each table.
    tables: Tables,
    inserters: u64,
    open: Option<OpenSegment>,
    /// Number of the frames of this run.
    position: Position,
    group: Vec<Member>,
    scratch: Scratch,
    /// Events and bytes of the group, by block.
    events: Vec<(BlockNumber, Events, u64)>,
    /// A batch that was taken from the queue and waits for the next segment.
    pending: Option<Batch>,
    /// Duration of the last commit, from the first byte written to the end of the sync.
    last_commit: Duration,
    /// A write has failed, and none has succeeded since.
    is_failing: bool,
}

/// A batch of the group that is committed together.
struct Member {
    batch: Batch,
    /// The block that the batch becomes a frame of; of one that is not stored, the one that it would have.
    block: BlockNumber,
    /// True if the batch becomes a frame.
    is_stored: bool,
    rule: OutcomeRule,
}

/// What came of a group.
enum Group {
    /// Committed or refused; with the batch that was taken from the queue and does not fit.
    Done(Option<Batch>),
    /// Its first batch has to wait for the next segment.
    Waiting(Batch),
}

impl<E: Exchange> Committer<E> {
    /// A committer that seals by age only while one of `inserters`
    /// is free and the table takes rows; and its keeper, which sends sealed blocks to `sealed`.
    pub fn new(spool: Spool, exchange: Arc<E>, sealed: Sender<SealedBlock>, inserters: usize) -> (Self, Keeper) {
        let Spool { layout, config, metrics, pool, repeats, logs, numbers, next_number, postponed } = spool;
        let shelf = Arc::new(Shelf::new());
        let tables = Tables::new(layout.clone(), &config);
        let keeper = Keeper {
            shelf: shelf.clone(),
            layout,
            config: config.clone(),
            metrics: metrics.clone(),
            pool,
            logs,
            numbers,
            next_number,
            postponed,
            sealed,
            unsealed: Default::default(),
            refused: None,
            cannot_seal: false,
        };
        let committer = Self {
            config,
            metrics,
            repeats,
            shelf,
            exchange,
            tables,
            inserters: inserters as u64,
            open: None,
            position: Position::default(),
            group: Vec::with_capacity(limits::GROUP_BATCHES_MAX),
            scratch: Scratch::default(),
            events: Vec::with_capacity(limits::GROUP_BATCHES_MAX),
            pending: None,
            last_commit: Duration::ZERO,
            is_failing: false,
        };
        (committer, keeper)
    }

    /// Commits until the hand-off is finished and empty, then hands the open segment over.
    pub fn run(mut self) {
        self.exchange.register_committer();
        loop {
            match self.turn() {
                Ok(Turn::Busy) => {}
                Ok(Turn::Idle) => self.exchange.wait(self.wait()),
                Ok(Turn::Waiting) => {
                    self.metrics.begin();
                    self.shelf.wait_for_answer();
                    self.metrics.end();
                }
                Ok(Turn::Finished) => return,
                Err(SyncFailed(error)) => end_after_failed_sync(&error),
            }
        }
    }

    /// One turn: commits the batches that are queued, and hands the open segment over if it is due.
    pub(super) fn turn(&mut self) -> Result<Turn, SyncFailed> {
        self.metrics.begin();
        let outcome = self.work();
        self.metrics.end();
        outcome
    }

    fn work(&mut self) -> Result<Turn, SyncFailed> {
        // Read before the queue is drained: what is submitted afterwards isn't lost.
        let finished = self.exchange.is_finished();
        let mut next = self.pending.take().or_else(|| self.exchange.next());
        let idle = next.is_none();
        while let Some(batch) = next.take() {
            self.metrics.begin();
            match self.commit_group(batch)? {
                Group::Done(left_over) => next = left_over,
                Group::Waiting(batch) => {
                    self.pending = Some(batch);
                    return Ok(Turn::Waiting);
                }
            }
        }
        self.metrics.beat();
        self.repeats.forget_old();
        self.hand_over_if_due();
        if !idle {
            return Ok(Turn::Busy);
        }
        if !finished {
            return Ok(Turn::Idle);
        }
        self.hand_over(None);
        self.shelf.finish();
        Ok(Turn::Finished)
    }

    /// Commits `first` and the queued batches that fit into the same segment.
    fn commit_group(&mut self, mut first: Batch) -> Result<Group, SyncFailed> {
        if !self.repeats.look(&mut first) {
            // Repeats of earlier requests store nothing, so they need no disk space.
            self.return_batch(first);
            return Ok(Group::Done(None));
        }
        self.make_way(&first);
        let opened = match self.next_segment() {
            Some(opened) => opened,
            None => return Ok(Group::Waiting(first)),
        };
        let mut left_over = None;
        let (mut bytes, segment) = (0, self.number());
        let mut next = Some(first);
        let mut gathered = false;
        while let Some(mut batch) = next.take() {
            let (mut rule, has_news) = (OutcomeRule::OfGroup, self.repeats.look(&mut batch));
            let (mut is_stored, mut block) = (false, BlockNumber::first(segment));
            if has_news && self.tables.is_full(&batch, &self.metrics) {
                rule = OutcomeRule::Fixed(CommitOutcome::Refused(CommitRefusal::SpoolFull));
            } else if has_news {
                if !self.group.is_empty() && !self.fits(bytes, &batch) {
                    left_over = Some(batch);
                    break;
                }
                bytes += self.tables.bytes_of(self.open.as_ref(), &batch);
                block.index = self.tables.index_of(self.open.as_ref(), &batch);
                rule = self.repeats.begin(&mut batch, block);
                is_stored = !batch.is_empty();
                if is_stored {
                    let is_new = self.open.as_ref().is_none_or(|open| open.block_of(batch.table).is_none());
                    self.tables.join(&batch, block, is_new);
                }
            }
            // Batches that store nothing join too: the batches of a worker return in order.
            self.group.push(Member { batch, block, is_stored, rule });
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
            self.return_group(None);
        } else if let Err(refusal) = opened {
            self.refuse_group(refusal);
        } else {
            self.write_group(bytes)?;
        }
        Ok(Group::Done(left_over))
    }

    /// Waits for more batches to join the group while any worker is awake.
    ///
    /// A sync costs the same for one batch and for many, so the group waits up to the duration of
    /// the last commit. Once all workers sleep, no more batches can come and the wait ends.
    fn gather(&mut self) -> Option<Batch> {
        if self.config.durability == Durability::Written || self.last_commit < limits::GATHER_MIN {
            return None;
        }
        self.exchange.gather(self.last_commit.min(limits::GATHER_MAX));
        self.exchange.next()
    }

    fn write_group(&mut self, bytes: u64) -> Result<(), SyncFailed> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let begun = Instant::now();
        let grows = (open.end + bytes).saturating_sub(open.capacity);
        let known = open.blocks().len();
        let stored = self.group.iter().filter(|member| member.is_stored).map(|member| &member.batch);
        let frames = stored.clone().count() as u64;
        if let Err(error) = open.append(stored, &mut self.scratch) {
            let refusal = refusal_of(&error);
            if !std::mem::replace(&mut self.is_failing, true) {
                tracing::error!(%error, "a write to the spool failed; requests are answered with 503");
            }
            // The bytes behind the last frame are unknown: nothing may be appended after them.
            self.hand_over(Some(refusal));
            self.refuse_group(refusal);
            return Ok(());
        }
        if self.config.durability == Durability::Sync {
            open.sync().map_err(SyncFailed)?;
        }
        open.capacity += grows;
        self.metrics.occupy(grows);
        self.position = self.position.plus(frames);
        for (index, block) in open.blocks().iter().enumerate().skip(known) {
            self.tables.begins(block.table, begun);
            self.metrics.opened(open.block_number(index), block.table, block.begun_ms());
        }
        self.events.clear();
        for Member { batch, block, .. } in self.group.iter().filter(|member| member.is_stored) {
            let events = Events { rows: batch.rows.count.into(), rejected: batch.rejected.count.into() };
            self.events.push((*block, events, batch.len() as u64));
        }
        self.repeats.committed();
        self.last_commit = begun.elapsed();
        self.metrics.committed(&self.events, self.position, self.last_commit);
        tracing::trace!(frames, bytes, seconds = self.last_commit.as_secs_f64(), "committed");
        self.is_failing = false;
        self.metrics.refuse(None);
        self.return_group(None);
        Ok(())
    }

    /// Returns the group's batches to their workers, and wakes each worker once.
    fn return_group(&mut self, refusal: Option<CommitRefusal>) {
        self.tables.leave();
        let mut wake = 0u128;
        for Member { mut batch, block, rule, .. } in self.group.drain(..) {
            let worker = batch.worker;
            let group = refusal.map_or(CommitOutcome::Committed { block }, CommitOutcome::Refused);
            let outcome = rule.outcome(group);
            batch.settle(group, outcome);
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

    /// Returns a batch of repeats, each of which has an outcome of its own.
    fn return_batch(&self, mut batch: Batch) {
        let (worker, block) = (batch.worker, BlockNumber::first(self.number()));
        let outcome = CommitOutcome::Committed { block };
        batch.settle(outcome, outcome);
        self.exchange.give_back(Returned { batch, outcome });
        self.exchange.wake(worker);
    }

    fn refuse_group(&mut self, refusal: CommitRefusal) {
        self.metrics.refuse(Some(refusal));
        self.repeats.refused();
        self.return_group(Some(refusal));
    }

    /// The number of the open segment; of the next one if none is open.
    fn number(&self) -> SegmentNumber {
        self.open.as_ref().map_or(self.metrics.newest().next(), OpenSegment::number)
    }

    /// True if `batch` still fits after `bytes` more have been added to the open segment, or to a new one if none
    /// is open.
    fn fits(&self, bytes: u64, batch: &Batch) -> bool {
        let left = match &self.open {
            Some(open) => open.capacity.saturating_sub(open.end),
            None => self.config.batch_bytes_max(),
        };
        let open = self.open.as_ref();
        self.tables.take(open, batch) && bytes + self.tables.bytes_of(open, batch) <= left
    }

    /// Takes the next segment unless one is open; or says why there is none. `None` while the keeper has not
    /// answered.
    fn next_segment(&mut self) -> Option<Result<(), CommitRefusal>> {
        if self.open.is_some() {
            return Some(Ok(()));
        }
        match self.shelf.take() {
            Next::Segment(open, recovered) => {
                self.repeats.remember(recovered);
                self.open = Some(*open);
                Some(Ok(()))
            }
            Next::Refused(refusal) => Some(Err(refusal)),
            Next::NotYet => None,
        }
    }

    /// Hands the open segment over if `next` can't be appended to it.
    ///
    /// A table has one block in a segment, and all frames of a block have one schema. After a change of the table
    /// every worker switches to the new schema within one turn, so batches of both schemas alternate
    /// only briefly. Sealing at each alternation makes a few small segments and keeps the rule
    /// simple.
    fn make_way(&mut self, next: &Batch) {
        let holds_rows = self.open.as_ref().is_some_and(|open| !open.is_empty());
        if holds_rows && !self.fits(0, next) {
            self.hand_over(None);
        }
    }

    fn hand_over_if_due(&mut self) {
        let Some(open) = self.open.as_ref().filter(|open| !open.is_empty()) else { return };
        if self.tables.is_due(open, &self.metrics, self.inserters) {
            self.hand_over(None);
        }
    }

    /// Gives the open segment to the keeper, which seals it. `failed` is why nothing may be appended to it.
    fn hand_over(&mut self, failed: Option<CommitRefusal>) {
        let Some(open) = self.open.take() else { return };
        self.metrics.sealed(open.blocks().iter().map(|block| block.table));
        self.shelf.hand_over(open, failed);
    }

    fn wait(&self) -> Duration {
        let left = self.open.as_ref().and_then(|open| self.tables.left(open, &self.metrics));
        match left {
            None => SLEEP_MAX,
            Some(Duration::ZERO) => INSERTER_POLL_PAUSE,
            Some(left) => left.min(SLEEP_MAX),
        }
    }
}

/// The result of one turn of the committer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// At least one batch was queued.
    Busy,
    /// No batch was queued.
    Idle,
    /// A batch waits for the keeper's answer.
    Waiting,
    /// The hand-off is finished and empty, and no segment is open.
    Finished,
}
