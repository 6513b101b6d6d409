//! Unix times: in text by the number of their digits, as bare numbers by their magnitude.

use super::ValueError;
use super::moment::Moment;
use crate::schema::TimeUnit;

const NANOSECONDS: i128 = 1_000_000_000;
/// From these magnitudes on a bare number is milliseconds, microseconds, nanoseconds.
const MILLISECONDS_FROM: i128 = 100_000_000_000;
const MICROSECONDS_FROM: i128 = 100_000_000_000_000;
const NANOSECONDS_FROM: i128 = 100_000_000_000_000_000;
/// An integer of more digits is no time in any unit.
const INTEGER_DIGITS_MAX: i64 = 20;
/// Digits behind the point that count: a second has so many places.
const FRACTION_DIGITS_MAX: i64 = 9;

/// Digits alone, in text: 9 or 10 are seconds, with a fraction if they have one, 13 are
/// milliseconds, 16 microseconds, 19 nanoseconds.
pub(super) fn of_digits(number: &[u8], fraction: &[u8]) -> Result<Moment, ValueError> {
    let text = std::str::from_utf8(number).map_err(|_| ValueError::Mismatch)?;
    let value: u64 = text.parse().map_err(|_| ValueError::OutOfRange)?;
    let per_second = match number.len() {
        13 => 1_000,
        16 => 1_000_000,
        19 => 1_000_000_000,
        _ => 1,
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(ValueError::Mismatch);
    }
    let nanoseconds = match per_second {
        1 => (0..9).fold(0, |value, at| value * 10 + fraction.get(at).map_or(0, |digit| u32::from(digit - b'0'))),
        _ => (value % per_second * (1_000_000_000 / per_second)) as u32,
    };
    Ok(Moment { seconds: (value / per_second) as i64, nanoseconds })
}

/// A JSON number: its absolute value says the unit, and a fraction is one of that unit. What is finer
/// than a nanosecond is cut.
pub(super) fn of_number(text: &[u8]) -> Result<Moment, ValueError> {
    let number = Decimal::read(text).ok_or(ValueError::Mismatch)?;
    if number.point > INTEGER_DIGITS_MAX {
        return Err(ValueError::OutOfRange);
    }
    in_unit(unit_by_magnitude(number.digits(0, number.point)), &number)
}

/// A JSON number in a unit that is known. What is finer than a nanosecond is cut.
pub(super) fn of_number_in(unit: TimeUnit, text: &[u8]) -> Result<Moment, ValueError> {
    let number = Decimal::read(text).ok_or(ValueError::Mismatch)?;
    if number.point > INTEGER_DIGITS_MAX {
        return Err(ValueError::OutOfRange);
    }
    in_unit(unit, &number)
}

/// The unit that the magnitude of a JSON number says; `None` for one that is no time.
pub(super) fn unit_of_number(text: &[u8]) -> Option<TimeUnit> {
    let number = Decimal::read(text).filter(|number| number.point <= INTEGER_DIGITS_MAX)?;
    Some(unit_by_magnitude(number.digits(0, number.point)))
}

fn unit_by_magnitude(integer: i128) -> TimeUnit {
    match integer {
        NANOSECONDS_FROM.. => TimeUnit::Nanoseconds,
        MICROSECONDS_FROM.. => TimeUnit::Microseconds,
        MILLISECONDS_FROM.. => TimeUnit::Milliseconds,
        _ => TimeUnit::Seconds,
    }
}

fn in_unit(unit: TimeUnit, number: &Decimal<'_>) -> Result<Moment, ValueError> {
    let integer = number.digits(0, number.point);
    let (unit, places) = match unit {
        TimeUnit::Nanoseconds => (1, 0),
        TimeUnit::Microseconds => (1_000, 3),
        TimeUnit::Milliseconds => (1_000_000, 6),
        TimeUnit::Seconds => (NANOSECONDS, FRACTION_DIGITS_MAX),
    };
    let magnitude = integer * unit + number.digits(number.point, number.point + places);
    let nanoseconds = if number.is_negative { -magnitude } else { magnitude };
    let seconds = i64::try_from(nanoseconds.div_euclid(NANOSECONDS)).map_err(|_| ValueError::OutOfRange)?;
    Ok(Moment { seconds, nanoseconds: nanoseconds.rem_euclid(NANOSECONDS) as u32 })
}

/// A JSON number as digits, and where its point stands among them.
struct Decimal<'a> {
    is_negative: bool,
    integer: &'a [u8],
    fraction: &'a [u8],
    /// So many digits, counted from the first that is not 0, stand before the point.
    point: i64,
    /// Zeros in front of that digit.
    zeros: usize,
}

impl<'a> Decimal<'a> {
    /// Takes a number apart that is known to be one of JSON; anything else is `None`.
    fn read(text: &'a [u8]) -> Option<Self> {
        let (is_negative, text) = match text {
            [b'-', rest @ ..] => (true, rest),
            _ => (false, text),
        };
        let (mantissa, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            Some(at) => (text.get(..at)?, read_exponent(text.get(at + 1..)?)?),
            None => (text, 0),
        };
        let (integer, fraction) = match mantissa.iter().position(|byte| *byte == b'.') {
            Some(at) => (mantissa.get(..at)?, mantissa.get(at + 1..)?),
            None => (mantissa, &[][..]),
        };
        if integer.is_empty() || !integer.iter().chain(fraction).all(u8::is_ascii_digit) {
            return None;
        }
        let zeros = integer.iter().chain(fraction).take_while(|digit| **digit == b'0').count();
        let is_zero = zeros == integer.len() + fraction.len();
        let point = if is_zero { 0 } else { integer.len() as i64 - zeros as i64 + exponent };
        Some(Self { is_negative, integer, fraction, point, zeros })
    }

    /// The number that the digits from one place to another make; beyond either end there are zeros.
    fn digits(&self, from: i64, to: i64) -> i128 {
        (from..to).fold(0, |value, place| value * 10 + i128::from(self.digit(place)))
    }

    fn digit(&self, place: i64) -> u8 {
        let digit = usize::try_from(place).ok().and_then(|place| {
            let at = place + self.zeros;
            self.integer.get(at).or_else(|| self.fraction.get(at.checked_sub(self.integer.len())?))
        });
        digit.map_or(0, |digit| digit - b'0')
    }
}

/// An exponent, held within bounds in which no digit of a line can be.
fn read_exponent(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0i64, |value, digit| (value * 10 + i64::from(digit - b'0')).min(1 << 40));
    Some(if is_negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nanoseconds(text: &str) -> Result<i128, ValueError> {
        let moment = of_number(text.as_bytes())?;
        Ok(i128::from(moment.seconds) * NANOSECONDS + i128::from(moment.nanoseconds))
    }

    #[test]
    fn the_magnitude_is_the_unit() {
        for (text, expected) in [
            ("0", 0),
            ("-0.0e5", 0),
            ("1", NANOSECONDS),
            ("1606864194", 1_606_864_194 * NANOSECONDS),
            ("1606864194.123456789123", 1_606_864_194_123_456_789),
            ("1.606864194e9", 1_606_864_194 * NANOSECONDS),
            ("1606864194123", 1_606_864_194_123_000_000),
            ("1606864194123.5", 1_606_864_194_123_500_000),
            ("1606864194123456", 1_606_864_194_123_456_000),
            ("1606864194123456.7", 1_606_864_194_123_456_700),
            ("1606864194123456789", 1_606_864_194_123_456_789),
            ("1606864194123456789.9", 1_606_864_194_123_456_789),
            ("99999999999", 99_999_999_999 * NANOSECONDS),
            ("99999999999.9", 99_999_999_999_900_000_000),
            ("100000000000", 100_000_000 * NANOSECONDS),
            ("99999999999999", 99_999_999_999 * NANOSECONDS + 999_000_000),
            ("100000000000000", 100_000_000 * NANOSECONDS),
            ("99999999999999999", 99_999_999_999 * NANOSECONDS + 999_999_000),
            ("100000000000000000", 100_000_000 * NANOSECONDS),
            ("-1.5", -1_500_000_000),
            ("-1606864194123", -1_606_864_194_123_000_000),
            ("0.000000001", 1),
            ("0.0000000019", 1),
            ("1e-9", 1),
            ("5e-1", 500_000_000),
            ("1e-400000000000000000000", 0),
            ("0e400000000000000000000", 0),
            ("0.00000000000000000000016068641945e32", 16_068_641_945 * NANOSECONDS),
        ] {
            assert_eq!(nanoseconds(text), Ok(expected), "{text}");
        }
        for text in ["1e20", "1e400000000000000000000", "100000000000000000000", "-1e21"] {
            assert_eq!(nanoseconds(text), Err(ValueError::OutOfRange), "{text}");
        }
        for text in ["", "-", "1e", ".5", "x", "1e+", "1.5.5"] {
            assert_eq!(nanoseconds(text), Err(ValueError::Mismatch), "{text}");
        }
    }

    #[test]
    fn a_unit_that_is_known_is_not_guessed() {
        let of = |unit, text: &str| {
            let moment = of_number_in(unit, text.as_bytes())?;
            Ok(i128::from(moment.seconds) * NANOSECONDS + i128::from(moment.nanoseconds))
        };
        for (unit, text, expected) in [
            (TimeUnit::Seconds, "1606864194123", 1_606_864_194_123 * NANOSECONDS),
            (TimeUnit::Milliseconds, "5", 5_000_000),
            (TimeUnit::Milliseconds, "-1.5", -1_500_000),
            (TimeUnit::Microseconds, "1606864194.1239", 1_606_864_194_123),
            (TimeUnit::Nanoseconds, "7.9", 7),
            (TimeUnit::Nanoseconds, "1606864194123456789", 1_606_864_194_123_456_789),
        ] {
            assert_eq!(of(unit, text), Ok(expected), "{text} {unit:?}");
        }
        assert_eq!(of(TimeUnit::Seconds, "1e20"), Err(ValueError::OutOfRange));
        assert_eq!(of(TimeUnit::Seconds, "x"), Err(ValueError::Mismatch));
        let guessed = ["-1", "100000000000", "1e14", "100000000000000000", "1e21"];
        let units = guessed.map(|text| unit_of_number(text.as_bytes()).map(TimeUnit::as_str));
        assert_eq!(units, [Some("s"), Some("ms"), Some("us"), Some("ns"), None]);
    }

    proptest! {
        /// The twin counts in nanoseconds of whole numbers.
        #[test]
        fn whole_numbers_by_their_magnitude(value in any::<i64>(), shift in 0u32..60) {
            let value = value >> shift;
            let unit = match value.unsigned_abs() {
                ..100_000_000_000 => NANOSECONDS,
                100_000_000_000..100_000_000_000_000 => 1_000_000,
                100_000_000_000_000..100_000_000_000_000_000 => 1_000,
                _ => 1,
            };
            prop_assert_eq!(nanoseconds(&value.to_string()), Ok(i128::from(value) * unit));
        }
    }
}
