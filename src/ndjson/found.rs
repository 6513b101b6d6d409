//! Where in the body the value of a field is.

use std::ops::Range;

use super::scan::{BLOCK, ends};
use super::skip::skip_scalar;
use super::values::number::{leading_digits, short_integer};
use super::values::text::plain_string;

/// Where the value of a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) place: Place,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// What [`Found::start`] and [`Found::end`] are offsets of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Place {
    /// The line lacks the field. Both offsets are 0.
    Missing,
    /// The body: a string without escapes, and without its quotes.
    Text,
    /// The body: a number, `true`, `false` or `null`.
    Bare,
    /// The side buffer: the encoded value.
    Side,
}

/// What may be behind a text, and what behind a number.
const BEHIND_TEXT: u8 = 1;
const BEHIND_NUMBER: u8 = 2;
#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const BEHIND: [u8; 256] = {
    let mut table = [0; 256];
    table[b'"' as usize] = BEHIND_TEXT;
    table[b',' as usize] = BEHIND_NUMBER;
    table[b'}' as usize] = BEHIND_NUMBER;
    table
};

impl Found {
    pub(crate) const MISSING: Self = Self { place: Place::Missing, start: 0, end: 0 };

    /// The range of the value in the body, with its quotes.
    #[inline]
    pub(crate) fn in_body(self) -> Range<usize> {
        let quote = usize::from(self.place == Place::Text);
        self.start.wrapping_sub(quote)..self.end + quote
    }

    /// The text without escapes, number or literal at `at`, where the order of keys is known: which kind of value comes is
    /// then, too, and so a branch is cheap. `value` is its begin.
    #[inline(always)]
    pub(super) fn guessed(value: &[u8; 1 + BLOCK], body: &[u8], at: usize) -> Option<Self> {
        let [first, block @ ..] = value;
        if *first == b'"' {
            let length = ends(block).trailing_zeros() as usize;
            if block.get(length) == Some(&b'"') {
                return Some(Self { place: Place::Text, start: at + 1, end: at + 1 + length });
            }
        } else if let Some((_, digits)) = short_integer(u64::from_le_bytes(*value.first_chunk()?))
            && matches!(value.get(digits), Some(b',' | b'}'))
        {
            return Some(Self { place: Place::Bare, start: at, end: at + digits });
        }
        Self::long(body, at)
    }

    /// The text of up to 63 bytes without escapes, or the integer of up to 7 digits at `at`. No branch depends on which of
    /// both it is, or on its length: where keys come in ever other orders, neither can be guessed.
    #[inline(always)]
    pub(super) fn short(body: &[u8], at: usize) -> Option<Self> {
        let window = body.get(at..)?.first_chunk::<{ 1 + 2 * BLOCK }>()?;
        let [first, texts @ ..] = window;
        let ([one, two], []) = texts.as_chunks() else { return None };
        let ends = u64::from(ends(one)) | u64::from(ends(two)) << BLOCK;
        let digits = leading_digits(u64::from_le_bytes(*window.first_chunk()?)) as usize;
        let is_text = *first == b'"';
        let length = if is_text { 1 + ends.trailing_zeros() as usize } else { digits };
        let behind = BEHIND.get(usize::from(*window.get(length)?))?;
        let is_number = (digits.wrapping_sub(1) < 7) & ((*first != b'0') | (digits == 1));
        let wanted = if is_text { BEHIND_TEXT } else { BEHIND_NUMBER & 0_u8.wrapping_sub(u8::from(is_number)) };
        if behind & wanted == 0 {
            return None;
        }
        let place = if is_text { Place::Text } else { Place::Bare };
        Some(Self { place, start: at + usize::from(is_text), end: at + length })
    }

    /// The text without escapes, number or literal at `at`; `None` if there is another value.
    #[inline(never)]
    pub(super) fn long(body: &[u8], at: usize) -> Option<Self> {
        match body.get(at)? {
            b'{' | b'[' => None,
            b'"' => {
                let (start, length, _) = plain_string(body, at)?;
                Some(Self { place: Place::Text, start, end: start + length })
            }
            _ => Some(Self { place: Place::Bare, start: at, end: skip_scalar(body, at)? }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is at 1, found in each of the ways that find it.
    fn found(body: &[u8]) -> Option<Found> {
        let found = Found::long(body, 1);
        if let Some(short) = Found::short(body, 1) {
            assert_eq!(Some(short), found);
        }
        if let Some(value) = body.get(1..).and_then(<[u8]>::first_chunk) {
            assert_eq!(Found::guessed(value, body, 1), found);
        }
        found
    }

    #[test]
    fn values_of_every_length_are_found_wherever_the_body_ends() {
        let texts = (0..140).map(|length| format!("\"{}\"", "a\u{e9}".repeat(length / 3) + &"b".repeat(length % 3)));
        let numbers = (0..30).map(|digits| "1234567890".repeat(3)[..=digits].to_owned());
        let others = ["0", "-1", "-0.5e-7", "1.5", "12e3", "true", "false", "null"].map(str::to_owned);
        for value in texts.chain(numbers).chain(others) {
            for behind in ["", ",", "}", " ", ",\"next\":1}", &"x".repeat(200), &format!(",{}", "\"".repeat(200))] {
                let is_digit_more = behind.starts_with(|next: char| next.is_ascii_digit());
                assert!(!is_digit_more);
                let body = format!("{{{value}{behind}").into_bytes();
                let found = found(&body).unwrap_or_else(|| panic!("{value} before {behind}"));
                assert_eq!(found.in_body(), 1..1 + value.len(), "{value} before {behind}");
                assert_eq!(found.place, if value.starts_with('"') { Place::Text } else { Place::Bare });
            }
        }
    }

    #[test]
    fn what_is_no_plain_value_is_not_found() {
        for value in ["", ",", "}", "{}", "[1]", "\"a\\n\"", "\"a\n\"", "\"open", "tru", "-", "+1", "nul,", "x", ".5"] {
            for behind in ["", ",\"next\":1}", &format!(",{}", " ".repeat(200))] {
                let body = format!("{{{value}{behind}").into_bytes();
                if value == "\"open" && !behind.is_empty() {
                    continue;
                }
                assert_eq!(found(&body), None, "{value} before {behind}");
            }
        }
        // What JSON does not allow behind a 0 is left to what follows.
        let body = format!("{{007,{}", " ".repeat(100)).into_bytes();
        assert_eq!(found(&body).map(Found::in_body), Some(1..2));
    }
}
