//! A body that is one JSON array of objects: its elements are encoded as lines are.
//!
//! The array may stand on any number of lines, so a line feed is white space between the tokens of an
//! element. An element that contains line feeds is copied with spaces in their place, and is a line then.
//! The end of each element is searched first: what begins as an array and is none as a whole is refused,
//! and one bad element must not hide where the next one begins.

use super::lines::{Lines, after_mark};
use super::skip::{skip_scalar, skip_string};
use super::walk::Bounds;
use super::{EncodeRefusal, Origin, Progress, Report, RowEncoder};
use crate::batch::Batch;
use crate::limits;

/// Levels of an element, at most: one with more levels than [`limits::DEPTH_MAX`] is a rejected line, and
/// only one with more than these makes the array none.
const LEVELS_MAX: usize = 4096;

/// Bytes of space that is kept between bodies for the copy of an element.
const COPY_BYTES_KEPT: usize = 64 << 10;

/// How the events lie in a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Layout {
    /// Nothing of the body was encoded.
    #[default]
    Unknown,
    /// One object a line.
    Lines,
    /// One array of objects.
    Elements,
}

/// What follows in an array.
enum Next {
    /// An element, between these offsets.
    Element(usize, usize),
    /// Nothing: the array ends, and the body with it.
    End,
}

/// The offset behind the opening bracket, if the first byte of the body that is not white space is one.
#[inline]
pub(super) fn begin_array(body: &[u8]) -> Option<usize> {
    let first = skip_white(body, after_mark(body));
    (body.get(first) == Some(&b'[')).then_some(first + 1)
}

/// The first offset from `at` on that holds no white space (RFC 8259, section 2).
#[inline]
fn skip_white(body: &[u8], at: usize) -> usize {
    let mut at = at;
    while matches!(body.get(at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
        at += 1;
    }
    at
}

/// The element that follows `at`, which is the offset behind the opening bracket, or behind an element.
///
/// # Errors
///
/// The offset from which on the body is no array.
fn next_element(body: &[u8], at: usize, is_first: bool) -> Result<Next, usize> {
    let at = skip_white(body, at);
    let start = match body.get(at) {
        Some(b']') => {
            let end = skip_white(body, at + 1);
            return if end == body.len() { Ok(Next::End) } else { Err(end) };
        }
        Some(b',') if !is_first => skip_white(body, at + 1),
        Some(_) if is_first => at,
        _ => return Err(at),
    };
    skip_element(body, start).map(|end| Next::Element(start, end))
}

/// The open objects and arrays of an element: a bit each, 1 for an object.
struct Levels {
    depth: usize,
    objects: [u64; LEVELS_MAX / 64],
}

impl Levels {
    fn push(&mut self, object: bool) -> Option<()> {
        let word = self.objects.get_mut(self.depth / 64)?;
        let bit = 1 << (self.depth % 64);
        *word = if object { *word | bit } else { *word & !bit };
        self.depth += 1;
        Some(())
    }

    /// True when the innermost level is an object.
    fn innermost(&self) -> bool {
        let index = self.depth.saturating_sub(1);
        self.objects.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }
}

/// The offset behind the value that begins at `at`. As [`super::skip::skip_value`], with line feeds as white
/// space and more levels.
///
/// # Errors
///
/// The offset from which on the text is not JSON.
fn skip_element(body: &[u8], at: usize) -> Result<usize, usize> {
    let mut levels = Levels { depth: 0, objects: [0; LEVELS_MAX / 64] };
    let mut at = at;
    loop {
        // A scalar or empty value, or the opening of an array or object.
        at = match body.get(at) {
            Some(open @ (b'{' | b'[')) => {
                let is_object = *open == b'{';
                levels.push(is_object).ok_or(at)?;
                let next = skip_white(body, at + 1);
                match body.get(next) {
                    Some(b'}') if is_object => {}
                    Some(b']') if !is_object => {}
                    _ => {
                        at = if is_object { skip_key(body, next)? } else { next };
                        continue;
                    }
                }
                levels.depth -= 1;
                next + 1
            }
            _ => skip_scalar(body, at).ok_or(at)?,
        };
        // After a value: levels are closed until another value follows.
        loop {
            if levels.depth == 0 {
                return Ok(at);
            }
            let is_object = levels.innermost();
            let next = skip_white(body, at);
            match body.get(next) {
                Some(b',') => {
                    at = skip_white(body, next + 1);
                    if is_object {
                        at = skip_key(body, at)?;
                    }
                    break;
                }
                Some(b'}') if is_object => levels.depth -= 1,
                Some(b']') if !is_object => levels.depth -= 1,
                _ => return Err(next),
            }
            at = next + 1;
        }
    }
}

/// Skips a key, its colon and the white space around the colon; returns the offset of the value.
fn skip_key(body: &[u8], at: usize) -> Result<usize, usize> {
    let colon = skip_white(body, skip_string(body, at).ok_or(at)?);
    if body.get(colon) != Some(&b':') {
        return Err(colon);
    }
    Ok(skip_white(body, colon + 1))
}

impl RowEncoder {
    /// Encodes elements of the array until `bytes` bytes of it are done, or all are. Returns true after the
    /// last one.
    pub(super) fn encode_elements<const FAST: bool>(
        &mut self,
        body: &[u8],
        bytes: usize,
        progress: &mut Progress,
        origin: &Origin,
        batch: &mut Batch,
        report: &mut Report,
    ) -> Result<bool, EncodeRefusal> {
        report.has_elements = true;
        let until = progress.at.saturating_add(bytes);
        let (before, accepted_before) = (batch.len(), progress.accepted);
        let (mut ends, mut at) = (false, progress.at);
        let mut copy = std::mem::take(&mut self.copy);
        let mut encoded = Ok(());
        while !ends && at < until && encoded.is_ok() {
            match next_element(body, at, progress.lines == 0) {
                Ok(Next::Element(start, end)) => {
                    at = end;
                    progress.lines = progress.lines.saturating_add(1);
                    let element = on_one_line(body.get(start..end).unwrap_or_default(), &mut copy);
                    let row_start = self.builder.rows.len();
                    encoded = self.encode_element::<FAST>(element, progress, origin, batch, report);
                    encoded = encoded.and_then(|()| self.after_line(row_start, before, progress.encoded, batch));
                }
                Ok(Next::End) => ends = true,
                Err(at) => encoded = Err(EncodeRefusal::InvalidArray { at }),
            }
        }
        copy.clear();
        copy.shrink_to(COPY_BYTES_KEPT);
        self.copy = copy;
        encoded?;
        progress.at = at;
        let more = progress.accepted - accepted_before;
        batch.rows.count += more;
        report.accepted += more;
        Ok(ends)
    }

    fn encode_element<const FAST: bool>(
        &mut self,
        element: &[u8],
        progress: &mut Progress,
        origin: &Origin,
        batch: &mut Batch,
        report: &mut Report,
    ) -> Result<(), EncodeRefusal> {
        if progress.accepted + progress.rejected >= self.limits.events_max {
            return Err(EncodeRefusal::TooManyEvents);
        }
        self.window.clear();
        let bounds = Bounds { lines: 1, bytes: usize::MAX, line_bytes: self.limits.line_bytes_max };
        if FAST && self.server.unfit.is_none() && self.walk().lines(element, &mut Lines::of_element(), bounds) > 0 {
            progress.accepted += 1;
            return Ok(());
        }
        match self.encode_line(element) {
            Ok(()) => progress.accepted += 1,
            Err(rejection) => {
                progress.rejected += 1;
                self.reject(rejection, progress.lines, element, origin, batch, report);
            }
        }
        if progress.rejected > limits::BAD_LINES_MAX { Err(EncodeRefusal::TooManyBadLines) } else { Ok(()) }
    }
}

/// The element with a space in place of each line feed. No string of an element contains one.
fn on_one_line<'a>(element: &'a [u8], copy: &'a mut Vec<u8>) -> &'a [u8] {
    if memchr::memchr(b'\n', element).is_none() {
        return element;
    }
    copy.clear();
    copy.extend(element.iter().map(|byte| if *byte == b'\n' { b' ' } else { *byte }));
    copy
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The elements of a body, or the offset from which on it is no array.
    fn elements(body: &[u8]) -> Option<Result<Vec<&[u8]>, usize>> {
        let mut at = begin_array(body)?;
        let mut found = Vec::new();
        loop {
            match next_element(body, at, found.is_empty()) {
                Ok(Next::Element(start, end)) => {
                    found.push(&body[start..end]);
                    at = end;
                }
                Ok(Next::End) => return Some(Ok(found)),
                Err(at) => return Some(Err(at)),
            }
        }
    }

    #[test]
    fn the_elements_of_an_array_are_found_on_any_number_of_lines() {
        let found = |body: &'static str| elements(body.as_bytes());
        assert_eq!(found(""), None);
        assert_eq!(found(" \n{}"), None);
        assert_eq!(found("[]"), Some(Ok(vec![])));
        assert_eq!(found("\u{feff} \r\n\t[ \n ] \n"), Some(Ok(vec![])));
        assert_eq!(found("[{}]"), Some(Ok(vec![&b"{}"[..]])));
        assert_eq!(
            found("[{\"a\":1},\n {\n\"a\" :\n[\n1\n,\n2\n]\n}\n, 1,\"x\",[]]\n"),
            Some(Ok(vec![&b"{\"a\":1}"[..], b"{\n\"a\" :\n[\n1\n,\n2\n]\n}", b"1", b"\"x\"", b"[]"]))
        );
    }

    #[test]
    fn what_is_no_array_is_refused_at_its_first_wrong_byte() {
        for (body, at) in [
            ("[", 1),
            ("[{}", 3),
            ("[{},", 4),
            ("[{},]", 4),
            ("[,{}]", 1),
            ("[{} {}]", 4),
            ("[{}]x", 4),
            ("[{}]\n[{}]", 5),
            ("[{}}", 3),
            ("[{\"a\":1]", 7),
            ("[{\"a\n\":1}]", 2),
            ("[{\"a\" 1}]", 6),
            ("[{a:1}]", 2),
            ("[tru]", 1),
            ("[\"\\ud800\"", 9),
        ] {
            assert_eq!(elements(body.as_bytes()), Some(Err(at)), "{body}");
        }
    }

    #[test]
    fn an_element_has_more_levels_than_a_line_may_have_and_not_endlessly_many() {
        let nested = |levels: usize| format!("[{}{}]", "[".repeat(levels), "]".repeat(levels));
        let deep = nested(LEVELS_MAX);
        assert_eq!(elements(deep.as_bytes()), Some(Ok(vec![&deep.as_bytes()[1..deep.len() - 1]])));
        assert_eq!(elements(nested(LEVELS_MAX + 1).as_bytes()), Some(Err(LEVELS_MAX + 1)));
        let mixed = format!("[{}1{}]", "{\"a\":[".repeat(limits::DEPTH_MAX), "]}".repeat(limits::DEPTH_MAX));
        assert_eq!(elements(mixed.as_bytes()).unwrap().unwrap().len(), 1);
    }

    #[test]
    fn every_front_of_an_array_is_none() {
        let body = b"\xef\xbb\xbf [ {\"a\" : [1, {}, \"\\u00e9\"] } ,\n {} ]";
        for end in 5..body.len() {
            assert!(matches!(elements(&body[..end]), Some(Err(at)) if at <= end), "{end}");
        }
        assert_eq!(elements(body).unwrap().unwrap().len(), 2);
    }

    proptest! {
        /// The naive twin is `serde_json`.
        #[test]
        fn it_accepts_what_serde_json_accepts(text in "\\[[\\[\\]{}:, \n\"a1tfn0e.\\-\\\\u]{0,24}") {
            let twin = serde_json::from_str::<Vec<serde::de::IgnoredAny>>(&text);
            let found = elements(text.as_bytes()).unwrap();
            prop_assert_eq!(found.ok().map(|found| found.len()), twin.ok().map(|twin| twin.len()), "{}", text);
        }
    }
}
