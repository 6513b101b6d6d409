//! Integers of 128 and 256 bits, which mean what the narrower ones do.

use super::decimal;
use super::number::few_digits;
use super::{JsonToken, ValueError};
use crate::rowbinary::{RowBuffer, Wide};

fn put(value: Wide, negative: bool, width: u8, out: &mut RowBuffer) {
    let bytes = value.to_le_bytes(negative);
    out.put_slice(bytes.get(..usize::from(width)).unwrap_or(&bytes));
}

fn put_word(value: u64, negative: bool, width: u8, out: &mut RowBuffer) {
    put(Wide::of_unsigned(&value.to_le_bytes()), negative, width, out);
}

pub(super) fn read_signed(width: u8, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    let negative = body.get(at) == Some(&b'-');
    let (value, end) = few_digits(body, at + usize::from(negative))?;
    put_word(value, negative, width, out);
    Some(end)
}

pub(super) fn read_unsigned(width: u8, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    let (value, end) = few_digits(body, at)?;
    put_word(value, false, width, out);
    Some(end)
}

/// The magnitude of an integer, and whether it is negative: a number or a string of digits with an
/// optional sign. As in ClickHouse, `true` and `"true"` are 1, `false` and `"false"` are 0; the empty
/// string is 0. A number with an integer value may have a point or an exponent: `1.0`, `1e3`.
fn integer(token: JsonToken<'_>) -> Result<(Wide, bool), ValueError> {
    let text = match token {
        JsonToken::Number(text) if has_point_or_exponent(text) => return decimal::integer(text),
        JsonToken::Number(text) | JsonToken::Text(text) => text,
        JsonToken::True => b"1",
        JsonToken::False => b"0",
        JsonToken::Null | JsonToken::Nested(_) => return Err(ValueError::Mismatch),
    };
    let (negative, digits) = match text {
        b"" | b"false" => (false, &b"0"[..]),
        b"true" => (false, &b"1"[..]),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(ValueError::Mismatch);
    }
    let value = digits.iter().try_fold(Wide::default(), |value, digit| value.with_digit(digit - b'0'));
    Ok((value.ok_or(ValueError::OutOfRange)?, negative))
}

pub(super) fn has_point_or_exponent(number: &[u8]) -> bool {
    number.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
}

pub(super) fn write_signed(width: u8, token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    let (value, negative) = integer(token)?;
    if !value.fits_signed(negative, width) {
        return Err(ValueError::OutOfRange);
    }
    put(value, negative, width, out);
    Ok(())
}

pub(super) fn write_unsigned(width: u8, token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    let (value, negative) = integer(token)?;
    if negative || !value.fits_unsigned(width) {
        return Err(ValueError::OutOfRange);
    }
    put(value, false, width, out);
    Ok(())
}
