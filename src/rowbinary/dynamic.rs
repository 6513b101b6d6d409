//! The types in front of the values of a Dynamic, in ClickHouse's binary form
//! (<https://clickhouse.com/docs/sql-reference/data-types/data-types-binary-encoding>), as far as the row
//! encoder writes them.

use super::DataType;

/// Levels of the arrays in a Dynamic value, those of Dynamic values inside included. They are the client's, and
/// every walk over such a value recurses by them; choosing the types goes over the innermost values once for
/// each pair of levels, so that more levels would let a line cost more than its length. Objects do not count.
pub const DYNAMIC_DEPTH_MAX: usize = 8;

/// `Nothing`: the type of NULL.
pub const NOTHING: u8 = 0x00;
/// `UInt64`
pub const UINT64: u8 = 0x04;
/// `Int64`
pub const INT64: u8 = 0x0a;
/// `Float64`
pub const FLOAT64: u8 = 0x0e;
/// `Date`
pub const DATE: u8 = 0x0f;
/// `DateTime`, without a zone
pub const DATE_TIME: u8 = 0x11;
/// `DateTime64(9)`, without a zone
pub const DATE_TIME64: [u8; 2] = [0x13, 9];
/// `String`
pub const STRING: u8 = 0x15;
/// `Array`, in front of the type of its elements
pub const ARRAY: u8 = 0x1e;
/// `Nullable`, in front of the type inside
pub const NULLABLE: u8 = 0x23;
/// `Dynamic(max_types = 32)`, which is the default
pub const DYNAMIC: [u8; 2] = [0x2b, 32];
/// `Bool`
pub const BOOL: u8 = 0x2d;
/// `JSON`: version 0, 1024 paths and 32 types at most, which is the default; no paths with types, none that are
/// skipped
pub const JSON: [u8; 8] = [0x30, 0, 0x80, 0x08, 32, 0, 0, 0];

/// The type that `bytes` begin with, and the bytes behind it; the type is `None` for NULL. `None` if it is not
/// one of those above, or has too many levels.
pub fn read_dynamic_type(bytes: &[u8]) -> Option<(Option<DataType>, &[u8])> {
    let mut rest = bytes;
    let mut levels = 0;
    while let [ARRAY, inner @ ..] = rest {
        levels += 1;
        if levels > DYNAMIC_DEPTH_MAX {
            return None;
        }
        rest = inner;
    }
    let is_nullable = rest.first() == Some(&NULLABLE);
    if is_nullable {
        rest = rest.get(1..)?;
    }
    let (leaf, rest) = match rest {
        [NOTHING, rest @ ..] if levels == 0 && !is_nullable => return Some((None, rest)),
        [UINT64, rest @ ..] => (DataType::Unsigned(8), rest),
        [INT64, rest @ ..] => (DataType::Signed(8), rest),
        [FLOAT64, rest @ ..] => (DataType::Float64, rest),
        [DATE, rest @ ..] => (DataType::Date, rest),
        [DATE_TIME, rest @ ..] => (DataType::DateTime { zone: None }, rest),
        [0x13, 9, rest @ ..] => (DataType::DateTime64 { precision: 9, zone: None }, rest),
        [STRING, rest @ ..] => (DataType::String, rest),
        [BOOL, rest @ ..] => (DataType::Bool, rest),
        _ => match (rest.strip_prefix(&DYNAMIC), rest.strip_prefix(&JSON)) {
            (Some(rest), _) => (DataType::Dynamic, rest),
            (None, Some(rest)) => (DataType::json(), rest),
            (None, None) => return None,
        },
    };
    let leaf = if is_nullable { DataType::Nullable(Box::new(leaf)) } else { leaf };
    Some((Some((0..levels).fold(leaf, |inner, _| DataType::Array(Box::new(inner)))), rest))
}
