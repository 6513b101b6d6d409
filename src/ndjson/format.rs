//! How the value of a column is read in its usual form.

use crate::schema::{ColumnType, Field, Plan, Zone};

/// What is done with the value of a field.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    pub(super) reader: Reader,
    /// True if the server fills columns behind this field.
    pub(super) has_run: bool,
}

/// Who reads a value in its usual form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// Nobody: it is a text in a String, and copied.
    Text,
    /// An integer of few digits, without a sign.
    Integer {
        /// Bytes of the column's type.
        width: u8,
        /// The highest value of few digits that the type has.
        max: u32,
    },
    /// A time.
    DateTime(Zone),
    /// The readers of all types.
    Any,
    /// Nobody: no column takes it, and it is counted by this number.
    Count(u16),
    /// Whoever reads values behind keys that were not guessed.
    Leave,
}

impl Format {
    /// The one of a field that nothing is known of.
    pub(super) const ANY: Self = Self { reader: Reader::Any, has_run: false };
}

impl Reader {
    fn of(field: &Field) -> Self {
        match field.cell.column_type {
            _ if field.lead > 0 => Self::Any,
            ColumnType::String => Self::Text,
            ColumnType::Signed(width) => Self::Integer { width, max: highest(u32::from(width) * 8 - 1) },
            ColumnType::Unsigned(width) => Self::Integer { width, max: highest(u32::from(width) * 8) },
            ColumnType::DateTime(zone) => Self::DateTime(zone),
            _ => Self::Any,
        }
    }
}

/// The highest integer of so many bits, or of 32.
fn highest(bits: u32) -> u32 {
    u32::MAX.checked_shr(32_u32.saturating_sub(bits)).unwrap_or_default()
}

/// The formats of a plan's fields.
pub(super) fn of_fields(plan: &Plan) -> Vec<Format> {
    let runs = plan.server_runs().iter().skip(1);
    let fields = plan.fields().iter().zip(runs);
    fields.map(|(field, run)| Format { reader: Reader::of(field), has_run: !run.is_empty() }).collect()
}
