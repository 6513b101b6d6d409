//! The rows of the quarantine table as ClickHouse streams them, and the requests that send them again.

use std::io::{self, BufRead};

use crate::limits;
use crate::rowbinary::RowBuffer;

/// The columns that [`read`] reads. Identical rows have the same name and follow each other.
pub(super) const COLUMNS: &str = "hex(sipHash128(server_time, ip, code, message, line)) AS name, \
                                  toUInt32(server_time) AS second, ip, toString(code) AS reason, line";

/// The order of the stream. It begins with the sorting key of the table, so ClickHouse does not sort
/// the whole table.
pub(super) const ORDER: &str = "code, server_time, name";

/// Number of hexadecimal digits in the name of a row.
const NAME_LEN: usize = 32;

/// What a line takes beside its own bytes at most: second, lengths and address.
const ROW_BYTES: usize = 64;

/// The longest text of a row; a greater length means that the stream has no row there.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// A row of the quarantine table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QuarantineRow {
    /// A hash of the content.
    pub(super) name: String,
    /// The server time, Unix seconds.
    pub(super) second: u32,
    /// The client's address; empty when it is not known.
    pub(super) ip: String,
    /// The code of the reason.
    pub(super) code: String,
    pub(super) line: Vec<u8>,
}

impl QuarantineRow {
    /// True if the line was or may have been truncated when it was stored. A line is truncated between
    /// characters, so it may be up to 3 bytes shorter than the limit.
    pub(super) fn is_truncated(&self) -> bool {
        self.line.len() + 4 > limits::QUARANTINE_LINE_BYTES_MAX
    }
}

/// Reads the next row, in RowBinary.
///
/// # Errors
///
/// If the stream breaks off, or contains something else than a row, such as the text of an error.
pub(super) fn read(stream: &mut impl BufRead) -> io::Result<Option<QuarantineRow>> {
    if stream.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let name = text(stream)?;
    if name.len() != NAME_LEN || !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(no_row());
    }
    let mut second = [0; 4];
    stream.read_exact(&mut second)?;
    let (ip, code) = (text(stream)?, text(stream)?);
    Ok(Some(QuarantineRow { name, second: u32::from_le_bytes(second), ip, code, line: bytes(stream)? }))
}

fn text(stream: &mut impl BufRead) -> io::Result<String> {
    String::from_utf8(bytes(stream)?).map_err(|_| no_row())
}

fn bytes(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        let [byte] = byte;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            break;
        }
        if shift > 21 {
            return Err(no_row());
        }
    }
    if length > TEXT_BYTES_MAX {
        return Err(no_row());
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn no_row() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "ClickHouse broke off in the middle of the lines")
}

/// A request with lines of one code and one second.
///
/// The content of a request depends only on the rows of its second. A replay after an interrupted one
/// therefore makes the same requests again, with the same keys.
#[derive(Debug, Default)]
pub(super) struct Request {
    /// Number of earlier requests for the same second and code.
    pub(super) part: u64,
    /// The names of the rows, in order.
    pub(super) names: Vec<String>,
    /// The lines, each with its second and address, as the server's `/quarantine/replay` takes them.
    pub(super) body: RowBuffer,
}

impl Request {
    pub(super) fn push(&mut self, row: &QuarantineRow) {
        self.names.push(row.name.clone());
        self.body.put(row.second.to_le_bytes());
        self.body.put_string(row.ip.as_bytes());
        self.body.put_string(&row.line);
    }

    pub(super) fn lines(&self) -> u64 {
        self.names.len() as u64
    }

    /// True if the request would be too long with this row.
    pub(super) fn is_full_for(&self, row: &QuarantineRow, lines_max: usize, bytes_max: usize) -> bool {
        !self.names.is_empty()
            && (self.names.len() >= lines_max || self.body.len() + row.line.len() + ROW_BYTES > bytes_max)
    }

    /// The Idempotency-Key, which makes the server store the request only once.
    pub(super) fn key(&self) -> String {
        let checksum = self.names.iter().fold(0, |checksum, name| crc32c::crc32c_append(checksum, name.as_bytes()));
        let first = self.names.first().map_or("", String::as_str);
        format!("quarantine-{first}-{}-{}-{checksum:08x}", self.part, self.names.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: char, line: &[u8]) -> Vec<u8> {
        let mut row = vec![NAME_LEN as u8];
        row.extend([name as u8; NAME_LEN]);
        row.extend(7u32.to_le_bytes());
        row.extend(b"\x071.2.3.4");
        row.extend(b"\x0cinvalid_json");
        row.extend([0x80 | (line.len() & 0x7f) as u8, (line.len() >> 7) as u8]);
        row.extend(line);
        row
    }

    #[test]
    fn rows_are_read_and_nothing_else_is_taken_for_one() {
        let stream = [row('A', b"bad"), row('B', &[0xff; 300])].concat();
        let mut read_from = &stream[..];
        let first = read(&mut read_from).unwrap().unwrap();
        assert_eq!((first.name.as_str(), first.second), ("A".repeat(NAME_LEN).as_str(), 7));
        assert_eq!(first.ip, "1.2.3.4");
        assert_eq!((first.code.as_str(), first.line.as_slice()), ("invalid_json", &b"bad"[..]));
        assert_eq!(read(&mut read_from).unwrap().unwrap().line, [0xff; 300]);
        assert_eq!(read(&mut read_from).unwrap(), None);
        for end in (1..stream.len()).filter(|end| *end != row('A', b"bad").len()) {
            let mut cut = &stream[..end];
            let outcome = std::iter::from_fn(|| read(&mut cut).transpose()).last().unwrap();
            assert!(outcome.is_err(), "{end}");
        }
        for error in
            ["Code: 241. DB::Exception: Memory", "\r\n__exception__\r\n", "\x20no name, though so long as one is"]
        {
            assert!(read(&mut error.as_bytes()).is_err(), "{error}");
        }
    }

    #[test]
    fn a_key_names_the_lines_and_their_place() {
        let row = |name: &str| QuarantineRow {
            name: name.into(),
            second: 1,
            ip: String::new(),
            code: "c".into(),
            line: b"x".to_vec(),
        };
        let of = |part, names: &[&str]| {
            let mut request = Request { part, ..Request::default() };
            names.iter().for_each(|name| request.push(&row(name)));
            request.key()
        };
        let keys = [of(0, &["a", "b"]), of(1, &["a", "b"]), of(0, &["a", "c"]), of(0, &["a"]), of(0, &["a", "a"])];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{keys:?}");
        }
        assert_eq!(of(0, &["a", "b"]), keys[0]);
    }

    #[test]
    fn a_request_is_full_by_lines_and_by_bytes() {
        let ip = String::new();
        let row = QuarantineRow { name: "n".into(), second: 1, ip, code: "c".into(), line: vec![b'x'; 9] };
        let mut request = Request::default();
        assert!(!request.is_full_for(&row, 2, 1), "one line always fits");
        request.push(&row);
        assert!(!request.is_full_for(&row, 2, 15 + 9 + ROW_BYTES) && request.is_full_for(&row, 2, 14 + 9 + ROW_BYTES));
        request.push(&row);
        assert!(request.is_full_for(&row, 2, 1000));
    }
}
