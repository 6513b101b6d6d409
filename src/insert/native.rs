//! Conversion of a block's rows to one block of ClickHouse's Native format, which stores columns.
//!
//! A block is the number of columns and of rows, then the name, the type and the values of each
//! column. A value has the same bytes as in RowBinary, except in a Nullable column: there all NULL
//! flags come first, and a NULL also has a value, the default of the type. (ClickHouse, "Native"
//! under Formats.) ClickHouse takes the columns of a block as they are, whereas it must parse
//! RowBinary value by value. The conversion here only copies bytes.
//!
//! The rows are sent as a single block, which must be complete in memory before its first byte is
//! sent. ClickHouse identifies an INSERT by the token *and its blocks*: the same rows under the same
//! token in different blocks are stored again (26.7). A single block is identified like the same rows
//! in RowBinary, so an attempt in one format may be repeated in the other.

use std::io;

use bytes::Bytes;
use clickhouse_rowbinary::io::{write_string, write_uvarint};

use crate::clickhouse::frozen::Frozen;
use crate::rowbinary::{DataType, fixed_width, leb128};

/// More bytes of rows than this are sent as RowBinary, which is streamed.
const BYTES_MAX: u64 = 128 << 20;

/// True if this many bytes of rows of these columns can be sent as a Native block.
pub(super) fn is_fit_for(frozen: &Frozen, bytes: u64) -> bool {
    bytes <= BYTES_MAX && !frozen.columns.is_empty() && why_not(frozen).is_none()
}

/// The reason why rows of these columns are sent as RowBinary; `None` if they can be sent as a Native block.
pub fn why_not(frozen: &Frozen) -> Option<String> {
    if !frozen.is_safe_as_native() {
        let reason = "the table has an Enum, whose values ClickHouse does not check in that format, or ClickHouse is too \
                      old to check types";
        return Some(reason.to_owned());
    }
    if let Some(default) = frozen.defaults.first() {
        return Some(format!("column `{}` has a default expression", default.column));
    }
    let (name, type_name) = frozen.columns.iter().find(|(_, type_name)| ColumnForm::of(type_name).is_none())?;
    Some(format!("the values of column `{name}` of type {type_name} are not converted to that format"))
}

/// A block that rows are added to.
pub(super) struct NativeBlock {
    columns: Vec<Column>,
    rows: u64,
}

/// A column of a block.
struct Column {
    /// The encoded name and type.
    head: Vec<u8>,
    width: ValueWidth,
    /// The NULL flag of each value; empty in a column that is not Nullable.
    nulls: Vec<u8>,
    is_nullable: bool,
    values: Vec<u8>,
}

/// How the values of a column lie in a row.
struct ColumnForm {
    width: ValueWidth,
    is_nullable: bool,
}

impl ColumnForm {
    /// `None` for values that are sent as RowBinary alone: those with values inside, whose columns have
    /// several parts in Native, and those of a `SimpleAggregateFunction`, which may hide a LowCardinality.
    fn of(type_name: &str) -> Option<Self> {
        if type_name.starts_with("SimpleAggregateFunction(") {
            return None;
        }
        let data_type = match DataType::parse(type_name).ok()? {
            DataType::LowCardinality(inner) => *inner,
            other => other,
        };
        let (data_type, is_nullable) = match data_type {
            DataType::Nullable(inner) => (*inner, true),
            other => (other, false),
        };
        let width = match &data_type {
            DataType::String => ValueWidth::Text,
            DataType::Tuple(_) => return None,
            other => ValueWidth::Fixed(fixed_width(other)?),
        };
        Some(Self { width, is_nullable })
    }
}

/// The length of a column's values.
#[derive(Clone, Copy)]
enum ValueWidth {
    /// Every value has this many bytes.
    Fixed(usize),
    /// Every value is a text behind its length.
    Text,
}

impl NativeBlock {
    /// Creates a block for rows of these columns, given by name and type.
    ///
    /// # Errors
    ///
    /// `InvalidData` for a type that is not understood.
    pub(super) fn new(columns: &[(String, String)]) -> io::Result<Self> {
        let columns =
            columns.iter().map(|(name, type_name)| Column::new(name, type_name)).collect::<io::Result<_>>()?;
        Ok(Self { columns, rows: 0 })
    }

    /// Adds complete rows in RowBinary.
    ///
    /// # Errors
    ///
    /// `InvalidData` if the bytes are not rows of these columns.
    pub(super) fn push(&mut self, mut rows: &[u8]) -> io::Result<()> {
        while !rows.is_empty() {
            for column in &mut self.columns {
                rows = column.push(rows).ok_or_else(|| invalid("a row does not match the block's types"))?;
            }
            self.rows += 1;
        }
        Ok(())
    }

    /// The encoded block, in several buffers.
    ///
    /// # Errors
    ///
    /// None; a write to a vector can't fail.
    pub(super) fn into_buffers(self) -> io::Result<Vec<Bytes>> {
        let mut front = Vec::new();
        write_uvarint(self.columns.len() as u64, &mut front).map_err(invalid)?;
        write_uvarint(self.rows, &mut front).map_err(invalid)?;
        let columns = self.columns.into_iter().flat_map(|column| [column.head, column.nulls, column.values]);
        Ok(std::iter::once(front).chain(columns).filter(|buffer| !buffer.is_empty()).map(Bytes::from).collect())
    }
}

impl Column {
    fn new(name: &str, type_name: &str) -> io::Result<Self> {
        let ColumnForm { width, is_nullable } =
            ColumnForm::of(type_name).ok_or_else(|| invalid(format!("the type {type_name}")))?;
        let mut head = Vec::new();
        write_string(name, &mut head)
            .and_then(|()| write_string(without_low_cardinality(type_name), &mut head))
            .map_err(invalid)?;
        Ok(Self { head, width, nulls: Vec::new(), is_nullable, values: Vec::new() })
    }

    /// Takes the first value of `row` and returns the rest; `None` if the value is incomplete.
    fn push<'a>(&mut self, mut row: &'a [u8]) -> Option<&'a [u8]> {
        if self.is_nullable {
            let (flag, rest) = row.split_first()?;
            self.nulls.push(*flag);
            row = rest;
            if *flag == 1 {
                let default = match self.width {
                    ValueWidth::Fixed(width) => width,
                    ValueWidth::Text => 1,
                };
                self.values.resize(self.values.len() + default, 0);
                return Some(row);
            }
        }
        match self.width {
            ValueWidth::Fixed(1) => self.push_fixed::<1>(row),
            ValueWidth::Fixed(2) => self.push_fixed::<2>(row),
            ValueWidth::Fixed(4) => self.push_fixed::<4>(row),
            ValueWidth::Fixed(8) => self.push_fixed::<8>(row),
            ValueWidth::Fixed(16) => self.push_fixed::<16>(row),
            ValueWidth::Fixed(width) => self.push_len(row, width),
            ValueWidth::Text => {
                let (len, rest) = leb128(row)?;
                self.push_len(row, (row.len() - rest.len()).checked_add(usize::try_from(len).ok()?)?)
            }
        }
    }

    fn push_fixed<'a, const N: usize>(&mut self, row: &'a [u8]) -> Option<&'a [u8]> {
        let (value, rest) = row.split_first_chunk::<N>()?;
        self.values.extend_from_slice(value);
        Some(rest)
    }

    fn push_len<'a>(&mut self, row: &'a [u8], len: usize) -> Option<&'a [u8]> {
        let (value, rest) = row.split_at_checked(len)?;
        self.values.extend_from_slice(value);
        Some(rest)
    }
}

/// The type that a LowCardinality column is sent as: the type inside. ClickHouse accepts that and
/// builds the dictionary, once for the whole part, which is cheaper than building one here as well.
fn without_low_cardinality(type_name: &str) -> &str {
    let inner = type_name.strip_prefix("LowCardinality(").and_then(|rest| rest.strip_suffix(')'));
    inner.unwrap_or(type_name)
}

fn invalid(what: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clickhouse::frozen::RowFormat;
    use crate::clickhouse::name::TableName;

    fn columns(types: &[&str]) -> Vec<(String, String)> {
        types.iter().zip('a'..).map(|(type_name, name)| (name.to_string(), (*type_name).to_owned())).collect()
    }

    fn frozen(types: &[&str]) -> Frozen {
        let settings = crate::clickhouse::settings::FIXED.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Frozen {
            table: TableName::new("d", "t"),
            format: RowFormat::RowBinary,
            columns: columns(types),
            defaults: Vec::new(),
            computed: Vec::new(),
            settings: settings.into(),
        }
    }

    #[test]
    fn rows_become_columns() {
        let columns = columns(&["UInt16", "LowCardinality(Nullable(String))", "Nullable(FixedString(3))"]);
        let mut block = NativeBlock::new(&columns).unwrap();
        block.push(b"\x01\x00\x00\x02hi\x00xyz").unwrap();
        block.push(b"\x02\x00\x01\x01").unwrap();
        let expected = [
            &b"\x03\x02"[..],
            b"\x01a\x06UInt16\x01\x00\x02\x00",
            b"\x01b\x10Nullable(String)\x00\x01\x02hi\x00",
            b"\x01c\x18Nullable(FixedString(3))\x00\x01xyz\x00\x00\x00",
        ];
        assert_eq!(block.into_buffers().unwrap().concat(), expected.concat());
    }

    #[test]
    fn incomplete_rows_are_damage() {
        let rows = b"\x01\x00\x00\x02hi\x00\x00\x00\x00\x00\x00\x00\x00";
        let columns = columns(&["UInt16", "Nullable(String)", "Float64"]);
        for cut in 1..rows.len() {
            let mut block = NativeBlock::new(&columns).unwrap();
            let error = block.push(&rows[..cut]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{cut}");
        }
        assert!(NativeBlock::new(&columns).unwrap().push(rows).is_ok());
        assert!(NativeBlock::new(&self::columns(&["Point"])).is_err());
    }

    #[test]
    fn rows_that_clickhouse_would_not_check_or_that_are_too_large_are_not_sent_as_a_block() {
        assert!(is_fit_for(&frozen(&["UInt8", "String"]), BYTES_MAX));
        assert!(!is_fit_for(&frozen(&["UInt8", "String"]), BYTES_MAX + 1));
        assert!(!is_fit_for(&frozen(&[]), 1), "bytes without a column would be gone through for ever");
        assert!(!is_fit_for(&frozen(&["UInt8", "Enum8('a' = 1)"]), 1));
        assert!(!is_fit_for(&frozen(&["Nullable(Enum16('a' = 1))"]), 1));
        let older = Frozen { settings: [("async_insert".to_owned(), "0".to_owned())].into(), ..frozen(&["UInt8"]) };
        assert!(!is_fit_for(&older, 1));
        let composed = [
            "Array(UInt8)",
            "Map(String, String)",
            "Tuple(a UInt8)",
            "Point",
            "SimpleAggregateFunction(any, LowCardinality(String))",
            "QBit(Float32, 4)",
            "Variant(String, UInt8)",
            "JSON(a UInt8)",
            "Dynamic",
        ];
        for type_name in composed {
            assert!(!is_fit_for(&frozen(&["UInt8", type_name]), 1), "{type_name} is sent as RowBinary");
        }
        for type_name in ["Decimal(76, 2)", "Int256", "BFloat16", "Time64(3)", "LowCardinality(Nullable(String))"] {
            assert!(is_fit_for(&frozen(&[type_name]), 1), "{type_name}");
        }
    }
}
