//! UTF-8 validation of lines. A window of many lines is validated at once, shortly before the lines are
//! parsed, so that they are in the L1 cache when they are.

use super::lines::end_of_line;

/// Bytes of a window. A window is extended to the end of its last line.
const WINDOW_BYTES: usize = 16 << 10;

/// The window of lines that was validated last.
#[derive(Debug, Default)]
pub(crate) struct Utf8Window {
    /// The offset of the line feed that ends the window, or the end of the body.
    end: usize,
    /// True when all lines of the window are UTF-8.
    is_utf8: bool,
}

impl Utf8Window {
    /// Forgets the window of another body.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// True when the line that begins at `start` is UTF-8. Call it for the lines of a body in order.
    #[inline]
    pub(crate) fn has_line(&mut self, body: &[u8], start: usize) -> bool {
        if start >= self.end {
            self.advance(body, start);
        }
        self.is_utf8 || is_utf8(body, start, end_of_line(body, start))
    }

    #[inline(never)]
    fn advance(&mut self, body: &[u8], start: usize) {
        self.end = end_of_line(body, start + WINDOW_BYTES);
        self.is_utf8 = is_utf8(body, start, self.end);
    }
}

fn is_utf8(body: &[u8], start: usize, end: usize) -> bool {
    body.get(start..end).is_some_and(|lines| simdutf8::basic::from_utf8(lines).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares the window's answer for every line with a validation of the line alone.
    fn check(body: &[u8]) {
        let mut window = Utf8Window::default();
        let mut start = 0;
        while start < body.len() {
            let end = end_of_line(body, start);
            let twin = std::str::from_utf8(&body[start..end]).is_ok();
            assert_eq!(window.has_line(body, start), twin, "the line from {start} to {end}");
            start = end + 1;
        }
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
