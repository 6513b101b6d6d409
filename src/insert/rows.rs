//! Access to the single rows of a segment: the offset of each, and a row as JSON. Needed only if
//! ClickHouse refuses some rows, or if rows are looked up.

use std::io;

use bytes::Bytes;
use chrono::{DateTime, Days, NaiveDate, SecondsFormat};
use clickhouse_rowbinary::{RowBinaryFormat, RowBinaryValueReader, Schema, TypeDesc, Value};

use crate::rowbinary::skip_value;
use crate::spool::SegmentReader;

/// A reader of a segment's rows in order.
pub struct RowReader {
    reader: Option<SegmentReader>,
    types: Vec<TypeDesc>,
    buffer: Bytes,
    offset: u64,
}

impl RowReader {
    /// Creates a reader of rows from a segment, with columns of these names and types.
    ///
    /// # Errors
    ///
    /// `InvalidData` for a type that is not understood.
    pub fn new(reader: SegmentReader, columns: &[(String, String)]) -> io::Result<Self> {
        Self::of(Some(reader), Bytes::new(), columns)
    }

    /// Creates a reader of rows in memory.
    ///
    /// # Errors
    ///
    /// `InvalidData` for a type that is not understood.
    pub fn of_bytes(rows: Bytes, columns: &[(String, String)]) -> io::Result<Self> {
        Self::of(None, rows, columns)
    }

    fn of(reader: Option<SegmentReader>, buffer: Bytes, columns: &[(String, String)]) -> io::Result<Self> {
        let types = columns
            .iter()
            .map(|(_, type_name)| clickhouse_rowbinary::parse_type_desc(type_name).map_err(invalid))
            .collect::<io::Result<_>>()?;
        Ok(Self { reader, types, buffer, offset: 0 })
    }

    /// The offset of the next row in the bytes of all rows.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The bytes of the next row; `None` after the last one.
    ///
    /// # Errors
    ///
    /// If the segment can't be read, or its rows do not match these types.
    pub fn next_row(&mut self) -> io::Result<Option<Bytes>> {
        while self.buffer.is_empty() {
            match self.reader.as_mut().map(SegmentReader::next_rows).transpose()?.flatten() {
                Some(rows) => self.buffer = rows,
                None => return Ok(None),
            }
        }
        let mut rest = &self.buffer[..];
        for described in &self.types {
            rest = skip_value(described, rest).ok_or_else(|| invalid("a row does not match the segment's types"))?;
        }
        let row = self.buffer.split_to(self.buffer.len() - rest.len());
        self.offset += row.len() as u64;
        Ok(Some(row))
    }
}

fn invalid(error: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// Decodes one row into the values of its columns.
///
/// # Errors
///
/// `InvalidData` if the bytes are not a row of these columns.
pub fn values(columns: &[(String, String)], row: &[u8]) -> io::Result<Vec<Value>> {
    let pairs: Vec<(&str, &str)> = columns.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect();
    let schema = Schema::from_type_strings(&pairs).map_err(invalid)?;
    let mut reader = RowBinaryValueReader::with_schema(row, RowBinaryFormat::RowBinary, schema).map_err(invalid)?;
    reader.read_row().map_err(invalid)?.ok_or_else(|| invalid("there is no row"))
}

/// Formats a row as a JSON object with the columns in order.
pub fn to_json(columns: &[(String, String)], values: &[Value]) -> String {
    let mut json = String::from("{");
    for ((name, type_name), value) in columns.iter().zip(values) {
        if json.len() > 1 {
            json.push(',');
        }
        json.push_str(&string(name));
        json.push(':');
        json.push_str(&value_to_json(value, type_name));
    }
    json.push('}');
    json
}

fn value_to_json(value: &Value, type_name: &str) -> String {
    match value {
        Value::Bool(value) => value.to_string(),
        Value::UInt8(value) => value.to_string(),
        Value::UInt16(value) => value.to_string(),
        Value::UInt32(value) => value.to_string(),
        Value::UInt64(value) => value.to_string(),
        Value::Int8(value) | Value::Enum8(value) => value.to_string(),
        Value::Int16(value) | Value::Enum16(value) => value.to_string(),
        Value::Int32(value) => value.to_string(),
        Value::Int64(value) => value.to_string(),
        Value::Float32(value) if value.is_finite() => value.to_string(),
        Value::Float64(value) if value.is_finite() => value.to_string(),
        Value::Float32(value) => string(&value.to_string()),
        Value::Float64(value) => string(&value.to_string()),
        Value::String(text) | Value::FixedString(text) => string(&String::from_utf8_lossy(text)),
        Value::Date(days) => date(i64::from(*days)),
        Value::Date32(days) => date(i64::from(*days)),
        Value::DateTime(seconds) => time(i64::from(*seconds), 0),
        Value::DateTime64(ticks) => {
            let per_second = 10i64.pow(precision(type_name));
            time(ticks.div_euclid(per_second), ticks.rem_euclid(per_second) * (1_000_000_000 / per_second))
        }
        Value::Uuid(uuid) => string(&uuid.to_string()),
        Value::Ipv4(address) => string(&address.to_string()),
        Value::Ipv6(address) => string(&address.to_string()),
        Value::Nullable(Some(value)) => value_to_json(value, type_name),
        _ => "null".to_owned(),
    }
}

/// The precision of a DateTime64, such as the 3 in `DateTime64(3, 'UTC')`.
fn precision(type_name: &str) -> u32 {
    let digit = type_name.split_once("DateTime64(").and_then(|(_, rest)| rest.chars().next()?.to_digit(10));
    digit.unwrap_or(3).min(9)
}

fn date(days: i64) -> String {
    let epoch = NaiveDate::default();
    let shift = Days::new(days.unsigned_abs());
    let date = if days < 0 { epoch.checked_sub_days(shift) } else { epoch.checked_add_days(shift) };
    date.map_or_else(|| "null".to_owned(), |date| string(&date.to_string()))
}

fn time(seconds: i64, nanoseconds: i64) -> String {
    let time = u32::try_from(nanoseconds).ok().and_then(|nanoseconds| DateTime::from_timestamp(seconds, nanoseconds));
    time.map_or_else(|| "null".to_owned(), |time| string(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true)))
}

fn string(text: &str) -> String {
    sonic_rs::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect()
    }

    const ALL: [(&str, &str); 16] = [
        ("a", "String"),
        ("b", "LowCardinality(String)"),
        ("c", "Nullable(UInt16)"),
        ("d", "Nullable(String)"),
        ("e", "FixedString(3)"),
        ("f", "Int64"),
        ("g", "Float64"),
        ("h", "Bool"),
        ("i", "UUID"),
        ("j", "Date"),
        ("k", "Date32"),
        ("l", "DateTime('UTC')"),
        ("m", "DateTime64(3, 'UTC')"),
        ("n", "IPv4"),
        ("o", "IPv6"),
        ("p", "Enum8('x' = 1, 'y' = 2)"),
    ];

    fn a_row() -> Vec<u8> {
        let mut row = Vec::new();
        row.extend_from_slice(b"\x03a\"b");
        row.extend_from_slice(&[0]);
        row.extend_from_slice(&[0, 7, 0]);
        row.extend_from_slice(&[1]);
        row.extend_from_slice(b"xyz");
        row.extend_from_slice(&(-5i64).to_le_bytes());
        row.extend_from_slice(&1.5f64.to_le_bytes());
        row.extend_from_slice(&[1]);
        row.extend_from_slice(&[0; 16]);
        row.extend_from_slice(&1u16.to_le_bytes());
        row.extend_from_slice(&(-1i32).to_le_bytes());
        row.extend_from_slice(&60u32.to_le_bytes());
        row.extend_from_slice(&1_500i64.to_le_bytes());
        row.extend_from_slice(&[4, 3, 2, 1]);
        row.extend_from_slice(&[0; 16]);
        row.extend_from_slice(&[2]);
        row
    }

    #[test]
    fn a_row_of_every_type_is_skipped_to_its_end_and_a_truncated_one_is_not() {
        let columns = columns(&ALL);
        let types: Vec<TypeDesc> =
            columns.iter().map(|(_, kind)| clickhouse_rowbinary::parse_type_desc(kind).unwrap()).collect();
        let row = a_row();
        let behind = |bytes: &[u8]| {
            let rest = types.iter().try_fold(bytes, |rest, described| skip_value(described, rest));
            rest.map(<[u8]>::len)
        };
        assert_eq!(behind(&row), Some(0));
        assert_eq!(behind(&[row.clone(), row.clone()].concat()), Some(row.len()));
        for cut in 0..row.len() {
            assert_eq!(behind(&row[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn a_row_is_formatted_as_json() {
        let columns = columns(&ALL);
        let json = to_json(&columns, &values(&columns, &a_row()).unwrap());
        assert_eq!(
            json,
            "{\"a\":\"a\\\"b\",\"b\":\"\",\"c\":7,\"d\":null,\"e\":\"xyz\",\"f\":-5,\"g\":1.5,\"h\":true,\
             \"i\":\"00000000-0000-0000-0000-000000000000\",\"j\":\"1970-01-02\",\"k\":\"1969-12-31\",\
             \"l\":\"1970-01-01T00:01:00Z\",\"m\":\"1970-01-01T00:00:01.500Z\",\"n\":\"1.2.3.4\",\"o\":\"::\",\"p\":2}"
        );
        assert!(values(&columns, &a_row()[..20]).is_err());
    }
}
