//! Skipping a JSON value without recursion, and checking all of its grammar on the way.
//!
//! Used where a value belongs to no column, where its raw text is stored in a String column, and
//! before a whole line is handed to `sonic-rs`, whose checked skipper recurses once per level.
//! The levels are bits in a fixed array (1 = object), so nesting costs no memory and a line's
//! depth has a limit before anything else looks at it.

use super::scan::string_end;
use crate::limits::DEPTH_MAX;

/// Why a value can't be skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SkipError {
    /// Not JSON from this place on.
    Invalid(usize),
    /// More than [`DEPTH_MAX`] levels.
    TooDeep,
}

const WORDS: usize = DEPTH_MAX.div_ceil(64);

/// The open arrays and objects.
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

    /// True when the innermost level is an object; `None` without a level.
    fn innermost(&self) -> Option<bool> {
        let index = self.depth.checked_sub(1)?;
        let word = self.objects.get(index / 64)?;
        Some(word >> (index % 64) & 1 == 1)
    }
}

/// The place behind the value that begins at `at` (no space before it). `open` is how many levels
/// it is already inside of.
pub(crate) fn skip_value(body: &[u8], at: usize, open: usize) -> Result<usize, SkipError> {
    let mut levels = Levels::default();
    for _ in 0..open {
        levels.push(true)?;
    }
    let mut at = at;
    loop {
        // One value, or the opening of one.
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
        // Behind a value: close levels until another value follows.
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

/// A key, its colon, and the space around it: the place of the value.
fn skip_key(body: &[u8], at: usize) -> Result<usize, SkipError> {
    let colon = skip_space(body, skip_string(body, at).ok_or(SkipError::Invalid(at))?);
    if body.get(colon) != Some(&b':') {
        return Err(SkipError::Invalid(colon));
    }
    Ok(skip_space(body, colon + 1))
}

/// The place behind a string, number or literal; `None` when there is none.
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

/// The place behind the string that begins at `at`, with its escapes checked. Surrogates are not
/// paired here: an unpaired one is legal JSON, though no text.
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

/// The place behind the number that begins at `at`, by JSON's grammar.
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

/// The first place at or behind `at` that holds no space, tab or carriage return. A line feed is
/// no space here: it ends the line.
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
    fn depth_has_a_limit() {
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
    fn grammar() {
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
        /// The naive twin is `serde_json`, which also refuses unpaired surrogates only on demand.
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
