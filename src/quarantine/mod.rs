//! The quarantine table, which stores rejected lines with their reason, the client's address and the
//! time. Its columns are fixed. A rejected line is as durable as an event.

use std::fmt::Display;
use std::io::Write;

use crate::limits;
use crate::rowbinary::RowBuffer;
use crate::schema::{self, SchemaError};

/// Names and types of the quarantine table's columns, in order.
pub const COLUMNS: [(&str, &str); 5] = [
    ("server_time", "DateTime('UTC')"),
    ("ip", "String"),
    ("code", "LowCardinality(String)"),
    ("message", "String"),
    ("line", "String"),
];

/// The header of `FORMAT RowBinaryWithNamesAndTypes` for the quarantine table.
///
/// # Errors
///
/// Never in practice: the columns are constants.
pub fn rowbinary_header() -> Result<Vec<u8>, SchemaError> {
    schema::rowbinary_header(&COLUMNS)
}

/// The row of one rejected line in the quarantine table.
#[derive(Debug, Clone, Copy)]
pub struct RejectedLine<'a, A> {
    /// When the request was received, in nanoseconds since 1970.
    pub server_time_unix_ns: i64,
    /// The client's address; its text is empty when there is none.
    pub ip: A,
    /// The reason as a stable code.
    pub code: &'a str,
    /// The reason as a sentence.
    pub message: &'a str,
    /// The line as received; or as JSON, a row that ClickHouse refused.
    pub line: &'a [u8],
}

impl<A: Display> RejectedLine<'_, A> {
    /// Appends the row in RowBinary to `out`. The line is truncated to
    /// [`limits::QUARANTINE_LINE_BYTES_MAX`], the time to whole seconds.
    pub fn put_row(&self, out: &mut Vec<u8>) {
        let seconds = self.server_time_unix_ns.div_euclid(1_000_000_000).clamp(0, i64::from(u32::MAX)) as u32;
        let mut address = Vec::with_capacity(48);
        // Writing to a vector can't fail.
        let _ = write!(address, "{}", self.ip);
        let mut row = RowBuffer::with_space(128);
        row.put(seconds.to_le_bytes());
        row.put_string(&address);
        row.put_string(self.code.as_bytes());
        row.put_string(self.message.as_bytes());
        let line = cut(self.line);
        row.put_length(line.len());
        out.extend_from_slice(row.written());
        out.extend_from_slice(line);
    }
}

/// The line, truncated to [`limits::QUARANTINE_LINE_BYTES_MAX`] at a character boundary. A line that
/// is not UTF-8 is truncated at any byte.
fn cut(line: &[u8]) -> &[u8] {
    let Some((start, [next, ..])) = line.split_at_checked(limits::QUARANTINE_LINE_BYTES_MAX) else {
        return line;
    };
    let is_continuation = |byte: u8| byte & 0xc0 == 0x80;
    if !is_continuation(*next) {
        return start;
    }
    let tail = start.iter().rev().take(3);
    let continued = tail.take_while(|byte| is_continuation(**byte)).count();
    let whole = start.len().saturating_sub(continued + 1);
    match start.get(whole) {
        Some(0xc0..) => start.get(..whole).unwrap_or(start),
        _ => start,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = limits::QUARANTINE_LINE_BYTES_MAX;

    #[test]
    fn a_long_line_is_cut_between_characters() {
        for (character, width) in [("a", 1), ("п", 2), ("€", 3), ("😀", 4)] {
            for shift in 0..5 {
                let line = format!("{}{}", "x".repeat(shift), character.repeat(MAX));
                let cut = cut(line.as_bytes());
                assert!(cut.len() <= MAX && cut.len() + width > MAX, "{character} {shift}");
                assert!(std::str::from_utf8(cut).is_ok(), "{character} {shift}");
            }
        }
        assert_eq!(cut(&[0x80; MAX + 1]).len(), MAX);
        for length in [0, 1, MAX - 1, MAX] {
            assert_eq!(cut(&vec![b'a'; length]).len(), length);
        }
    }

    #[test]
    fn the_row_matches_the_header() {
        use clickhouse_rowbinary::{RowBinaryFormat, RowBinaryValueReader, Value};
        let mut table = rowbinary_header().unwrap();
        let line = RejectedLine {
            server_time_unix_ns: 1_606_864_194_999_999_999,
            ip: "8.8.8.8",
            code: "too_deep",
            message: "a reason",
            line: b"[[",
        };
        line.put_row(&mut table);
        let format = RowBinaryFormat::RowBinaryWithNamesAndTypes;
        let mut reader = RowBinaryValueReader::new(&table[..], format).unwrap();
        let text = |text: &str| Value::String(text.as_bytes().to_vec());
        assert_eq!(
            reader.read_row().unwrap().unwrap(),
            [Value::DateTime(1_606_864_194), text("8.8.8.8"), text("too_deep"), text("a reason"), text("[["),]
        );
        assert!(reader.read_row().unwrap().is_none());
    }
}
