//! What a row has in place of fields that its line lacks.

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
    places: Vec<Place>,
    is_final: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Where the field's default begins.
    start: usize,
    /// The next field, behind this one, in front of which the server's columns come; the number of fields if there is
    /// none.
    next_run: usize,
    /// True if the server's columns come in front of this field.
    has_run: bool,
}

impl Missing {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut values = RowBuffer::default();
        let mut places = Vec::new();
        let runs = plan.server_runs().iter().map(|run| !run.is_empty()).chain(std::iter::repeat(false));
        for (field, has_run) in plan.fields().iter().zip(runs.clone()) {
            places.push(Place { start: values.len(), next_run: 0, has_run });
            values.put_slice(&field.absent.missing);
        }
        let (fields, end) = (places.len(), values.len());
        let has_run = runs.clone().nth(fields).unwrap_or_default();
        places.push(Place { start: end, next_run: fields, has_run });
        // A short range is copied with the bytes behind it.
        values.put_zeros(COPIED_BYTES);
        values.truncate(end);
        let mut next_run = fields;
        for (index, place) in places.iter_mut().enumerate().rev() {
            place.next_run = next_run;
            if place.has_run {
                next_run = index;
            }
        }
        Self { values, places, is_final: !plan.has_conditions() && plan.paths().has_no_nodes() }
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
        let (from, to_place) = (self.places.get(from)?, self.places.get(to)?);
        (from.next_run > to).then_some(from.start..to_place.start)
    }

    /// The range in [`Missing::values`] of the fields from one to another or to where the server's columns come, and
    /// the field behind them.
    #[inline(always)]
    pub(super) fn run(&self, from: usize, to: usize) -> (Range<usize>, usize) {
        let Place { start, next_run, .. } = self.places.get(from).copied().unwrap_or_default();
        let end = next_run.min(to).max(from + 1);
        let stop = self.places.get(end).map_or(start, |place| place.start);
        (start..stop, end)
    }

    /// True if the server's columns come in front of this field.
    #[inline(always)]
    pub(super) fn has_run_before(&self, field: usize) -> bool {
        self.places.get(field).is_some_and(|place| place.has_run)
    }

    /// True if a field that a line lacks where it could come can't come later: nothing but its own key leads to it.
    #[inline(always)]
    pub(super) fn is_final(&self) -> bool {
        self.is_final
    }
}
