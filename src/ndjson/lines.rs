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
    /// The cursor at the start of a body, after its byte order mark if there is one.
    pub(crate) fn new(body: &[u8]) -> Self {
        let at = if body.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        Self { at, number: 0 }
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
        let mut lines = Lines::new(body.as_bytes());
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
}
