//! The table, columns and settings that are fixed when a block is opened. The block is inserted
//! with them even after the table or the configuration has changed (invariant 3).

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use super::name::TableName;
use crate::quarantine;
use crate::schema::{self, SchemaError};

/// The encoding of rows in a block.
///
/// The format of the INSERT is a different one, set by `--insert-format`, and may change. A block
/// with a row format that this version does not know is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RowFormat {
    /// RowBinary, without a header.
    #[default]
    RowBinary,
    /// RowBinary, without a header, with a byte in front of each value of a column with a default: 1 if
    /// the column gets its default in this row, and the value is not used.
    RowBinaryWithFlags,
}

/// A column with a default expression, for which a row has a byte in front of the value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrozenDefault {
    /// The column's name.
    pub column: String,
    /// The expression as ClickHouse wrote it when the block was opened.
    pub expression: String,
    /// True for an EPHEMERAL column, which is not stored.
    #[serde(default)]
    pub ephemeral: bool,
}

/// The serialized columns, types and INSERT settings of a block, with its table. Batches with
/// different ones never share a block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// The table that the rows are inserted into; unknown in a block of version 0.1.
    #[serde(default)]
    pub table: TableName,
    /// The encoding of the rows.
    #[serde(default)]
    pub format: RowFormat,
    /// Names and types of the columns.
    pub columns: Vec<(String, String)>,
    /// The columns with defaults, with [`RowFormat::RowBinaryWithFlags`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub defaults: Vec<FrozenDefault>,
    /// The names and expressions of MATERIALIZED and ALIAS columns, which the default expressions may name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub computed: Vec<(String, String)>,
    /// Settings of the INSERT.
    pub settings: BTreeMap<String, String>,
}

impl Frozen {
    /// Serializes the value, as the schema of a block.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Lists and maps of strings always serialize.
        sonic_rs::to_vec(self).unwrap_or_default()
    }

    /// Deserializes the value from the schema of a block. A block that names no table is
    /// for `table`.
    ///
    /// # Errors
    ///
    /// If the bytes are not a value that this version knows.
    pub fn from_bytes(bytes: &[u8], table: &TableName) -> io::Result<Self> {
        let mut frozen: Self = sonic_rs::from_slice(bytes).map_err(io::Error::other)?;
        if frozen.table.is_unknown() {
            frozen.table = table.clone();
        }
        Ok(frozen)
    }

    /// The header of `FORMAT RowBinaryWithNamesAndTypes`.
    ///
    /// # Errors
    ///
    /// If a type can't be encoded.
    pub fn rowbinary_header(&self) -> Result<Vec<u8>, SchemaError> {
        let columns: Vec<(&str, &str)> =
            self.columns.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect();
        schema::rowbinary_header(&columns)
    }

    /// True if ClickHouse would refuse these rows as a Native block after the table has changed.
    ///
    /// ClickHouse compares the types of a Native block with those of the table only if
    /// `input_format_native_allow_types_conversion` is 0; blocks of older versions lack the setting.
    /// It never compares the values of an Enum: a number that the table's Enum lacks would be stored
    /// and break every SELECT.
    pub fn is_safe_as_native(&self) -> bool {
        let converts = self.settings.get("input_format_native_allow_types_conversion").is_none_or(|sent| sent != "0");
        !converts && !self.columns.iter().any(|(_, type_name)| type_name.contains("Enum"))
    }

    /// The default of a column.
    pub fn default_of(&self, column: &str) -> Option<&FrozenDefault> {
        self.defaults.iter().find(|default| default.column == column)
    }

    /// The name of a column's values in the rows of [`RowFormat::RowBinaryWithFlags`], and the name of the
    /// bytes in front of them. No column has such a name, because default expressions mean columns.
    pub fn names_in_rows(&self, index: usize) -> (String, String) {
        let mut prefix = "sluicegate".to_owned();
        let is_taken = |prefix: &str| {
            let names = self.columns.iter().chain(&self.computed).map(|(name, _)| name);
            names.into_iter().any(|name| name.starts_with(prefix))
        };
        while is_taken(&prefix) {
            prefix.push('_');
        }
        (format!("{prefix} value {index}"), format!("{prefix} default {index}"))
    }

    /// The names and types of what a row consists of.
    pub fn parts(&self) -> Vec<(String, String)> {
        if self.format == RowFormat::RowBinary {
            return self.columns.clone();
        }
        let mut parts = Vec::with_capacity(self.columns.len() + self.defaults.len());
        for (index, (column, type_name)) in self.columns.iter().enumerate() {
            let (value, flag) = self.names_in_rows(index);
            if self.default_of(column).is_some() {
                parts.push((flag, "UInt8".to_owned()));
            }
            parts.push((value, type_name.clone()));
        }
        parts
    }

    /// The value for the rejected lines of the block.
    pub fn of_quarantine(&self) -> Self {
        Self {
            table: self.table.quarantine(),
            format: RowFormat::RowBinary,
            columns: quarantine::COLUMNS
                .iter()
                .map(|(name, type_name)| ((*name).to_owned(), (*type_name).to_owned()))
                .collect(),
            defaults: Vec::new(),
            computed: Vec::new(),
            settings: self.settings.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_names_no_table_is_for_the_configured_one() {
        let configured = TableName::new("d", "events");
        let old = br#"{"columns":[["a","String"]],"settings":{"async_insert":"0"}}"#;
        let frozen = Frozen::from_bytes(old, &configured).unwrap();
        assert_eq!((&frozen.table, frozen.format), (&configured, RowFormat::RowBinary));
        let other = TableName::new("d", "hits");
        let named = Frozen { table: other.clone(), ..frozen };
        assert_eq!(Frozen::from_bytes(&named.to_bytes(), &configured).unwrap(), named);
        assert_eq!(named.of_quarantine().table, other.quarantine());
        assert!(Frozen::from_bytes(b"{", &configured).is_err());
        let newer = br#"{"format":"Parquet","columns":[["a","String"]],"settings":{}}"#;
        assert!(Frozen::from_bytes(newer, &configured).is_err(), "a format of a later version is not guessed at");
    }
}
