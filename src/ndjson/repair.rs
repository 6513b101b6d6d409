//! Replacement of invalid text by U+FFFD, for `--invalid-text replace`.
//!
//! The slow path repairs a line before it encodes it, so keys, values, skipped values and the text of
//! nested values are repaired alike. Two kinds of text are invalid:
//!
//! - Bytes that are not UTF-8. Each maximal subpart of an ill-formed sequence becomes one U+FFFD (The
//!   Unicode Standard, section 3.9, "U+FFFD Substitution of Maximal Subparts").
//! - An escape of a surrogate that is not half of a pair (RFC 8259, section 8.2). It becomes `\ufffd`,
//!   which is as long.

use std::borrow::Cow;

use clap::ValueEnum;

/// What happens to a line with invalid text (`--invalid-text`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum InvalidText {
    /// The line is rejected, unless the invalid text is an unpaired surrogate in a value that is
    /// skipped or in a key that no column has.
    #[default]
    Reject,
    /// The invalid text is replaced by U+FFFD.
    Replace,
}

/// The line with all invalid text replaced. It has at most three times as many bytes.
pub(super) fn line(line: &[u8]) -> Cow<'_, [u8]> {
    let text = utf8(line);
    match surrogates(&text) {
        Some(repaired) => Cow::Owned(repaired),
        None => text,
    }
}

/// The bytes with everything replaced that is not UTF-8.
pub(super) fn utf8(bytes: &[u8]) -> Cow<'_, [u8]> {
    match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(_) => Cow::Borrowed(bytes),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// True if JSON text contains the escape of an unpaired surrogate.
pub(super) fn has_unpaired_surrogate(json: &[u8]) -> bool {
    next_unpaired(json, 0).is_some()
}

/// JSON text with the escapes of unpaired surrogates replaced; `None` if there are none.
fn surrogates(json: &[u8]) -> Option<Vec<u8>> {
    let mut at = next_unpaired(json, 0)?;
    let mut repaired = json.to_vec();
    loop {
        if let Some(digits) = repaired.get_mut(at + 2..at + 6) {
            digits.copy_from_slice(b"fffd");
        }
        match next_unpaired(json, at + 6) {
            Some(next) => at = next,
            None => return Some(repaired),
        }
    }
}

/// The offset of the backslash of the first unpaired surrogate from `at` on, where no escape is cut.
fn next_unpaired(json: &[u8], at: usize) -> Option<usize> {
    let mut at = at;
    loop {
        at += memchr::memchr(b'\\', json.get(at..)?)?;
        at += match code_unit(json, at) {
            Some(0xd800..0xdc00) if matches!(code_unit(json, at + 6), Some(0xdc00..0xe000)) => 12,
            Some(0xd800..0xe000) => return Some(at),
            Some(_) => 6,
            // Another escape, or none that is valid.
            None => 2,
        };
    }
}

/// The value of `\uXXXX` at `at`. Written without `escape`, whose twin this is.
fn code_unit(json: &[u8], at: usize) -> Option<u16> {
    let digits = json.get(at..at + 6)?.strip_prefix(b"\\u")?;
    let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn repaired(text: &[u8]) -> String {
        String::from_utf8(line(text).into_owned()).unwrap()
    }

    #[test]
    fn each_unpaired_surrogate_is_replaced_and_no_pair_is() {
        for (given, expected) in [
            (r#"{"a":"\ud83d"}"#, r#"{"a":"\ufffd"}"#),
            (r#"{"\uDE00":1}"#, r#"{"\ufffd":1}"#),
            (r"\ud83d\ude00", r"\ud83d\ude00"),
            (r"\ud83d\ud83d\ude00", r"\ufffd\ud83d\ude00"),
            (r"\ude00\ud83d\ude00\ude00", r"\ufffd\ud83d\ude00\ufffd"),
            (r"\ud83dx\ude00", r"\ufffdx\ufffd"),
            (r"\ud83d\n\ude00", r"\ufffd\n\ufffd"),
            (r"\\ud83d", r"\\ud83d"),
            (r"\\\ud83d", r"\\\ufffd"),
            (r"\ud83", r"\ud83"),
            (r"\u+d83\ud8zz", r"\u+d83\ud8zz"),
            (r"\ud83d\", r"\ufffd\"),
            (r"\udfff\ud800", r"\ufffd\ufffd"),
        ] {
            assert_eq!(repaired(given.as_bytes()), expected);
            assert_eq!(has_unpaired_surrogate(given.as_bytes()), given != expected, "{given}");
        }
    }

    #[test]
    fn maximal_subparts_of_invalid_utf8_become_one_character_each() {
        // Table 3-8 of The Unicode Standard, and sequences that are cut by JSON.
        for (given, expected) in [
            (
                &b"\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41"[..],
                "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}A",
            ),
            (
                b"\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41",
                "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}A",
            ),
            (b"\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}A"),
            (b"\"\xf0\x9f\x98\"", "\"\u{fffd}\""),
            (b"\"\xf0\x9f\x98\x80\"", "\"\u{1f600}\""),
            (b"\"\xc3\\n\"", "\"\u{fffd}\\n\""),
        ] {
            assert_eq!(repaired(given), expected);
        }
    }

    proptest! {
        /// The naive twin decodes a string to UTF-16 units, and those as JavaScript's `toWellFormed` does.
        #[test]
        fn a_repaired_string_is_what_its_utf16_units_are_when_they_are_well_formed(
            units in prop::collection::vec(prop_oneof![0xd7f0u16..0xe010, 0x20u16..0x7f], 0..12)
        ) {
            let text: String = units.iter().map(|unit| format!("\\u{unit:04x}")).collect();
            let decoded: String = serde_json::from_str(&format!("\"{}\"", repaired(text.as_bytes()))).unwrap();
            prop_assert_eq!(decoded, String::from_utf16_lossy(&units));
        }

        #[test]
        fn what_is_repaired_is_valid_and_what_is_valid_is_left_alone(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"\\\\ud8dcDC0f\""[..])], 0..40)
        ) {
            let once = line(&bytes).into_owned();
            prop_assert!(std::str::from_utf8(&once).is_ok() && !has_unpaired_surrogate(&once));
            prop_assert_eq!(&line(&once)[..], &once[..]);
            prop_assert!(once.len() <= 3 * bytes.len());
        }
    }
}
