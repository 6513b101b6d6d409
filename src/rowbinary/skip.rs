//! Finding the end of a RowBinary value without decoding the value.

use super::DataType;
use super::dynamic::{DYNAMIC_DEPTH_MAX, read_dynamic_type};

/// The bytes after the value of this type that `bytes` begin with; `None` when that value is
/// incomplete, or nothing is known of such values.
///
/// Recurses by the levels of the type, which its parser limits; and by those of the types inside of a Dynamic,
/// which are limited here.
pub fn skip_value<'a>(data_type: &DataType, bytes: &'a [u8]) -> Option<&'a [u8]> {
    skip(data_type, bytes, 0)
}

/// [`skip_value`] inside of so many Dynamic values.
fn skip<'a>(data_type: &DataType, bytes: &'a [u8], depth: usize) -> Option<&'a [u8]> {
    let skip_value = |data_type, bytes| skip(data_type, bytes, depth);
    match data_type {
        DataType::LowCardinality(inner) => skip_value(inner, bytes),
        DataType::Nullable(inner) => {
            let (is_null, rest) = bytes.split_first()?;
            if *is_null == 1 { Some(rest) } else { skip_value(inner, rest) }
        }
        DataType::Dynamic => match read_dynamic_type(bytes)? {
            (None, rest) => Some(rest),
            (Some(inner), rest) => (depth <= DYNAMIC_DEPTH_MAX).then(|| skip(&inner, rest, depth + 1))?,
        },
        DataType::String | DataType::Json { .. } => {
            let (len, rest) = leb128(bytes)?;
            rest.get(usize::try_from(len).ok()?..)
        }
        DataType::Array(inner) => skip_elements(bytes, fixed_width(inner), |rest| skip_value(inner, rest)),
        DataType::Map(key, value) => {
            let width = fixed_width(key).zip(fixed_width(value)).map(|(key, value)| key + value);
            skip_elements(bytes, width, |rest| skip_value(value, skip_value(key, rest)?))
        }
        DataType::Tuple(elements) => elements.iter().try_fold(bytes, |rest, (_, element)| skip_value(element, rest)),
        DataType::Variant(types) => {
            let (index, rest) = bytes.split_first()?;
            if *index == u8::MAX { Some(rest) } else { skip_value(types.get(usize::from(*index))?, rest) }
        }
        fixed => bytes.get(fixed_width(fixed)?..),
    }
}

/// Skips a number of elements and then the elements, at once if each has the same width. So an element
/// without any bytes makes no loop of a damaged number.
fn skip_elements<'a>(
    bytes: &'a [u8],
    width: Option<usize>,
    skip: impl Fn(&'a [u8]) -> Option<&'a [u8]>,
) -> Option<&'a [u8]> {
    let (count, rest) = leb128(bytes)?;
    match width {
        Some(width) => rest.get(usize::try_from(count).ok()?.checked_mul(width)?..),
        None => (0..count).try_fold(rest, |rest, _| skip(rest)),
    }
}

/// The size in bytes of a value of this type; `None` for types of variable size, and for those of which
/// nothing is known.
pub fn fixed_width(data_type: &DataType) -> Option<usize> {
    Some(match data_type {
        DataType::FixedString(length) => *length,
        DataType::Signed(width) | DataType::Unsigned(width) => usize::from(*width),
        DataType::Decimal { precision, .. } => usize::from(DataType::decimal_width(*precision)),
        DataType::Bool | DataType::Enum8(_) => 1,
        DataType::Date | DataType::Enum16(_) | DataType::BFloat16 => 2,
        DataType::Float32 | DataType::Date32 | DataType::DateTime { .. } | DataType::Time | DataType::Ipv4 => 4,
        DataType::Float64 | DataType::DateTime64 { .. } | DataType::Time64 { .. } => 8,
        DataType::Uuid | DataType::Ipv6 => 16,
        DataType::Tuple(elements) => {
            let mut widths = elements.iter().map(|(_, element)| fixed_width(element));
            widths.try_fold(0usize, |sum, width| sum.checked_add(width?))?
        }
        DataType::LowCardinality(inner) => fixed_width(inner)?,
        _ => return None,
    })
}

/// The LEB128 length (at most 63 bits) that `bytes` begin with, and the bytes after it.
pub fn leb128(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (byte, shift) in bytes.iter().zip((0..63).step_by(7)) {
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(shift / 7 + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_each_nested_type_is_skipped_to_its_end_and_a_cut_one_is_not() {
        for (text, value) in [
            ("Array(UInt16)", &b"\x02\x01\0\x02\0"[..]),
            ("Array(String)", b"\x02\x01a\0"),
            ("Array(Array(Nullable(UInt8)))", b"\x02\x01\x01\x02\0\x07\x01"),
            ("Map(String, Array(UInt8))", b"\x01\x01k\x01\x09"),
            ("Tuple(a UInt8, b Tuple(String, LowCardinality(String)))", b"\x01\x01x\x01y"),
            ("Nested(a UInt8, b String)", b"\x02\x01\0\x02\x01z"),
            ("Point", &[0; 16]),
            ("Variant(String, UInt16)", b"\x01\x05\0"),
            ("Array(Variant(String, UInt16))", b"\x02\xff\0\x01x"),
            ("JSON", b"\x02{}"),
            ("Int256", &[1; 32]),
            ("Decimal(38, 2)", &[1; 16]),
        ] {
            let data_type = DataType::parse(text).unwrap();
            let followed = [value, b"rest"].concat();
            assert_eq!(skip_value(&data_type, &followed), Some(&b"rest"[..]), "{text}");
            for cut in 0..value.len() {
                assert_eq!(skip_value(&data_type, &value[..cut]), None, "{text} {cut}");
            }
        }
        let many = DataType::parse("Array(UInt64)").unwrap();
        assert_eq!(skip_value(&many, b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), None, "a length that overflows");
        let nothing = DataType::parse("Array(Tuple())").unwrap();
        assert_eq!(skip_value(&nothing, b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), Some(&[][..]), "at once");
    }

    #[test]
    fn a_length_is_complete_and_has_at_most_63_bits() {
        assert_eq!(leb128(&[0x83, 0x01, 7]), Some((131, &[7][..])));
        assert_eq!(leb128(&[0x83]), None);
        assert_eq!(leb128(&[0xff; 10]), None);
        assert_eq!(skip_value(&DataType::String, b"\x02abc"), Some(&b"c"[..]));
        assert_eq!(skip_value(&DataType::String, b"\x04abc"), None);
    }
}
