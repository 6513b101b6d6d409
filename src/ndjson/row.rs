//! Building a row: values in the table's order, from fields in the line's order.
//!
//! While the fields come in the table's order and in their usual forms, each value is converted to the end of the
//! rows at once. Of the others only the place in the body is remembered. They are converted at the end of the line, in
//! the table's order: so the branches that depend on the types of columns come in the same order for every line, and
//! the order of a line's keys costs little. A value that can't be left where it is (an array, a text with escapes) is
//! converted to a side buffer, and copied from there.
//!
//! The columns that the server fills are encoded once per body; each run of them between two fields is
//! one copy.

use std::ops::Range;

use super::general::Rejection;
use super::server_values::ServerInputs;
use super::values::text::plain_string;
use super::values::time::LastDay;
use super::values::{number, time};
use crate::rowbinary::RowBuffer;
use crate::schema::{ColumnType, Field, Plan, Zone};

/// Flush threshold: the buffer holds up to this many bytes of finished rows, plus one row, before they
/// are copied to the batch. That fits the L1 cache; all rows of a large body would not.
pub(super) const FLUSH_BYTES: usize = 16 << 10;
/// Bytes of space that each buffer keeps between bodies.
const BUFFER_BYTES_KEPT: usize = 256 << 10;

/// The values of the columns that the server fills, encoded for one body.
#[derive(Debug, Default)]
pub(crate) struct ServerCells {
    cells: RowBuffer,
    /// The range in `cells` of each of [`Plan::server_runs`].
    runs: Vec<Range<usize>>,
    has_first_run: bool,
    /// Why each line of the body is rejected: a value of its request does not fit its column.
    pub(super) unfit: Option<Rejection>,
}

impl ServerCells {
    pub(super) fn encode(&mut self, plan: &Plan, inputs: &ServerInputs<'_>) {
        self.cells.truncate(0);
        self.runs.clear();
        self.unfit = None;
        for run in plan.server_runs() {
            let start = self.cells.len();
            for column in run {
                if let Err(rejection) = inputs.put(column, &mut self.cells) {
                    self.unfit.get_or_insert(rejection);
                }
            }
            self.runs.push(start..self.cells.len());
        }
        self.has_first_run = self.runs.first().is_some_and(|run| !run.is_empty());
    }

    /// Appends the run of server-filled values before field `index`.
    #[inline]
    fn put_run(&self, index: usize, out: &mut RowBuffer) {
        if let Some(run) = self.runs.get(index)
            && !run.is_empty()
        {
            out.put_range_of(&self.cells, run.clone());
        }
    }
}

/// The error of a field that occurs twice in a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Duplicate;

/// Where the value of a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) place: Place,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// What [`Found::start`] and [`Found::end`] are offsets of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The line lacks the field. Both offsets are 0.
    Missing,
    /// The body: a string without escapes, and without its quotes.
    Text,
    /// The body: what may be a number, `true`, `false` or `null`.
    Bare,
    /// The side buffer: the encoded value.
    Side,
}

impl Found {
    const MISSING: Self = Self { place: Place::Missing, start: 0, end: 0 };

    /// The range of the value in the body, with its quotes.
    #[inline]
    pub(crate) fn in_body(self) -> Range<usize> {
        let quote = usize::from(self.place == Place::Text);
        self.start.wrapping_sub(quote)..self.end + quote
    }
}

/// What is done with a value in the second pass.
#[derive(Clone, Copy, Debug)]
struct Format {
    reader: Reader,
    /// True if the server fills columns behind this field.
    has_run: bool,
}

/// Who reads a value in its usual form.
#[derive(Clone, Copy, Debug)]
enum Reader {
    /// Nobody: it is a text in a String, and copied.
    Text,
    /// An Int64 of few digits.
    Int64,
    /// A time.
    DateTime(Zone),
    /// The readers of all types.
    Any,
}

impl Reader {
    fn of(field: &Field) -> Self {
        match field.cell.column_type {
            _ if field.lead > 0 => Self::Any,
            ColumnType::String => Self::Text,
            ColumnType::Signed(8) => Self::Int64,
            ColumnType::DateTime(zone) => Self::DateTime(zone),
            _ => Self::Any,
        }
    }
}

/// Finished rows of a body that are not in the batch yet, and the row that is being built.
#[derive(Debug)]
pub(crate) struct RowBuilder {
    /// Finished rows.
    pub(crate) rows: RowBuffer,
    /// Values of the current row that were converted before their turn.
    side: RowBuffer,
    /// One per field of the plan; all are missing between two rows.
    found: Vec<Found>,
    /// One per field of the plan.
    formats: Vec<Format>,
    last_day: LastDay,
    /// True if `found` has a field.
    has_found: bool,
    /// The field whose value comes next in `rows`. Those before it are there.
    next: usize,
    /// The start of the current row in `rows`.
    start: usize,
}

impl RowBuilder {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            rows: RowBuffer::with_space(FLUSH_BYTES * 2),
            side: RowBuffer::with_space(1 << 10),
            found: vec![Found::MISSING; plan.fields().len()],
            formats: plan
                .fields()
                .iter()
                .zip(plan.server_runs().iter().skip(1))
                .map(|(field, run)| Format { reader: Reader::of(field), has_run: !run.is_empty() })
                .collect(),
            last_day: LastDay::default(),
            has_found: false,
            next: 0,
            start: 0,
        }
    }

    /// Begins a row after the finished rows.
    #[inline]
    pub(crate) fn begin(&mut self, server: &ServerCells) {
        self.start = self.rows.len();
        self.side.truncate(0);
        self.has_found = false;
        self.next = 0;
        if server.has_first_run {
            server.put_run(0, &mut self.rows);
        }
    }

    /// Reads the value of a field at `at`, if it has the usual form of its type, and returns the offset after it. It is
    /// converted if it is the next one in the row and no other was remembered, else its place is remembered. On `None` nothing has changed.
    #[inline(always)]
    pub(super) fn read(&mut self, field: usize, server: &ServerCells, body: &[u8], at: usize) -> Option<usize> {
        if field != self.next || self.has_found {
            return self.find(field, body, at);
        }
        let format = *self.formats.get(field)?;
        let rows = &mut self.rows;
        let end = match format.reader {
            Reader::Text => {
                let (start, length, end) = plain_string(body, at)?;
                rows.put_string_of(body, start, length);
                end
            }
            Reader::Int64 => {
                let (value, end) = number::plain_signed(body, at)?;
                rows.put(value.to_le_bytes());
                end
            }
            Reader::DateTime(zone) => {
                let (seconds, end) = time::read_seconds(&mut self.last_day, zone, body, at)?;
                rows.put(seconds.to_le_bytes());
                end
            }
            Reader::Any => return self.find(field, body, at),
        };
        self.next = field + 1;
        if format.has_run {
            server.put_run(field + 1, rows);
        }
        Some(end)
    }

    /// Remembers where the text or number at `at` is.
    #[inline]
    fn find(&mut self, field: usize, body: &[u8], at: usize) -> Option<usize> {
        let (value, end) = match plain_string(body, at) {
            Some((start, length, end)) => (Found { place: Place::Text, start, end: start + length }, end),
            None => {
                let end = number::few_digits_end(body, at)?;
                (Found { place: Place::Bare, start: at, end }, end)
            }
        };
        self.set(field, value).ok()?;
        Some(end)
    }

    /// Remembers where the value of a field is.
    ///
    /// # Errors
    ///
    /// The current row already has the field.
    #[inline(always)]
    pub(crate) fn set(&mut self, field: usize, value: Found) -> Result<(), Duplicate> {
        match self.found.get_mut(field) {
            Some(found) if found.place == Place::Missing && field >= self.next => {
                *found = value;
                self.has_found = true;
                Ok(())
            }
            _ => Err(Duplicate),
        }
    }

    /// Remembers where a value is that takes the place of another one, if there is one.
    pub(crate) fn replace(&mut self, field: usize, value: Found) {
        if let Some(found) = self.found.get_mut(field) {
            *found = value;
            self.has_found = true;
        }
    }

    /// Fails if the current row already has the field.
    #[inline]
    pub(crate) fn check_new(&self, field: usize) -> Result<(), Duplicate> {
        let is_new = field >= self.next && self.found.get(field).is_some_and(|found| found.place == Place::Missing);
        if is_new { Ok(()) } else { Err(Duplicate) }
    }

    /// Converts the value of a field before its turn, with `write`. If `write` fails, the bytes that it has
    /// written are removed, and the field may be written again.
    #[inline]
    pub(crate) fn put<T, E>(
        &mut self,
        field: usize,
        write: impl FnOnce(&mut RowBuffer) -> Result<T, E>,
    ) -> Result<T, E> {
        let start = self.side.len();
        let written = write(&mut self.side);
        if written.is_err() {
            self.side.truncate(start);
        } else if let Some(found) = self.found.get_mut(field) {
            *found = Found { place: Place::Side, start, end: self.side.len() };
            self.has_found = true;
        }
        written
    }

    /// True while this row has no field.
    #[inline]
    pub(crate) fn is_untouched(&self) -> bool {
        self.next == 0 && !self.has_found
    }

    /// Finishes the row; missing fields get their defaults. Values in the body that are not in the most usual forms
    /// are read with `read`. `None` if `read` returns it; then the caller removes the unfinished row.
    #[inline(always)]
    pub(crate) fn finish(
        &mut self,
        fields: &[Field],
        server: &ServerCells,
        body: &[u8],
        mut read: impl FnMut(&Field, Found, &mut RowBuffer) -> Option<()>,
    ) -> Option<()> {
        for index in self.next..self.found.len().min(self.formats.len()) {
            let (Some(found), Some(&format)) = (self.found.get_mut(index), self.formats.get(index)) else { break };
            let (place, start, end) = (found.place, found.start, found.end);
            *found = Found::MISSING;
            let rows = &mut self.rows;
            let is_read = match (format.reader, place) {
                (Reader::Text, Place::Missing | Place::Text) => {
                    // A missing text is an empty one.
                    rows.put_string_of(body, start, end - start);
                    true
                }
                (Reader::Int64, Place::Bare) => match number::plain_signed(body, start) {
                    Some((value, value_end)) if value_end == end => {
                        rows.put(value.to_le_bytes());
                        true
                    }
                    _ => false,
                },
                (Reader::DateTime(zone), Place::Text) => {
                    match time::read_seconds(&mut self.last_day, zone, body, start.wrapping_sub(1)) {
                        Some((seconds, value_end)) if value_end == end + 1 => {
                            rows.put(seconds.to_le_bytes());
                            true
                        }
                        _ => false,
                    }
                }
                _ => false,
            };
            if !is_read {
                self.put_any(fields.get(index)?, Found { place, start, end }, &mut read)?;
            }
            if format.has_run {
                server.put_run(index + 1, &mut self.rows);
            }
        }
        Some(())
    }

    #[inline(never)]
    fn put_any(
        &mut self,
        field: &Field,
        value: Found,
        read: &mut impl FnMut(&Field, Found, &mut RowBuffer) -> Option<()>,
    ) -> Option<()> {
        match value.place {
            Place::Missing => self.rows.put_slice(&field.absent.missing),
            Place::Side => self.rows.put_range_of(&self.side, value.start..value.end),
            Place::Text | Place::Bare => read(field, value, &mut self.rows)?,
        }
        Some(())
    }

    /// The row that was finished last.
    pub(crate) fn last_row(&self) -> &[u8] {
        self.rows.written().get(self.start..).unwrap_or_default()
    }

    /// Removes the unfinished row.
    pub(crate) fn abandon(&mut self) {
        self.rows.truncate(self.start);
        self.found.fill(Found::MISSING);
    }

    /// Moves the finished rows to the end of `out`.
    pub(crate) fn move_rows(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.rows.written());
        self.rows.truncate(0);
        self.start = 0;
    }

    /// Removes all rows, and releases space above [`BUFFER_BYTES_KEPT`].
    pub(crate) fn clear(&mut self) {
        self.rows.reset(BUFFER_BYTES_KEPT);
        self.side.reset(BUFFER_BYTES_KEPT);
        self.start = 0;
    }
}
