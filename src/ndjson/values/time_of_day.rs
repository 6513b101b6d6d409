//! Time and Time64 values: a time of day or a span of up to 999:59:59 hours, in either direction.

use super::number::signed;
use super::text::plain_string;
use super::{JsonToken, ValueError};
use crate::rowbinary::RowBuffer;

/// The largest magnitude, 999:59:59, in seconds
/// (<https://clickhouse.com/docs/sql-reference/data-types/time>).
const SECONDS_MAX: i64 = 999 * 3600 + 59 * 60 + 59;
/// Digits of a fraction that any type holds.
const FRACTION_DIGITS_MAX: usize = 9;

pub(super) fn read(body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    let (start, length, end) = plain_string(body, at)?;
    write(JsonToken::Text(body.get(start..start + length)?), out).ok()?;
    Some(end)
}

pub(super) fn read64(precision: u8, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    let (start, length, end) = plain_string(body, at)?;
    write64(precision, JsonToken::Text(body.get(start..start + length)?), out).ok()?;
    Some(end)
}

/// Writes a Time. A number is seconds.
pub(super) fn write(token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    let seconds = match token {
        JsonToken::Text(text) => {
            let span = Span::parse(text)?;
            if span.has_fraction {
                return Err(ValueError::Mismatch);
            }
            if span.negative { -span.seconds } else { span.seconds }
        }
        JsonToken::Number(_) => signed(token)?,
        _ => return Err(ValueError::Mismatch),
    };
    let seconds = i32::try_from(seconds).map_err(|_| ValueError::OutOfRange)?;
    if i64::from(seconds).abs() > SECONDS_MAX {
        return Err(ValueError::OutOfRange);
    }
    out.put(seconds.to_le_bytes());
    Ok(())
}

/// Writes a Time64. A number is ticks, as in ClickHouse, with every version.
pub(super) fn write64(precision: u8, token: JsonToken<'_>, out: &mut RowBuffer) -> Result<(), ValueError> {
    let per_second = 10i64.pow(u32::from(precision.min(9)));
    let ticks = match token {
        JsonToken::Text(text) => {
            let span = Span::parse(text)?;
            let ticks = span.seconds * per_second + span.nanoseconds / (1_000_000_000 / per_second);
            if span.negative { -ticks } else { ticks }
        }
        JsonToken::Number(_) => signed(token)?,
        _ => return Err(ValueError::Mismatch),
    };
    if ticks.unsigned_abs() >= (SECONDS_MAX as u64 + 1) * per_second as u64 {
        return Err(ValueError::OutOfRange);
    }
    out.put(ticks.to_le_bytes());
    Ok(())
}

/// The parts of a time in text form.
struct Span {
    negative: bool,
    seconds: i64,
    nanoseconds: i64,
    has_fraction: bool,
}

impl Span {
    /// Parses `hhh:mm:ss`, `mm:ss` or `ss`: at most three digits of hours or two of what comes first
    /// without hours, and two digits of every other part; a minus sign in front; a fraction behind.
    /// Minutes and seconds behind a colon are below 60.
    fn parse(text: &[u8]) -> Result<Self, ValueError> {
        let (negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
            Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..)),
            None => (text, None),
        };
        let (mut seconds, mut parts) = (0, 0usize);
        let count = whole.iter().filter(|byte| **byte == b':').count() + 1;
        for part in whole.split(|byte| *byte == b':') {
            let digits_max = if parts == 0 && count == 3 { 3 } else { 2 };
            let digits_min = if parts == 0 { 1 } else { 2 };
            if count > 3 || !(digits_min..=digits_max).contains(&part.len()) || !part.iter().all(u8::is_ascii_digit) {
                return Err(ValueError::Mismatch);
            }
            let value = part.iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
            if parts > 0 && value >= 60 {
                return Err(ValueError::OutOfRange);
            }
            seconds = seconds * 60 + value;
            parts += 1;
        }
        let digits = fraction.unwrap_or_default();
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(ValueError::Mismatch);
        }
        let padded = digits.iter().map(|digit| i64::from(digit - b'0')).chain(std::iter::repeat(0));
        let nanoseconds = padded.take(FRACTION_DIGITS_MAX).fold(0, |value, digit| value * 10 + digit);
        Ok(Self { negative, seconds, nanoseconds, has_fraction: fraction.is_some() })
    }
}
