//! Values of the paths of a JSON that have types of their own.
//!
//! ClickHouse reads them with another parser than those of columns, and takes other values: it takes fewer of
//! what a column takes, and cuts some that a column refuses. A value is accepted if both take it.

use super::nested::{Elements, Members, Workspace, write_raw};
use super::{ValueError, wide};
use crate::rowbinary::RowBuffer;
use crate::schema::{Cell, ColumnType, TupleElements};

/// Integers up to here are exact however they are written.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Checks the value of a path, whose grammar has been checked. `out` is left as it was.
pub(super) fn check(
    cell: &Cell,
    raw: &[u8],
    workspace: &mut impl Workspace,
    out: &mut RowBuffer,
) -> Result<(), ValueError> {
    if !takes(cell, raw) {
        return Err(ValueError::Mismatch);
    }
    let before = out.len();
    let written = write_raw(cell, raw, workspace, out);
    out.truncate(before);
    written
}

/// False for what ClickHouse refuses although a column of the type takes it. Recurses by the levels of the type.
fn takes(cell: &Cell, raw: &[u8]) -> bool {
    let is_null = raw == b"null";
    let is_text = raw.first() == Some(&b'"');
    match &cell.column_type {
        ColumnType::BFloat16 => false,
        ColumnType::Map(entry) => {
            let [key, value] = &**entry;
            matches!(key.column_type, ColumnType::String)
                && (raw.first() != Some(&b'{') || Members::of(raw).all(|(_, member)| takes(value, member)))
        }
        _ if is_null => true,
        ColumnType::Signed(_) | ColumnType::Unsigned(_) | ColumnType::WideSigned(_) | ColumnType::WideUnsigned(_) => {
            if is_text {
                !matches!(raw, b"\"\"" | b"\"true\"" | b"\"false\"")
            } else {
                !wide::has_point_or_exponent(raw) || magnitude(raw).is_some_and(|magnitude| magnitude <= EXACT_MAX)
            }
        }
        ColumnType::Float32 | ColumnType::Float64 => !matches!(raw, b"\"true\"" | b"\"false\""),
        ColumnType::Decimal { .. } => raw != b"\"\"",
        ColumnType::Date | ColumnType::Date32 | ColumnType::DateTime64 { .. } => is_text,
        ColumnType::DateTime(_) if is_text => true,
        ColumnType::DateTime(_) => {
            !wide::has_point_or_exponent(raw) && magnitude(raw).is_some_and(|seconds| seconds <= f64::from(u32::MAX))
        }
        // A text is a name, never a number.
        ColumnType::Enum8(elements) | ColumnType::Enum16(elements) => {
            let text = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
            !is_text || magnitude(text).is_none() || elements.value(text).is_some()
        }
        ColumnType::Array(element) => {
            raw.first() != Some(&b'[') || Elements::of(raw).all(|value| takes(element, value))
        }
        ColumnType::Tuple(elements) => takes_tuple(elements, raw),
        ColumnType::Variant(types) => types.in_order().any(|(_, cell)| takes(cell, raw)),
        ColumnType::String
        | ColumnType::FixedString(_)
        | ColumnType::Bool
        | ColumnType::Uuid
        | ColumnType::Time
        | ColumnType::Time64(_)
        | ColumnType::Ipv4
        | ColumnType::Ipv6
        | ColumnType::Json(_)
        | ColumnType::Dynamic(_) => true,
    }
}

fn magnitude(raw: &[u8]) -> Option<f64> {
    std::str::from_utf8(raw).ok()?.parse::<f64>().ok().map(f64::abs)
}

/// An object has to have a key of an element. The keys are compared as they are in the line.
fn takes_tuple(elements: &TupleElements, raw: &[u8]) -> bool {
    match raw.first() {
        Some(b'[') => elements.cells.iter().zip(Elements::of(raw)).all(|(cell, value)| takes(cell, value)),
        Some(b'{') => {
            let mut is_any = false;
            Members::of(raw).all(|(key, value)| {
                let key = key.get(1..key.len().saturating_sub(1)).unwrap_or_default();
                let cell = elements.index(key).and_then(|index| elements.cells.get(index));
                is_any |= cell.is_some();
                cell.is_none_or(|cell| takes(cell, value))
            }) && is_any
        }
        _ => false,
    }
}
