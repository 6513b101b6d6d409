//! A worker's batches: those that are being filled in this turn, one for each table that requests came
//! for, the batches under way to the committer and back with the requests that wait for them, and the
//! spare ones.
//!
//! A batch has rows of one table and of one version of its schema, and an outcome of its own: what becomes
//! of it concerns no request of another table.
//!
//! The number of batches is fixed, and the bytes of batches under way count in the in-flight budget.
//! While no batch is spare, or while the budget is used up and a batch is under way, the worker reads
//! no requests. This is the back-pressure that TCP's flow control passes on to the clients.

mod filling;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use filling::{Filling, OwnBatch};

use crate::api::Fault;
use crate::batch::identity::Summary;
use crate::batch::{Batch, CommitOutcome, Returned, Sequence, TableIndex};
use crate::handoff::Handoff;
use crate::intake::budget::{ByteBudget, Charge, Size};
use crate::intake::live::LiveLine;
use crate::intake::quotas::Debit;
use crate::limits;
use crate::ndjson::RejectedByCode;

/// Where a reply goes: a slot of the worker, and the slot's generation. The generation changes when the
/// slot is reused, so that a late reply does not reach the next user of the slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiter {
    /// The index of the slot.
    pub slot: usize,
    /// The generation of the slot when the request was served.
    pub generation: u64,
}

/// The outcome of a batch, or its passed deadline, with the requests that wait for it.
#[derive(Debug)]
pub struct Settled {
    /// The sequence of the batch.
    pub sequence: Sequence,
    /// The table that its events are for.
    pub table: TableIndex,
    /// The outcome; `None` when the deadline passed first.
    pub outcome: Option<CommitOutcome>,
    /// Rows of the batch, without duplicates.
    pub rows: u32,
    /// Events that had been stored before and were removed from the batch.
    pub duplicates: u32,
    /// Its requests with a key, in their order; none when the deadline passed first.
    pub keyed: Vec<Keyed>,
    /// The requests of the batch. Return the memory with [`Outbox::recycle`].
    pub waiters: Vec<Waiter>,
    /// What its requests were charged.
    pub debits: Vec<Debit>,
    /// Lines that somebody watches.
    pub samples: Vec<LiveLine>,
    /// The time since the first request of the batch was served.
    pub elapsed: Duration,
}

impl Settled {
    /// The outcome of a request, by its place among those with a key.
    pub fn outcome_of(&self, keyed: Option<usize>) -> Option<CommitOutcome> {
        keyed.and_then(|keyed| self.keyed.get(keyed)?.outcome).or(self.outcome)
    }
}

/// What the worker keeps of a request with a key.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keyed {
    /// Its own outcome, once its batch is settled.
    pub outcome: Option<CommitOutcome>,
    /// The numbers in its reply.
    pub summary: Summary,
    /// Its rejected lines, which are not counted yet: they may be those of a repeat.
    pub rejected: RejectedByCode,
    /// Why it is refused if it only asks, and is no repeat.
    pub over: Option<Fault>,
}

/// What the worker keeps of a batch while the batch is being filled or is under way.
#[derive(Debug)]
struct UnderWay {
    sequence: Sequence,
    table: TableIndex,
    waiters: Vec<Waiter>,
    /// When the first request of the batch was served.
    begun: Instant,
    /// The deadline has passed, and the requests were answered 503.
    overdue: bool,
    keyed: Vec<Keyed>,
    /// What its requests were charged; empty where nothing is charged.
    debits: Vec<Debit>,
    /// Lines that somebody watches.
    samples: Vec<LiveLine>,
    /// What the batch takes of the budget from its hand-over until it is back, however much of it the
    /// committer took out.
    charge: Charge,
}

/// What belongs to one table.
#[derive(Debug, Default)]
struct TableBatch {
    /// The serialized columns, types and INSERT settings of the rows, see [`Batch::frozen`].
    frozen: Arc<[u8]>,
    /// The batch that is being filled.
    filling: Option<(Batch, UnderWay)>,
}

/// All batches of one worker: those that are being filled, those under way and the spare ones.
#[derive(Debug)]
pub struct Outbox {
    budget: Arc<ByteBudget>,
    tables: Box<[TableBatch]>,
    /// The tables with a batch that is being filled, in the order in which these were opened.
    filling: Vec<TableIndex>,
    under_way: VecDeque<UnderWay>,
    spare: Vec<Batch>,
    /// Memory that the spare batches hold.
    spare_bytes: usize,
    /// The number of batches.
    batches: usize,
    spare_waiters: Vec<Vec<Waiter>>,
    spare_debits: Vec<Vec<Debit>>,
    spare_keyed: Vec<Vec<Keyed>>,
    /// The sequence of the newest batch.
    sequence: Sequence,
}

impl Outbox {
    /// The outbox of `worker` with all of its `batches`, for so many `tables`. The bytes of batches are
    /// charged to `budget` while they are under way.
    pub fn new(worker: usize, batches: usize, tables: usize, budget: Arc<ByteBudget>) -> Self {
        Self {
            budget,
            tables: std::iter::repeat_with(TableBatch::default).take(tables).collect(),
            filling: Vec::new(),
            under_way: VecDeque::with_capacity(batches),
            spare: (0..batches).map(|_| Batch::new(worker)).collect(),
            spare_bytes: 0,
            batches,
            spare_waiters: Vec::with_capacity(batches),
            spare_debits: Vec::new(),
            spare_keyed: Vec::new(),
            sequence: Sequence::default(),
        }
    }

    /// True while another request of this size can be served, for whichever table.
    pub fn has_room(&self, size: Size) -> bool {
        let is_begun = self.all_filling().any(|(_, under_way)| under_way.has_requests());
        let can_open = !self.spare.is_empty() || self.all_filling().any(|(_, under_way)| !under_way.has_requests());
        can_open && (is_begun || self.under_way.is_empty() || !self.budget.is_used_up(size))
    }

    /// Opens the batch of a table that is being filled for one request; `None` when no batch is spare, or
    /// there is no such table.
    pub fn fill(&mut self, table: TableIndex) -> Option<Filling<'_>> {
        if self.tables.get(table.get())?.filling.is_none() {
            let opened = self.open(table)?;
            self.tables.get_mut(table.get())?.filling = Some(opened);
            self.filling.push(table);
        }
        let (batch, under_way) = self.tables.get_mut(table.get())?.filling.as_mut()?;
        let mark = batch.mark();
        Some(Filling { batch, under_way, mark, joined: false })
    }

    /// A spare batch with the next sequence.
    fn open(&mut self, table: TableIndex) -> Option<(Batch, UnderWay)> {
        if self.spare.is_empty() {
            // One that no request has joined is spare as well.
            self.put_back_unused();
        }
        let mut batch = self.spare.pop()?;
        self.spare_bytes = self.spare_bytes.saturating_sub(batch.memory());
        self.sequence = self.sequence.next();
        (batch.sequence, batch.table) = (self.sequence, table);
        let under_way = UnderWay {
            sequence: self.sequence,
            table,
            waiters: self.spare_waiters.pop().unwrap_or_default(),
            begun: Instant::now(),
            overdue: false,
            keyed: self.spare_keyed.pop().unwrap_or_default(),
            debits: self.spare_debits.pop().unwrap_or_default(),
            samples: Vec::new(),
            charge: self.budget.open(None),
        };
        Some((batch, under_way))
    }

    /// Takes a spare batch for one request that is encoded over several turns; `None` when no batch is
    /// spare. It comes back by [`Outbox::hand_over_own`] or [`Outbox::put_back`].
    pub fn open_own(&mut self, table: TableIndex) -> Option<OwnBatch> {
        let (batch, under_way) = self.open(table)?;
        let mark = batch.mark();
        Some(OwnBatch { batch, under_way, mark })
    }

    /// Hands over the batch of a request that has joined it, and takes it back from one that has not. What
    /// other requests have filled goes first, so that it does not wait for a large write.
    pub fn hand_over_own(&mut self, own: OwnBatch, handoff: &Handoff) {
        if own.under_way.has_requests() {
            self.hand_over(handoff);
            handoff.submit(self.close(own.batch, own.under_way));
        } else {
            self.put_back(own);
        }
    }

    /// Takes back the batch of a request that is given up.
    pub fn put_back(&mut self, own: OwnBatch) {
        let OwnBatch { batch, under_way, .. } = own;
        self.keep(batch);
        self.keep_lists(under_way.waiters, under_way.debits, under_way.keyed);
    }

    /// Takes back the batches that no request has joined.
    fn put_back_unused(&mut self) {
        let mut filling = std::mem::take(&mut self.filling);
        filling.retain(|table| match self.take_filling(*table, |under_way| !under_way.has_requests()) {
            Some((batch, under_way)) => {
                self.put_back(OwnBatch { mark: batch.mark(), batch, under_way });
                false
            }
            None => true,
        });
        self.filling = filling;
    }

    /// Changes the schema of all further rows of a table: hands over its batch that is being filled.
    pub fn change_schema(&mut self, table: TableIndex, frozen: Arc<[u8]>, handoff: &Handoff) {
        self.hand_over_table(table, handoff);
        if let Some(table) = self.tables.get_mut(table.get()) {
            table.frozen = frozen;
        }
    }

    /// Hands over the batch of this sequence, if it is being filled.
    pub fn hand_over_batch(&mut self, sequence: Sequence, handoff: &Handoff) {
        let filling = self.all_filling().find(|(_, under_way)| under_way.sequence == sequence);
        if let Some(table) = filling.map(|(_, under_way)| under_way.table) {
            self.hand_over_table(table, handoff);
        }
    }

    /// After a request: hands over its table's batch if that `is_full`, and all that are being filled if
    /// together they have what a turn may have.
    pub fn hand_over_full(&mut self, table: TableIndex, is_full: bool, handoff: &Handoff) {
        if is_full {
            self.hand_over_table(table, handoff);
        } else if self.filling.len() > 1
            && self.all_filling().map(|(batch, _)| batch.len()).sum::<usize>() >= limits::TURN_TABLES_BYTES_MAX
        {
            self.hand_over(handoff);
        }
    }

    /// Hands over the batch of a table that is being filled, if a request has joined it.
    pub fn hand_over_table(&mut self, table: TableIndex, handoff: &Handoff) {
        if let Some((batch, under_way)) = self.take_filling(table, UnderWay::has_requests) {
            self.filling.retain(|filling| *filling != table);
            handoff.submit(self.close(batch, under_way));
        }
    }

    /// Hands all batches that are being filled to the committer, and takes back those that no request has
    /// joined. False if nothing was handed over.
    pub fn hand_over(&mut self, handoff: &Handoff) -> bool {
        if self.filling.is_empty() {
            return false;
        }
        self.put_back_unused();
        if self.filling.is_empty() {
            return false;
        }
        let mut filling = std::mem::take(&mut self.filling);
        handoff.submit_all(filling.drain(..).filter_map(|table| {
            let (batch, under_way) = self.take_filling(table, |_| true)?;
            Some(self.close(batch, under_way))
        }));
        self.filling = filling;
        true
    }

    /// Notes that a batch is under way, which is handed over next.
    fn close(&mut self, mut batch: Batch, mut under_way: UnderWay) -> Batch {
        if let Some(TableBatch { frozen, .. }) = self.tables.get(under_way.table.get())
            && !Arc::ptr_eq(&batch.frozen, frozen)
        {
            batch.frozen = frozen.clone();
        }
        batch.close();
        under_way.charge.set(batch.memory());
        self.under_way.push_back(under_way);
        batch
    }

    /// The batches that are being filled.
    fn all_filling(&self) -> impl Iterator<Item = &(Batch, UnderWay)> {
        self.filling.iter().filter_map(|table| self.tables.get(table.get())?.filling.as_ref())
    }

    fn take_filling(&mut self, table: TableIndex, which: impl FnOnce(&UnderWay) -> bool) -> Option<(Batch, UnderWay)> {
        self.tables.get_mut(table.get())?.filling.take_if(|(_, under_way)| which(under_way))
    }

    /// Keeps a batch for its next use, with its memory unless the others have enough.
    fn keep(&mut self, mut batch: Batch) {
        batch.clear();
        if self.spare_bytes.saturating_add(batch.memory()) > limits::SPARE_BATCHES_BYTES_MAX {
            batch.shrink();
        }
        self.spare_bytes = self.spare_bytes.saturating_add(batch.memory());
        self.spare.push(batch);
    }

    /// Takes back a batch that the committer has returned, and reports its outcome.
    pub fn settle(&mut self, returned: Returned) -> Option<Settled> {
        let Returned { batch, outcome } = returned;
        let (sequence, rows, duplicates) = (batch.sequence, batch.rows.count, batch.duplicates);
        let mut under_way = self.under_way.pop_front()?;
        for (keyed, request) in under_way.keyed.iter_mut().zip(batch.keyed()) {
            (keyed.outcome, keyed.summary) = (Some(request.rule.outcome(outcome)), request.key.summary);
        }
        self.keep(batch);
        // The check is made once a batch: a batch out of order would send its replies to the requests
        // of another batch.
        assert_eq!(under_way.sequence, sequence, "the committer returned a worker's batches out of order");
        Some(Settled {
            sequence,
            table: under_way.table,
            outcome: Some(outcome),
            rows,
            duplicates,
            keyed: under_way.keyed,
            debits: under_way.debits,
            samples: under_way.samples,
            elapsed: under_way.begun.elapsed(),
            waiters: under_way.waiters,
        })
    }

    /// Reports the next batch that has been under way for longer than `commit_timeout`. Its requests are
    /// answered 503 now. The batch stays under way without waiters, and its outcome has no effect on
    /// replies.
    pub fn overdue(&mut self, commit_timeout: Duration) -> Option<Settled> {
        let late = self
            .under_way
            .iter_mut()
            .find(|under_way| !under_way.overdue && under_way.begun.elapsed() > commit_timeout)?;
        late.overdue = true;
        // They were not acknowledged.
        late.samples = Vec::new();
        Some(Settled {
            sequence: late.sequence,
            table: late.table,
            outcome: None,
            rows: 0,
            duplicates: 0,
            // They are settled with the outcome.
            keyed: Vec::new(),
            debits: Vec::new(),
            samples: Vec::new(),
            elapsed: late.begun.elapsed(),
            waiters: std::mem::take(&mut late.waiters),
        })
    }

    /// Takes back the memory of what was settled for reuse.
    pub fn recycle(&mut self, settled: Settled) {
        self.keep_lists(settled.waiters, settled.debits, settled.keyed);
    }

    fn keep_lists(&mut self, mut waiters: Vec<Waiter>, mut debits: Vec<Debit>, mut keyed: Vec<Keyed>) {
        if waiters.capacity() > 0 && self.spare_waiters.len() < self.batches {
            waiters.clear();
            self.spare_waiters.push(waiters);
        }
        if debits.capacity() > 0 {
            debits.clear();
            self.spare_debits.push(debits);
        }
        if keyed.capacity() > 0 {
            keyed.clear();
            self.spare_keyed.push(keyed);
        }
    }

    /// Gives back the memory of the batches that are not in use.
    pub fn shrink(&mut self) {
        self.spare.iter_mut().for_each(Batch::shrink);
        self.spare_bytes = 0;
    }

    /// True while a batch is taken for requests to come.
    #[cfg(test)]
    pub fn is_filling(&self) -> bool {
        !self.filling.is_empty()
    }

    /// True when no request waits for a batch and no batch is under way.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty() && !self.all_filling().any(|(_, under_way)| under_way.has_requests())
    }
}

impl UnderWay {
    /// True when a request has joined the batch.
    fn has_requests(&self) -> bool {
        !self.waiters.is_empty()
    }
}

#[cfg(test)]
mod tests;
