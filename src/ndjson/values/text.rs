//! String and FixedString values.

use super::{JsonToken, ValueError};
use crate::ndjson::scan::string_end;
use crate::rowbinary::RowBuffer;

/// The offset and length of the bytes of the string at `at`, and the offset after it; `None` when it has
/// escapes or there is no string.
#[inline]
pub(in crate::ndjson) fn plain_string(body: &[u8], at: usize) -> Option<(usize, usize, usize)> {
    if body.get(at) != Some(&b'"') {
        return None;
    }
    match string_end(body, at + 1)? {
        (end, b'"') => Some((at + 1, end - at - 1, end + 1)),
        _ => None,
    }
}

#[inline(always)]
pub(super) fn read(body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    let (start, length, end) = plain_string(body, at)?;
    out.put_string_of(body, start, length);
    Some(end)
}

pub(super) fn read_fixed(width: usize, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    let (start, length, end) = plain_string(body, at)?;
    out.put_slice(body.get(start..start + length)?);
    out.put_zeros(width.checked_sub(length)?);
    Some(end)
}

/// Writes any value but null: a value that is not a string is written as its text in the line.
pub(super) fn write(token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    out.put_string(match token {
        JsonToken::Text(text) | JsonToken::Number(text) | JsonToken::Nested(text) => text,
        JsonToken::True => b"true",
        JsonToken::False => b"false",
        JsonToken::Null => return Err(ValueError::Mismatch),
    });
    Ok(())
}

/// Writes a string of at most `width` bytes, padded with zero bytes.
pub(super) fn write_fixed(width: usize, token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    let JsonToken::Text(text) = token else {
        return Err(ValueError::Mismatch);
    };
    let padding = width.checked_sub(text.len()).ok_or(ValueError::OutOfRange)?;
    out.put_slice(text);
    out.put_zeros(padding);
    Ok(())
}
