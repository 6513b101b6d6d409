//! The name of a table, and how names are written in SQL.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The name of a table and its database. `Display` quotes it for SQL: `` `database`.`table` ``.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct TableName {
    /// The name of the database.
    pub database: String,
    /// The name of the table, without the database.
    pub table: String,
}

impl TableName {
    /// Creates the name of a table in a database.
    pub fn new(database: &str, table: &str) -> Self {
        Self { database: database.to_owned(), table: table.to_owned() }
    }

    /// The name of the quarantine table, which takes the rejected lines of this table.
    #[must_use]
    pub fn quarantine(&self) -> Self {
        Self { database: self.database.clone(), table: format!("{}_quarantine", self.table) }
    }

    /// True if no table is named, as in a block of an older version.
    pub fn is_unknown(&self) -> bool {
        self.table.is_empty()
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", quoted(&self.database), quoted(&self.table))
    }
}

/// Quotes an identifier with backticks.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// A string between quotes.
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
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
        assert_eq!(literal("it's \\"), "'it\\'s \\\\'");
    }
}
