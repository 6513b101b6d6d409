//! Finding the end of a RowBinary value without decoding the value.

use clickhouse_rowbinary::TypeDesc;

/// The bytes after the value of this type that `bytes` begin with; `None` when that value is
/// incomplete.
pub fn skip_value<'a>(described: &TypeDesc, bytes: &'a [u8]) -> Option<&'a [u8]> {
    match described {
        TypeDesc::LowCardinality(inner) => skip_value(inner, bytes),
        TypeDesc::Nullable(inner) => {
            let (is_null, rest) = bytes.split_first()?;
            if *is_null == 1 { Some(rest) } else { skip_value(inner, rest) }
        }
        TypeDesc::String => {
            let (len, rest) = leb128(bytes)?;
            rest.get(usize::try_from(len).ok()?..)
        }
        fixed => bytes.get(fixed_width(fixed)?..),
    }
}

/// The size in bytes of a value of this type; `None` for types of variable size and for unsupported
/// types.
pub fn fixed_width(described: &TypeDesc) -> Option<usize> {
    Some(match described {
        TypeDesc::FixedString { length } => *length,
        TypeDesc::Int8 | TypeDesc::UInt8 | TypeDesc::Bool | TypeDesc::Enum8(_) => 1,
        TypeDesc::Int16 | TypeDesc::UInt16 | TypeDesc::Date | TypeDesc::Enum16(_) => 2,
        TypeDesc::Int32
        | TypeDesc::UInt32
        | TypeDesc::Float32
        | TypeDesc::Date32
        | TypeDesc::DateTime { .. }
        | TypeDesc::Ipv4 => 4,
        TypeDesc::Int64 | TypeDesc::UInt64 | TypeDesc::Float64 | TypeDesc::DateTime64 { .. } => 8,
        TypeDesc::Uuid | TypeDesc::Ipv6 => 16,
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
    fn a_length_is_complete_and_has_at_most_63_bits() {
        assert_eq!(leb128(&[0x83, 0x01, 7]), Some((131, &[7][..])));
        assert_eq!(leb128(&[0x83]), None);
        assert_eq!(leb128(&[0xff; 10]), None);
        assert_eq!(skip_value(&TypeDesc::String, b"\x02abc"), Some(&b"c"[..]));
        assert_eq!(skip_value(&TypeDesc::String, b"\x04abc"), None);
    }
}
