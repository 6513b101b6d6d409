//! A row of RowBinary as a JSON object, for the quarantine. Its values are in forms that the row encoder
//! accepts again.

use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use chrono::{DateTime, Days, NaiveDate, SecondsFormat};

use super::rows::invalid;
use crate::clickhouse::frozen::Frozen;
use crate::rowbinary::dynamic::read_dynamic_type;
use crate::rowbinary::{DataType, Wide, leb128, skip_value};

/// A value of a row: its column's name and type, and its bytes.
pub struct CellBytes<'a> {
    /// The column's name.
    pub name: &'a str,
    /// The column's type.
    pub data_type: DataType,
    /// The value in RowBinary.
    pub bytes: &'a [u8],
}

/// Cuts one row into the values of its columns, but those that get their defaults.
///
/// # Errors
///
/// `InvalidData` if the bytes are not a row of these columns.
pub fn cells<'a>(frozen: &'a Frozen, row: &'a [u8]) -> io::Result<Vec<CellBytes<'a>>> {
    let no_row = || invalid("a row does not match the block's types");
    let mut rest = row;
    let mut cells = Vec::with_capacity(frozen.columns.len());
    for (name, type_name) in &frozen.columns {
        let mut is_default = false;
        if frozen.default_of(name).is_some() {
            let (flag, value) = rest.split_first().ok_or_else(no_row)?;
            (is_default, rest) = (*flag == 1, value);
        }
        let data_type = DataType::parse(type_name).map_err(invalid)?;
        let after = skip_value(&data_type, rest).ok_or_else(no_row)?;
        let bytes = rest.get(..rest.len() - after.len()).unwrap_or_default();
        if !is_default {
            cells.push(CellBytes { name, data_type, bytes });
        }
        rest = after;
    }
    Ok(cells)
}

/// Formats a row as a JSON object with the columns in order.
pub fn to_json(cells: &[CellBytes<'_>]) -> String {
    let mut json = String::from("{");
    for cell in cells {
        if json.len() > 1 {
            json.push(',');
        }
        json.push_str(&string(cell.name));
        json.push(':');
        // The bytes were found to be a value of the type.
        if put_value(&cell.data_type, cell.bytes, &mut json).is_none() {
            json.push_str("null");
        }
    }
    json.push('}');
    json
}

impl CellBytes<'_> {
    /// The text of a String, or of an address; empty for NULL and for any other value.
    pub fn text(&self) -> String {
        let mut json = String::new();
        let is_text = matches!(scalar(&self.data_type), DataType::String | DataType::Ipv4 | DataType::Ipv6);
        if is_text && put_value(&self.data_type, self.bytes, &mut json).is_some() {
            return sonic_rs::from_str(&json).unwrap_or_default();
        }
        String::new()
    }

    /// The Unix time of a DateTime in seconds; `None` for any other value.
    pub fn seconds(&self) -> Option<i64> {
        if !matches!(scalar(&self.data_type), DataType::DateTime { .. }) {
            return None;
        }
        let bytes = match (self.bytes, self.bytes.len()) {
            ([0, rest @ ..], 5) => rest,
            (bytes, _) => bytes,
        };
        Some(i64::from(u32::from_le_bytes(*bytes.first_chunk()?)))
    }
}

/// The type without `Nullable` and `LowCardinality`.
fn scalar(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Nullable(inner) | DataType::LowCardinality(inner) => scalar(inner),
        other => other,
    }
}

/// Appends the value that `bytes` begin with, and returns the bytes behind it. Recurses by the levels of the
/// type.
fn put_value<'a>(data_type: &DataType, bytes: &'a [u8], json: &mut String) -> Option<&'a [u8]> {
    match data_type {
        DataType::LowCardinality(inner) => put_value(inner, bytes, json),
        DataType::Nullable(inner) => {
            let (is_null, rest) = bytes.split_first()?;
            if *is_null == 0 {
                return put_value(inner, rest, json);
            }
            json.push_str("null");
            Some(rest)
        }
        DataType::Array(inner) => {
            let (count, rest) = leb128(bytes)?;
            put_list(count, rest, ('[', ']'), json, |_, rest, json| put_value(inner, rest, json))
        }
        DataType::Map(key, value) => {
            let (count, rest) = leb128(bytes)?;
            put_list(count, rest, ('{', '}'), json, |_, rest, json| {
                let rest = put_key(key, rest, json)?;
                put_value(value, rest, json)
            })
        }
        DataType::Variant(types) => {
            let (index, rest) = bytes.split_first()?;
            if *index == u8::MAX {
                json.push_str("null");
                return Some(rest);
            }
            put_value(types.get(usize::from(*index))?, rest, json)
        }
        // The levels inside were limited when the row was cut into values.
        DataType::Dynamic => match read_dynamic_type(bytes)? {
            (Some(inner), rest) => put_value(&inner, rest, json),
            (None, rest) => {
                json.push_str("null");
                Some(rest)
            }
        },
        DataType::Tuple(elements) => {
            let are_named = elements.first().is_some_and(|(name, _)| name.is_some());
            let around = if are_named { ('{', '}') } else { ('[', ']') };
            put_list(elements.len() as u64, bytes, around, json, |index, rest, json| {
                let (name, element) = elements.get(index)?;
                if let Some(name) = name {
                    json.push_str(&string(name));
                    json.push(':');
                }
                put_value(element, rest, json)
            })
        }
        scalar => {
            let rest = skip_value(scalar, bytes)?;
            json.push_str(&text_of(scalar, bytes.get(..bytes.len() - rest.len())?)?);
            Some(rest)
        }
    }
}

fn put_list<'a>(
    count: u64,
    mut rest: &'a [u8],
    (open, close): (char, char),
    json: &mut String,
    put: impl Fn(usize, &'a [u8], &mut String) -> Option<&'a [u8]>,
) -> Option<&'a [u8]> {
    json.push(open);
    for index in 0..usize::try_from(count).ok()? {
        if index > 0 {
            json.push(',');
        }
        rest = put(index, rest, json)?;
    }
    json.push(close);
    Some(rest)
}

/// Appends the key of a map and its colon. A key is a text, whatever its type.
fn put_key<'a>(key: &DataType, bytes: &'a [u8], json: &mut String) -> Option<&'a [u8]> {
    let start = json.len();
    let rest = put_value(key, bytes, json)?;
    if json.get(start..)?.starts_with('"') {
        json.push(':');
    } else {
        let text = string(&json.split_off(start));
        let _ = write!(json, "{text}:");
    }
    Some(rest)
}

/// The JSON of a value without elements.
fn text_of(data_type: &DataType, bytes: &[u8]) -> Option<String> {
    let float = |finite: bool, text: String| if finite { text } else { string(&text) };
    Some(match data_type {
        DataType::Bool => (bytes != [0]).to_string(),
        DataType::Unsigned(_) => Wide::of_unsigned(bytes).to_string(),
        DataType::Signed(_) | DataType::Enum8(_) | DataType::Enum16(_) => with_sign(Wide::of_signed(bytes), 0),
        DataType::Decimal { scale, .. } => with_sign(Wide::of_signed(bytes), usize::from(*scale)),
        DataType::Float32 => {
            let value = f32::from_le_bytes(*bytes.first_chunk()?);
            float(value.is_finite(), value.to_string())
        }
        DataType::Float64 => {
            let value = f64::from_le_bytes(*bytes.first_chunk()?);
            float(value.is_finite(), value.to_string())
        }
        DataType::BFloat16 => {
            let value = f32::from_bits(u32::from(u16::from_le_bytes(*bytes.first_chunk()?)) << 16);
            float(value.is_finite(), value.to_string())
        }
        DataType::String => string(&String::from_utf8_lossy(leb128(bytes)?.1)),
        DataType::Json { .. } => String::from_utf8_lossy(leb128(bytes)?.1).into_owned(),
        DataType::FixedString(_) => string(&String::from_utf8_lossy(bytes)),
        DataType::Date => date(i64::from(u16::from_le_bytes(*bytes.first_chunk()?))),
        DataType::Date32 => date(i64::from(i32::from_le_bytes(*bytes.first_chunk()?))),
        DataType::DateTime { .. } => time(i64::from(u32::from_le_bytes(*bytes.first_chunk()?)), 0),
        DataType::DateTime64 { precision, .. } => {
            let ticks = i64::from_le_bytes(*bytes.first_chunk()?);
            let per_second = 10i64.pow(u32::from(*precision).min(9));
            time(ticks.div_euclid(per_second), ticks.rem_euclid(per_second) * (1_000_000_000 / per_second))
        }
        DataType::Time => span(i64::from(i32::from_le_bytes(*bytes.first_chunk()?)), 0),
        DataType::Time64 { precision } => span(i64::from_le_bytes(*bytes.first_chunk()?), *precision),
        DataType::Uuid => {
            let (high, low) = bytes.split_first_chunk::<8>()?;
            let value =
                u128::from(u64::from_le_bytes(*high)) << 64 | u128::from(u64::from_le_bytes(*low.first_chunk()?));
            uuid(value)
        }
        DataType::Ipv4 => string(&Ipv4Addr::from(u32::from_le_bytes(*bytes.first_chunk()?)).to_string()),
        DataType::Ipv6 => string(&Ipv6Addr::from(*bytes.first_chunk::<16>()?).to_canonical().to_string()),
        _ => return None,
    })
}

/// A number with `scale` digits behind its point.
fn with_sign((value, negative): (Wide, bool), scale: usize) -> String {
    let digits = format!("{value:0>width$}", value = value.to_string(), width = scale + 1);
    let (whole, fraction) = digits.split_at_checked(digits.len() - scale).unwrap_or((&digits, ""));
    let (sign, point) = (if negative { "-" } else { "" }, if scale > 0 { "." } else { "" });
    format!("{sign}{whole}{point}{fraction}")
}

fn uuid(value: u128) -> String {
    let digits = format!("{value:032x}");
    let groups = [0..8, 8..12, 12..16, 16..20, 20..32].map(|range| digits.get(range).unwrap_or_default());
    string(&groups.join("-"))
}

fn span(ticks: i64, precision: u8) -> String {
    let per_second = 10u64.pow(u32::from(precision).min(9));
    let (seconds, fraction) = (ticks.unsigned_abs() / per_second, ticks.unsigned_abs() % per_second);
    let sign = if ticks < 0 { "-" } else { "" };
    let mut text = format!("{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if precision > 0 {
        let _ = write!(text, ".{fraction:0width$}", width = usize::from(precision));
    }
    string(&text)
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
    use std::collections::BTreeMap;

    use super::*;
    use crate::clickhouse::frozen::{FrozenDefault, RowFormat};
    use crate::clickhouse::name::TableName;

    fn columns(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect()
    }

    const ALL: [(&str, &str); 30] = [
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
        ("q", "Int256"),
        ("r", "UInt128"),
        ("s", "Decimal(38, 3)"),
        ("t", "BFloat16"),
        ("u", "Time"),
        ("v", "Time64(3)"),
        ("w", "Array(Nullable(String))"),
        ("x", "Map(UInt8, Array(Bool))"),
        ("y", "Tuple(a UInt8, `b c` Tuple(String, Float64))"),
        ("z", "Point"),
        ("aa", "Map(String, LowCardinality(String))"),
        ("bb", "Array(Variant(String, UInt8))"),
        ("cc", "JSON"),
        ("dd", "Array(Dynamic)"),
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
        row.extend_from_slice(&[0xff; 32]);
        row.extend_from_slice(&u128::MAX.to_le_bytes());
        row.extend_from_slice(&(-5i128).to_le_bytes());
        row.extend_from_slice(&0x3fc0u16.to_le_bytes());
        row.extend_from_slice(&(-3_599_999i32).to_le_bytes());
        row.extend_from_slice(&3_600_005i64.to_le_bytes());
        row.extend_from_slice(b"\x03\x01\0\x01a\0\0");
        row.extend_from_slice(b"\x02\x07\x02\x01\0\x08\0");
        row.extend_from_slice(b"\x05\x01x");
        row.extend_from_slice(&f64::INFINITY.to_le_bytes());
        row.extend_from_slice(&1.5f64.to_le_bytes());
        row.extend_from_slice(&(-2f64).to_le_bytes());
        row.extend_from_slice(b"\x01\x01\"\x01v");
        row.extend_from_slice(b"\x03\x00\x01s\x01\x07\xff");
        row.extend_from_slice(b"\x09{\"j\": 1 }");
        row.extend_from_slice(b"\x04\x00\x15\x01d\x1e\x23\x0a\x01\0\x05\0\0\0\0\0\0\0\x30\0\x80\x08\x20\0\0\0\x02{}");
        row
    }

    #[test]
    fn a_row_of_every_type_is_skipped_to_its_end_and_a_truncated_one_is_not() {
        let columns = columns(&ALL);
        let types: Vec<DataType> = columns.iter().map(|(_, kind)| DataType::parse(kind).unwrap()).collect();
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

    fn frozen(columns: &[(String, String)]) -> Frozen {
        Frozen {
            table: TableName::new("d", "t"),
            format: RowFormat::default(),
            columns: columns.to_vec(),
            defaults: Vec::new(),
            computed: Vec::new(),
            settings: BTreeMap::new(),
        }
    }

    #[test]
    fn a_column_that_gets_its_default_is_not_in_the_json() {
        let columns = columns(&[("a", "UInt8"), ("b", "Nullable(UInt8)"), ("c", "String")]);
        let default =
            |name: &str| FrozenDefault { column: name.to_owned(), expression: "5".to_owned(), ephemeral: false };
        let frozen = Frozen {
            format: RowFormat::RowBinaryWithFlags,
            defaults: vec![default("a"), default("b")],
            ..frozen(&columns)
        };
        let json = |row: &[u8]| to_json(&cells(&frozen, row).unwrap());
        assert_eq!(json(b"\x01\0\x01\x01\x01x"), r#"{"c":"x"}"#);
        assert_eq!(json(b"\0\x07\0\x01\x01x"), r#"{"a":7,"b":null,"c":"x"}"#);
        assert_eq!(json(b"\0\x07\x01\0\x09\0"), r#"{"a":7,"c":""}"#);
        assert!(cells(&frozen, b"\x01").is_err());
        let types: Vec<String> = frozen.parts().into_iter().map(|(_, type_name)| type_name).collect();
        assert_eq!(types, ["UInt8", "UInt8", "UInt8", "Nullable(UInt8)", "String"]);
    }

    #[test]
    fn a_row_is_formatted_as_json() {
        let columns = columns(&ALL);
        let row = a_row();
        let frozen = frozen(&columns);
        let json = to_json(&cells(&frozen, &row).unwrap());
        assert_eq!(
            json,
            "{\"a\":\"a\\\"b\",\"b\":\"\",\"c\":7,\"d\":null,\"e\":\"xyz\",\"f\":-5,\"g\":1.5,\"h\":true,\
             \"i\":\"00000000-0000-0000-0000-000000000000\",\"j\":\"1970-01-02\",\"k\":\"1969-12-31\",\
             \"l\":\"1970-01-01T00:01:00Z\",\"m\":\"1970-01-01T00:00:01.500Z\",\"n\":\"1.2.3.4\",\"o\":\"::\",\"p\":2,\
             \"q\":-1,\"r\":340282366920938463463374607431768211455,\"s\":-0.005,\"t\":1.5,\"u\":\"-999:59:59\",\
             \"v\":\"01:00:00.005\",\"w\":[null,\"a\",\"\"],\"x\":{\"7\":[true,false],\"8\":[]},\
             \"y\":{\"a\":5,\"b c\":[\"x\",\"inf\"]},\"z\":[1.5,-2],\"aa\":{\"\\\"\":\"v\"},\"bb\":[\"s\",7,null],\"cc\":{\"j\": 1 },\
             \"dd\":[null,\"d\",[5],{}]}"
        );
        assert!(cells(&frozen, &row[..20]).is_err());
    }
}
