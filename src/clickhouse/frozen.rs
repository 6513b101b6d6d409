//! What is fixed with a segment when it is opened, and sent with it whatever the server or the
//! configuration has become since (invariant 3).

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use super::name::TableName;
use crate::quarantine;
use crate::schema::{self, SchemaError};

/// How rows are encoded in a segment. Not how they are inserted: that is `--insert-format`, which may
/// change. A format that this version does not know holds the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum RowFormat {
    /// RowBinary, without a header.
    #[default]
    RowBinary,
}

/// The serialized target of a segment's rows: table, columns and types, and how they are inserted.
/// Batches with different ones never share a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// The table that the rows are for; unknown in a segment of version 0.1.
    #[serde(default)]
    pub table: TableName,
    /// How the rows are encoded.
    #[serde(default)]
    pub format: RowFormat,
    /// Names and types of the rows' columns.
    pub columns: Vec<(String, String)>,
    /// Settings of the insert.
    pub settings: BTreeMap<String, String>,
}

impl Frozen {
    /// As it stands in a segment.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Strings in lists and maps: there is nothing in it that JSON could not say.
        sonic_rs::to_vec(self).unwrap_or_default()
    }

    /// As a segment says; one that does not say for which table is for `table`.
    ///
    /// # Errors
    ///
    /// When the segment was written by another program.
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
    /// A type that can't be written back.
    pub fn rowbinary_header(&self) -> Result<Vec<u8>, SchemaError> {
        let columns: Vec<(&str, &str)> =
            self.columns.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect();
        schema::rowbinary_header(&columns)
    }

    /// True when ClickHouse refuses these rows as a block of Native where the table has become another.
    ///
    /// It compares the types of a block with those of the table only when it is told to, which it has
    /// been since this server knows the format; and it never compares which values an Enum has: a number
    /// that the table's Enum lacks would be stored, and would break every SELECT.
    pub fn is_safe_as_native(&self) -> bool {
        let converts = self.settings.get("input_format_native_allow_types_conversion").is_none_or(|sent| sent != "0");
        !converts && !self.columns.iter().any(|(_, type_name)| type_name.contains("Enum"))
    }

    /// The same for the rejected lines of the segment.
    pub fn of_quarantine(&self) -> Self {
        Self {
            table: self.table.quarantine(),
            format: self.format,
            columns: quarantine::COLUMNS
                .iter()
                .map(|(name, type_name)| ((*name).to_owned(), (*type_name).to_owned()))
                .collect(),
            settings: self.settings.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_that_names_no_table_is_for_the_one_that_is_configured() {
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
