//! What a row has in at of fields that its line lacks.

use std::ops::Range;

use crate::rowbinary::RowBuffer;
use crate::schema::Plan;

/// Bytes that may be copied with a value.
const COPIED_BYTES: usize = 64;

/// The defaults of all fields, so that those of several fields are one copy.
#[derive(Debug)]
pub(super) struct Missing {
    /// The defaults, one behind the other.
    values: RowBuffer,
    /// One for each field, and one more.
    beginnings: Vec<Beginning>,
    is_final: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Beginning {
    /// Where the field's default begins.
    offset: usize,
    /// The next field, behind this one, in front of which the server's columns come; the number of fields if there is
    /// none.
    next_run: usize,
    /// True if the server's columns come in front of this field.
    has_run: bool,
}

impl Missing {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut values = RowBuffer::default();
        let mut beginnings = Vec::new();
        let runs = plan.server_runs().iter().map(|run| !run.is_empty()).chain(std::iter::repeat(false));
        for (field, has_run) in plan.fields().iter().zip(runs.clone()) {
            beginnings.push(Beginning { offset: values.len(), next_run: 0, has_run });
            values.put_slice(&field.absent.missing);
        }
        let (fields, end) = (beginnings.len(), values.len());
        let has_run = runs.clone().nth(fields).unwrap_or_default();
        beginnings.push(Beginning { offset: end, next_run: fields, has_run });
        // A short range is copied with the bytes behind it.
        values.put_zeros(COPIED_BYTES);
        values.truncate(end);
        let mut next_run = fields;
        for (index, beginning) in beginnings.iter_mut().enumerate().rev() {
            beginning.next_run = next_run;
            if beginning.has_run {
                next_run = index;
            }
        }
        Self { values, beginnings, is_final: !plan.has_conditions() && plan.paths().has_no_nodes() }
    }

    /// The defaults of all fields.
    #[inline(always)]
    pub(super) fn values(&self) -> &RowBuffer {
        &self.values
    }

    /// The range in [`Missing::values`] of the fields from one to another, if the server's columns come in front of none
    /// of them behind the first, nor of the other one.
    #[inline(always)]
    pub(super) fn without_run(&self, from: usize, to: usize) -> Option<Range<usize>> {
        let (first, last) = (self.beginnings.get(from)?, self.beginnings.get(to)?);
        (first.next_run > to).then_some(first.offset..last.offset)
    }

    /// The range in [`Missing::values`] of the fields from one to another or to where the server's columns come, and
    /// the field behind them.
    #[inline(always)]
    pub(super) fn run(&self, from: usize, to: usize) -> (Range<usize>, usize) {
        let Beginning { offset, next_run, .. } = self.beginnings.get(from).copied().unwrap_or_default();
        let end = next_run.min(to).max(from + 1);
        let stop = self.beginnings.get(end).map_or(offset, |beginning| beginning.offset);
        (offset..stop, end)
    }

    /// True if the server's columns come in front of this field.
    #[inline(always)]
    pub(super) fn has_run_before(&self, field: usize) -> bool {
        self.beginnings.get(field).is_some_and(|beginning| beginning.has_run)
    }

    /// True if a field that a line lacks where it could come can't come later: nothing but its own key leads to it.
    #[inline(always)]
    pub(super) fn is_final(&self) -> bool {
        self.is_final
    }
}
