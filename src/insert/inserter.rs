//! The loop of an inserter: it takes the block that is due, runs its steps, and retires it once
//! ClickHouse has proven all of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;

use super::attempt::{Insert, Source};
use super::due::{Due, PartitionLimit, Shares, Work};
use super::failure::{FORCE, Failure};
use super::outcome::{Class, calls_for_refresh, is_forbidden_setting, is_partition_limit, is_too_many_parts};
use super::places::Places;
use super::presence::Presence;
use super::said::{Again, Said};
use super::step::{Sent, Step, judge};
use super::stream::InsertClient;
use crate::batch::BlockNumber;
use crate::clickhouse::TableConfig;
use crate::clickhouse::frozen::Frozen;
use crate::clickhouse::horizon::Writers;
use crate::clickhouse::metrics::InsertMetrics;
use crate::clickhouse::name::TableName;
use crate::clickhouse::refresh::RefreshSignal;
use crate::clickhouse::servers::{ServerIndex, Servers};
use crate::clickhouse::settings::InsertFormat;
use crate::clock::unix_ms;
use crate::handoff::Handoff;
use crate::spool::{Cause, Orders, Part, PieceState, Reason, SealedBlock, SegmentPool, SpoolMetrics};

/// The least time between two attempts of blocks that are held.
const HELD_PAUSE: Duration = Duration::from_millis(50);

/// When a proven block is tried to be taken out of the spool again, on a disk that refused it.
const RETIRE_RETRY_PAUSE: Duration = Duration::from_secs(5);

/// The state that all inserters share.
pub struct Inserts {
    /// The queue of blocks.
    pub due: Due,
    /// Asks the watcher to refresh the description of the table.
    pub refresh: Arc<RefreshSignal>,
    pub(super) servers: Arc<Servers>,
    /// The table of blocks that name none.
    table: TableName,
    formats: HashMap<TableName, InsertFormat>,
    pub(super) timeout: Duration,
    pub(super) writers: Writers,
    pub(super) places: Places,
    pub(super) pool: Arc<SegmentPool>,
    pub(super) spool: Arc<SpoolMetrics>,
    pub(super) metrics: Arc<InsertMetrics>,
    handoff: Arc<Handoff>,
    /// The failures that the log has.
    said: Said,
}

/// The source of blocks, and the receivers of the results.
pub struct Ends {
    /// How many inserters run, and as many spare ones.
    pub inserters: usize,
    /// The sealed blocks.
    pub sealed: Receiver<SealedBlock>,
    /// Takes the files of proven blocks.
    pub pool: Arc<SegmentPool>,
    /// The accounts of the spool.
    pub spool: Arc<SpoolMetrics>,
    /// The counters of INSERT attempts.
    pub metrics: Arc<InsertMetrics>,
    /// Wakes the workers whose replies wait for a block.
    pub handoff: Arc<Handoff>,
}

impl Inserts {
    /// Creates the shared state for INSERTs into these tables, and into those that an earlier run has left
    /// something of. `timeout` limits one attempt.
    pub fn new(tables: &[TableConfig], timeout: Duration, servers: Arc<Servers>, ends: Ends) -> Self {
        let Ends { inserters, sealed, pool, spool, metrics, handoff } = ends;
        Self {
            due: Due::new(sealed, Shares { inserters, tables: tables.len() }, handoff.lifecycle.clone()),
            refresh: Arc::default(),
            servers,
            table: tables.first().map(|table| table.name.clone()).unwrap_or_default(),
            formats: tables.iter().map(|table| (table.name.clone(), table.insert_format)).collect(),
            timeout,
            places: Places::default(),
            // One setting of the server.
            writers: Writers { nodes: tables.first().map_or(1, |table| table.writers.get() as u64) },
            pool,
            spool,
            metrics,
            handoff,
            said: Said::default(),
        }
    }

    /// The format of INSERTs into a table.
    pub(super) fn format(&self, table: &TableName) -> InsertFormat {
        self.formats.get(table).copied().unwrap_or(InsertFormat::Rowbinary)
    }

    /// The servers that INSERTs are sent to.
    pub fn servers(&self) -> Arc<Servers> {
        self.servers.clone()
    }

    /// Makes one block, or all of them, due now with an operator's orders; with `tables`, only those of
    /// these tables. Returns how many blocks that were.
    pub fn requeue(&self, block: Option<BlockNumber>, tables: &[TableName], orders: Orders) -> usize {
        // The operator may have changed the table to fix a problem.
        self.refresh.request();
        let is_of = |of: &SealedBlock| tables.is_empty() || is_for(of, tables, &self.table);
        self.due.requeue(|of| block.is_none_or(|number| number == of.number()) && is_of(of), orders)
    }

    /// Runs an inserter until nothing is left to insert, or until the deadline of a stop.
    pub fn run(&self, client: &InsertClient) {
        while let Some(work) = self.due.next() {
            self.work_on(client, work);
        }
    }

    /// True while no spare inserter works on a block.
    pub fn spares_are_idle(&self) -> bool {
        self.places.spares_are_idle()
    }

    /// Runs a spare inserter until the deadline of a stop. It sleeps until a silent attempt gives up its place,
    /// and then works on one block at a time in that place.
    pub fn run_spare(&self, client: &InsertClient) {
        while !self.due.has_ended() {
            if self.places.take_spare() {
                if let Some(work) = self.due.next_soon() {
                    self.work_on(client, work);
                }
                self.places.give_back_spare();
            }
        }
    }

    fn work_on(&self, client: &InsertClient, work: Work) {
        let table = work.block.table();
        self.metrics.begin();
        self.try_once(client, work);
        self.metrics.end();
        self.due.finished(table);
    }

    fn try_once(&self, client: &InsertClient, mut work: Work) {
        if work.next_step() != Step::Retire {
            work.attempts = work.attempts.saturating_add(1);
        }
        match self.advance(client, &mut work) {
            Ok(()) => self.retire(work),
            Err(failure) if failure.is_damage() => self.damaged(work, failure),
            Err(failure) if failure.is_absence() => self.absent(work, failure),
            Err(failure) => self.put_back(work, &failure),
        }
    }

    /// Runs the steps of a block until it can be retired.
    fn advance(&self, client: &InsertClient, work: &mut Work) -> Result<(), Failure> {
        loop {
            match work.next_step() {
                Step::Send(sent) => self.attempt(client, work, sent)?,
                Step::FinishRows => self.finish_rows(work)?,
                Step::Hold(reason) if work.orders.force => return Err(Failure::damaged(reason)),
                Step::Hold(reason) => return Err(Failure::hold(reason).helped_by(FORCE)),
                Step::Retire => return Ok(()),
            }
        }
    }

    /// Sends one INSERT. The attempt is noted on the disk before, the result afterwards.
    fn attempt(&self, client: &InsertClient, work: &mut Work, sent: Sent) -> Result<(), Failure> {
        let insert = self.prepare(work, sent)?;
        let Some(index) = self.begin(work, &insert)? else {
            return self.proven(work, sent);
        };
        if let Sent::Piece(piece) = sent {
            work.turn_piece(piece, PieceState::Open)?;
        }
        match self.send(client, work, index, &insert) {
            Ok(()) => {
                if !sent.is_for_quarantine() {
                    let table = work.block.table();
                    self.spool.held.got_through(table);
                    if let Some(silence) = self.said.got_through(table, Instant::now()) {
                        let (label, seconds) = (work.block.label(), silence.as_secs());
                        tracing::info!(table = label, seconds, "INSERTs of the table get through again");
                    }
                }
                self.proven(work, sent)
            }
            Err(failure) => self.failed(work, index, &insert, failure),
        }
    }

    fn prepare(&self, work: &mut Work, sent: Sent) -> Result<Insert, Failure> {
        let frozen = Frozen::from_bytes(work.block.frozen(), &self.table).map_err(Failure::on_disk)?;
        let (block, convert) = (&work.block, work.orders.convert);
        let open_since_ms = block.open_attempt().map(|open| open.since_ms);
        let token = block.token();
        match sent {
            Sent::Rows => Ok(Insert {
                sent,
                frozen,
                token,
                rows: block.rows(),
                bytes: block.rows_bytes(),
                source: Source::Block { part: Part::Rows, first: 0, offset: 0 },
                convert,
                is_repeat: open_since_ms.is_some(),
                open_since_ms,
            }),
            Sent::Rejected => Ok(Insert {
                sent,
                frozen: frozen.of_quarantine(),
                token: format!("{token}-q"),
                rows: block.rejected(),
                bytes: block.rejected_bytes(),
                source: Source::Block { part: Part::Rejected, first: 0, offset: 0 },
                convert: false,
                is_repeat: open_since_ms.is_some(),
                open_since_ms,
            }),
            Sent::Piece(index) => work.prepare_piece(index, frozen),
            Sent::Refused => work.prepare_refused(&frozen),
        }
    }

    fn proven(&self, work: &mut Work, sent: Sent) -> Result<(), Failure> {
        match sent {
            Sent::Rows => work.progress.rows_proven = true,
            Sent::Rejected => work.progress.rejected_proven = true,
            Sent::Piece(index) => {
                let rows = work.turn_piece(index, PieceState::Inserted)?;
                self.spool.inserted(work.block.number(), rows, 0);
                work.block.attempt_answered();
            }
            Sent::Refused => {
                let refused = work.refused_are_stored()?;
                self.spool.set_aside(work.block.number(), refused);
            }
        }
        Ok(())
    }

    /// Notes the consequence of a failed INSERT. Returns `Ok` if the rows turn out to be in the table, or
    /// if a piece was cut and the steps can continue with the smaller pieces.
    fn failed(&self, work: &mut Work, index: ServerIndex, insert: &Insert, failure: Failure) -> Result<(), Failure> {
        if let Some(failure) = lift_partition_limit(work, &failure) {
            return Err(failure);
        }
        let is_repeat = insert.is_repeat && !work.orders.force;
        let mut verdict = judge(insert.sent, is_repeat, failure.class, failure.answered);
        if failure.suspicious {
            work.block.suspect_attempt().map_err(Failure::on_disk)?;
        }
        if verdict.cut_is_unsafe {
            let Some(server) = self.servers.get(index) else { return Err(failure) };
            // ClickHouse refuses the INSERT now, but an earlier attempt had no answer and may have stored
            // the rows.
            match self.is_certainly_not_there(server, index, work, insert)? {
                Presence::All => return self.proven(work, insert.sent),
                Presence::Nothing(_) => verdict = judge(insert.sent, false, failure.class, true),
                Presence::Unknown(why) => {
                    return Err(Failure::hold(format!(
                        "{}; an earlier attempt had no answer, so ClickHouse may have the rows, and they can't be looked \
                         up: {why}; check whether the table has them; `sluicegate spool requeue --force` cuts out the \
                         refused rows and sends the others, which doubles the rows that are there",
                        failure.reason
                    ))
                    .helped_by(FORCE));
                }
            }
        }
        match (verdict.class, insert.sent) {
            (Class::Cut | Class::Split, Sent::Rows) => {
                work.block.attempt_answered();
                work.cut_whole(&insert.frozen, &failure)?;
                // Report the failure in the log; the pieces are sent with the next attempt.
                Err(failure)
            }
            (Class::Cut | Class::Split, Sent::Piece(index)) => {
                let cut = work.cut_piece(index, &insert.frozen, &failure);
                work.block.attempt_answered();
                cut
            }
            (class, sent) => {
                if verdict.is_closed {
                    if let Sent::Piece(index) = sent {
                        work.turn_piece(index, PieceState::Waiting)?;
                    }
                    work.block.attempt_answered();
                }
                Err(Failure { class, ..failure })
            }
        }
    }

    /// Releases the replies that wait for the rows of the block, all of which are proven.
    ///
    /// If rejected lines are still to be sent, the proof of the rows is noted durably: the rejected
    /// lines may have to wait for a missing table longer than ClickHouse remembers the token of the
    /// rows.
    fn finish_rows(&self, work: &mut Work) -> Result<(), Failure> {
        if !work.salvaged {
            self.handoff.block_inserted(work.block.number());
        }
        if work.block.rejected() > 0 {
            self.pool.rows_are_inserted(&mut work.block).map_err(Failure::on_disk)?;
        }
        work.progress.rows_finished = true;
        if let Ok(frozen) = Frozen::from_bytes(work.block.frozen(), &self.table) {
            let waited = Duration::from_millis(unix_ms().saturating_sub(work.block.created_ms()));
            self.metrics.of(&frozen.table, false).delivery.add(waited);
        }
        Ok(())
    }

    fn retire(&self, work: Work) {
        let number = work.block.number();
        self.due.got_through(work.block.table());
        self.spool.held.release(number);
        self.metrics.failing.forget(number);
        if let Err(error) = self.pool.retire(&work.block) {
            // If the process ends before that succeeds, the next start sends the block again under
            // the same token.
            let failure = Failure::passing(format!("removing a file: {error}"));
            if let Some(Again { unsaid }) = self.said.failed(work.block.table(), &failure, Cause::Own, Instant::now()) {
                tracing::warn!(block = %number, unsaid, %error, "the file of an inserted block can't be removed yet");
            }
            self.due.later(work, RETIRE_RETRY_PAUSE);
        }
    }

    /// Reports a failure and puts the block back for a later attempt.
    pub(super) fn put_back(&self, mut work: Work, failure: &Failure) {
        self.report(&mut work, failure);
        let delay = failure.delay(work.attempts);
        if failure.class == Class::Hold {
            // However many are held, they take only a part of the inserters' time.
            let held = u32::try_from(self.spool.held.count()).unwrap_or(u32::MAX);
            self.due.hold(work, delay.max(HELD_PAUSE.saturating_mul(held)));
        } else {
            self.due.later(work, delay);
        }
    }

    fn report(&self, work: &mut Work, failure: &Failure) {
        let (number, attempts, reason) = (work.block.number(), work.attempts, failure.reason.as_str());
        let (table, label) = (work.block.table(), work.block.label().to_owned());
        if failure.error.as_ref().is_some_and(calls_for_refresh) {
            self.refresh.request();
        }
        if failure.error.as_ref().is_some_and(is_too_many_parts) {
            self.spool.held.too_many_parts(table);
        }
        let cause = failure.cause(work.next_step());
        match failure.class {
            Class::Retry => self.spool.held.retry(number, table, cause),
            // It is on its way again at once.
            Class::Cut | Class::Split => self.spool.held.release(number),
            Class::Hold => {}
        }
        match failure.class {
            Class::Retry => self.metrics.failing.note(number, failure.reason.clone()),
            _ => self.metrics.failing.forget(number),
        }
        let mut held_for = Duration::ZERO;
        if failure.class == Class::Hold {
            let why = Reason { text: failure.with_advice(), remedy: failure.remedy };
            let Some(since) = self.spool.held.hold(number, table, why, cause) else { return };
            self.pool.set_apart(&mut work.block);
            held_for = since;
        }
        let Some(Again { unsaid }) = self.said.failed(table, failure, cause, Instant::now()) else {
            tracing::debug!(block = %number, table = label, attempts, reason, "an INSERT failed");
            return;
        };
        match failure.class {
            Class::Retry => tracing::warn!(
                block = %number, table = label, attempts, unsaid, reason, "an INSERT failed and will be retried"
            ),
            Class::Cut => tracing::warn!(
                block = %number, table = label, unsaid, reason, "ClickHouse refuses some rows; they are being cut out"
            ),
            Class::Split => tracing::warn!(
                block = %number, table = label, unsaid, reason, "an INSERT exceeds a limit; it is sent in pieces"
            ),
            Class::Hold => tracing::error!(
                block = %number,
                table = label,
                attempts,
                seconds = held_for.as_secs(),
                held = self.spool.held.count(),
                unsaid,
                reason,
                "a block is held and needs operator action; it stays in the spool and is retried slowly"
            ),
        }
    }
}

/// True for a block of one of these tables. One that names no table is of `unnamed`.
pub fn is_for(block: &SealedBlock, tables: &[TableName], unnamed: &TableName) -> bool {
    Frozen::from_bytes(block.frozen(), unnamed).is_ok_and(|frozen| tables.contains(&frozen.table))
}

/// Lifts the limit of partitions after an INSERT that exceeds it, so that the INSERT is retried without
/// the limit; restores the limit if the user may not lift it, so that the INSERT is sent in pieces.
/// `None` for any other failure.
fn lift_partition_limit(work: &mut Work, failure: &Failure) -> Option<Failure> {
    let error = failure.error.as_ref()?;
    work.partitions = match work.partitions {
        PartitionLimit::AsConfigured if is_partition_limit(error) => PartitionLimit::Lifted,
        PartitionLimit::Lifted if is_forbidden_setting(error) => PartitionLimit::Fixed,
        _ => return None,
    };
    Some(Failure { class: Class::Retry, ..Failure::passing(failure.reason.clone()) })
}
