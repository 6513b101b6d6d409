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

use super::format::{self, Format, Reader};
use super::found::{Found, Place};
use super::general::Rejection;
use super::missing::Missing;
use super::server_values::ServerInputs;
use super::values::number::integer_of;
use super::values::time;
use super::values::time::LastDay;
use crate::rowbinary::RowBuffer;
use crate::schema::{Field, Plan};

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
    pub(super) fn put_run(&self, index: usize, out: &mut RowBuffer) {
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

/// Finished rows of a body that are not in the batch yet, and the row that is being built.
#[derive(Debug)]
pub(crate) struct RowBuilder {
    /// Finished rows.
    pub(super) rows: RowBuffer,
    /// Values of the current row that were converted before their turn.
    side: RowBuffer,
    /// One per field of the plan; all are missing between two rows.
    found: Vec<Found>,
    /// One per field of the plan.
    formats: Vec<Format>,
    missing: Missing,
    pub(super) last_day: LastDay,
    /// True if `found` has a field.
    has_found: bool,
    /// The field whose value comes next in `rows`. Those before it are there.
    pub(super) next: usize,
    /// The start of the current row in `rows`.
    start: usize,
}

impl RowBuilder {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            rows: RowBuffer::with_space(FLUSH_BYTES * 2),
            side: RowBuffer::with_space(1 << 10),
            found: vec![Found::MISSING; plan.fields().len()],
            formats: format::of_fields(plan),
            missing: Missing::new(plan),
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

    /// True if the value of a field may be put to the end of the row now: it is the next one, or the line lacks those
    /// before it, which get their defaults then. `is_lowest` says that none of them is expected any more, and `SPARSE` that
    /// fields are missing often.
    #[inline(always)]
    pub(super) fn goes_on_with<const SPARSE: bool>(
        &mut self,
        field: usize,
        is_lowest: bool,
        server: &ServerCells,
    ) -> bool {
        if !self.has_found {
            return field == self.next
                || (is_lowest
                    && field > self.next
                    && if SPARSE { self.fill(field, server) } else { self.fill_once(field, server) });
        }
        field == self.next && self.found.get(field).is_some_and(|found| found.place == Place::Missing)
    }

    /// Gives the fields up to `field` their defaults, if nothing but their own keys leads to them.
    #[inline(always)]
    fn fill(&mut self, field: usize, server: &ServerCells) -> bool {
        if !self.missing.is_final() {
            return false;
        }
        match self.missing.without_run(self.next, field) {
            Some(bytes) => {
                self.rows.put_range_of(self.missing.values(), bytes);
                self.next = field;
            }
            None => self.put_missing(field, server),
        }
        true
    }

    /// The same in a function of its own.
    #[inline(never)]
    fn fill_once(&mut self, field: usize, server: &ServerCells) -> bool {
        self.fill(field, server)
    }

    /// Puts the defaults of the fields up to `field`.
    #[inline(never)]
    fn put_missing(&mut self, field: usize, server: &ServerCells) {
        while self.next < field {
            let (bytes, end) = self.missing.run(self.next, field);
            self.rows.put_range_of(self.missing.values(), bytes);
            self.next = end;
            if self.missing.has_run_before(end) {
                server.put_run(end, &mut self.rows);
            }
        }
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
        if !self.has_found {
            self.put_missing(self.found.len(), server);
            return Some(());
        }
        let Self { rows, side, found, formats, last_day, next, .. } = self;
        let found = found.get_mut(*next..).unwrap_or_default().iter_mut();
        let formats = formats.get(*next..).unwrap_or_default();
        for ((found, format), field) in found.zip(formats).zip(fields.get(*next..).unwrap_or_default()) {
            let value = std::mem::replace(found, Found::MISSING);
            let Found { place, start, end } = value;
            let is_read = match (&format.reader, place) {
                (Reader::Text, Place::Missing | Place::Text) => {
                    // A missing text is an empty one.
                    rows.put_string_of(body, start, end - start);
                    true
                }
                (Reader::Integer { width, max }, Place::Missing | Place::Bare) => {
                    // A missing integer is one without digits, and 0.
                    let value = body.get(start..).and_then(<[u8]>::first_chunk);
                    let value = value.and_then(|word| integer_of(u64::from_le_bytes(*word), end - start));
                    match value.filter(|value| *value <= u64::from(*max)) {
                        Some(value) => {
                            rows.put_integer(value, *width);
                            true
                        }
                        None => false,
                    }
                }
                (Reader::DateTime(zone), Place::Text) => {
                    let text = body.get(start.wrapping_sub(1)..).and_then(<[u8]>::first_chunk);
                    match text.and_then(|text| time::read_seconds(last_day, *zone, text)) {
                        Some((seconds, length)) if start + length == end + 2 => {
                            rows.put(seconds.to_le_bytes());
                            true
                        }
                        _ => false,
                    }
                }
                _ => false,
            };
            if !is_read {
                put_any(rows, side, field, value, &mut read)?;
            }
            if format.has_run {
                server.put_run(usize::from(field.index) + 1, rows);
            }
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

#[inline(never)]
fn put_any(
    rows: &mut RowBuffer,
    side: &RowBuffer,
    field: &Field,
    value: Found,
    read: &mut impl FnMut(&Field, Found, &mut RowBuffer) -> Option<()>,
) -> Option<()> {
    match value.place {
        Place::Missing => rows.put_slice(&field.absent.missing),
        Place::Side => rows.put_range_of(side, value.start..value.end),
        Place::Text | Place::Bare => read(field, value, rows)?,
    }
    Some(())
}
