//! From a JSON value to a cell: one file a family of types.
//!
//! Each family has two ways in. `read` takes the value in place, where it stands in the body, if
//! it has its usual form, and answers `None` for any other. `write` takes a [`JsonToken`], a value
//! whose extent and grammar are known and whose escapes are decoded, in any form that is
//! accepted; it alone decides what is refused. Whatever `read` takes, `write` must take with the
//! same bytes; the tests hold them against each other.

pub(super) mod address;
mod calendar;
mod enumeration;
mod moment;
mod number;
pub(super) mod text;
pub(super) mod time;
mod uuid;

use crate::rowbinary::RowBuffer;
use crate::schema::{ColumnType, Field};

/// A value that is known to be JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonToken<'a> {
    /// A string, decoded.
    Text(&'a [u8]),
    /// A number as it stands.
    Number(&'a [u8]),
    /// `true`
    True,
    /// `false`
    False,
    /// `null`
    Null,
    /// An object or an array as it stands.
    Nested(&'a [u8]),
}

impl<'a> JsonToken<'a> {
    /// The token of a number or literal that is known to be one.
    pub(crate) fn of_bare(raw: &'a [u8]) -> Self {
        match raw {
            b"true" => Self::True,
            b"false" => Self::False,
            b"null" => Self::Null,
            number => Self::Number(number),
        }
    }
}

/// Why a value is not accepted by its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueError {
    /// It is nothing that the type can be read from.
    Mismatch,
    /// It is of the right sort, but the type can't hold it.
    OutOfRange,
}

/// Writes the value at `at` if it has its usual form: the place behind it. On `None` bytes may
/// have been written, which the caller takes back.
#[inline]
pub(crate) fn read(field: &Field, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    if field.nullable {
        out.put([0]);
    }
    match &field.column_type {
        ColumnType::String => text::read(body, at, out),
        ColumnType::Signed(width) => number::read_signed(*width, body, at, out),
        ColumnType::DateTime(zone) => time::read_date_time(*zone, body, at, out),
        _ => read_rarer(field, body, at, out),
    }
}

/// The kinds that few tables have many of: kept out of the loop over a line, so that it stays
/// small.
#[inline(never)]
fn read_rarer(field: &Field, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    match &field.column_type {
        ColumnType::String | ColumnType::Signed(_) | ColumnType::DateTime(_) | ColumnType::Ipv4 | ColumnType::Ipv6 => {
            None
        }
        ColumnType::Unsigned(width) => number::read_unsigned(*width, body, at, out),
        ColumnType::Float32 => number::read_float32(body, at, out),
        ColumnType::Float64 => number::read_float64(body, at, out),
        ColumnType::Bool => number::read_bool(body, at, out),
        ColumnType::Uuid => uuid::read(body, at, out),
        ColumnType::FixedString(length) => text::read_fixed(*length, body, at, out),
        ColumnType::DateTime64 { precision, zone } => time::read_date_time64(*precision, *zone, body, at, out),
        ColumnType::Enum8(elements) => enumeration::read(elements, 1, body, at, out),
        ColumnType::Enum16(elements) => enumeration::read(elements, 2, body, at, out),
        ColumnType::Date => time::read_date(body, at, out),
        ColumnType::Date32 => time::read_date32(body, at, out),
    }
}

/// Writes the cell of a value in any form that is accepted. On a refusal bytes may have been
/// written, which the caller takes back.
pub(crate) fn write(field: &Field, token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    if token == JsonToken::Null {
        out.put_slice(&field.default);
        return Ok(());
    }
    if field.nullable {
        out.put([0]);
    }
    match &field.column_type {
        ColumnType::String => text::write(token, out),
        ColumnType::FixedString(length) => text::write_fixed(*length, token, out),
        ColumnType::Signed(width) => number::write_signed(*width, token, out),
        ColumnType::Unsigned(width) => number::write_unsigned(*width, token, out),
        ColumnType::Float32 => number::write_float32(token, out),
        ColumnType::Float64 => number::write_float64(token, out),
        ColumnType::Bool => number::write_bool(token, out),
        ColumnType::Uuid => uuid::write(token, out),
        ColumnType::Date => time::write_date(token, out),
        ColumnType::Date32 => time::write_date32(token, out),
        ColumnType::DateTime(zone) => time::write_date_time(*zone, token, out),
        ColumnType::DateTime64 { precision, zone } => time::write_date_time64(*precision, *zone, token, out),
        ColumnType::Ipv4 => address::write_v4(token, out),
        ColumnType::Ipv6 => address::write_v6(token, out),
        ColumnType::Enum8(elements) => enumeration::write(elements, 1, token, out),
        ColumnType::Enum16(elements) => enumeration::write(elements, 2, token, out),
    }
}
