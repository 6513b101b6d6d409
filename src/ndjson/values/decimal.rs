//! Decimal values: an integer of the type's smallest unit.

use super::number::bare_number;
use super::{JsonToken, ValueError};
use crate::rowbinary::{RowBuffer, Wide};

pub(super) fn read(precision: u8, scale: u8, width: u8, body: &[u8], at: usize, out: &mut RowBuffer) -> Option<usize> {
    let (text, end) = bare_number(body, at)?;
    put(text.as_bytes(), precision, scale, width, out).ok()?;
    Some(end)
}

/// Writes a number, quoted or not. The empty string is 0, as in ClickHouse.
pub(super) fn write(
    precision: u8,
    scale: u8,
    width: u8,
    token: JsonToken<'_>,
    out: &mut RowBuffer,
) -> Result<(), ValueError> {
    match token {
        JsonToken::Text(b"") => put(b"0", precision, scale, width, out),
        JsonToken::Number(text) | JsonToken::Text(text) => put(text, precision, scale, width, out),
        _ => Err(ValueError::Mismatch),
    }
}

fn put(text: &[u8], precision: u8, scale: u8, width: u8, out: &mut RowBuffer) -> Result<(), ValueError> {
    let (value, negative) = Number::parse(text).ok_or(ValueError::Mismatch)?.units(precision, scale)?;
    let bytes = value.to_le_bytes(negative);
    out.put_slice(bytes.get(..usize::from(width)).unwrap_or(&bytes));
    Ok(())
}

/// The value of a number that is an integer, however it is written: `1.0` and `1e3` are.
pub(super) fn integer(text: &[u8]) -> Result<(Wide, bool), ValueError> {
    /// Digits of the largest integer of 256 bits.
    const DIGITS_MAX: u8 = 78;
    let number = Number::parse(text).filter(Number::is_integer).ok_or(ValueError::Mismatch)?;
    number.units(DIGITS_MAX, 0)
}

/// The parts of a number in text form.
struct Number<'a> {
    negative: bool,
    /// Digits in front of the point.
    whole: &'a [u8],
    /// Digits behind it.
    fraction: &'a [u8],
    exponent: i64,
}

impl<'a> Number<'a> {
    /// Parses a sign, digits on either side of a point, and an exponent. At least one digit is required, and
    /// one in an exponent.
    fn parse(text: &'a [u8]) -> Option<Self> {
        let (negative, text) = signed(text);
        let (mantissa, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            Some(at) => (text.get(..at)?, Some(text.get(at + 1..)?)),
            None => (text, None),
        };
        let (whole, fraction) = match mantissa.iter().position(|byte| *byte == b'.') {
            Some(at) => (mantissa.get(..at)?, mantissa.get(at + 1..)?),
            None => (mantissa, &[][..]),
        };
        let are_digits = whole.iter().chain(fraction).all(u8::is_ascii_digit);
        if !are_digits || whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let exponent = match exponent {
            None => 0,
            Some(exponent) => {
                let (negative, digits) = signed(exponent);
                if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                    return None;
                }
                let value = digits
                    .iter()
                    .fold(0i64, |value, digit| value.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
                if negative { -value } else { value }
            }
        };
        Some(Self { negative, whole, fraction, exponent })
    }

    /// True if all digits behind the point are 0.
    fn is_integer(&self) -> bool {
        let whole_digits = i64::try_from(self.whole.len()).unwrap_or(i64::MAX).saturating_add(self.exponent);
        let digits = self.whole.iter().chain(self.fraction);
        digits.skip(usize::try_from(whole_digits).unwrap_or(0)).all(|digit| *digit == b'0')
    }

    /// The number in units of 10^-`scale`. Digits behind the last unit are cut, as in ClickHouse; a number
    /// with more than `precision` digits is out of range.
    fn units(&self, precision: u8, scale: u8) -> Result<(Wide, bool), ValueError> {
        let fraction_digits = i64::try_from(self.fraction.len()).unwrap_or(i64::MAX);
        // By so many digits the last digit of the number is above the last unit.
        let shift = self.exponent.saturating_add(i64::from(scale)).saturating_sub(fraction_digits);
        let significant = self.whole.iter().chain(self.fraction).skip_while(|digit| **digit == b'0');
        let count = i64::try_from(significant.clone().count()).unwrap_or(i64::MAX);
        if count == 0 {
            return Ok((Wide::default(), false));
        }
        let kept = count.saturating_add(shift);
        if kept > i64::from(precision) {
            return Err(ValueError::OutOfRange);
        }
        let zeros = std::iter::repeat_n(&b'0', usize::try_from(shift).unwrap_or(0));
        let digits = significant.chain(zeros).take(usize::try_from(kept).unwrap_or(0));
        let mut digits = digits.map(|digit| digit - b'0');
        let value = digits.try_fold(Wide::default(), Wide::with_digit).ok_or(ValueError::OutOfRange)?;
        Ok((value, self.negative))
    }
}

fn signed(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_counted_in_the_types_smallest_unit() {
        let of = |text: &str, precision, scale| {
            let number = Number::parse(text.as_bytes()).ok_or(ValueError::Mismatch)?;
            number
                .units(precision, scale)
                .map(|(value, negative)| format!("{}{value}", if negative { "-" } else { "" }))
        };
        for (text, expected) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.001", "-0"),
            ("1", "100"),
            ("-1.5", "-150"),
            ("1.23456", "123"),
            ("1.999e1", "1999"),
            ("123e-3", "12"),
            ("1e-9", "0"),
            ("1e-9223372036854775808", "0"),
            ("1e-99999999999999999999", "0"),
            ("0e99999999999999999999", "0"),
            (".5", "50"),
            ("5.", "500"),
            ("007.5", "750"),
            ("9999999.999", "999999999"),
            ("1000000000000000000000000000000000e-30", "100000"),
            ("0.00000000000000000000000000001e30", "1000"),
        ] {
            assert_eq!(of(text, 9, 2).as_deref(), Ok(expected), "{text}");
        }
        for text in ["10000000", "1e7", "1e300", "1e99999999999999999999", "-99999999.99"] {
            assert_eq!(of(text, 9, 2), Err(ValueError::OutOfRange), "{text}");
        }
        for text in ["", "-", ".", "1e", "1e+", "e1", "1.2.3", "--1", "1,5", " 1", "1 ", "0x1", "inf", "nan"] {
            assert_eq!(of(text, 9, 2), Err(ValueError::Mismatch), "{text}");
        }
        let most = "9".repeat(76);
        assert_eq!(of(&most, 76, 0).as_deref(), Ok(&*most));
        assert_eq!(of(&format!("{most}9"), 76, 0), Err(ValueError::OutOfRange));
    }
}
