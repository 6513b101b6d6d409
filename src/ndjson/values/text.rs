//! String and FixedString.

use super::{JsonToken, ValueError};
use crate::ndjson::scan::string_end;
use crate::rowbinary::RowBuffer;

/// The place of a string's bytes, its length and the place behind it, if it has no escapes.
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

#[inline]
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

/// Anything goes into a String: what is no string goes in as its text in the line.
pub(super) fn write(token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    out.put_string(match token {
        JsonToken::Text(text) | JsonToken::Number(text) | JsonToken::Nested(text) => text,
        JsonToken::True => b"true",
        JsonToken::False => b"false",
        JsonToken::Null => return Err(ValueError::Mismatch),
    });
    Ok(())
}

/// Shorter text is filled up with zero bytes.
pub(super) fn write_fixed(width: usize, token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    let JsonToken::Text(text) = token else {
        return Err(ValueError::Mismatch);
    };
    let padding = width.checked_sub(text.len()).ok_or(ValueError::OutOfRange)?;
    out.put_slice(text);
    out.put_zeros(padding);
    Ok(())
}
