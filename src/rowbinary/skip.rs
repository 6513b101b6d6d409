//! Where a value ends: the only thing that is ever read back from rows without decoding them.

use clickhouse_rowbinary::TypeDesc;

/// What is behind a value of this type; `None` where `bytes` do not begin with a whole one.
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

/// The bytes of every value of this type; `None` where they differ, or the type is not known here.
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

/// A length in front of a string (LEB128, at most 63 bits), and what is behind it.
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
    fn a_length_is_bounded_and_every_part_of_it_is_needed() {
        assert_eq!(leb128(&[0x83, 0x01, 7]), Some((131, &[7][..])));
        assert_eq!(leb128(&[0x83]), None);
        assert_eq!(leb128(&[0xff; 10]), None);
        assert_eq!(skip_value(&TypeDesc::String, b"\x02abc"), Some(&b"c"[..]));
        assert_eq!(skip_value(&TypeDesc::String, b"\x04abc"), None);
    }
}
