//! One attempt: an INSERT of rows of a block, from the choice of a server to the proof.
//!
//! All INSERTs take the same steps, be it all rows, a piece or the rejected lines: choose a server
//! that would recognise the token, note durably that ClickHouse may have the rows, send them, and
//! prove a success.

use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use bytes::Bytes;

use super::due::{PartitionLimit, Work};
use super::failure::{CONVERT, FORCE, Failure, NO_ORDERS, describe};
use super::inserter::Inserts;
use super::native;
use super::outcome::{Class, Outcome, calls_for_refresh, classify};
use super::repeat::{Repeat, ServerNote};
use super::rows::RowReader;
use super::statement::{self, Statement};
use super::step::Sent;
use super::stream::{BlockBody, BodyFormat, InsertClient, InsertRequest};
use crate::clickhouse::client::{ClickHouse, ClientError};
use crate::clickhouse::frozen::Frozen;
use crate::clickhouse::name::TableName;
use crate::clickhouse::servers::{ServerIndex, SettingsError};
use crate::clickhouse::settings::{InsertFormat, TOKEN};
use crate::spool::{Part, SealedBlock};

/// The setting of [`PartitionLimit`]; 0 means no limit.
const PARTITIONS: &str = "max_partitions_per_insert_block";

/// One INSERT: its rows, its table and its token.
pub(super) struct Insert {
    pub(super) sent: Sent,
    pub(super) frozen: Frozen,
    pub(super) token: String,
    pub(super) rows: u64,
    /// Bytes of the rows in RowBinary.
    pub(super) bytes: u64,
    pub(super) source: Source,
    /// Let ClickHouse convert the columns to those that the table has now.
    pub(super) convert: bool,
    /// An earlier attempt of this INSERT has no answer.
    pub(super) is_repeat: bool,
    /// Start of the first attempt without an answer, Unix ms.
    pub(super) open_since_ms: Option<u64>,
}

/// The source of the rows of an INSERT.
pub(super) enum Source {
    /// A part of the block, without the `first` rows, which take `offset` bytes.
    Block { part: Part, first: u64, offset: u64 },
    /// Rows in memory.
    Memory(Bytes),
}

impl Insert {
    /// A reader of the single rows.
    pub(super) fn rows(&self, block: &SealedBlock) -> io::Result<RowReader> {
        match &self.source {
            Source::Block { part, first, .. } => {
                let mut rows = RowReader::new(block.read(*part)?, &self.frozen.parts())?;
                (0..*first).try_for_each(|_| rows.next_row().map(drop))?;
                Ok(rows)
            }
            Source::Memory(rows) => RowReader::of_bytes(rows.clone(), &self.frozen.parts()),
        }
    }

    fn body(&self, block: &SealedBlock, format: BodyFormat) -> io::Result<BlockBody> {
        Ok(match &self.source {
            Source::Block { part, offset, .. } => BlockBody::new(format, block.read(*part)?, *offset, self.bytes),
            Source::Memory(rows) => BlockBody::of_bytes(format, rows.clone()),
        })
    }

    fn query_id(&self, attempts: u32) -> String {
        format!("{}{attempts}", self.query_id_prefix())
    }

    /// The prefix of the query ids of all attempts.
    pub(super) fn query_id_prefix(&self) -> String {
        format!("sluicegate-{}-", self.token)
    }
}

impl Inserts {
    /// Chooses a server and notes that it may have the rows from now on. `None` if the rows turn out to be
    /// in the table already.
    ///
    /// Without an open attempt the block may go to any server. With one it goes only to a server that
    /// would recognise its token.
    pub(super) fn begin(&self, work: &mut Work, insert: &Insert) -> Result<Option<ServerIndex>, Failure> {
        let table = &insert.frozen.table;
        let (mut unreachable, mut elsewhere) = (None, false);
        for index in self.servers.in_turn() {
            let Some(server) = self.servers.get(index) else { continue };
            let open = work.block.open_attempt().filter(|_| !work.orders.force).cloned();
            let asked = match &open {
                Some(_) => self.servers.fresh_facts(index, table),
                None => self.servers.facts(index, table),
            };
            let facts = match asked {
                Ok(facts) => facts,
                Err(error) => {
                    self.servers.failed(index);
                    unreachable = Some(Failure::of_question(table, server, error, work.attempts));
                    continue;
                }
            };
            if let Some(open) = open {
                match self.may_repeat(work, insert, index, server, &facts, &open)? {
                    Repeat::Send => {}
                    Repeat::IsThere => return Ok(None),
                    Repeat::Elsewhere => {
                        elsewhere = true;
                        continue;
                    }
                }
            }
            // In this order: a block that is opened in between counts twice, not never.
            let newest = self.spool.newest();
            let note = ServerNote::of(&facts, self.spool.not_inserted_of(work.block.table())).to_text();
            work.block.begin_attempt(&note, newest).map_err(Failure::before_sending)?;
            return Ok(Some(index));
        }
        Err(match unreachable {
            Some(failure) => {
                self.count_failure(insert, failure.class);
                failure
            }
            None if elsewhere => Failure::hold(
                "ClickHouse may have the block in a table that is gone, or on another server, and no server of \
                 --clickhouse-url would recognise its token; check whether the table has its rows; if not, \
                 `sluicegate spool requeue --force` sends it again",
            )
            .helped_by(FORCE),
            None => Failure::hold("no server is configured"),
        })
    }

    /// Sends one INSERT, and proves it if it succeeds.
    pub(super) fn send(
        &self,
        client: &InsertClient,
        work: &Work,
        index: ServerIndex,
        insert: &Insert,
    ) -> Result<(), Failure> {
        let table: &TableName = &insert.frozen.table;
        let Some(server) = self.servers.get(index) else {
            return Err(Failure::hold("no server is configured"));
        };
        let settings = self.settings_of(server, index, insert, work.attempts)?;
        let format = match self.format(table) {
            InsertFormat::Native if native::is_fit_for(&insert.frozen, insert.bytes) => InsertFormat::Native,
            _ => InsertFormat::Rowbinary,
        };
        let Statement { text, body_format } = Statement::new(server, &insert.frozen, format, insert.convert)?;
        let body = insert.body(&work.block, body_format).map_err(Failure::on_disk)?;
        let query_id = insert.query_id(work.attempts);
        let mut parameters = vec![("query", text.as_str()), (TOKEN, &insert.token)];
        parameters.extend(settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        if work.partitions == PartitionLimit::Lifted {
            parameters.retain(|(name, _)| *name != PARTITIONS);
            parameters.push((PARTITIONS, "0"));
        }
        let (place, number) = (self.places.take(), work.block.number());
        let request = InsertRequest {
            parameters: &parameters,
            query_id: &query_id,
            rows: insert.rows,
            timeout: self.timeout,
            is_silent: &|| {
                place.give_up();
                self.spool.held.fall_silent(number, work.block.table());
                // Other blocks go to another server meanwhile, if there is one.
                self.servers.failed(index);
            },
        };
        let begun = Instant::now();
        let outcome = client.insert(server, &request, body);
        drop(place);
        self.spool.held.end_silence(number);
        let took = begun.elapsed();
        let doubt = match (&outcome, insert.open_since_ms) {
            (Ok(()), Some(since_ms)) => self.prove(server, index, work, insert, since_ms).err(),
            _ => None,
        };
        let classified = outcome.as_ref().err().map(|error| classify(error, work.attempts, format));
        let failed = doubt.as_ref().map(|doubt| doubt.class).or(classified.map(|outcome| outcome.class));
        self.count_attempt(insert, took, failed);
        if let Some(doubt) = doubt {
            return Err(doubt);
        }
        let (Err(error), Some(outcome)) = (outcome, classified) else {
            tracing::debug!(%table, rows = insert.rows, query_id, "inserted");
            return Ok(());
        };
        if !outcome.answered || matches!(error, ClientError::NoConnection(_)) {
            self.servers.failed(index);
        }
        let mut reason = format!("{table} at {} ({query_id}): {}", server.url(), describe(&error));
        let is_for_table = !insert.sent.is_for_quarantine() && !insert.convert;
        let mut remedy = NO_ORDERS;
        if outcome.class == Class::Hold && is_for_table && calls_for_refresh(&error) {
            let advice = statement::advice(server, &insert.frozen);
            remedy = if advice.is_empty() { NO_ORDERS } else { CONVERT };
            reason.push_str(&advice);
        }
        let Outcome { class, answered, is_suspicious } = outcome;
        Err(Failure { class, answered, suspicious: is_suspicious, reason, remedy, error: Some(error) })
    }

    /// The settings of an INSERT, checked to arrive unchanged.
    pub(super) fn settings_of(
        &self,
        server: &ClickHouse,
        index: ServerIndex,
        insert: &Insert,
        attempts: u32,
    ) -> Result<BTreeMap<String, String>, Failure> {
        let checked = self.servers.insert_settings(index, &insert.frozen.settings, &insert.token);
        checked.map_err(|error| match error {
            SettingsError::Client(error) => {
                let failure = Failure::of_question(&insert.frozen.table, server, error, attempts);
                Failure { reason: format!("the settings of an INSERT: {}", failure.reason), ..failure }
            }
            SettingsError::Altered(altered) => Failure::hold(format!("{}: {altered}", server.url())),
        })
    }

    fn count_attempt(&self, insert: &Insert, took: std::time::Duration, failed: Option<Class>) {
        self.metrics.took(took);
        match failed {
            Some(class) => self.count_failure(insert, class),
            None => self.metrics.proven(&insert.frozen.table, insert.sent.is_for_quarantine(), insert.rows),
        }
    }

    fn count_failure(&self, insert: &Insert, class: Class) {
        self.metrics.failed(&insert.frozen.table, insert.sent.is_for_quarantine(), class.as_str());
    }
}
