//! Integers, floating point numbers and booleans.

use std::str::FromStr;

use super::{JsonToken, ValueError, wide};
use crate::ndjson::skip::skip_number;
use crate::rowbinary::RowBuffer;

/// Parses an unsigned integer of at most 18 digits, and returns its value and the offset after it. A
/// leading zero, a fraction or an exponent gives `None`.
///
/// Numbers differ in length from line to line, so the branch that ends a loop over digits is often
/// mispredicted; up to seven digits are parsed without a loop.
#[inline(always)]
fn plain_digits(body: &[u8], at: usize) -> Option<(u64, usize)> {
    let word = u64::from_le_bytes(*body.get(at..)?.first_chunk()?);
    let count = leading_digits(word);
    let (value, end) =
        if (1..8).contains(&count) { (first_digits(word, count), at + count as usize) } else { many_digits(body, at)? };
    let leading_zero = word as u8 == b'0' && end > at + 1;
    match body.get(end) {
        Some(b'.' | b'e' | b'E') => None,
        _ if leading_zero => None,
        _ => Some((value, end)),
    }
}

/// The number of bytes of `word` that are digits, counted from the lowest byte to the first other one.
#[inline]
pub(in crate::ndjson) fn leading_digits(word: u64) -> u32 {
    let values = word ^ 0x3030_3030_3030_3030;
    let above_nine = values | (values & 0x7f7f_7f7f_7f7f_7f7f).wrapping_add(0x7676_7676_7676_7676);
    (above_nine & 0x8080_8080_8080_8080).trailing_zeros() / 8
}

/// The value of eight digits, the first one in the lowest byte. Digits are combined to pairs, pairs to
/// groups of four, and those to the value.
#[inline]
fn eight_digits(word: u64) -> u64 {
    let ones = word & 0x0f0f_0f0f_0f0f_0f0f;
    let pairs = (ones.wrapping_mul(1 + (10 << 8)) >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(1 + (100 << 16)) >> 16) & 0x0000_ffff_0000_ffff;
    fours.wrapping_mul(1 + (10_000 << 32)) >> 32
}

#[inline(never)]
fn many_digits(body: &[u8], at: usize) -> Option<(u64, usize)> {
    let digits = body.get(at..)?.iter().take(19);
    let mut value = 0u64;
    let mut count = 0;
    for byte in digits.take_while(|byte| byte.is_ascii_digit()) {
        value = value.wrapping_mul(10).wrapping_add(u64::from(byte - b'0'));
        count += 1;
    }
    (1..=18).contains(&count).then_some((value, at + count))
}

#[inline(always)]
pub(super) fn read_signed(width: u8, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    let (value, end) = plain_signed(body, at)?;
    if !fits_signed(value, width) {
        return None;
    }
    out.put_integer(value as u64, width);
    Some(end)
}

/// The integer at `at`, with a sign or without, and the offset after it: [`plain_digits`].
#[inline(always)]
pub(in crate::ndjson) fn plain_signed(body: &[u8], at: usize) -> Option<(i64, usize)> {
    let is_negative = body.get(at) == Some(&b'-');
    let (value, end) = plain_digits(body, at + usize::from(is_negative))?;
    Some((if is_negative { -(value as i64) } else { value as i64 }, end))
}

/// The integer of one to seven digits that `word` begins with, and the number of its digits; `None` for more digits,
/// or a 0 before others. What follows the digits is not looked at.
#[inline(always)]
pub(in crate::ndjson) fn short_integer(word: u64) -> Option<(u64, usize)> {
    let count = leading_digits(word);
    let has_leading_zero = (word as u8 == b'0') & (count != 1);
    (count.wrapping_sub(1) < 7 && !has_leading_zero).then(|| (first_digits(word, count), count as usize))
}

/// The integer whose digits are the first `count` bytes of `word`, which may be none; `None` for more than seven, and
/// if there are other bytes among them.
#[inline(always)]
pub(in crate::ndjson) fn integer_of(word: u64, count: usize) -> Option<u64> {
    (count < 8 && leading_digits(word) as usize >= count).then(|| first_digits(word, count as u32))
}

/// The value of the first `count` bytes of `word`, at most seven digits; 0 for none.
#[inline(always)]
fn first_digits(word: u64, count: u32) -> u64 {
    // Zeros are inserted before the digits: `12` becomes `00000012`.
    let digits = word << 8 << (56 - count * 8);
    eight_digits(digits | 0x3030_3030_3030_3030 >> (count * 8))
}

/// [`plain_digits`] for rarer types.
#[inline(never)]
pub(super) fn few_digits(body: &[u8], at: usize) -> Option<(u64, usize)> {
    plain_digits(body, at)
}

#[inline]
pub(super) fn read_unsigned(width: u8, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    let (value, end) = plain_digits(body, at)?;
    if !fits_unsigned(value, width) {
        return None;
    }
    out.put_integer(value, width);
    Some(end)
}

#[inline]
fn fits_signed(value: i64, width: u8) -> bool {
    let unused = 64 - u32::from(width) * 8;
    value << unused >> unused == value
}

#[inline]
fn fits_unsigned(value: u64, width: u8) -> bool {
    let unused = 64 - u32::from(width) * 8;
    value << unused >> unused == value
}

/// The value of an integer: a number or a string of digits with an optional sign. As in ClickHouse,
/// `true` and `"true"` are 1, `false` and `"false"` are 0; the empty string is 0.
fn integer(token: JsonToken<'_>, negative_allowed: bool) -> Result<i128, ValueError> {
    let text = match token {
        JsonToken::Number(text) | JsonToken::Text(text) => text,
        JsonToken::True => return Ok(1),
        JsonToken::False => return Ok(0),
        JsonToken::Null | JsonToken::Nested(_) => return Err(ValueError::Mismatch),
    };
    let (negative, digits) = match text {
        b"" | b"false" => return Ok(0),
        b"true" => return Ok(1),
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(ValueError::Mismatch);
    }
    if negative && !negative_allowed {
        return Err(ValueError::OutOfRange);
    }
    let value = digits.iter().try_fold(0i128, |value, digit| {
        let value = value * 10 + i128::from(digit - b'0');
        (value <= i128::from(u64::MAX)).then_some(value)
    });
    let value = value.ok_or(ValueError::OutOfRange)?;
    Ok(if negative { -value } else { value })
}

/// The value of an integer that fits `i64`; also for times and enums.
pub(super) fn signed(token: JsonToken<'_>) -> Result<i64, ValueError> {
    i64::try_from(integer(token, true)?).map_err(|_| ValueError::OutOfRange)
}

/// True for a number with a point or an exponent, which may be an integer all the same.
fn is_unusual(token: JsonToken<'_>) -> bool {
    matches!(token, JsonToken::Number(text) if wide::has_point_or_exponent(text))
}

pub(super) fn write_signed(width: u8, token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    if is_unusual(token) {
        return wide::write_signed(width, token, out);
    }
    let value = signed(token)?;
    if !fits_signed(value, width) {
        return Err(ValueError::OutOfRange);
    }
    out.put_integer(value as u64, width);
    Ok(())
}

pub(super) fn write_unsigned(width: u8, token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    if is_unusual(token) {
        return wide::write_unsigned(width, token, out);
    }
    let value = u64::try_from(integer(token, false)?).map_err(|_| ValueError::OutOfRange)?;
    if !fits_unsigned(value, width) {
        return Err(ValueError::OutOfRange);
    }
    out.put_integer(value, width);
    Ok(())
}

/// The text of the number at `at`, and the offset after it.
pub(super) fn bare_number(body: &[u8], at: usize) -> Option<(&str, usize)> {
    let end = skip_number(body, at)?;
    let text = std::str::from_utf8(body.get(at..end)?).ok()?;
    Some((text, end))
}

pub(super) fn read_float32(body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    let (text, end) = bare_number(body, at)?;
    let value = f32::from_str(text).ok().filter(|value| value.is_finite())?;
    out.put(value.to_le_bytes());
    Some(end)
}

pub(super) fn read_float64(body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    let (text, end) = bare_number(body, at)?;
    let value = f64::from_str(text).ok().filter(|value| value.is_finite())?;
    out.put(value.to_le_bytes());
    Some(end)
}

/// The value of a floating point number. Rust's parser accepts what ClickHouse accepts, quoted or not:
/// a sign, digits on either side of the point, an exponent, and `nan`, `inf` and `infinity` in any
/// case. It rounds correctly.
fn float<F: FromStr + From<u8>>(token: JsonToken<'_>, is_infinite: impl Fn(&F) -> bool) -> Result<F, ValueError> {
    let text = match token {
        JsonToken::Number(text) | JsonToken::Text(text) => text,
        JsonToken::True => return Ok(F::from(1)),
        JsonToken::False => return Ok(F::from(0)),
        JsonToken::Null | JsonToken::Nested(_) => return Err(ValueError::Mismatch),
    };
    match text {
        b"true" => return Ok(F::from(1)),
        b"false" => return Ok(F::from(0)),
        _ => {}
    }
    let text = std::str::from_utf8(text).map_err(|_| ValueError::Mismatch)?;
    let value = F::from_str(text).map_err(|_| ValueError::Mismatch)?;
    // Infinity is a valid value when spelled as a word; digits that give infinity overflowed.
    if is_infinite(&value) && text.bytes().any(|byte| byte.is_ascii_digit()) {
        return Err(ValueError::OutOfRange);
    }
    Ok(value)
}

pub(super) fn write_float32(token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    let value: f32 = float(token, |value: &f32| value.is_infinite())?;
    out.put(value.to_le_bytes());
    Ok(())
}

pub(super) fn write_float64(token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    let value: f64 = float(token, |value: &f64| value.is_infinite())?;
    out.put(value.to_le_bytes());
    Ok(())
}

/// The upper half of a Float32, which is how ClickHouse rounds: towards zero.
fn put_bfloat16(value: f32, out: &mut RowBuffer) {
    out.put(((value.to_bits() >> 16) as u16).to_le_bytes());
}

pub(super) fn read_bfloat16(body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    let (text, end) = bare_number(body, at)?;
    put_bfloat16(f32::from_str(text).ok().filter(|value| value.is_finite())?, out);
    Some(end)
}

pub(super) fn write_bfloat16(token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    put_bfloat16(float(token, |value: &f32| value.is_infinite())?, out);
    Ok(())
}

pub(super) fn read_bool(body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    let rest = body.get(at..)?;
    if rest.starts_with(b"true") {
        out.put([1]);
        Some(at + 4)
    } else if rest.starts_with(b"false") {
        out.put([0]);
        Some(at + 5)
    } else {
        None
    }
}

/// Writes `true`, `false`, 1 or 0. None of them is accepted in quotes, as in ClickHouse.
pub(super) fn write_bool(token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    let value = match token {
        JsonToken::True | JsonToken::Number(b"1") => 1,
        JsonToken::False | JsonToken::Number(b"0") => 0,
        JsonToken::Number(text) if text.iter().all(u8::is_ascii_digit) => {
            return Err(ValueError::OutOfRange);
        }
        _ => return Err(ValueError::Mismatch),
    };
    out.put([value]);
    Ok(())
}
