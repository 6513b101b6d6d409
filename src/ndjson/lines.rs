//! The lines of a body: where each begins, ends, and which number it has.

/// Steps over the lines of a body that hold anything, and counts all of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lines {
    /// Where the next line begins, or the place inside of the line that was begun.
    at: usize,
    number: u32,
}

impl Lines {
    /// At the start of a body, behind its byte order mark if it has one.
    pub(crate) fn new(body: &[u8]) -> Self {
        let at = if body.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        Self { at, number: 0 }
    }

    /// Where the next line that is not blank begins, and its number from 1; `None` at the end.
    /// The space before its first byte is left out.
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

    /// The line that began at `start` ended at `end`, where a line feed is or the body's end.
    #[inline]
    pub(crate) fn end(&mut self, end: usize) {
        self.at = end + 1;
    }
}

/// Where the line ends that begins at `start`: the place of its line feed, or the body's end.
pub(crate) fn end_of_line(body: &[u8], start: usize) -> usize {
    let rest = body.get(start..).unwrap_or_default();
    memchr::memchr(b'\n', rest).map_or(body.len(), |length| start + length)
}

/// A line without the carriage return and the space at its end.
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
