//! NDJSON in, RowBinary out: the row encoder, which is why this project exists.
//!
//! A body's lines go through two ways. `walk` is the quick one: it follows the learned key order,
//! reads values where they stand and gives up at the slightest doubt. `general` takes what is
//! left, through `sonic-rs`, and alone says why a line is refused. Both give the same bytes for
//! every line that the quick one takes.
//!
//! Files in reading order: `lines`, `walk`, `order` (the guess), `row` (cells into place), `values`
//! (one file a family of types), `general`, `skip`, `scan` and `escape` (JSON's grammar),
//! `utf8`, `identify`, `report`.
//!
//! # What a value means
//!
//! What ClickHouse makes of the same line as `JSONEachRow`, with unknown fields skipped,
//! best-effort dates and nulls as defaults. On purpose it is different in this:
//!
//! - What ClickHouse wraps, clamps or cuts is refused as `out_of_range`: 300 into UInt8, numbers
//!   that overflow a float, dates and times outside of their type, days and months that don't
//!   exist, hours above 23, minutes and seconds above 59, offsets above 23:59, a Date as Unix
//!   seconds.
//! - A line must be valid JSON, values that are skipped or stored as text included: no control
//!   bytes or unknown escapes in strings, no leading zeros or plus signs or `inf` as bare numbers,
//!   no trailing commas. One object a line, and not inside an array.
//! - Unpaired surrogates are refused in a column's value and in keys (ClickHouse stores a low one
//!   as invalid UTF-8), and are of no interest in a value that is skipped.
//! - Keys match column names exactly; ClickHouse since 26 also matches other cases.
//! - `null` in an Enum column that is not Nullable is the default; ClickHouse fails on it.
//! - Of the best-effort forms of times only those of the grammar in `values/moment.rs` are read;
//!   others (names of months, two digits for a year, a year alone, …) are a `type_mismatch`.
//! - Numbers in a Date32 column have the range that text has, 1900 to 2299; a DateTime64 is from
//!   year 1 to 9999. An IPv4 address has at most three digits a number, and none with a leading
//!   zero inside an IPv6 address.
//! - The fields `ip` and `server_time`, where the server fills columns of these names, are skipped
//!   whatever they hold.

mod escape;
mod general;
mod identify;
mod lines;
mod order;
mod report;
mod row;
mod scan;
mod skip;
mod utf8;
mod values;
mod walk;

use std::net::IpAddr;
use std::sync::Arc;

pub use report::{LineCode, LineError, RejectedByCode, Report};

use self::general::Refused;
use self::identify::Identifier;
use self::lines::{Lines, end_of_line, trim_end};
use self::order::KeyOrder;
use self::row::{RowBuilder, ServerCells};
use self::utf8::Utf8Window;
use self::walk::Walk;
use crate::batch::Batch;
use crate::limits;
use crate::quarantine::RejectedLine;
use crate::schema::Plan;

/// What one request may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeLimits {
    /// A longer line is refused.
    pub line_bytes_max: usize,
    /// More lines, good and bad, refuse the request.
    pub events_max: u32,
    /// More bytes of rows and of refused lines refuse the request.
    pub encoded_bytes_max: usize,
}

/// Where and when a request came in: what the server adds to its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The client's address.
    pub client_ip: IpAddr,
    /// When the body had been read, in nanoseconds since 1970.
    pub server_time_unix_ns: i64,
}

/// Why a request is refused as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeRefusal {
    /// More than [`limits::BAD_LINES_MAX`] lines were refused.
    TooManyBadLines,
    /// More than [`EncodeLimits::events_max`].
    TooManyEvents,
    /// More than [`EncodeLimits::encoded_bytes_max`].
    EncodedTooLarge,
}

/// Encodes bodies into batches. Each worker has its own; it learns from every line.
#[derive(Debug)]
pub struct RowEncoder {
    plan: Arc<Plan>,
    limits: EncodeLimits,
    order: KeyOrder,
    builder: RowBuilder,
    server: ServerCells,
    /// A value whose escapes had to be decoded.
    scratch: Vec<u8>,
    /// The column that is to identify events, and how, while the table has it.
    identifying: Option<String>,
    identifier: Option<Identifier>,
}

impl RowEncoder {
    /// An encoder that has learned nothing yet.
    pub fn new(plan: Arc<Plan>, limits: EncodeLimits) -> Self {
        Self {
            order: KeyOrder::new(plan.columns().len()),
            builder: RowBuilder::new(&plan),
            server: ServerCells::default(),
            scratch: Vec::new(),
            identifying: None,
            identifier: None,
            plan,
            limits,
        }
    }

    /// The same, noting the identity of each event: what it has in this column. Nothing is noted
    /// where clients fill no such column.
    #[must_use]
    pub fn identifying(mut self, column: Option<&str>) -> Self {
        self.identifying = column.map(str::to_owned);
        self.identifier = column.and_then(|column| Identifier::new(&self.plan, column));
        self
    }

    /// Encodes by another plan from now on, and learns anew.
    pub fn follow(&mut self, plan: Arc<Plan>) {
        let column = self.identifying.take();
        *self = Self::new(plan, self.limits).identifying(column.as_deref());
    }

    /// Appends the rows of a whole body to `batch.rows` and the lines that are refused to
    /// `batch.rejected`, and adds to `report` what became of them.
    ///
    /// # Errors
    ///
    /// The request is refused as a whole; `batch` is as it was before, and `report` says how far
    /// it went.
    pub fn encode(
        &mut self,
        body: &[u8],
        origin: &Origin,
        batch: &mut Batch,
        report: &mut Report,
    ) -> Result<(), EncodeRefusal> {
        self.encode_with::<true>(body, origin, batch, report)
    }

    /// The same without the quick way: the naive twin of [`RowEncoder::encode`], for tests and
    /// comparisons.
    ///
    /// # Errors
    ///
    /// As [`RowEncoder::encode`].
    pub fn encode_generally(
        &mut self,
        body: &[u8],
        origin: &Origin,
        batch: &mut Batch,
        report: &mut Report,
    ) -> Result<(), EncodeRefusal> {
        self.encode_with::<false>(body, origin, batch, report)
    }

    fn encode_with<const QUICK: bool>(
        &mut self,
        body: &[u8],
        origin: &Origin,
        batch: &mut Batch,
        report: &mut Report,
    ) -> Result<(), EncodeRefusal> {
        self.server.encode(&self.plan, origin);
        let mark = batch.mark();
        let done = self.encode_lines::<QUICK>(body, origin, batch, report);
        if done.is_ok() {
            self.builder.move_rows(&mut batch.rows.bytes);
        } else {
            batch.roll_back(mark);
        }
        self.builder.clear();
        debug_assert!(done.is_ok() || batch.mark() == mark);
        done
    }

    fn encode_lines<const QUICK: bool>(
        &mut self,
        body: &[u8],
        origin: &Origin,
        batch: &mut Batch,
        report: &mut Report,
    ) -> Result<(), EncodeRefusal> {
        let len_before = batch.len();
        let (mut accepted, mut rejected) = (0u32, 0u32);
        let (mut lines, mut window) = (Lines::new(body), Utf8Window::default());
        while let Some((start, number)) = lines.begin(body) {
            let row_start = self.builder.rows.len();
            if accepted + rejected >= self.limits.events_max {
                return Err(EncodeRefusal::TooManyEvents);
            }
            if let Some(end) = self.walk_line::<QUICK>(body, start, &mut window) {
                lines.end(end);
                accepted += 1;
            } else {
                let end = end_of_line(body, start);
                lines.end(end);
                let line = body.get(start..end).unwrap_or_default();
                match self.encode_line(line) {
                    Ok(()) => accepted += 1,
                    Err(refused) => {
                        rejected += 1;
                        reject(refused, number, line, origin, batch, report);
                    }
                }
                if rejected > limits::BAD_LINES_MAX {
                    return Err(EncodeRefusal::TooManyBadLines);
                }
            }
            if self.identifier.is_some() {
                self.identify(row_start, batch);
            }
            let encoded = self.builder.rows.len() + batch.len() - len_before;
            if encoded > self.limits.encoded_bytes_max {
                return Err(EncodeRefusal::EncodedTooLarge);
            }
            if self.builder.rows.len() >= row::ROWS_BYTES_HELD {
                self.builder.move_rows(&mut batch.rows.bytes);
            }
        }
        batch.rows.count += accepted;
        report.accepted += accepted;
        Ok(())
    }

    /// Notes the identity of the row that begins at `start`, if there is one and it has one.
    fn identify(&self, start: usize, batch: &mut Batch) {
        let row = self.builder.rows.written().get(start..).unwrap_or_default();
        if let Some(id) = self.identifier.as_ref().and_then(|identifier| identifier.id(row)) {
            let place = batch.rows.bytes.len() + start;
            batch.identify(id, place..place + row.len());
        }
    }

    /// Tries the quick way on the line that begins at `start`: where it ends.
    #[inline]
    fn walk_line<const QUICK: bool>(&mut self, body: &[u8], start: usize, window: &mut Utf8Window) -> Option<usize> {
        if !QUICK || !window.has_line(body, start) {
            return None;
        }
        let mut walk = Walk {
            plan: &self.plan,
            order: &mut self.order,
            builder: &mut self.builder,
            server: &self.server,
            scratch: &mut self.scratch,
        };
        let end = walk.line(body, start);
        if end.is_none_or(|end| end - start > self.limits.line_bytes_max) {
            self.builder.abandon();
            return None;
        }
        end
    }

    /// The general way.
    #[cold]
    fn encode_line(&mut self, line: &[u8]) -> Result<(), Refused> {
        let line = trim_end(line);
        if line.len() > self.limits.line_bytes_max {
            let message = format!(
                "the line has {} bytes, more than the {} that a line may have",
                line.len(),
                self.limits.line_bytes_max
            );
            return Err(Refused::new(LineCode::LineTooLong, message));
        }
        let done = general::encode_line(&self.plan, line, &self.server, &mut self.builder);
        if done.is_err() {
            self.builder.abandon();
        }
        done
    }
}

/// Puts a refused line into the quarantine section and into the report.
#[cold]
fn reject(refused: Refused, number: u32, line: &[u8], origin: &Origin, batch: &mut Batch, report: &mut Report) {
    let section = &mut batch.rejected;
    let line = RejectedLine {
        server_time_unix_ns: origin.server_time_unix_ns,
        ip: origin.client_ip.to_canonical(),
        code: refused.code.as_str(),
        message: &refused.message,
        line: trim_end(line),
    };
    line.put_row(&mut section.bytes);
    section.count += 1;
    report.reject(number, refused);
}

#[cfg(test)]
mod tests;
