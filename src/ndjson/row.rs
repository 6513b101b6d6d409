//! Building one row: cells in the table's order, from fields in the line's order.
//!
//! While the fields come in the table's order each cell is written where it belongs. The first
//! one that comes early ends that: it and all after it are written to a side buffer, and a slot
//! per field remembers where; at the end of the line the cells are copied into place and what is
//! missing gets its default. The server's own columns are encoded once a body, and copied as one
//! run wherever they stand between fields.

use std::ops::Range;

use super::Origin;
use super::values::{address, time};
use crate::rowbinary::RowBuffer;
use crate::schema::{ColumnType, Field, Plan, Source};

/// Finished rows that are held back at most, and a row more. So many stay in the processor's first
/// cache, from where they are copied to the batch; those of a large body as a whole would not.
pub(super) const ROWS_BYTES_HELD: usize = 16 << 10;
/// What both buffers keep between bodies.
const BUFFER_BYTES_KEPT: usize = 256 << 10;

/// The server's columns, encoded for one body.
#[derive(Debug, Default)]
pub(crate) struct ServerCells {
    cells: RowBuffer,
    /// As many as [`Plan::server_runs`].
    runs: Vec<Range<usize>>,
}

impl ServerCells {
    pub(crate) fn encode(&mut self, plan: &Plan, origin: &Origin) {
        self.cells.truncate(0);
        self.runs.clear();
        for run in plan.server_runs() {
            let start = self.cells.len();
            for column in run {
                if column.nullable {
                    self.cells.put([0]);
                }
                put_server_value(column.source, &column.column_type, origin, &mut self.cells);
            }
            self.runs.push(start..self.cells.len());
        }
    }

    /// Appends the run before field `index`.
    #[inline]
    fn put_run(&self, index: usize, out: &mut RowBuffer) {
        if let Some(run) = self.runs.get(index)
            && !run.is_empty()
        {
            out.put_range_of(&self.cells, run.clone());
        }
    }
}

fn put_server_value(source: Source, column_type: &ColumnType, origin: &Origin, out: &mut RowBuffer) {
    match source {
        Source::ServerTime => time::put_server_time(origin.server_time_unix_ns, column_type, out),
        Source::ClientAddress | Source::Field => address::put_client(origin.client_ip, column_type, out),
    }
}

/// A field came twice in one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Duplicate;

/// Where the cell of an early field lies in the side buffer, if it is of this row.
#[derive(Clone, Debug, Default)]
struct Slot {
    row: u64,
    cell: Range<usize>,
}

/// The last rows of a body, and the one that is being built.
#[derive(Debug)]
pub(crate) struct RowBuilder {
    /// Finished rows, then the cells of this one that are in place.
    pub(crate) rows: RowBuffer,
    side: RowBuffer,
    slots: Vec<Slot>,
    /// This row's number, never used twice, so that slots need not be emptied.
    row: u64,
    start: usize,
    /// The field whose cell comes next in `rows`.
    next: usize,
    /// False from the first field on that came early.
    in_order: bool,
}

impl RowBuilder {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            rows: RowBuffer::with_space(ROWS_BYTES_HELD * 2),
            side: RowBuffer::with_space(1 << 10),
            slots: vec![Slot::default(); plan.fields().len()],
            row: 0,
            start: 0,
            next: 0,
            in_order: true,
        }
    }

    /// Begins a row behind the finished ones.
    #[inline]
    pub(crate) fn begin(&mut self, server: &ServerCells) {
        self.row += 1;
        self.start = self.rows.len();
        self.side.truncate(0);
        self.next = 0;
        self.in_order = true;
        server.put_run(0, &mut self.rows);
    }

    /// Writes the cell of a field with `write`, which answers nothing when it refuses; what it
    /// has written until then is taken back, and it may be tried again.
    #[inline]
    pub(crate) fn put<T, E>(
        &mut self,
        field: usize,
        server: &ServerCells,
        write: impl FnOnce(&mut RowBuffer) -> Result<T, E>,
    ) -> Result<T, E> {
        // One call of `write`, so that it is compiled into this place.
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
            let cell = before..self.side.len();
            if let Some(slot) = self.slots.get_mut(field) {
                *slot = Slot { row: self.row, cell };
            }
        }
        written
    }

    /// Refuses a field that this row already has.
    #[inline]
    pub(crate) fn check_new(&self, field: usize) -> Result<(), Duplicate> {
        let written =
            field < self.next || !self.in_order && self.slots.get(field).is_some_and(|slot| slot.row == self.row);
        if written { Err(Duplicate) } else { Ok(()) }
    }

    /// Ends the row: what is missing gets its default.
    #[inline]
    pub(crate) fn finish(&mut self, fields: &[Field], server: &ServerCells) {
        if self.next < fields.len() {
            self.fill(fields, server);
        }
    }

    fn fill(&mut self, fields: &[Field], server: &ServerCells) {
        for (index, field) in fields.iter().enumerate().skip(self.next) {
            match self.slots.get(index).filter(|slot| slot.row == self.row) {
                Some(slot) => self.rows.put_range_of(&self.side, slot.cell.clone()),
                None => self.rows.put_slice(&field.default),
            }
            server.put_run(index + 1, &mut self.rows);
        }
    }

    /// Takes the unfinished row back.
    pub(crate) fn abandon(&mut self) {
        self.rows.truncate(self.start);
    }

    /// Appends the finished rows to `out`; none is left here.
    pub(crate) fn move_rows(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.rows.written());
        self.rows.truncate(0);
        self.start = 0;
    }

    /// Forgets all rows, and gives back the memory of an unusual body.
    pub(crate) fn clear(&mut self) {
        self.rows.reset(BUFFER_BYTES_KEPT);
        self.side.reset(BUFFER_BYTES_KEPT);
        self.start = 0;
    }
}
