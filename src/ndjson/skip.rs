//! Skipping of a JSON value (RFC 8259) without recursion, with a full check of its grammar.
//!
//! Used for a value that belongs to no column, for a value whose raw text is stored in a String
//! column, and for a whole line before `sonic-rs` parses it: the checked skipper of `sonic-rs`
//! recurses once per level. The open levels are bits in a fixed array (1 for an object), so nesting
//! costs no memory, and the depth of a line is limited before any other code parses the line.

use super::scan::string_end;
use crate::limits::DEPTH_MAX;

/// Why a value can't be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SkipError {
    /// The text is not JSON from this offset on.
    Invalid(usize),
    /// The value has more than [`DEPTH_MAX`] levels.
    TooDeep,
}

const WORDS: usize = DEPTH_MAX.div_ceil(64);

/// The stack of open arrays and objects.
#[derive(Default)]
struct Levels {
    depth: usize,
    objects: [u64; WORDS],
}

impl Levels {
    fn push(&mut self, object: bool) -> Result<(), SkipError> {
        if self.depth >= DEPTH_MAX {
            return Err(SkipError::TooDeep);
        }
        if let Some(word) = self.objects.get_mut(self.depth / 64) {
            let bit = 1 << (self.depth % 64);
            *word = if object { *word | bit } else { *word & !bit };
        }
        self.depth += 1;
        Ok(())
    }

    /// True when the innermost level is an object; `None` when no level is open.
    fn innermost(&self) -> Option<bool> {
        let index = self.depth.checked_sub(1)?;
        let word = self.objects.get(index / 64)?;
        Some(word >> (index % 64) & 1 == 1)
    }
}

/// The offset after the value that begins at `at`, without white space before it. `open` is the number
/// of levels around the value.
pub(crate) fn skip_value(body: &[u8], at: usize, open: usize) -> Result<usize, SkipError> {
    let mut levels = Levels::default();
    for _ in 0..open {
        levels.push(true)?;
    }
    let mut at = at;
    loop {
        // A scalar or empty value, or the opening of an array or object.
        at = match body.get(at) {
            Some(b'{') => {
                levels.push(true)?;
                let next = skip_space(body, at + 1);
                if body.get(next) == Some(&b'}') {
                    levels.depth -= 1;
                    next + 1
                } else {
                    at = skip_key(body, next)?;
                    continue;
                }
            }
            Some(b'[') => {
                levels.push(false)?;
                let next = skip_space(body, at + 1);
                if body.get(next) == Some(&b']') {
                    levels.depth -= 1;
                    next + 1
                } else {
                    at = next;
                    continue;
                }
            }
            _ => skip_scalar(body, at).ok_or(SkipError::Invalid(at))?,
        };
        // After a value: levels are closed until another value follows.
        loop {
            if levels.depth == open {
                return Ok(at);
            }
            let object = levels.innermost() == Some(true);
            let next = skip_space(body, at);
            match body.get(next) {
                Some(b',') => {
                    at = skip_space(body, next + 1);
                    if object {
                        at = skip_key(body, at)?;
                    }
                    break;
                }
                Some(b'}') if object => levels.depth -= 1,
                Some(b']') if !object => levels.depth -= 1,
                _ => return Err(SkipError::Invalid(next)),
            }
            at = next + 1;
        }
    }
}

/// Skips a key, its colon and the white space around the colon; returns the offset of the value.
fn skip_key(body: &[u8], at: usize) -> Result<usize, SkipError> {
    let colon = skip_space(body, skip_string(body, at).ok_or(SkipError::Invalid(at))?);
    if body.get(colon) != Some(&b':') {
        return Err(SkipError::Invalid(colon));
    }
    Ok(skip_space(body, colon + 1))
}

/// The offset after the string, number or literal at `at`; `None` when there is none.
#[inline]
pub(crate) fn skip_scalar(body: &[u8], at: usize) -> Option<usize> {
    match body.get(at)? {
        b'"' => skip_string(body, at),
        b'-' | b'0'..=b'9' => skip_number(body, at),
        b't' => skip_literal(body, at, b"true"),
        b'f' => skip_literal(body, at, b"false"),
        b'n' => skip_literal(body, at, b"null"),
        _ => None,
    }
}

/// The offset after the string that begins at `at`. Escapes are checked; the pairing of surrogates is
/// not, because an unpaired surrogate is valid JSON (RFC 8259, section 8.2), though not valid text.
pub(crate) fn skip_string(body: &[u8], at: usize) -> Option<usize> {
    if body.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        match string_end(body, at)? {
            (end, b'"') => return Some(end + 1),
            (end, b'\\') => {
                at = match body.get(end + 1)? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => end + 2,
                    b'u' => {
                        let digits = body.get(end + 2..end + 6)?;
                        if !digits.iter().all(u8::is_ascii_hexdigit) {
                            return None;
                        }
                        end + 6
                    }
                    _ => return None,
                }
            }
            _ => return None,
        }
    }
}

/// The offset after the number that begins at `at` (RFC 8259, section 6).
pub(crate) fn skip_number(body: &[u8], at: usize) -> Option<usize> {
    let mut at = at;
    if body.get(at) == Some(&b'-') {
        at += 1;
    }
    at = match body.get(at)? {
        b'0' => at + 1,
        b'1'..=b'9' => skip_digits(body, at + 1),
        _ => return None,
    };
    if body.get(at) == Some(&b'.') {
        at = some_digits(body, at + 1)?;
    }
    if matches!(body.get(at), Some(b'e' | b'E')) {
        at += 1;
        if matches!(body.get(at), Some(b'+' | b'-')) {
            at += 1;
        }
        at = some_digits(body, at)?;
    }
    Some(at)
}

fn some_digits(body: &[u8], at: usize) -> Option<usize> {
    let end = skip_digits(body, at);
    (end > at).then_some(end)
}

fn skip_digits(body: &[u8], at: usize) -> usize {
    let rest = body.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn skip_literal(body: &[u8], at: usize, literal: &[u8]) -> Option<usize> {
    let end = at + literal.len();
    (body.get(at..end)? == literal).then_some(end)
}

/// The first offset from `at` on that holds no space, tab or carriage return. A line feed ends the line
/// and does not count as white space.
#[inline]
pub(crate) fn skip_space(body: &[u8], at: usize) -> usize {
    let mut at = at;
    while matches!(body.get(at), Some(b' ' | b'\t' | b'\r')) {
        at += 1;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(text: &[u8]) -> bool {
        skip_value(text, 0, 0) == Ok(text.len())
    }

    #[test]
    fn depth_is_limited() {
        for depth in [0, 1, 63, 64, 65, DEPTH_MAX - 1, DEPTH_MAX] {
            let text = ["[".repeat(depth), "1".to_owned(), "]".repeat(depth)].concat();
            assert!(whole(text.as_bytes()), "{depth}");
        }
        let deep = "{\"a\":".repeat(DEPTH_MAX + 1);
        assert_eq!(skip_value(deep.as_bytes(), 0, 0), Err(SkipError::TooDeep));
        assert_eq!(skip_value(b"[1]", 0, DEPTH_MAX), Err(SkipError::TooDeep));
        assert_eq!(skip_value(b"1", 0, DEPTH_MAX), Ok(1));
    }

    #[test]
    fn only_the_grammar_of_json_is_accepted() {
        for good in [
            "0",
            "-0",
            "1.5e-7",
            "\"\"",
            "true",
            "[]",
            "{}",
            "[1,[2,{}],{\"a\":[]}]",
            "{ \"a\" : [ 1 , 2 ] , \"\\u0041\":null }",
            "\"\\ud800\"",
        ] {
            assert!(whole(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "nul",
            "\"",
            "\"\\x\"",
            "\"\\u00g0\"",
            "[1,]",
            "[,1]",
            "{\"a\":1,}",
            "{\"a\"}",
            "{a:1}",
            "[1}",
            "{\"a\":1]",
            "\"\t\"",
            "[1 2]",
            "nan",
        ] {
            assert!(!whole(bad.as_bytes()), "{bad}");
        }
    }

    proptest! {
        /// The naive twin is `serde_json`, which does not check the pairing of surrogates in an ignored
        /// value either.
        #[test]
        fn it_accepts_what_serde_json_accepts(
            text in "[\\[\\]{}:, \"a1tfn0e.\\-\\\\u]{0,24}"
        ) {
            let twin = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            let trimmed = text.trim_matches(' ');
            prop_assert_eq!(whole(trimmed.as_bytes()), twin, "{}", text);
        }
    }
}
