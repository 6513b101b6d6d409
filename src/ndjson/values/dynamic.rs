//! Dynamic values: each has its type in front.
//!
//! ClickHouse chooses the type of a JSON value, and not in the same way with every version, nor for every row.
//! Here the value alone decides, as follows.
//!
//! | value | type |
//! |---|---|
//! | `null`, `true` and `false` | NULL, Bool |
//! | an integer | Int64, else UInt64, else `out_of_range` |
//! | another number | Float64 |
//! | `"2020-12-01"`, `"2020-12-01 23:09:54"`, also with `T`, a fraction and an offset | Date, DateTime, DateTime64(9): the first that has room for it |
//! | any other text | String |
//! | an object | JSON |
//! | an array | Array of the Nullable type that all its elements have; of DateTime or DateTime64(9) if they are times, of String if some are times and some not, of Float64 if some are integers and some not; else Array(Dynamic) |
//!
//! Arrays recurse, at most [`DYNAMIC_DEPTH_MAX`] levels.

use super::nested::{Elements, Workspace};
use super::{JsonToken, ValueError, json, time};
use crate::rowbinary::RowBuffer;
use crate::rowbinary::dynamic::{
    ARRAY, BOOL, DATE, DATE_TIME, DATE_TIME64, DYNAMIC, DYNAMIC_DEPTH_MAX, FLOAT64, INT64, JSON, NOTHING, NULLABLE,
    STRING, UINT64,
};
use crate::schema::Zone;

/// From here on a Float64 does not hold every integer.
const EXACT_INTEGERS: u64 = 1 << 53;

/// A type: arrays around the type of their innermost elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    levels: usize,
    leaf: Leaf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaf {
    /// Of `null`, and of the elements of an empty array.
    Nothing,
    Bool,
    Integer {
        /// One of them is below 0.
        negative: bool,
        /// One of them is too large for Int64.
        large: bool,
        /// A Float64 holds all of them.
        exact: bool,
    },
    Float,
    Text,
    Date,
    DateTime,
    DateTime64,
    Object,
    /// Values of several types.
    Dynamic,
}

/// Writes a value that is no object and no array, with its type in front.
pub(super) fn write_scalar(zone: Zone, token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    let leaf = leaf_of(zone, token, out)?;
    put_type(Shape { levels: 0, leaf }, out);
    put_scalar(zone, leaf, token, out)
}

/// Writes an object or array, given as in the line, with its type in front.
pub(super) fn write_nested(
    zone: Zone,
    raw: &[u8],
    workspace: &mut impl Workspace,
    out: &mut RowBuffer,
) -> Result<(), ValueError> {
    put_dynamic(zone, raw, 0, workspace, out)
}

fn put_dynamic(
    zone: Zone,
    raw: &[u8],
    depth: usize,
    workspace: &mut impl Workspace,
    out: &mut RowBuffer,
) -> Result<(), ValueError> {
    let shape = shape_of(zone, raw, depth, workspace, out)?;
    put_type(shape, out);
    put(zone, shape, raw, depth, workspace, out)
}

/// The type of a value as it is in the line. `out` is left as it was.
fn shape_of(
    zone: Zone,
    raw: &[u8],
    depth: usize,
    workspace: &mut impl Workspace,
    out: &mut RowBuffer,
) -> Result<Shape, ValueError> {
    let leaf = match raw.first() {
        Some(b'{') => Leaf::Object,
        Some(b'[') => {
            if depth >= DYNAMIC_DEPTH_MAX {
                return Err(ValueError::OutOfRange);
            }
            let mut elements: Option<Shape> = None;
            for raw in Elements::of(raw) {
                let element = shape_of(zone, raw, depth + 1, workspace, out)?;
                elements = Some(elements.map_or(element, |elements| elements.with(element)));
            }
            let elements = elements.unwrap_or(Shape { levels: 0, leaf: Leaf::Nothing });
            return Ok(Shape { levels: elements.levels + 1, ..elements });
        }
        _ => leaf_of(zone, token_of(raw, workspace)?, out)?,
    };
    Ok(Shape { levels: 0, leaf })
}

/// The token of a value that is no object and no array.
fn token_of<'a>(raw: &'a [u8], workspace: &'a mut impl Workspace) -> Result<JsonToken<'a>, ValueError> {
    match raw.first() {
        Some(b'"') => workspace.decode(raw).map(JsonToken::Text).ok_or(ValueError::Surrogate),
        _ => Ok(JsonToken::of_bare(raw)),
    }
}

/// The type of a value that is no object and no array. `out` is left as it was.
fn leaf_of(zone: Zone, token: JsonToken<'_>, out: &mut RowBuffer) -> Result<Leaf, ValueError> {
    Ok(match token {
        JsonToken::Null => Leaf::Nothing,
        JsonToken::True | JsonToken::False => Leaf::Bool,
        JsonToken::Number(text) => shape_of_number(text)?,
        JsonToken::Text(text) => shape_of_text(zone, text, out),
        JsonToken::Nested(_) => return Err(ValueError::Mismatch),
    })
}

fn shape_of_number(text: &[u8]) -> Result<Leaf, ValueError> {
    let text = std::str::from_utf8(text).map_err(|_| ValueError::Mismatch)?;
    if text.contains(['.', 'e', 'E']) {
        let fits = text.parse::<f64>().is_ok_and(f64::is_finite);
        return if fits { Ok(Leaf::Float) } else { Err(ValueError::OutOfRange) };
    }
    let (negative, magnitude) = match (text.parse::<i64>(), text.parse::<u64>()) {
        (Ok(value), _) => (value < 0, value.unsigned_abs()),
        (Err(_), Ok(value)) => (false, value),
        (Err(_), Err(_)) => return Err(ValueError::OutOfRange),
    };
    Ok(Leaf::Integer {
        negative,
        large: !negative && i64::try_from(magnitude).is_err(),
        exact: magnitude <= EXACT_INTEGERS,
    })
}

/// The type of a text: that of a time if it is one in the usual form.
fn shape_of_text(zone: Zone, text: &[u8], out: &mut RowBuffer) -> Leaf {
    let Some(leafs) = times_of(text) else { return Leaf::Text };
    let before = out.len();
    let fitting = leafs.iter().copied().find(|leaf| {
        let done = put_text(zone, *leaf, text, out);
        out.truncate(before);
        done.is_ok()
    });
    fitting.unwrap_or(Leaf::Text)
}

/// The types that a text may be a value of if it has the form of a time.
fn times_of(text: &[u8]) -> Option<&'static [Leaf]> {
    const LONGEST: usize = 40;
    let matches = |text: &[u8], form: &[u8]| {
        text.iter().zip(form).all(|(byte, form)| if *form == b'0' { byte.is_ascii_digit() } else { byte == form })
    };
    let date = text.get(..10)?;
    if !matches(date, b"0000-00-00") || text.len() > LONGEST {
        return None;
    }
    let Some(rest) = text.get(10..19) else { return (text.len() == 10).then_some(&[Leaf::Date, Leaf::DateTime64]) };
    if !matches(rest, b" 00:00:00") && !matches(rest, b"T00:00:00") {
        return None;
    }
    let zone = text.get(19..)?;
    let has_fraction = zone.first() == Some(&b'.');
    let digits = zone.iter().skip(1).take_while(|byte| byte.is_ascii_digit()).count();
    let zone = match has_fraction {
        true if digits > 0 => zone.get(1 + digits..)?,
        true => return None,
        false => zone,
    };
    let is_zone = match zone {
        b"" | b"Z" => true,
        [b'+' | b'-', offset @ ..] => offset.len() == 5 && matches(offset, b"00:00"),
        _ => false,
    };
    let leafs: &[Leaf] = if has_fraction { &[Leaf::DateTime64] } else { &[Leaf::DateTime, Leaf::DateTime64] };
    is_zone.then_some(leafs)
}

impl Shape {
    /// The type of values of both types.
    fn with(self, other: Self) -> Self {
        let dynamic = Self { levels: 0, leaf: Leaf::Dynamic };
        if self == other {
            return self;
        }
        let is_emptier = self.leaf == Leaf::Nothing && (other.leaf != Leaf::Nothing || self.levels < other.levels);
        let (empty, full) = if is_emptier { (self, other) } else { (other, self) };
        if empty.leaf == Leaf::Nothing {
            let is_nullable = !matches!(full.leaf, Leaf::Object | Leaf::Dynamic);
            // NULL stands beside plain values, an empty array beside any array of as many levels.
            let fits = if empty.levels == 0 { full.levels == 0 && is_nullable } else { full.levels >= empty.levels };
            let takes_null = empty.levels == 0 && full == dynamic;
            return if fits || takes_null { full } else { dynamic };
        }
        if self.levels != other.levels {
            return dynamic;
        }
        let leaf = match (self.leaf, other.leaf) {
            (
                Leaf::Integer { negative, large, exact },
                Leaf::Integer { negative: or_negative, large: or_large, exact: or_exact },
            ) => {
                let (negative, large) = (negative || or_negative, large || or_large);
                if negative && large {
                    return dynamic;
                }
                Leaf::Integer { negative, large, exact: exact && or_exact }
            }
            (Leaf::Float, Leaf::Integer { exact: true, .. }) | (Leaf::Integer { exact: true, .. }, Leaf::Float) => {
                Leaf::Float
            }
            (
                one @ (Leaf::Text | Leaf::Date | Leaf::DateTime | Leaf::DateTime64),
                other @ (Leaf::Text | Leaf::Date | Leaf::DateTime | Leaf::DateTime64),
            ) => match (one, other) {
                (Leaf::Text, _) | (_, Leaf::Text) => Leaf::Text,
                (Leaf::DateTime64, _) | (_, Leaf::DateTime64) => Leaf::DateTime64,
                _ => Leaf::DateTime,
            },
            (Leaf::Dynamic, _) | (_, Leaf::Dynamic) => Leaf::Dynamic,
            _ => return dynamic,
        };
        Self { levels: self.levels, leaf }
    }
}

fn put_type(shape: Shape, out: &mut RowBuffer) {
    for _ in 0..shape.levels {
        out.put([ARRAY]);
    }
    if shape.levels > 0 && !matches!(shape.leaf, Leaf::Object | Leaf::Dynamic) {
        out.put([NULLABLE]);
    }
    match shape.leaf {
        Leaf::Nothing if shape.levels == 0 => out.put([NOTHING]),
        Leaf::Nothing | Leaf::Text => out.put([STRING]),
        Leaf::Bool => out.put([BOOL]),
        Leaf::Integer { large: false, .. } => out.put([INT64]),
        Leaf::Integer { large: true, .. } => out.put([UINT64]),
        Leaf::Float => out.put([FLOAT64]),
        Leaf::Date => out.put([DATE]),
        Leaf::DateTime => out.put([DATE_TIME]),
        Leaf::DateTime64 => out.put(DATE_TIME64),
        Leaf::Object => out.put(JSON),
        Leaf::Dynamic => out.put(DYNAMIC),
    }
}

/// Writes a value whose type stands in front of it.
fn put(
    zone: Zone,
    shape: Shape,
    raw: &[u8],
    depth: usize,
    workspace: &mut impl Workspace,
    out: &mut RowBuffer,
) -> Result<(), ValueError> {
    match (raw.first(), shape.levels) {
        (Some(b'['), 1..) => {
            let inner = Shape { levels: shape.levels - 1, ..shape };
            let (place, mut count) = (out.len(), 0);
            out.put([0]);
            for raw in Elements::of(raw) {
                put_element(zone, inner, raw, depth + 1, workspace, out)?;
                count += 1;
            }
            out.set_length(place, count);
            Ok(())
        }
        (Some(b'{'), 0) => json::write(raw, None, workspace, out),
        (Some(b'{' | b'['), _) => Err(ValueError::Mismatch),
        _ => put_scalar(zone, shape.leaf, token_of(raw, workspace)?, out),
    }
}

fn put_element(
    zone: Zone,
    shape: Shape,
    raw: &[u8],
    depth: usize,
    workspace: &mut impl Workspace,
    out: &mut RowBuffer,
) -> Result<(), ValueError> {
    match (shape.levels, shape.leaf) {
        (0, Leaf::Dynamic) => return put_dynamic(zone, raw, depth, workspace, out),
        (0, Leaf::Object) | (1.., _) => {}
        (0, _) => out.put([u8::from(raw == b"null")]),
    }
    put(zone, shape, raw, depth, workspace, out)
}

fn put_scalar(zone: Zone, leaf: Leaf, token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    match token {
        JsonToken::Null => {}
        JsonToken::True | JsonToken::False => out.put([u8::from(token == JsonToken::True)]),
        JsonToken::Number(text) => return put_number(leaf, text, out),
        JsonToken::Text(text) => return put_text(zone, leaf, text, out),
        JsonToken::Nested(_) => return Err(ValueError::Mismatch),
    }
    Ok(())
}

fn put_text(zone: Zone, leaf: Leaf, text: &[u8], out: &mut RowBuffer) -> Result<(), ValueError> {
    let token = JsonToken::Text(text);
    match leaf {
        Leaf::Date => time::write_date(token, out),
        Leaf::DateTime => time::write_date_time(zone, token, out),
        Leaf::DateTime64 => time::write_date_time64(9, zone, token, out),
        _ => {
            out.put_string(text);
            Ok(())
        }
    }
}

fn put_number(leaf: Leaf, text: &[u8], out: &mut RowBuffer) -> Result<(), ValueError> {
    let text = std::str::from_utf8(text).map_err(|_| ValueError::Mismatch)?;
    let number = match leaf {
        Leaf::Float => text.parse::<f64>().map(f64::to_le_bytes).ok(),
        Leaf::Integer { large: true, .. } => text.parse::<u64>().map(u64::to_le_bytes).ok(),
        _ => text.parse::<i64>().map(i64::to_le_bytes).ok(),
    };
    out.put(number.ok_or(ValueError::OutOfRange)?);
    Ok(())
}
