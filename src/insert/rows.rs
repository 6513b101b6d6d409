//! Access to the single rows of a block, and the offset of each. Needed only if ClickHouse refuses some
//! rows, or if rows are looked up.

use std::io;

use bytes::Bytes;

use crate::rowbinary::{DataType, skip_value};
use crate::spool::BlockReader;

/// A reader of a block's rows in order.
pub struct RowReader {
    reader: Option<BlockReader>,
    types: Vec<DataType>,
    buffer: Bytes,
    offset: u64,
}

impl RowReader {
    /// Creates a reader of rows from a block, with columns of these names and types.
    ///
    /// # Errors
    ///
    /// `InvalidData` for a type that is not understood.
    pub fn new(reader: BlockReader, columns: &[(String, String)]) -> io::Result<Self> {
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

    fn of(reader: Option<BlockReader>, buffer: Bytes, columns: &[(String, String)]) -> io::Result<Self> {
        let types = columns
            .iter()
            .map(|(_, type_name)| DataType::parse(type_name).map_err(invalid))
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
    /// If the block can't be read, or its rows do not match these types.
    pub fn next_row(&mut self) -> io::Result<Option<Bytes>> {
        while self.buffer.is_empty() {
            match self.reader.as_mut().map(BlockReader::next_rows).transpose()?.flatten() {
                Some(rows) => self.buffer = rows,
                None => return Ok(None),
            }
        }
        let mut rest = &self.buffer[..];
        for described in &self.types {
            rest = skip_value(described, rest).ok_or_else(|| invalid("a row does not match the block's types"))?;
        }
        let row = self.buffer.split_to(self.buffer.len() - rest.len());
        self.offset += row.len() as u64;
        Ok(Some(row))
    }
}

pub(super) fn invalid(error: impl ToString) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}
