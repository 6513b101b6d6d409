//! Building a row: values in the table's order, from fields in the line's order.
//!
//! While the fields come in the table's order, each value is appended to the row. From the first
//! field that comes early on, values are written to a side buffer, and their ranges are remembered
//! per field. At the end of the line these values are copied to the row in the table's order, and
//! missing fields get their defaults. The columns that the server fills are encoded once per body;
//! each run of them between two fields is one copy.

use std::ops::Range;

use super::general::Rejection;
use super::server_values::ServerInputs;
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

/// The range of a field's value in the side buffer, valid for one row.
#[derive(Clone, Debug, Default)]
struct SideCell {
    /// The number of the row that the value belongs to.
    row: u64,
    range: Range<usize>,
}

/// Finished rows of a body that are not in the batch yet, and the row that is being built.
#[derive(Debug)]
pub(crate) struct RowBuilder {
    /// Finished rows, then the values of the current row that came in order.
    pub(crate) rows: RowBuffer,
    /// Values of the current row that came early.
    side: RowBuffer,
    /// One per field of the plan.
    side_cells: Vec<SideCell>,
    /// The number of the current row. It is never used twice, so `side_cells` need not be cleared.
    row: u64,
    /// The start of the current row in `rows`.
    start: usize,
    /// The field whose value is appended next to `rows`.
    next: usize,
    /// False once a field of the current row came early.
    in_order: bool,
}

impl RowBuilder {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            rows: RowBuffer::with_space(FLUSH_BYTES * 2),
            side: RowBuffer::with_space(1 << 10),
            side_cells: vec![SideCell::default(); plan.fields().len()],
            row: 0,
            start: 0,
            next: 0,
            in_order: true,
        }
    }

    /// Begins a row after the finished rows.
    #[inline]
    pub(crate) fn begin(&mut self, server: &ServerCells) {
        self.row += 1;
        self.start = self.rows.len();
        self.side.truncate(0);
        self.next = 0;
        self.in_order = true;
        server.put_run(0, &mut self.rows);
    }

    /// Writes the value of a field with `write`. If `write` fails, the bytes that it has written are
    /// removed, and the field may be written again.
    #[inline]
    pub(crate) fn put<T, E>(
        &mut self,
        field: usize,
        server: &ServerCells,
        write: impl FnOnce(&mut RowBuffer) -> Result<T, E>,
    ) -> Result<T, E> {
        // `write` is called at one place only, so that the compiler inlines it.
        let in_place = self.in_order && field == self.next;
        let out = if in_place { &mut self.rows } else { &mut self.side };
        let before = out.len();
        let written = write(out);
        if written.is_err() {
            out.truncate(before);
        } else if in_place {
            self.next = field + 1;
            server.put_run(field + 1, &mut self.rows);
        } else {
            self.in_order = false;
            let range = before..self.side.len();
            if let Some(side_cell) = self.side_cells.get_mut(field) {
                *side_cell = SideCell { row: self.row, range };
            }
        }
        written
    }

    /// [`RowBuilder::put`] for a value that another one may replace.
    pub(crate) fn put_aside<T, E>(
        &mut self,
        field: usize,
        write: impl FnOnce(&mut RowBuffer) -> Result<T, E>,
    ) -> Result<T, E> {
        let before = self.side.len();
        let written = write(&mut self.side);
        if written.is_err() {
            self.side.truncate(before);
        } else if let Some(side_cell) = self.side_cells.get_mut(field) {
            self.in_order = false;
            *side_cell = SideCell { row: self.row, range: before..self.side.len() };
        }
        written
    }

    /// The number of the current row, which no other row has.
    pub(crate) fn row(&self) -> u64 {
        self.row
    }

    /// True if the field's value is in the row and can't be replaced.
    pub(crate) fn is_in_place(&self, field: usize) -> bool {
        field < self.next
    }

    /// Fails if the current row already has the field.
    #[inline]
    pub(crate) fn check_new(&self, field: usize) -> Result<(), Duplicate> {
        let written =
            field < self.next || !self.in_order && self.side_cells.get(field).is_some_and(|cell| cell.row == self.row);
        if written { Err(Duplicate) } else { Ok(()) }
    }

    /// True while fields of this row are missing or out of order; and in a table without fields.
    #[inline]
    pub(crate) fn lacks_fields(&self, fields: &[Field]) -> bool {
        self.next < fields.len().max(1)
    }

    /// True while this row has no field.
    #[inline]
    pub(crate) fn is_untouched(&self) -> bool {
        self.next == 0 && self.in_order
    }

    /// Finishes the row; missing fields get their defaults.
    #[inline]
    pub(crate) fn finish(&mut self, fields: &[Field], server: &ServerCells) {
        if self.next < fields.len() {
            self.fill(fields, server);
        }
    }

    fn fill(&mut self, fields: &[Field], server: &ServerCells) {
        for (index, field) in fields.iter().enumerate().skip(self.next) {
            match self.side_cells.get(index).filter(|cell| cell.row == self.row) {
                Some(cell) => self.rows.put_range_of(&self.side, cell.range.clone()),
                None => self.rows.put_slice(&field.absent.missing),
            }
            server.put_run(index + 1, &mut self.rows);
        }
    }

    /// Removes the unfinished row.
    pub(crate) fn abandon(&mut self) {
        self.rows.truncate(self.start);
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
