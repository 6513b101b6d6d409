//! An inserter: takes the segment that is due, streams it as one INSERT (two, if it holds rejected
//! lines; more, once it is cut), and retires it when ClickHouse has proven them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;

use super::client::{ClickHouse, ClientError};
use super::due::{Due, Work};
use super::failure::{Failure, describe};
use super::figures::InsertFigures;
use super::horizon::Writers;
use super::look::LookWish;
use super::native;
use super::outcome::{Class, calls_for_a_look, classify};
use super::presence::Repeat;
use super::rows::Rows;
use super::servers::Servers;
use super::statement::{self, Statement};
use super::stream::{InsertClient, SegmentBody, Shape};
use super::tables;
use super::target::Frozen;
use crate::config::{InsertFormat, Settings};
use crate::figures::unix_ms;
use crate::handoff::Handoff;
use crate::spool::{Part, SealedSegment, SegmentPool, SpoolFigures};

/// How often the log says that a segment needs a person.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// When a proven segment is tried to be taken away again, on a disk that refused it.
const RETIRE_AGAIN: Duration = Duration::from_secs(5);

/// What all inserters share.
pub struct Inserts {
    /// The segments.
    pub due: Due,
    /// Asks for a look at the table's columns.
    pub look: LookWish,
    pub(super) servers: Servers,
    pub(super) database: String,
    pub(super) table: String,
    format: InsertFormat,
    timeout: Duration,
    writers: Writers,
    pub(super) pool: Arc<SegmentPool>,
    pub(super) spool: Arc<SpoolFigures>,
    pub(super) figures: Arc<InsertFigures>,
    handoff: Arc<Handoff>,
}

/// One INSERT of rows of a segment.
pub(super) struct Insert<'a> {
    pub(super) place: usize,
    pub(super) part: Part,
    pub(super) frozen: &'a Frozen,
    pub(super) token: &'a str,
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) convert: bool,
    /// Set when an earlier attempt of it has no answer.
    pub(super) repeat: Option<Repeat<'a>>,
}

impl Inserts {
    /// Inserts of the segments that come out of `sealed`; the files of those that are proven go to
    /// `pool`, and the workers of `handoff` hear of them.
    pub fn new(
        settings: &Settings,
        servers: Vec<ClickHouse>,
        sealed: Receiver<SealedSegment>,
        pool: Arc<SegmentPool>,
        spool: Arc<SpoolFigures>,
        figures: Arc<InsertFigures>,
        handoff: Arc<Handoff>,
    ) -> Self {
        Self {
            due: Due::new(sealed),
            look: LookWish::default(),
            servers: Servers::new(servers, settings.database.clone()),
            database: settings.database.clone(),
            table: settings.table.clone(),
            format: settings.insert_format,
            timeout: *settings.insert_timeout,
            writers: Writers { nodes: settings.writers.get() as u64 },
            pool,
            spool,
            figures,
            handoff,
        }
    }

    /// An inserter's life: until nothing is left to insert, or the deadline of a stop.
    pub fn run(&self, client: &InsertClient) {
        while let Some(mut work) = self.due.next() {
            if !work.proven {
                work.attempts = work.attempts.saturating_add(1);
                match self.attempt(client, &mut work) {
                    Ok(()) => work.proven = true,
                    Err(failure) if failure.is_damage() => {
                        self.damaged(work, failure);
                        continue;
                    }
                    Err(failure) if failure.is_absence() => {
                        self.absent(work, failure);
                        continue;
                    }
                    Err(failure) => {
                        self.put_back(work, &failure);
                        continue;
                    }
                }
            }
            self.retire(work);
        }
    }

    /// Tries it again later.
    pub(super) fn put_back(&self, mut work: Work, failure: &Failure) {
        self.report(&mut work, failure);
        let delay = failure.class.delay(work.attempts);
        self.due.later(work, delay);
    }

    fn attempt(&self, client: &InsertClient, work: &mut Work) -> Result<(), Failure> {
        let frozen = Frozen::from_bytes(work.segment.frozen()).map_err(Failure::on_disk)?;
        let has_rejected = work.segment.rejected() > 0;
        if work.segment.rows_waiting() > 0 {
            if work.segment.cut().is_some() {
                self.insert_pieces(client, work, &frozen)?;
            } else {
                let token = work.segment.token();
                self.insert_part(client, work, Part::Rows, &frozen, &token)?;
            }
            if !work.salvaged {
                self.handoff.segment_inserted(work.segment.number());
            }
            if has_rejected {
                self.pool.rows_are_inserted(&mut work.segment).map_err(Failure::on_disk)?;
            }
        }
        if has_rejected {
            let token = format!("{}-q", work.segment.token());
            self.insert_part(client, work, Part::Rejected, &frozen.of_quarantine(), &token)?;
        }
        Ok(())
    }

    /// Sends a whole part of a segment.
    fn insert_part(
        &self,
        client: &InsertClient,
        work: &mut Work,
        part: Part,
        frozen: &Frozen,
        token: &str,
    ) -> Result<(), Failure> {
        let (rows, bytes) = match part {
            Part::Rows => (work.segment.rows(), work.segment.rows_bytes()),
            Part::Rejected => (work.segment.rejected(), work.segment.rejected_bytes()),
        };
        let since_ms = work.segment.open_attempt().map(|open| open.since_ms);
        let first_unknown = since_ms.is_none();
        let place = self.begin(work, part)?;
        let (forced, convert) = (work.orders.force, work.orders.convert && part == Part::Rows);
        let again = || Rows::new(work.segment.read(part)?, &frozen.columns);
        let repeat = since_ms.map(|since_ms| Repeat { since_ms, forced, rows: &again, bytes });
        let insert = Insert { place, part, frozen, token, rows, bytes, convert, repeat };
        let reader = work.segment.read(part).map_err(Failure::on_disk)?;
        let outcome = self.send(client, &insert, work.attempts, |shape| SegmentBody::new(shape, reader, 0, bytes));
        let Err(failure) = outcome else { return Ok(()) };
        if part == Part::Rejected {
            return Err(rejected_part_failed(work, failure, first_unknown));
        }
        if failure.answered && first_unknown {
            work.segment.attempt_answered().map_err(Failure::on_disk)?;
        }
        match failure.class {
            Class::Retry | Class::Hold => Err(failure),
            Class::Cut if first_unknown => self.begin_cut(work, frozen, failure),
            Class::Cut => Err(Failure::hold(format!(
                "{}; an earlier attempt had no answer, so the segment can't be cut: ClickHouse may have it",
                failure.reason
            ))),
        }
    }

    /// Chooses a server and notes that it may have the segment from now on.
    ///
    /// What was never sent, or always answered, may go to any server; what ClickHouse may have goes
    /// only where its token would be recognised.
    pub(super) fn begin(&self, work: &mut Work, part: Part) -> Result<usize, Failure> {
        let table = self.table_of(part);
        let (mut unreachable, mut elsewhere) = (None, false);
        for place in self.servers.in_turn() {
            let facts = match self.servers.facts(place, &table) {
                Ok(facts) => facts,
                Err(error) => {
                    self.servers.failed(place);
                    unreachable = self
                        .servers
                        .get(place)
                        .map(|server| Failure::of_question(&table, server, error, work.attempts));
                    continue;
                }
            };
            if let Some(open) = work.segment.open_attempt().filter(|_| !work.orders.force) {
                if facts.window.is_some() && open.window != facts.window_name {
                    elsewhere = true;
                    continue;
                }
                let (newest, outstanding) = (self.spool.newest(), self.spool.outstanding());
                self.writers.still_known(&facts, open, newest, outstanding, unix_ms()).map_err(|reason| {
                    Failure::hold(format!(
                        "ClickHouse may have it, and may not know its token any more: {reason}; look whether its rows \
                         are there, and `sluicegate spool requeue --force` sends it again"
                    ))
                })?;
            }
            let newest = self.spool.newest();
            work.segment.begin_attempt(&facts.window_name, newest).map_err(Failure::on_disk)?;
            return Ok(place);
        }
        Err(match unreachable {
            Some(failure) => {
                self.figures.not_begun(part == Part::Rejected, failure.class);
                failure
            }
            None if elsewhere => Failure::hold(
                "ClickHouse may have it, in a table that is not there any more or on another server, where its token \
                 is not known; `sluicegate spool requeue --force` sends it again",
            ),
            None => Failure::hold("no server is configured"),
        })
    }

    /// Sends one INSERT, and believes it only when everything says that it was done.
    pub(super) fn send(
        &self,
        client: &InsertClient,
        insert: &Insert<'_>,
        attempts: u32,
        body: impl FnOnce(Shape) -> SegmentBody,
    ) -> Result<(), Failure> {
        let table = self.table_of(insert.part);
        let Some(server) = self.servers.get(insert.place) else {
            return Err(Failure::hold("no server is configured"));
        };
        let format = match self.format {
            InsertFormat::Native if native::is_fit_for(insert.frozen, insert.bytes) => self.format,
            _ => InsertFormat::Rowbinary,
        };
        let statement = Statement::new(server, &self.database, &table, insert.frozen, format, insert.convert)?;
        let query_id = format!("sluicegate-{}-{attempts}", insert.token);
        let mut parameters = vec![
            ("query", statement.text.as_str()),
            ("query_id", &query_id),
            ("insert_deduplication_token", insert.token),
        ];
        parameters.extend(insert.frozen.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let begun = Instant::now();
        let outcome = client.insert(server, &parameters, body(statement.shape), self.timeout);
        let took = begun.elapsed();
        let doubt = match (&outcome, &insert.repeat) {
            (Ok(()), Some(repeat)) => self.prove(server, &table, insert, repeat, attempts).err(),
            _ => None,
        };
        let classified = outcome.as_ref().err().map(|error| classify(error, attempts));
        let quarantine = insert.part == Part::Rejected;
        let failed = doubt.as_ref().map(|doubt| doubt.class).or(classified.map(|outcome| outcome.class));
        self.figures.attempted(quarantine, insert.rows, took, failed);
        if let Some(doubt) = doubt {
            return Err(doubt);
        }
        let (Err(error), Some(outcome)) = (outcome, classified) else {
            tracing::debug!(table, rows = insert.rows, query_id, "inserted");
            return Ok(());
        };
        if !outcome.answered || matches!(error, ClientError::NoConnection(_)) {
            self.servers.failed(insert.place);
        }
        let mut reason = format!("{table} at {} ({query_id}): {}", server.url(), describe(&error));
        if outcome.class == Class::Hold && !quarantine && !insert.convert && calls_for_a_look(&error) {
            reason.push_str(&statement::advice(server, &self.database, &table, insert.frozen));
        }
        Err(Failure { class: outcome.class, answered: outcome.answered, reason, error: Some(error) })
    }

    pub(super) fn table_of(&self, part: Part) -> String {
        match part {
            Part::Rows => self.table.clone(),
            Part::Rejected => tables::quarantine_of(&self.table),
        }
    }

    fn retire(&self, work: Work) {
        let number = work.segment.number();
        self.figures.held().remove(&number);
        if let Err(error) = self.pool.retire(&work.segment) {
            // Should the process end before it succeeds, the next start sends it again under the
            // same token.
            tracing::warn!(segment = number, %error, "an inserted segment's file can't be taken away yet");
            self.due.later(work, RETIRE_AGAIN);
        }
    }

    fn report(&self, work: &mut Work, failure: &Failure) {
        let (segment, attempts, reason) = (work.segment.number(), work.attempts, failure.reason.as_str());
        if failure.error.as_ref().is_some_and(calls_for_a_look) {
            self.look.wish();
        }
        if failure.class != Class::Hold {
            work.held = None;
            self.spool.not_held(segment);
            self.figures.held().remove(&segment);
        }
        match failure.class {
            // The first failures of a segment, then fewer and fewer: ClickHouse may be away for days.
            Class::Retry if attempts.is_power_of_two() => {
                tracing::warn!(segment, attempts, reason, "an insert failed and will be tried again");
            }
            Class::Retry => tracing::debug!(segment, attempts, reason, "an insert failed and will be tried again"),
            Class::Cut => tracing::warn!(segment, reason, "ClickHouse refuses some rows; they are being cut out"),
            Class::Hold => {
                let now = Instant::now();
                let (since, said) = work.held.unwrap_or((now, now));
                let say = work.held.is_none() || now.duration_since(said) >= SAY_AGAIN;
                work.held = Some((since, if say { now } else { said }));
                self.figures.held().insert(segment, failure.reason.clone());
                // What ClickHouse may have already, and what is damaged, waits for a person whatever
                // becomes of others.
                let alone = failure.is_damage() || failure.error.is_none() && work.segment.open_attempt().is_some();
                self.spool.held(segment, alone);
                if say {
                    let seconds = now.duration_since(since).as_secs();
                    tracing::error!(
                        segment,
                        attempts,
                        seconds,
                        reason,
                        "an insert needs a person; the segment stays in the spool and is tried again slowly"
                    );
                }
            }
        }
    }
}

/// An insert into the quarantine table failed. Its rows are the server's own: it is never they who
/// are to blame, but a table that is not as it should be.
pub(super) fn rejected_part_failed(work: &mut Work, failure: Failure, first_unknown: bool) -> Failure {
    if failure.answered
        && first_unknown
        && let Err(error) = work.segment.attempt_answered()
    {
        return Failure::on_disk(error);
    }
    let class = if failure.class == Class::Cut { Class::Hold } else { failure.class };
    Failure { class, ..failure }
}
