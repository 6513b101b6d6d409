//! The name of a table, and how names are written in SQL.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A table and its database. Printed it is quoted for SQL: `` `database`.`table` ``.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct TableName {
    /// The database's name.
    pub database: String,
    /// The table's name, without the database.
    pub table: String,
}

impl TableName {
    /// The table of this name in this database.
    pub fn new(database: &str, table: &str) -> Self {
        Self { database: database.to_owned(), table: table.to_owned() }
    }

    /// The table that this one's rejected lines go to.
    #[must_use]
    pub fn quarantine(&self) -> Self {
        Self { database: self.database.clone(), table: format!("{}_quarantine", self.table) }
    }

    /// True for the name of no table, as a segment of an older version has it.
    pub fn is_unknown(&self) -> bool {
        self.table.is_empty()
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", quoted(&self.database), quoted(&self.table))
    }
}

/// An identifier in backticks.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_for_sql() {
        let name = TableName::new("default", "app-events");
        assert_eq!(name.to_string(), "`default`.`app-events`");
        assert_eq!(name.quarantine().to_string(), "`default`.`app-events_quarantine`");
        assert_eq!(quoted("a`b\\"), "`a\\`b\\\\`");
    }
}
