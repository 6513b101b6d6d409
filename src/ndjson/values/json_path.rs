//! Values of the paths of a JSON that have types of their own.
//!
//! ClickHouse reads them with another parser than those of columns, and takes other values: it takes fewer of
//! what a column takes, older releases still fewer ([`PathRules`]), and cuts some that a column refuses. A value
//! is accepted if both take it.

use super::nested::{Elements, Members, Workspace, write_raw};
use super::{ValueError, wide};
use crate::rowbinary::RowBuffer;
use crate::schema::{Cell, ColumnType, PathRules, TupleElements, VariantTypes};

/// Integers up to here are exact however they are written.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Ticks of a DateTime64 or a Time64, which ClickHouse keeps in 64 bits.
const TICKS_MAX: f64 = 9_223_372_036_854_775_807.0;

/// Checks the value of a path, whose grammar has been checked. `out` is left as it was.
pub(super) fn check(
    rules: PathRules,
    cell: &Cell,
    raw: &[u8],
    workspace: &mut impl Workspace,
    out: &mut RowBuffer,
) -> Result<(), ValueError> {
    if !(Reader { rules, workspace, out }).takes(cell, raw) {
        return Err(ValueError::Mismatch);
    }
    let before = out.len();
    let written = write_raw(cell, raw, workspace, out);
    out.truncate(before);
    written
}

/// ClickHouse's parser of typed paths.
struct Reader<'a, W> {
    rules: PathRules,
    workspace: &'a mut W,
    out: &'a mut RowBuffer,
}

impl<W: Workspace> Reader<'_, W> {
    /// False for what ClickHouse refuses although a column of the type takes it. Recurses by the levels of the
    /// type.
    fn takes(&mut self, cell: &Cell, raw: &[u8]) -> bool {
        let is_null = raw == b"null";
        let is_text = raw.first() == Some(&b'"');
        match &cell.column_type {
            ColumnType::BFloat16 => false,
            ColumnType::Map(entry) => {
                let [key, value] = &**entry;
                matches!(key.column_type, ColumnType::String)
                    && (raw.first() != Some(&b'{') || Members::of(raw).all(|(_, member)| self.takes(value, member)))
            }
            _ if is_null => true,
            ColumnType::Signed(_)
            | ColumnType::Unsigned(_)
            | ColumnType::WideSigned(_)
            | ColumnType::WideUnsigned(_) => {
                if is_text {
                    !matches!(self.text(raw), b"" | b"true" | b"false")
                } else {
                    matches!(raw, b"true" | b"false")
                        || !wide::has_point_or_exponent(raw)
                        || magnitude(raw).is_some_and(|magnitude| magnitude <= EXACT_MAX)
                }
            }
            ColumnType::Float32 | ColumnType::Float64 if is_text => !matches!(self.text(raw), b"true" | b"false"),
            ColumnType::Float32 | ColumnType::Float64 => {
                !matches!(raw, b"true" | b"false") || self.rules.bools_as_floats
            }
            ColumnType::Decimal { .. } => raw != b"\"\"",
            ColumnType::Date | ColumnType::Date32 | ColumnType::DateTime64 { .. } => is_text,
            ColumnType::DateTime(_) if is_text => true,
            ColumnType::DateTime(_) => {
                self.rules.numbers_as_seconds
                    && !wide::has_point_or_exponent(raw)
                    && magnitude(raw).is_some_and(|seconds| seconds <= f64::from(u32::MAX))
            }
            ColumnType::Time if !is_text => self.rules.numbers_as_seconds,
            ColumnType::Time | ColumnType::Time64(_) if is_text => self.rules.texts_as_spans,
            // A text is a name, never a number.
            ColumnType::Enum8(elements) | ColumnType::Enum16(elements) => {
                let text = self.text(raw);
                !is_text || magnitude(text).is_none() || elements.value(text).is_some()
            }
            ColumnType::Array(element) => {
                raw.first() != Some(&b'[') || Elements::of(raw).all(|value| self.takes(element, value))
            }
            ColumnType::Tuple(elements) => self.takes_tuple(elements, raw),
            ColumnType::Variant(types) => self.takes_variant(types, raw),
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

    /// There has to be one type that takes it in ClickHouse and as a column. The types before it have to refuse
    /// it: at some numbers ClickHouse gives up in place of that, and tries no further type.
    fn takes_variant(&mut self, types: &VariantTypes, raw: &[u8]) -> bool {
        for (_, cell) in types.in_order() {
            if self.overflows(cell, raw) {
                return false;
            }
            if check(self.rules, cell, raw, self.workspace, self.out).is_ok() {
                return true;
            }
        }
        false
    }

    /// True for a number that is too large for a type of a fixed scale. Recurses by the levels of the type.
    fn overflows(&mut self, cell: &Cell, raw: &[u8]) -> bool {
        match (&cell.column_type, raw.first()) {
            (ColumnType::Decimal { .. }, Some(b'-' | b'0'..=b'9')) => {
                let before = self.out.len();
                let written = write_raw(cell, raw, self.workspace, self.out);
                self.out.truncate(before);
                written.is_err()
            }
            (ColumnType::DateTime64 { precision, .. } | ColumnType::Time64(precision), Some(b'-' | b'0'..=b'9')) => {
                let ticks = magnitude(raw).map(|seconds| seconds * 10f64.powi(i32::from(*precision)));
                ticks.is_none_or(|ticks| ticks >= TICKS_MAX)
            }
            (ColumnType::Array(element), Some(b'[')) => Elements::of(raw).any(|value| self.overflows(element, value)),
            (ColumnType::Map(entry), Some(b'{')) => {
                let [_, value] = &**entry;
                Members::of(raw).any(|(_, member)| self.overflows(value, member))
            }
            (ColumnType::Tuple(elements), Some(b'[')) => {
                elements.cells.iter().zip(Elements::of(raw)).any(|(cell, value)| self.overflows(cell, value))
            }
            (ColumnType::Tuple(elements), Some(b'{')) => Members::of(raw).any(|(key, value)| {
                let cell = self.element_of(elements, key);
                cell.is_some_and(|cell| self.overflows(cell, value))
            }),
            _ => false,
        }
    }

    /// An object has to have a key of an element.
    fn takes_tuple(&mut self, elements: &TupleElements, raw: &[u8]) -> bool {
        match raw.first() {
            Some(b'[') => elements.cells.iter().zip(Elements::of(raw)).all(|(cell, value)| self.takes(cell, value)),
            Some(b'{') => {
                let mut is_any = false;
                Members::of(raw).all(|(key, value)| {
                    let cell = self.element_of(elements, key);
                    is_any |= cell.is_some();
                    cell.is_none_or(|cell| self.takes(cell, value))
                }) && is_any
            }
            _ => false,
        }
    }

    /// The text of a string; nothing for another value, or one that is refused by everybody.
    fn text<'t>(&'t mut self, raw: &'t [u8]) -> &'t [u8] {
        if raw.first() == Some(&b'"') { self.workspace.decode(raw).unwrap_or_default() } else { b"" }
    }

    /// The element of a key, which is given with its quotes.
    fn element_of<'e>(&mut self, elements: &'e TupleElements, key: &[u8]) -> Option<&'e Cell> {
        elements.index(self.text(key)).and_then(|index| elements.cells.get(index))
    }
}

fn magnitude(raw: &[u8]) -> Option<f64> {
    std::str::from_utf8(raw).ok()?.parse::<f64>().ok().map(f64::abs)
}
