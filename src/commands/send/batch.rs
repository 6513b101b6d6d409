//! The requests that the lines of a file make. Where one ends depends on what is in the file and on the limits alone,
//! never on how fast it comes, how many connections there are, or what became of the others.

use std::io::{self, Read};

use bytes::{Bytes, BytesMut};

use super::contents::{Mark, Prefix, key};

/// Bytes of a read.
const READ_BYTES: usize = 256 << 10;

/// The limits of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchLimits {
    /// Lines.
    pub lines: u32,
    /// Bytes.
    pub bytes: usize,
}

/// Lines that are sent as one request.
#[derive(Clone)]
pub(super) struct Batch {
    /// What is in front of them.
    before: Prefix,
    /// The lines, as they are in the file.
    body: Bytes,
}

/// What follows in a file.
pub(super) enum Piece {
    /// Lines to send.
    Batch(Box<Batch>),
    /// A line that is too long to be sent, by its number; what it ends at.
    TooLong(u64, Mark),
}

impl Batch {
    /// Number of the first line, from 1.
    pub fn first_line(&self) -> u64 {
        self.before.lines() + 1
    }

    /// Number of lines, blank ones included.
    pub fn lines(&self) -> u64 {
        super::contents::count_lines(&self.body)
    }

    /// The lines.
    pub fn body(&self) -> Bytes {
        self.body.clone()
    }

    /// Where it ends.
    pub fn end(&self) -> Mark {
        let mut prefix = self.before.clone();
        prefix.extend(&self.body);
        prefix.mark()
    }

    /// Its `Idempotency-Key`.
    pub fn key(&self) -> String {
        key(self.before.bytes(), &self.end())
    }

    /// The first `lines` lines, and the rest; either may be empty.
    pub fn split(self, lines: u64) -> (Self, Self) {
        let ends = memchr::memchr_iter(b'\n', &self.body);
        let at = match usize::try_from(lines) {
            Ok(0) => 0,
            Ok(count) => ends.into_iter().nth(count - 1).map_or(self.body.len(), |end| end + 1),
            Err(_) => self.body.len(),
        };
        let Self { before, mut body } = self;
        let rest = body.split_off(at.min(body.len()));
        let mut behind = before.clone();
        behind.extend(&body);
        (Self { before, body }, Self { before: behind, body: rest })
    }

    /// True if there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// The number of its lines up to the one that makes a server take its body for one JSON array, because that line
    /// begins with `[` and only white space is in front of it.
    pub fn array_lines(&self) -> Option<u64> {
        let mark = if self.body.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let is_white = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let rest = self.body.get(mark..).unwrap_or_default();
        let white = rest.iter().take_while(|byte| is_white(byte)).count();
        if rest.get(white) != Some(&b'[') {
            return None;
        }
        let before = rest.get(..white).unwrap_or_default();
        Some(memchr::memchr_iter(b'\n', before).count() as u64 + 1)
    }
}

/// Cuts the lines of a file into requests.
pub(super) struct Batcher<R> {
    input: R,
    limits: BatchLimits,
    /// What was read and not cut yet.
    buffer: BytesMut,
    /// What is in front of the buffer.
    before: Prefix,
    /// Nothing more can be read.
    at_end: bool,
    /// Why not, if that is not the end of the file.
    failure: Option<io::Error>,
    scratch: Vec<u8>,
}

impl<R: Read> Batcher<R> {
    /// At the beginning of a file.
    pub fn new(input: R, salt: &str, limits: BatchLimits) -> Self {
        let scratch = vec![0; READ_BYTES];
        let before = Prefix::new(salt);
        Self { input, limits, buffer: BytesMut::new(), before, at_end: false, failure: None, scratch }
    }

    /// Reads to where an earlier run has come, without sending. False if something else is in front of it now.
    ///
    /// # Errors
    ///
    /// If the file can't be read, or its last line had no end when it was sent and goes on now.
    pub fn skip_to(&mut self, mark: &Mark) -> io::Result<bool> {
        while self.before.bytes() < mark.offset {
            self.fill(1);
            let wanted = usize::try_from(mark.offset - self.before.bytes()).unwrap_or(usize::MAX);
            let part = self.buffer.split_to(wanted.min(self.buffer.len()));
            if part.is_empty() {
                return self.failure.take().map_or(Ok(false), Err);
            }
            self.before.extend(&part);
        }
        if self.before.mark() != *mark {
            return Ok(false);
        }
        if !mark.ends_line {
            self.fill(2);
            let end = if self.buffer.starts_with(b"\r\n") { 2 } else { usize::from(self.buffer.starts_with(b"\n")) };
            if end == 0 && !self.buffer.is_empty() {
                return Err(io::Error::other(format!(
                    "line {} had no end when it was sent, and goes on now: it can't be told how much of it is new",
                    mark.lines
                )));
            }
            let end = self.buffer.split_to(end);
            self.before.extend(&end);
        }
        Ok(true)
    }

    /// Lines that were cut so far.
    pub fn lines(&self) -> u64 {
        self.before.lines()
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    ///
    /// If the file can't be read any further. All whole lines in front of that were returned.
    pub fn next(&mut self) -> io::Result<Option<Piece>> {
        self.fill(self.limits.bytes.saturating_add(1));
        let window = self.buffer.get(..self.limits.bytes.min(self.buffer.len())).unwrap_or_default();
        let most = usize::try_from(self.limits.lines).unwrap_or(usize::MAX);
        let (mut count, mut end) = (0, 0);
        for at in memchr::memchr_iter(b'\n', window).take(most) {
            (count, end) = (count + 1, at + 1);
        }
        let is_last = self.at_end && self.buffer.len() <= self.limits.bytes;
        if is_last && count < most && self.failure.is_none() {
            // The last line needs no end.
            end = self.buffer.len();
        }
        if end > 0 {
            return Ok(Some(Piece::Batch(Box::new(self.cut(end)))));
        }
        if self.buffer.len() > self.limits.bytes {
            return self.skip_line().map(Some);
        }
        // What is left is a part of a line, if reading has failed.
        self.buffer.clear();
        self.failure.take().map_or(Ok(None), Err)
    }

    fn cut(&mut self, bytes: usize) -> Batch {
        let body = self.buffer.split_to(bytes.min(self.buffer.len())).freeze();
        let before = self.before.clone();
        self.before.extend(&body);
        Batch { before, body }
    }

    /// Reads over a line that is too long, without keeping it.
    fn skip_line(&mut self) -> io::Result<Piece> {
        let number = self.before.lines() + 1;
        loop {
            let end = memchr::memchr(b'\n', &self.buffer);
            let part = self.buffer.split_to(end.map_or(self.buffer.len(), |end| end + 1));
            self.before.extend(&part);
            self.fill(1);
            if end.is_some() || self.buffer.is_empty() {
                // What ends within this line is no line.
                let failure = self.failure.take_if(|_| end.is_none());
                return failure.map_or_else(|| Ok(Piece::TooLong(number, self.before.mark())), Err);
            }
        }
    }

    /// Reads until so many bytes are there, or there is no more.
    fn fill(&mut self, bytes: usize) {
        while self.buffer.len() < bytes && !self.at_end {
            match self.input.read(&mut self.scratch) {
                Ok(0) => self.at_end = true,
                Ok(count) => self.buffer.extend_from_slice(self.scratch.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.at_end = true;
                    self.failure = Some(error);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many bytes a read, then this error.
    struct Slow<'a>(&'a [u8], usize, bool);

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            if self.0.is_empty() && self.2 {
                return Err(io::Error::other("broken"));
            }
            let count = self.1.min(self.0.len()).min(out.len());
            let (now, later) = self.0.split_at(count);
            out[..count].copy_from_slice(now);
            self.0 = later;
            Ok(count)
        }
    }

    const LIMITS: BatchLimits = BatchLimits { lines: 3, bytes: 8 };

    /// Bodies with the numbers of their first lines; lines that are too long as `>`; an error as `!`.
    fn cut(contents: &str, step: usize, breaks: bool) -> Vec<(u64, String)> {
        let mut batcher = Batcher::new(Slow(contents.as_bytes(), step, breaks), "", LIMITS);
        pieces(&mut batcher)
    }

    fn pieces(batcher: &mut Batcher<Slow<'_>>) -> Vec<(u64, String)> {
        let mut found = Vec::new();
        loop {
            match batcher.next() {
                Ok(None) => return found,
                Ok(Some(Piece::Batch(batch))) => {
                    found.push((batch.first_line(), String::from_utf8(batch.body().to_vec()).unwrap()));
                }
                Ok(Some(Piece::TooLong(line, _))) => found.push((line, ">".into())),
                Err(error) => {
                    assert_eq!(error.to_string(), "broken");
                    found.push((0, "!".into()));
                    assert!(matches!(batcher.next(), Ok(None)));
                    return found;
                }
            }
        }
    }

    fn is_cut(contents: &str, breaks: bool, expected: &[(u64, &str)]) {
        for step in 1..=contents.len() + 1 {
            let found = cut(contents, step, breaks);
            let found: Vec<(u64, &str)> = found.iter().map(|(line, body)| (*line, body.as_str())).collect();
            assert_eq!(found, expected, "{contents:?} by {step}");
        }
    }

    #[test]
    fn where_a_request_ends_depends_on_the_contents_alone() {
        is_cut("", false, &[]);
        is_cut("a", false, &[(1, "a")]);
        is_cut("a\nb\nc\nd\n", false, &[(1, "a\nb\nc\n"), (4, "d\n")]);
        is_cut("a\nb\nc\nd", false, &[(1, "a\nb\nc\n"), (4, "d")]);
        is_cut("aaa\nbbb\nccc\n", false, &[(1, "aaa\nbbb\n"), (3, "ccc\n")]);
        is_cut("aaa\nbbbb\nc\n", false, &[(1, "aaa\n"), (2, "bbbb\nc\n")]);
        is_cut("\n\n\n\r\na\r\n", false, &[(1, "\n\n\n"), (4, "\r\na\r\n")]);
        // As long as can be, and one byte longer.
        is_cut("1234567\nb\n", false, &[(1, "1234567\n"), (2, "b\n")]);
        is_cut("12345678\nb\n", false, &[(1, ">"), (2, "b\n")]);
        is_cut("a\n12345678", false, &[(1, "a\n"), (2, "12345678")]);
        is_cut("a\n123456789", false, &[(1, "a\n"), (2, ">")]);
        is_cut(&format!("{}\n\nb", "x".repeat(100)), false, &[(1, ">"), (2, "\nb")]);
    }

    #[test]
    fn whole_lines_in_front_of_an_error_are_there_and_a_part_of_one_is_not() {
        is_cut("", true, &[(0, "!")]);
        is_cut("a", true, &[(0, "!")]);
        is_cut("a\nb\nc\nd\ne", true, &[(1, "a\nb\nc\n"), (4, "d\n"), (0, "!")]);
        is_cut("a\n123456789", true, &[(1, "a\n"), (0, "!")]);
        is_cut("123456789\n", true, &[(1, ">"), (0, "!")]);
    }

    fn whole(contents: &'static str) -> Batch {
        Batch { before: Prefix::new(""), body: Bytes::from_static(contents.as_bytes()) }
    }

    #[test]
    fn halves_have_the_keys_that_they_would_have_alone() {
        let contents = "a\n\nb\r\nc";
        assert_eq!((whole(contents).lines(), whole(contents).first_line()), (4, 1));
        for at in 0..=5 {
            let (first, second) = whole(contents).split(at);
            assert_eq!([first.body(), second.body()].concat(), contents.as_bytes());
            assert_eq!(second.first_line(), at.min(4) + 1);
            assert_eq!(second.end(), whole(contents).end());
            let alone = Batch { before: Prefix::new(""), body: first.body() };
            assert_eq!(first.key(), alone.key());
            assert!(second.is_empty() == (at >= 4) && (at == 0 || second.key() != whole(contents).key()));
        }
    }

    #[test]
    fn a_body_that_a_server_would_take_for_an_array_is_found() {
        for (contents, lines) in [
            ("[1]\n{}", Some(1)),
            ("\n \t\r\n [1]\n{}", Some(3)),
            ("\u{feff}[", Some(1)),
            ("{}\n[1]", None),
            ("\n\n", None),
            ("", None),
        ] {
            assert_eq!(whole(contents).array_lines(), lines, "{contents:?}");
        }
    }

    #[test]
    fn a_file_goes_on_where_an_earlier_run_was() {
        let contents = "a\nb\nc\nd\ne";
        let (first, _) = whole(contents).split(3);
        let mark = first.end();
        for step in 1..10 {
            let at = |contents: &'static str| Batcher::new(Slow(contents.as_bytes(), step, false), "", LIMITS);
            let mut same = at(contents);
            assert!(same.skip_to(&mark).unwrap());
            assert_eq!(pieces(&mut same), [(4, "d\ne".to_owned())]);
            let mut grown = at("a\nb\nc\nd\ne\nf\n");
            assert!(grown.skip_to(&mark).unwrap());
            assert!(!at("a\nx\nc\nd\ne").skip_to(&mark).unwrap(), "other contents");
            assert!(!at("a\nb").skip_to(&mark).unwrap(), "less");
        }
    }

    #[test]
    fn a_last_line_that_had_no_end_may_get_one_and_may_not_go_on() {
        let mark = whole("a\nb").end();
        for step in 1..5 {
            let resumed = |contents: &'static str| {
                let mut batcher = Batcher::new(Slow(contents.as_bytes(), step, false), "", LIMITS);
                batcher.skip_to(&mark).map(|same| (same, pieces(&mut batcher)))
            };
            assert_eq!(resumed("a\nb").unwrap(), (true, vec![]));
            assert_eq!(resumed("a\nb\n").unwrap(), (true, vec![]));
            assert_eq!(resumed("a\nb\r\nc").unwrap(), (true, vec![(3, "c".to_owned())]));
            assert!(resumed("a\nbc\n").unwrap_err().to_string().contains("line 2 had no end"));
        }
    }
}
