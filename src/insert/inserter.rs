//! An inserter: takes the segment that is due, streams it as one INSERT (two, if it holds rejected
//! lines), and retires it when ClickHouse has proven them.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::Receiver;

use super::client::{ClickHouse, ClientError};
use super::due::{Due, Work};
use super::figures::InsertFigures;
use super::outcome::{Class, classify};
use super::stream::{InsertClient, SegmentBody};
use super::tables;
use super::target::Frozen;
use crate::config::Settings;
use crate::spool::{Part, SealedSegment, SegmentPool};

/// What all inserters share.
pub struct Inserts {
    /// The segments.
    pub due: Due,
    servers: Vec<ClickHouse>,
    database: String,
    table: String,
    timeout: Duration,
    pool: Arc<SegmentPool>,
    figures: Arc<InsertFigures>,
}

/// A failed attempt.
struct Failure {
    class: Class,
    reason: String,
}

impl Inserts {
    /// Inserts of the segments that come out of `sealed`; the files of those that are proven go to
    /// `pool`.
    pub fn new(
        settings: &Settings,
        servers: Vec<ClickHouse>,
        sealed: Receiver<SealedSegment>,
        pool: Arc<SegmentPool>,
        figures: Arc<InsertFigures>,
    ) -> Self {
        Self {
            due: Due::new(sealed),
            servers,
            database: settings.database.clone(),
            table: settings.table.clone(),
            timeout: *settings.insert_timeout,
            pool,
            figures,
        }
    }

    /// An inserter's life: until nothing is left to insert, or the deadline of a stop.
    pub fn run(&self, client: &InsertClient) {
        while let Some(mut work) = self.due.next() {
            work.attempts = work.attempts.saturating_add(1);
            match self.attempt(client, &mut work) {
                Ok(()) => self.retire(work.segment),
                Err(failure) => {
                    self.report(&work, &failure);
                    let delay = failure.class.delay(work.attempts);
                    self.due.later(work, delay);
                }
            }
        }
    }

    fn attempt(&self, client: &InsertClient, work: &mut Work) -> Result<(), Failure> {
        let on_disk = |error: io::Error| Failure { class: Class::Hold, reason: format!("the segment's file: {error}") };
        let segment = &mut work.segment;
        let frozen = Frozen::from_bytes(segment.frozen()).map_err(on_disk)?;
        // Before the first byte: a crash must not forget that ClickHouse may have it.
        segment.mark_attempted().map_err(on_disk)?;
        let token = segment.token();
        if segment.rows() > 0 && !segment.rows_are_inserted() {
            self.insert(client, segment, Part::Rows, &frozen, &token, work.attempts)?;
            if segment.rejected() > 0 {
                self.pool.rows_are_inserted(segment).map_err(on_disk)?;
            }
        }
        if segment.rejected() > 0 {
            let token = format!("{token}-q");
            self.insert(client, segment, Part::Rejected, &frozen.of_quarantine(), &token, work.attempts)?;
        }
        Ok(())
    }

    fn insert(
        &self,
        client: &InsertClient,
        segment: &SealedSegment,
        part: Part,
        frozen: &Frozen,
        token: &str,
        attempts: u32,
    ) -> Result<(), Failure> {
        let hold = |reason: String| Failure { class: Class::Hold, reason };
        let quarantine = part == Part::Rejected;
        let (table, rows, bytes) = if quarantine {
            (tables::quarantine_of(&self.table), segment.rejected(), segment.rejected_bytes())
        } else {
            (self.table.clone(), segment.rows(), segment.rows_bytes())
        };
        let columns: Vec<String> = frozen.columns.iter().map(|(name, _)| tables::quote(name)).collect();
        let statement = format!(
            "INSERT INTO {} ({}) FORMAT RowBinaryWithNamesAndTypes",
            tables::quoted(&self.database, &table),
            columns.join(", ")
        );
        let query_id = format!("sluicegate-{token}-{attempts}");
        let mut parameters =
            vec![("query", statement.as_str()), ("query_id", &query_id), ("insert_deduplication_token", token)];
        parameters.extend(frozen.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let header = frozen.rowbinary_header().map_err(|error| hold(error.to_string()))?;
        let reader = segment.read(part).map_err(|error| hold(format!("the segment's file: {error}")))?;
        let body = SegmentBody::new(header, reader, bytes);

        let server = self.server(segment, attempts).ok_or_else(|| hold("no server is configured".to_owned()))?;
        let begun = Instant::now();
        let outcome = client.insert(server, &parameters, body, self.timeout);
        let class = outcome.as_ref().err().map(classify);
        self.figures.attempted(quarantine, rows, begun.elapsed(), class);
        match outcome {
            Ok(()) => {
                tracing::debug!(segment = segment.number(), table, rows, query_id, "inserted");
                Ok(())
            }
            Err(error) => Err(Failure {
                class: class.unwrap_or(Class::Retry),
                reason: format!("{table} at {} ({query_id}): {}", server.url(), describe(&error)),
            }),
        }
    }

    /// The first attempts go to the first server; when it fails, the next one is tried.
    fn server(&self, _segment: &SealedSegment, attempts: u32) -> Option<&ClickHouse> {
        let index = (attempts.saturating_sub(1) as usize).checked_rem(self.servers.len())?;
        self.servers.get(index)
    }

    fn retire(&self, segment: SealedSegment) {
        let number = segment.number();
        if let Err(error) = self.pool.retire(segment) {
            // Its rows are in ClickHouse; the next start sends it again under the same token.
            tracing::warn!(segment = number, %error, "an inserted segment's file can't be taken away");
        }
    }

    fn report(&self, work: &Work, failure: &Failure) {
        let (segment, attempts, reason) = (work.segment.number(), work.attempts, failure.reason.as_str());
        match failure.class {
            // The first failures of a segment, then fewer and fewer: ClickHouse may be away for days.
            Class::Retry if attempts.is_power_of_two() => {
                tracing::warn!(segment, attempts, reason, "an insert failed and will be tried again");
            }
            Class::Retry => tracing::debug!(segment, attempts, reason, "an insert failed and will be tried again"),
            Class::Hold => {
                tracing::error!(segment, attempts, reason, "an insert needs a person; the segment stays in the spool");
            }
        }
    }
}

/// ClickHouse's reason, cut: an error's text may quote values of the rows.
fn describe(error: &ClientError) -> String {
    const CHARACTERS_MAX: usize = 400;
    error.to_string().chars().take(CHARACTERS_MAX).collect()
}
