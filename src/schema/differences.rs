//! The differences between two descriptions of a table, as text for the log.

use std::fmt;

use super::ColumnDescription;

/// Columns that were added, dropped or changed. The order of columns is ignored.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Added columns, each with its definition.
    pub added: Vec<String>,
    /// Dropped columns, each with its former definition. A renamed column counts as dropped and
    /// added, because `DESCRIBE TABLE` does not tell a rename.
    pub dropped: Vec<String>,
    /// Columns with another type or default, each with both definitions.
    pub changed: Vec<String>,
}

impl Differences {
    /// Compares two descriptions of a table; columns are matched by name.
    pub fn between(before: &[ColumnDescription], now: &[ColumnDescription]) -> Self {
        let missing_in = |columns: &[ColumnDescription], column: &&ColumnDescription| {
            !columns.iter().any(|other| other.name == column.name)
        };
        let changed = |was: &ColumnDescription| {
            let is = now.iter().find(|is| is.name == was.name && *is != was)?;
            Some(format!("`{}` from {} to {}", was.name, definition(was), definition(is)))
        };
        Self {
            added: now.iter().filter(|column| missing_in(before, column)).map(named).collect(),
            dropped: before.iter().filter(|column| missing_in(now, column)).map(named).collect(),
            changed: before.iter().filter_map(changed).collect(),
        }
    }

    /// True when both descriptions have the same columns.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.dropped.is_empty() && self.changed.is_empty()
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (what, columns) in [("added", &self.added), ("dropped", &self.dropped), ("changed", &self.changed)] {
            if !columns.is_empty() {
                write!(f, "{separator}{what} {}", columns.join(", "))?;
                separator = "; ";
            }
        }
        Ok(())
    }
}

fn named(column: &ColumnDescription) -> String {
    format!("`{}` {}", column.name, definition(column))
}

fn definition(column: &ColumnDescription) -> String {
    let ColumnDescription { type_name, default_kind, default_expression, .. } = column;
    [type_name, default_kind, default_expression].map(String::as_str).join(" ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, type_name: &str, default: (&str, &str)) -> ColumnDescription {
        ColumnDescription {
            name: name.to_owned(),
            type_name: type_name.to_owned(),
            default_kind: default.0.to_owned(),
            default_expression: default.1.to_owned(),
        }
    }

    #[test]
    fn added_dropped_and_changed_columns_are_named() {
        let none = ("", "");
        let before = [
            column("kept", "String", none),
            column("gone", "Int8", none),
            column("wider", "Int32", none),
            column("filled", "DateTime", none),
        ];
        let now = [
            column("new", "Array(String)", none),
            column("filled", "DateTime", ("DEFAULT", "now()")),
            column("wider", "Int64", none),
            column("kept", "String", none),
        ];
        let differences = Differences::between(&before, &now);
        assert_eq!(
            differences.to_string(),
            "added `new` Array(String); dropped `gone` Int8; \
             changed `wider` from Int32 to Int64, `filled` from DateTime to DateTime DEFAULT now()"
        );
        assert!(!differences.is_empty());
        let reversed: Vec<_> = before.iter().rev().cloned().collect();
        assert!(Differences::between(&before, &reversed).is_empty());
        assert_eq!(Differences::between(&before, &before).to_string(), "");
        assert_eq!(Differences::between(&[], &now[..1]).to_string(), "added `new` Array(String)");
    }
}
