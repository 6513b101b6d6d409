//! What kinds of values a field has had, and the type of a column that takes them all.

/// Kinds of values, as bits: those of the values in the lower byte, those of the elements of arrays in the
/// next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u16);

const NULL: u16 = 1;
const BOOL: u16 = 2;
/// An integer from 0 to 2^63 - 1.
const INTEGER: u16 = 4;
/// A negative integer of 64 bits.
const NEGATIVE: u16 = 8;
/// An integer from 2^63 to 2^64 - 1.
const LARGE: u16 = 16;
/// Any other number.
const FLOAT: u16 = 32;
/// A text, or a number that only its text holds.
const TEXT: u16 = 64;
/// An object; with [`ARRAY`] beside it among elements.
const OBJECT: u16 = 128;
/// An array: its elements' kinds are in the next byte, which is never empty then.
const ELEMENTS_SHIFT: u32 = 8;
/// An element that is an array, or an array without elements so far. Takes the place of [`OBJECT`] there.
const EMPTY: u16 = 0x8000;

/// An integer of at most so many digits fits 64 bits, whatever the digits are.
const SAFE_DIGITS: usize = 18;
/// A number of at most so many digits without an exponent is within the range of a Float64.
const FLOAT_DIGITS: usize = 300;

impl Kinds {
    /// The kinds of one value, valid JSON without white space around it.
    #[inline]
    pub(crate) fn of(raw: &[u8]) -> Self {
        match raw.first() {
            Some(b'"') => Self(TEXT),
            Some(b'[') => Self::of_array(raw),
            Some(_) => Self(scalar(raw)),
            None => Self(0),
        }
    }

    #[inline(never)]
    fn of_array(raw: &[u8]) -> Self {
        use crate::ndjson::skip::{skip_space, skip_value};
        let (mut kinds, mut at) = (EMPTY, skip_space(raw, 1));
        while let Ok(end) = skip_value(raw, at, 0) {
            let element = match raw.get(at) {
                Some(b'"') => TEXT,
                // As text, both fit the same elements.
                Some(b'[' | b'{') => TEXT,
                _ => scalar(raw.get(at..end).unwrap_or_default()),
            };
            kinds |= element << ELEMENTS_SHIFT;
            let next = skip_space(raw, end);
            if raw.get(next) != Some(&b',') {
                break;
            }
            at = skip_space(raw, next + 1);
        }
        Self(kinds)
    }

    /// The kinds of both.
    #[inline]
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The type of a column that takes all of these values: null is NULL where a type has it, and numbers,
    /// texts, arrays and objects together are text.
    pub fn column_type(self) -> String {
        let (values, elements) = (self.0 & 0xff, self.0 >> ELEMENTS_SHIFT & 0x7f);
        if self.0 & EMPTY != 0 || elements != 0 {
            return match values & !NULL {
                0 => format!("Array({})", column_type(elements)),
                _ => column_type(values | TEXT),
            };
        }
        column_type(values)
    }
}

fn scalar(raw: &[u8]) -> u16 {
    match raw.first() {
        Some(b'n') => NULL,
        Some(b't' | b'f') => BOOL,
        Some(b'{') => OBJECT,
        Some(b'-') if is_short_integer(raw.get(1..).unwrap_or_default()) => NEGATIVE,
        Some(_) if is_short_integer(raw) => INTEGER,
        _ => long_number(raw),
    }
}

fn is_short_integer(digits: &[u8]) -> bool {
    digits.len() <= SAFE_DIGITS && digits.iter().all(u8::is_ascii_digit)
}

#[cold]
fn long_number(raw: &[u8]) -> u16 {
    let text = std::str::from_utf8(raw).unwrap_or_default();
    let is_exponent = |byte: &u8| matches!(byte, b'e' | b'E');
    if raw.iter().any(|byte| *byte == b'.' || is_exponent(byte)) {
        // A Float64 holds nothing beyond its range, which a number of fewer digits without an exponent is within.
        let may_be_beyond = raw.len() > FLOAT_DIGITS || raw.iter().any(is_exponent);
        let is_beyond = may_be_beyond && !text.parse::<f64>().is_ok_and(f64::is_finite);
        return if is_beyond { TEXT } else { FLOAT };
    }
    match (text.parse::<i64>(), text.parse::<u64>()) {
        (Ok(_), Ok(_)) => INTEGER,
        (Ok(_), Err(_)) => NEGATIVE,
        (Err(_), Ok(_)) => LARGE,
        // A Float64 would round all digits but the first ones.
        (Err(_), Err(_)) => TEXT,
    }
}

fn column_type(kinds: u16) -> String {
    let is_nullable = kinds & NULL != 0;
    let name = match kinds & !NULL {
        BOOL => "Bool",
        OBJECT => return "JSON".to_owned(),
        0 => "String",
        numbers if numbers & !(INTEGER | NEGATIVE) == 0 => "Int64",
        numbers if numbers & !(INTEGER | LARGE) == 0 => "UInt64",
        numbers if numbers & !(INTEGER | NEGATIVE | LARGE) == 0 => "Int128",
        numbers if numbers & !(INTEGER | NEGATIVE | LARGE | FLOAT) == 0 => "Float64",
        _ => "String",
    };
    if is_nullable { format!("Nullable({name})") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suggested(values: &[&str]) -> String {
        values.iter().fold(Kinds::default(), |kinds, value| kinds.and(Kinds::of(value.as_bytes()))).column_type()
    }

    #[test]
    fn the_type_takes_all_of_the_values() {
        for (values, expected) in [
            (&["1"][..], "Int64"),
            (&["1", "-1", "9223372036854775807"], "Int64"),
            (&["1", "18446744073709551615"], "UInt64"),
            (&["-1", "18446744073709551615"], "Int128"),
            (&["1", "1.5"], "Float64"),
            (&["18446744073709551616"], "String"),
            (&["1", "-9223372036854775809"], "String"),
            (&["1.5", "1e400"], "String"),
            (&["[1,1e400]"], "Array(String)"),
            (&["1e3", "-7", "18446744073709551615"], "Float64"),
            (&["true", "false"], "Bool"),
            (&["true", "1"], "String"),
            (&["\"a\""], "String"),
            (&["\"a\"", "1"], "String"),
            (&["\"a\"", "null"], "Nullable(String)"),
            (&["null"], "Nullable(String)"),
            (&["null", "1"], "Nullable(Int64)"),
            (&["{}", "{\"a\":1}"], "JSON"),
            (&["{}", "null"], "JSON"),
            (&["{}", "1"], "String"),
            (&["[]"], "Array(String)"),
            (&["[]", "[1,2]"], "Array(Int64)"),
            (&["[1]", "[ null , 2.5 ]", "null"], "Array(Nullable(Float64))"),
            (&["[\"a\"]", "[1]"], "Array(String)"),
            (&["[{\"a\":1}]", "[[1]]"], "Array(String)"),
            (&["[1]", "1"], "String"),
            (&["[true]", "{}"], "String"),
        ] {
            assert_eq!(suggested(values), expected, "{values:?}");
        }
    }
}
