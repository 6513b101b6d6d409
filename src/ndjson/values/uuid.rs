//! UUID values: in RowBinary the high and then the low 64 bits, each little-endian.

use super::{JsonToken, ValueError};
use crate::ndjson::hex::digit;
use crate::rowbinary::RowBuffer;

#[inline]
pub(super) fn read(body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    let [b'"', text @ .., b'"'] = body.get(at..)?.first_chunk::<38>()? else {
        return None;
    };
    put(dashed(text)?, out);
    Some(at + 38)
}

fn put((high, low): (u64, u64), out: &mut RowBuffer) {
    out.put(high.to_le_bytes());
    out.put(low.to_le_bytes());
}

/// Parses the text form of RFC 9562, 8-4-4-4-12 hexadecimal digits, into the high and low 64 bits.
#[inline]
fn dashed(text: &[u8; 36]) -> Option<(u64, u64)> {
    let [
        a @ ..,
        b'-',
        b1,
        b2,
        b3,
        b4,
        b'-',
        c1,
        c2,
        c3,
        c4,
        b'-',
        d1,
        d2,
        d3,
        d4,
        b'-',
        e1,
        e2,
        e3,
        e4,
        e5,
        e6,
        e7,
        e8,
        e9,
        e10,
        e11,
        e12,
    ] = text
    else {
        return None;
    };
    let a: &[u8; 8] = a;
    let high = hex(a)? << 32 | hex(&[*b1, *b2, *b3, *b4, *c1, *c2, *c3, *c4])?;
    let low =
        hex(&[*d1, *d2, *d3, *d4, *e1, *e2, *e3, *e4])? << 32 | hex(&[*e5, *e6, *e7, *e8, *e9, *e10, *e11, *e12])?;
    Some((high, low))
}

/// The value of eight hexadecimal digits.
#[inline]
fn hex(digits: &[u8; 8]) -> Option<u64> {
    let mut value = 0u64;
    let mut seen = 0;
    for byte in digits {
        let digit = digit(*byte);
        seen |= digit;
        value = value << 4 | u64::from(digit & 0xf);
    }
    (seen < 16).then_some(value)
}

/// Writes a UUID of 32 hexadecimal digits, with or without dashes.
pub(super) fn write(token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    let JsonToken::Text(text) = token else {
        return Err(ValueError::Mismatch);
    };
    let value = match text.len() {
        36 => text.first_chunk::<36>().and_then(dashed),
        32 => undashed(text),
        _ => None,
    };
    put(value.ok_or(ValueError::Mismatch)?, out);
    Ok(())
}

fn undashed(text: &[u8]) -> Option<(u64, u64)> {
    let half = |at: usize| -> Option<u64> {
        let first = hex(text.get(at..)?.first_chunk()?)?;
        Some(first << 32 | hex(text.get(at + 8..)?.first_chunk()?)?)
    };
    Some((half(0)?, half(16)?))
}
