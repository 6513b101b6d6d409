//! The lines of a body: their starts, ends and numbers.

/// A cursor over the lines of a body. It skips blank lines and counts them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lines {
    /// The offset of the next line.
    at: usize,
    /// The number of the current line, from 1.
    number: u32,
}

impl Lines {
    /// The cursor at the start of a slice of a body, behind `before` lines of it. A byte order mark at the
    /// start of the body is skipped.
    pub(crate) fn new(slice: &[u8], before: u32) -> Self {
        Self { at: if before == 0 { after_mark(slice) } else { 0 }, number: before }
    }

    /// The cursor at the start of an element, which is one line and may begin with any bytes.
    pub(crate) fn of_element() -> Self {
        Self { at: 0, number: 0 }
    }

    /// The number of lines before the next slice, after [`Lines::begin`] has returned `None`.
    pub(crate) fn before_next(&self) -> u32 {
        self.number.saturating_sub(1)
    }

    /// The offset and number of the next line that is not blank; `None` at the end of the body. The
    /// offset is that of the line's first byte that is not white space.
    #[inline]
    pub(crate) fn begin(&mut self, body: &[u8]) -> Option<(usize, u32)> {
        loop {
            self.number = self.number.saturating_add(1);
            let first = super::skip::skip_space(body, self.at);
            match body.get(first)? {
                b'\n' => self.at = first + 1,
                _ => return Some((first, self.number)),
            }
        }
    }

    /// Moves to the line after the one that ends at `end`, the offset of a line feed or of the end of
    /// the body.
    #[inline]
    pub(crate) fn end(&mut self, end: usize) {
        self.at = end + 1;
    }
}

/// The offset behind a byte order mark at the start of a body.
pub(crate) fn after_mark(body: &[u8]) -> usize {
    if body.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 }
}

/// The end of the slice of `body` that begins at `from`: behind the last line feed within `bytes`; behind
/// the next one if there is none, or at the end of the body.
pub(crate) fn slice_end(body: &[u8], from: usize, bytes: usize) -> usize {
    let rest = body.get(from..).unwrap_or_default();
    let Some((slice, behind)) = rest.split_at_checked(bytes).filter(|(_, behind)| !behind.is_empty()) else {
        return body.len();
    };
    match memchr::memrchr(b'\n', slice) {
        Some(at) => from + at + 1,
        None => memchr::memchr(b'\n', behind).map_or(body.len(), |at| from + bytes + at + 1),
    }
}

/// The end of the line that contains `start`: the offset of its line feed, or the end of the body.
pub(crate) fn end_of_line(body: &[u8], start: usize) -> usize {
    let rest = body.get(start..).unwrap_or_default();
    memchr::memchr(b'\n', rest).map_or(body.len(), |length| start + length)
}

/// The line without trailing spaces, tabs and carriage returns.
pub(crate) fn trim_end(line: &[u8]) -> &[u8] {
    let mut line = line;
    while let [rest @ .., b' ' | b'\t' | b'\r'] = line {
        line = rest;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(body: &str) -> Vec<(u32, &str)> {
        let mut lines = Lines::new(body.as_bytes(), 0);
        let mut found = Vec::new();
        while let Some((start, number)) = lines.begin(body.as_bytes()) {
            let end = end_of_line(body.as_bytes(), start);
            let line = trim_end(&body.as_bytes()[start..end]);
            found.push((number, std::str::from_utf8(line).unwrap()));
            lines.end(end);
        }
        found
    }

    #[test]
    fn blank_lines_are_counted_and_skipped() {
        assert_eq!(lines(""), []);
        assert_eq!(lines("\n \t\r\n"), []);
        assert_eq!(lines("a"), [(1, "a")]);
        assert_eq!(lines("a\nb\r\n\n \n  c \n"), [(1, "a"), (2, "b"), (5, "c")]);
        assert_eq!(lines("\u{feff}a\n\u{feff}"), [(1, "a"), (2, "\u{feff}")]);
    }

    #[test]
    fn slices_are_whole_lines_with_the_numbers_that_they_have_in_the_body() {
        for body in [
            "",
            "\n",
            "a",
            "a\n",
            "\u{feff}a\n\u{feff}b\n",
            "a\nb\r\n\n \n  c \n\nlonger than a slice\nd",
            "\n\n\n\n\na",
        ] {
            for bytes in 1..12 {
                let (mut found, mut from, mut before) = (Vec::new(), 0, 0);
                while from < body.len() {
                    let end = slice_end(body.as_bytes(), from, bytes);
                    assert!(
                        end > from && (end == body.len() || body.as_bytes()[end - 1] == b'\n'),
                        "{body:?} at {from}"
                    );
                    let slice = &body.as_bytes()[from..end];
                    let mut lines = Lines::new(slice, before);
                    while let Some((start, number)) = lines.begin(slice) {
                        let end = end_of_line(slice, start);
                        found.push((number, std::str::from_utf8(trim_end(&slice[start..end])).unwrap()));
                        lines.end(end);
                    }
                    (from, before) = (end, lines.before_next());
                }
                assert_eq!(found, lines(body), "{body:?} in slices of {bytes}");
            }
        }
    }
}
