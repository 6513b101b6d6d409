//! A column that values are written to, with the bytes of an event without one.

use super::mapping::TimeUnit;
use super::{Cell, ColumnType};

/// A column that values are written to: one that clients fill, or that a request's head fills.
#[derive(Clone, Debug)]
pub struct Field {
    /// The column's name, shared with the errors that name it.
    pub name: std::sync::Arc<str>,
    /// The column's type, spelled as by ClickHouse, for messages.
    pub type_name: Box<str>,
    /// The parsed type.
    pub cell: Cell,
    /// Bytes of 0 in front of a value that is not null: one for a default expression, and one for
    /// `Nullable`.
    pub lead: u8,
    /// Its place among the plan's fields.
    pub index: u16,
    /// What a bare number in a column of times means; `None`: its magnitude says it.
    pub unit: Option<TimeUnit>,
    /// True if a line without a value is rejected.
    pub is_required: bool,
    /// The bytes of an event without a value for this field.
    pub absent: Box<Absent>,
}

/// The bytes of an event without a value for a field.
#[derive(Clone, Debug)]
pub struct Absent {
    /// If the event lacks the field.
    pub missing: Box<[u8]>,
    /// If the field is `null`.
    pub null: Box<[u8]>,
}

impl Field {
    pub(super) fn new(name: &str, type_name: &str, cell: Cell, has_default: bool) -> Self {
        let (missing, null) = match (has_default, cell.nullable) {
            (false, _) => (cell.null.to_vec(), cell.null.to_vec()),
            (true, false) => ([&[1], &*cell.null].concat(), [&[1], &*cell.null].concat()),
            (true, true) => ([&[1], &*cell.null].concat(), [&[0], &*cell.null].concat()),
        };
        let lead = u8::from(has_default) + u8::from(cell.nullable);
        let absent = Absent { missing: missing.into(), null: null.into() };
        let (name, type_name, absent) = (name.into(), type_name.into(), Box::new(absent));
        Self { name, type_name, cell, lead, index: 0, unit: None, is_required: false, absent }
    }

    /// True if a bare number is a Unix time in a unit that is guessed.
    pub fn guesses_unit(&self) -> bool {
        self.unit.is_none() && self.is_of_times()
    }

    /// True for a column of points in time.
    pub(super) fn is_of_times(&self) -> bool {
        matches!(self.cell.column_type, ColumnType::DateTime(_) | ColumnType::DateTime64 { .. })
    }
}
