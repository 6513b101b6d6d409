//! A first pass over many lines at once: are they UTF-8, and where could strings end?
//!
//! A *mark* is a byte that can end a string: `"`, `\` or a byte below 0x20. The pass writes one bit per
//! byte, and the walk over a line asks it for the next mark. That is quicker than a search from the start
//! of each string: each byte is compared once, 64 at a time, and the way from one string to the next is
//! a load of bits and a count of zeros, whatever the lengths are. One load often shows a key and its
//! value. The window is so small that its lines are still in the L1 cache when they are walked.
//!
//! The bits say nothing of meaning: whether a quote is inside of a string depends on where the string began,
//! which the walk knows. So the pass carries no state from byte to byte.

use wide::u8x32;

use super::lines::end_of_line;
use crate::limits;

/// Bytes of a window. A window is extended to the end of its last line.
const WINDOW_BYTES: usize = 16 << 10;
/// No window is longer: its lines take the slow path, as does a line that is longer than most limits of a line.
const WINDOW_BYTES_MAX: usize = WINDOW_BYTES + limits::WINDOW_LINE_BYTES_MAX;
/// Bytes of marks that are kept between bodies.
const MARKS_KEPT: usize = WINDOW_BYTES / 4;
/// Bytes whose marks are one word.
const BLOCK: usize = 64;
/// Bytes of zeros behind the marks, so that a word can be loaded at each of them.
const PADDING: usize = 8;

/// The window of lines that was looked at last.
#[derive(Debug, Default)]
pub(crate) struct Window {
    start: usize,
    /// The offset of the line feed that ends the window, or the end of the body.
    end: usize,
    /// True when all lines of the window are UTF-8.
    is_utf8: bool,
    /// A bit per byte from `start` on, the first byte in the lowest bit; 1 for each mark, and for each byte
    /// from `end` to the end of its block.
    marks: Vec<u8>,
}

impl Window {
    /// Forgets the window of another body.
    pub(crate) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
        if self.marks.capacity() > MARKS_KEPT {
            self.marks = Vec::new();
        }
    }

    /// True when the line that begins at `start` is UTF-8, and its marks are there. Call it for the lines of a
    /// body in order.
    #[inline]
    pub(crate) fn has_line(&mut self, body: &[u8], start: usize) -> bool {
        if start >= self.end {
            self.advance(body, start);
        }
        self.is_utf8 || self.has_valid_line(body, start)
    }

    #[cold]
    fn has_valid_line(&self, body: &[u8], start: usize) -> bool {
        !self.marks.is_empty() && is_utf8(body, start, end_of_line(body, start))
    }

    #[inline(never)]
    fn advance(&mut self, body: &[u8], start: usize) {
        self.start = start;
        self.end = end_of_line(body, start + WINDOW_BYTES);
        self.is_utf8 = false;
        self.marks.clear();
        let lines = body.get(start..self.end).unwrap_or_default();
        if lines.len() <= WINDOW_BYTES_MAX {
            self.is_utf8 = self.mark(lines) || is_utf8(body, start, self.end);
        }
    }

    /// Fills the marks, and returns true if all bytes are ASCII.
    fn mark(&mut self, lines: &[u8]) -> bool {
        let (blocks, rest) = lines.as_chunks::<BLOCK>();
        self.marks.resize((blocks.len() + 1) * size_of::<u64>() + PADDING, 0);
        let (words, _) = self.marks.as_chunks_mut::<{ size_of::<u64>() }>();
        let mut seen = u8x32::splat(0);
        // The bytes behind the last one are marks, so that each search ends.
        let mut last = [0; BLOCK];
        for (byte, from) in last.iter_mut().zip(rest) {
            *byte = *from;
        }
        for (word, block) in words.iter_mut().zip(blocks.iter().chain([&last])) {
            *word = marks_of(block, &mut seen).to_le_bytes();
        }
        seen.simd_lt(u8x32::splat(0x80)).all()
    }

    /// The marks from `at` on, a bit per byte, that of `at` the lowest; at least 57 of them, and
    /// zeros behind. None behind the window.
    #[inline(always)]
    pub(crate) fn marks(&self, at: usize) -> u64 {
        let offset = at.wrapping_sub(self.start);
        let at = offset / 8;
        match self.marks.get(at..at + size_of::<u64>()).and_then(|marks| marks.first_chunk()) {
            Some(word) => u64::from_le_bytes(*word) >> (offset % 8),
            None => 0,
        }
    }

    /// The first mark from `at` on; `None` behind the window.
    #[inline]
    pub(crate) fn next(&self, at: usize) -> Option<usize> {
        match self.marks(at) {
            0 => self.next_far_off(at),
            marks => Some(at + marks.trailing_zeros() as usize),
        }
    }

    /// [`Window::next`] for a long string.
    #[inline(never)]
    pub(crate) fn next_far_off(&self, at: usize) -> Option<usize> {
        let (words, _) = self.marks.as_chunks::<{ size_of::<u64>() }>();
        let offset = at.checked_sub(self.start)?;
        let first = offset / BLOCK;
        let mut words = words.get(first..)?.iter().zip(first..).map(|(word, index)| (u64::from_le_bytes(*word), index));
        let (word, index) = words.next()?;
        let word = (word >> (offset % BLOCK)) << (offset % BLOCK);
        let (word, index) = if word != 0 { (word, index) } else { words.find(|(word, _)| *word != 0)? };
        Some(self.start + index * BLOCK + word.trailing_zeros() as usize)
    }
}

/// The marks of a block; `seen` gets the bits of all its bytes.
#[inline(always)]
fn marks_of(block: &[u8; BLOCK], seen: &mut u8x32) -> u64 {
    let (halves, _) = block.as_chunks::<{ BLOCK / 2 }>();
    halves.iter().rev().fold(0, |marks, half| {
        let bytes = u8x32::new(*half);
        *seen |= bytes;
        let is_mark = bytes.simd_eq(u8x32::splat(b'"'))
            | bytes.simd_eq(u8x32::splat(b'\\'))
            | bytes.simd_eq(bytes.min(u8x32::splat(0x1f)));
        marks << (BLOCK / 2) | u64::from(is_mark.to_bitmask())
    })
}

fn is_utf8(body: &[u8], start: usize, end: usize) -> bool {
    body.get(start..end).is_some_and(|lines| simdutf8::basic::from_utf8(lines).is_ok())
}
#[cfg(test)]
mod tests {
    use super::*;

    /// Bits that [`Window::marks`] returns at least.
    const BITS_MIN: usize = 57;

    /// Compares the window's answer for every line with a validation of the line alone.
    fn check(body: &[u8]) {
        let mut window = Window::default();
        let mut start = 0;
        while start < body.len() {
            let end = end_of_line(body, start);
            let twin = std::str::from_utf8(&body[start..end]).is_ok();
            assert_eq!(window.has_line(body, start), twin, "the line from {start} to {end}");
            start = end + 1;
        }
    }

    /// Compares the marks from each byte on with a plain search.
    fn check_marks(body: &[u8]) {
        let mut window = Window::default();
        let mut start = 0;
        while start < body.len() {
            window.has_line(body, start);
            let end = end_of_line(body, start);
            for at in start..=end {
                let is_mark = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
                let twin = body[at..end].iter().position(is_mark).map_or(end, |length| at + length);
                assert_eq!(window.next(at), Some(twin), "from {at} on");
                let marks = window.marks(at);
                for bit in 0..BITS_MIN.min(end - at) {
                    assert_eq!(marks >> bit & 1 == 1, is_mark(&body[at + bit]), "{bit} behind {at}");
                }
            }
            start = end + 1;
        }
    }

    #[test]
    fn the_next_mark_is_found_from_every_byte() {
        for length in (0..200).chain([WINDOW_BYTES - 1, WINDOW_BYTES, WINDOW_BYTES + 1]) {
            let body: Vec<u8> = (0..length).map(|at| if at % 67 == 66 { b'"' } else { b'a' }).collect();
            check_marks(&body);
            check_marks(&[b"{\"a\":\"\\n\",\t1}\n\x7f\xff", &body[..]].concat());
            check_marks(&[&body[..], b"\n\x1f \n", &body, b"\n"].concat());
        }
    }

    #[test]
    fn a_window_that_is_too_long_has_no_line() {
        let longest = "a".repeat(WINDOW_BYTES_MAX);
        assert!(Window::default().has_line(longest.as_bytes(), 0));
        let mut window = Window::default();
        assert!(!window.has_line(format!("{longest}a").as_bytes(), 0));
        window.clear();
        assert!(window.has_line(b"a", 0), "of another body");
    }

    #[test]
    fn invalid_bytes_around_the_end_of_a_window_reject_their_lines() {
        let filling = "ab\n".repeat(WINDOW_BYTES / 3 - 4);
        let lines = "é\nпривет, 😀\n\nяя\n".repeat(4);
        let body = format!("{filling}{lines}").into_bytes();
        assert!(body.len() > WINDOW_BYTES + 40);
        for place in filling.len() - 4..body.len() {
            check(&body[..place]);
            for bad in [0x80, 0xc3, 0xff, b'\n'] {
                let mut body = body.clone();
                body[place] = bad;
                check(&body);
                body.extend_from_slice(filling.as_bytes());
                check(&body);
            }
        }
    }

    #[test]
    fn lines_as_long_as_a_window_and_longer_are_validated() {
        for length in [WINDOW_BYTES - 1, WINDOW_BYTES, WINDOW_BYTES + 1, WINDOW_BYTES * 3] {
            let line = "a".repeat(length - 2) + "é";
            let body = [line.as_str(), "é", &line, &line].join("\n").into_bytes();
            check(&body);
            for place in [0, length - 1, length + 1, length + 2, length + 4, 2 * length + 3, body.len() - 1] {
                let mut body = body.clone();
                body[place] = 0xff;
                check(&body);
            }
        }
    }
}
