//! The text of an INSERT, and what precedes its rows.

use super::client::ClickHouse;
use super::inserter::Failure;
use super::tables;
use super::target::Frozen;
use crate::schema::ColumnDescription;

/// See the module.
pub(super) struct Statement {
    pub(super) text: String,
    pub(super) header: Vec<u8>,
}

impl Statement {
    /// An INSERT of a segment's columns; with `convert`, one that reads them with the segment's types
    /// and lets ClickHouse convert them into those of the table as it is now, without columns that
    /// it has no more.
    pub(super) fn new(
        server: &ClickHouse,
        database: &str,
        table: &str,
        frozen: &Frozen,
        convert: bool,
    ) -> Result<Self, Failure> {
        let into = tables::quoted(database, table);
        if !convert {
            let columns = list(frozen.columns.iter().map(|(name, _)| name.as_str()));
            return Ok(Self {
                text: format!("INSERT INTO {into} ({columns}) FORMAT RowBinaryWithNamesAndTypes"),
                header: frozen.rowbinary_header().map_err(|error| Failure::hold(error.to_string()))?,
            });
        }
        let described = super::target::describe_table(server, database, table);
        let now = described.map_err(|error| Failure::hold(format!("{table}: {error}")))?;
        let insertable = |name: &str| now.iter().any(|column| column.name == name && is_insertable(column));
        let kept = || frozen.columns.iter().map(|(name, _)| name.as_str()).filter(|name| insertable(name));
        if kept().next().is_none() {
            return Err(Failure::hold(format!("{table} has none of the segment's columns")));
        }
        let structure: Vec<String> =
            frozen.columns.iter().map(|(name, kind)| format!("{} {kind}", tables::quote(name))).collect();
        let structure = structure.join(", ").replace('\\', "\\\\").replace('\'', "\\'");
        let columns = list(kept());
        Ok(Self {
            text: format!("INSERT INTO {into} ({columns}) SELECT {columns} FROM input('{structure}') FORMAT RowBinary"),
            header: Vec::new(),
        })
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(tables::quote).collect::<Vec<_>>().join(", ")
}

fn is_insertable(column: &ColumnDescription) -> bool {
    matches!(column.default_kind.as_str(), "" | "DEFAULT")
}
