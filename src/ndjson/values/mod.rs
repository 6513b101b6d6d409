//! Conversion of a JSON value to a RowBinary value: one file per family of types.
//!
//! Each family has two functions. `read` is for the fast path: it parses the value in the body, if the
//! value has the usual form of its type, and returns `None` for any other form. `write` converts a
//! [`JsonToken`], which is valid JSON with decoded escapes, in any accepted form; it alone rejects
//! values. Whatever `read` accepts, `write` must accept with the same bytes; the tests compare them.
//!
//! A column is a tree of cells. `nested` goes down into arrays, maps and tuples; it recurses by the
//! levels of the type, which are limited when the plan is made, and never by what a client sends.

pub(super) mod address;
mod calendar;
mod decimal;
mod dynamic;
mod enumeration;
pub(super) mod json;
mod json_path;
mod moment;
pub(super) mod nested;
pub(super) mod number;
pub(super) mod text;
pub(super) mod time;
mod time_of_day;
mod unix;
mod uuid;
mod wide;
mod zone;

use self::nested::Workspace;
use crate::rowbinary::RowBuffer;
use crate::schema::{Cell, ColumnType, Field, TimeUnit, VariantTypes};

/// A JSON value whose grammar has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsonToken<'a> {
    /// A string, its escapes decoded.
    Text(&'a [u8]),
    /// A number, as in the line.
    Number(&'a [u8]),
    /// `true`
    True,
    /// `false`
    False,
    /// `null`
    Null,
    /// An object or an array, as in the line.
    Nested(&'a [u8]),
}

impl<'a> JsonToken<'a> {
    /// The token of `raw`, which is a number, `true`, `false` or `null`.
    pub(crate) fn of_bare(raw: &'a [u8]) -> Self {
        match raw {
            b"true" => Self::True,
            b"false" => Self::False,
            b"null" => Self::Null,
            number => Self::Number(number),
        }
    }
}

/// Why a value can't be stored in its column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ValueError {
    /// The value can't be converted to the type.
    Mismatch,
    /// The value is outside the range of the type.
    OutOfRange,
    /// A text inside the value has an unpaired surrogate.
    Surrogate,
    /// An object inside the value has two values for an element of a Tuple.
    Duplicate,
}

/// Writes the value of a field at `at`, if it has the usual form of its type, and returns the offset after
/// it. On `None` the caller removes the bytes that were written.
///
/// Called where a line ends, and made part of that; values inside of others have a function of
/// their own, so that this stays so.
#[inline(always)]
pub(crate) fn read_field(field: &Field, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    if field.lead > 0 {
        put_lead(field.lead, out);
    }
    read_type(&field.cell.column_type, body, at, out)
}

/// [`read_field`] in a function of its own.
#[inline(never)]
pub(crate) fn read_any(field: &Field, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    read_field(field, body, at, out)
}

/// [`read_field`] for an array, an object or a text with escapes.
#[inline(never)]
pub(crate) fn read_field_aside(field: &Field, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    if field.lead > 0 {
        put_lead(field.lead, out);
    }
    read_rarer(&field.cell.column_type, body, at, out)
}

#[inline(always)]
fn put_lead(lead: u8, out: &mut RowBuffer) {
    out.put([0]);
    if lead > 1 {
        put_second(out);
    }
}

#[cold]
#[inline(never)]
fn put_second(out: &mut RowBuffer) {
    out.put([0]);
}

/// [`read_field`] for a value inside of another one.
#[inline(never)]
fn read(cell: &Cell, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    if cell.nullable {
        out.put([0]);
    }
    read_type(&cell.column_type, body, at, out)
}

#[inline(always)]
fn read_type(column_type: &ColumnType, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    match column_type {
        ColumnType::String => text::read(body, at, out),
        ColumnType::Signed(width) => number::read_signed(*width, body, at, out),
        ColumnType::DateTime(zone) => time::read_date_time(*zone, body, at, out),
        _ => read_rarer(column_type, body, at, out),
    }
}

/// [`read_type`] for less common types. They are kept out of the loop over a line, so that its code stays
/// small.
#[inline(never)]
fn read_rarer(column_type: &ColumnType, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    match column_type {
        ColumnType::String
        | ColumnType::Signed(_)
        | ColumnType::DateTime(_)
        | ColumnType::Ipv4
        | ColumnType::Ipv6
        | ColumnType::Variant(_)
        | ColumnType::Json(_)
        | ColumnType::Dynamic(_) => None,
        ColumnType::Unsigned(width) => number::read_unsigned(*width, body, at, out),
        ColumnType::WideSigned(width) => wide::read_signed(*width, body, at, out),
        ColumnType::WideUnsigned(width) => wide::read_unsigned(*width, body, at, out),
        ColumnType::Decimal { precision, scale, width } => decimal::read(*precision, *scale, *width, body, at, out),
        ColumnType::Float32 => number::read_float32(body, at, out),
        ColumnType::Float64 => number::read_float64(body, at, out),
        ColumnType::BFloat16 => number::read_bfloat16(body, at, out),
        ColumnType::Bool => number::read_bool(body, at, out),
        ColumnType::Uuid => uuid::read(body, at, out),
        ColumnType::FixedString(length) => text::read_fixed(*length, body, at, out),
        ColumnType::DateTime64 { precision, zone } => time::read_date_time64(*precision, *zone, body, at, out),
        ColumnType::Enum8(elements) => enumeration::read(elements, 1, body, at, out),
        ColumnType::Enum16(elements) => enumeration::read(elements, 2, body, at, out),
        ColumnType::Date => time::read_date(body, at, out),
        ColumnType::Date32 => time::read_date32(body, at, out),
        ColumnType::Time => time_of_day::read(body, at, out),
        ColumnType::Time64(precision) => time_of_day::read64(*precision, body, at, out),
        ColumnType::Array(element) => nested::read_array(element, body, at, out),
        ColumnType::Map(entry) => nested::read_map(entry, body, at, out),
        ColumnType::Tuple(elements) => nested::read_tuple(elements, body, at, out),
    }
}

/// Writes the value of a field in any accepted form. On an error the caller removes the bytes that were
/// written.
pub(crate) fn write_field(
    field: &Field,
    token: JsonToken<'_>,
    workspace: &mut impl Workspace,
    out: &mut RowBuffer,
) -> Result<(), ValueError> {
    if token == JsonToken::Null {
        out.put_slice(&field.absent.null);
        return Ok(());
    }
    if field.lead > 0 {
        put_lead(field.lead, out);
    }
    match (field.unit, token) {
        (Some(unit), JsonToken::Number(number)) => time::write_in_unit(unit, number, &field.cell.column_type, out),
        _ => write_type(&field.cell.column_type, token, workspace, out),
    }
}

/// The unit that was guessed for a value of the field; `None` if it is no bare number in a column of times.
pub(crate) fn guessed_unit(field: &Field, token: JsonToken<'_>) -> Option<TimeUnit> {
    match token {
        JsonToken::Number(number) if field.guesses_unit() => unix::unit_of_number(number),
        _ => None,
    }
}

/// [`write_field`] for a value inside of another one.
fn write(
    cell: &Cell,
    token: JsonToken<'_>,
    workspace: &mut impl Workspace,
    out: &mut RowBuffer,
) -> Result<(), ValueError> {
    if token == JsonToken::Null {
        out.put_slice(&cell.null);
        return Ok(());
    }
    if cell.nullable {
        out.put([0]);
    }
    write_type(&cell.column_type, token, workspace, out)
}

fn write_type(
    column_type: &ColumnType,
    token: JsonToken<'_>,
    workspace: &mut impl Workspace,
    out: &mut RowBuffer,
) -> Result<(), ValueError> {
    match (column_type, token) {
        (ColumnType::Array(element), JsonToken::Nested(raw)) => nested::write_array(element, raw, workspace, out),
        (ColumnType::Map(entry), JsonToken::Nested(raw)) => nested::write_map(entry, raw, workspace, out),
        (ColumnType::Tuple(elements), JsonToken::Nested(raw)) => nested::write_tuple(elements, raw, workspace, out),
        (ColumnType::Json(paths), JsonToken::Nested(raw)) => json::write(raw, Some(paths), workspace, out),
        (ColumnType::Dynamic(zone), JsonToken::Nested(raw)) => dynamic::write_nested(*zone, raw, workspace, out),
        (ColumnType::Variant(types), JsonToken::Nested(_)) => {
            write_first(types, out, |cell, out| write(cell, token, workspace, out))
        }
        (scalar, token) => write_scalar(scalar, token, out),
    }
}

/// [`write_type`] for a type without elements.
fn write_scalar(column_type: &ColumnType, token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    match column_type {
        ColumnType::String => text::write(token, out),
        ColumnType::FixedString(length) => text::write_fixed(*length, token, out),
        ColumnType::Signed(width) => number::write_signed(*width, token, out),
        ColumnType::Unsigned(width) => number::write_unsigned(*width, token, out),
        ColumnType::WideSigned(width) => wide::write_signed(*width, token, out),
        ColumnType::WideUnsigned(width) => wide::write_unsigned(*width, token, out),
        ColumnType::Decimal { precision, scale, width } => decimal::write(*precision, *scale, *width, token, out),
        ColumnType::Float32 => number::write_float32(token, out),
        ColumnType::Float64 => number::write_float64(token, out),
        ColumnType::BFloat16 => number::write_bfloat16(token, out),
        ColumnType::Bool => number::write_bool(token, out),
        ColumnType::Uuid => uuid::write(token, out),
        ColumnType::Date => time::write_date(token, out),
        ColumnType::Date32 => time::write_date32(token, out),
        ColumnType::DateTime(zone) => time::write_date_time(*zone, token, out),
        ColumnType::DateTime64 { precision, zone } => time::write_date_time64(*precision, *zone, token, out),
        ColumnType::Time => time_of_day::write(token, out),
        ColumnType::Time64(precision) => time_of_day::write64(*precision, token, out),
        ColumnType::Ipv4 => address::write_v4(token, out),
        ColumnType::Ipv6 => address::write_v6(token, out),
        ColumnType::Enum8(elements) => enumeration::write(elements, 1, token, out),
        ColumnType::Enum16(elements) => enumeration::write(elements, 2, token, out),
        ColumnType::Variant(types) => write_first(types, out, |cell, out| match (&cell.column_type, token) {
            // In a Variant a number with a point or an exponent is no integer.
            (
                ColumnType::Signed(_)
                | ColumnType::Unsigned(_)
                | ColumnType::WideSigned(_)
                | ColumnType::WideUnsigned(_),
                JsonToken::Number(text),
            ) if wide::has_point_or_exponent(text) => Err(ValueError::Mismatch),
            (column_type, token) => write_scalar(column_type, token, out),
        }),
        ColumnType::Dynamic(zone) => dynamic::write_scalar(*zone, token, out),
        ColumnType::Array(_) | ColumnType::Map(_) | ColumnType::Tuple(_) | ColumnType::Json(_) => {
            Err(ValueError::Mismatch)
        }
    }
}

/// Writes the value of a Variant with the first type that takes it.
fn write_first(
    types: &VariantTypes,
    out: &mut RowBuffer,
    mut write: impl FnMut(&Cell, &mut RowBuffer) -> Result<(), ValueError>,
) -> Result<(), ValueError> {
    let before = out.len();
    let mut refused = ValueError::Mismatch;
    for (index, cell) in types.in_order() {
        out.put([index]);
        match write(cell, out) {
            Ok(()) => return Ok(()),
            Err(ValueError::Mismatch) => {}
            Err(error) => refused = error,
        }
        out.truncate(before);
    }
    Err(refused)
}
