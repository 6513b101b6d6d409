//! The text of an INSERT, and the format of its body.

use super::defaults;
use super::failure::Failure;
use super::native::NativeBlock;
use super::stream::BodyFormat;
use crate::clickhouse::client::ClickHouse;
use crate::clickhouse::description::describe_table;
use crate::clickhouse::frozen::Frozen;
use crate::clickhouse::name::quoted;
use crate::clickhouse::settings::InsertFormat;
use crate::schema::ColumnDescription;

/// The text of an INSERT, and the format of its body.
pub(super) struct Statement {
    pub(super) text: String,
    pub(super) body_format: BodyFormat,
}

impl Statement {
    /// Creates the INSERT of a block's columns.
    ///
    /// With `convert`, ClickHouse reads the rows with the types of the block and converts them to
    /// the types that the table has now. Columns that the table no longer has are left out.
    pub(super) fn new(
        server: &ClickHouse,
        frozen: &Frozen,
        format: InsertFormat,
        convert: bool,
    ) -> Result<Self, Failure> {
        let into = &frozen.table;
        let has_defaults = !frozen.defaults.is_empty();
        if !convert && has_defaults {
            return Ok(Self { text: defaults::insert(frozen), body_format: BodyFormat::Rows(Vec::new()) });
        }
        if !convert {
            let columns = list(frozen.columns.iter().map(|(name, _)| name.as_str()));
            let (format, body_format) = match format {
                InsertFormat::Rowbinary => {
                    let header = frozen.rowbinary_header().map_err(|error| Failure::hold(error.to_string()))?;
                    ("RowBinaryWithNamesAndTypes", BodyFormat::Rows(header))
                }
                InsertFormat::Native => {
                    // A type that is not understood holds the block. It is not damage, which would
                    // set events aside.
                    let block = NativeBlock::new(&frozen.columns).map_err(|error| Failure::hold(error.to_string()))?;
                    ("Native", BodyFormat::Block(block))
                }
            };
            return Ok(Self { text: format!("INSERT INTO {into} ({columns}) FORMAT {format}"), body_format });
        }
        let described = describe_table(server, into);
        let now = described.map_err(|error| Failure::hold(format!("{into}: {error}")))?;
        let kept: Vec<(&str, String)> = frozen
            .columns
            .iter()
            .filter_map(|(name, type_name)| {
                let column = now.iter().find(|column| column.name == *name && is_insertable(column))?;
                Some((name.as_str(), converted(name, type_name, &column.type_name, has_defaults)))
            })
            .collect();
        if kept.is_empty() {
            return Err(Failure::hold(format!("{into} has none of the block's columns")));
        }
        let structure = structure(frozen);
        // Aliases of the same names: a default expression means the value that was written.
        let with = if has_defaults { format!("WITH {} ", defaults::with(frozen)) } else { String::new() };
        let columns = list(kept.iter().map(|(name, _)| *name));
        let values: Vec<&str> = kept.iter().map(|(_, value)| value.as_str()).collect();
        let values = values.join(", ");
        Ok(Self {
            text: format!(
                "INSERT INTO {into} ({columns}) {with}SELECT {values} FROM input('{structure}') FORMAT RowBinary"
            ),
            body_format: BodyFormat::Rows(Vec::new()),
        })
    }
}

/// The expression that converts a column to its present type. ClickHouse refuses a row with a value that
/// does not fit: a value is never wrapped, and a number that an Enum lacks is never stored. The name is an
/// alias already if the row `is_named` by a WITH clause.
fn converted(name: &str, was: &str, is: &str, is_named: bool) -> String {
    let column = quoted(name);
    if was == is {
        return column;
    }
    let is_enum = |type_name: &str| type_name.contains("Enum8(") || type_name.contains("Enum16(");
    let to = literal(is);
    let alias = if is_named { String::new() } else { format!(" AS {column}") };
    // By name: the numbers of an Enum may have changed, and a cast between two Enums does not check them.
    if is_enum(was) && is_enum(is) {
        return format!("CAST(toString({column}), '{to}'){alias}");
    }
    format!("accurateCast({column}, '{to}'){alias}")
}

/// Escapes a text for a string literal in SQL.
fn literal(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

/// A block's names and types, as the text between the quotes of a literal.
pub(super) fn structure(frozen: &Frozen) -> String {
    let columns: Vec<String> = frozen.parts().iter().map(|(name, kind)| format!("{} {kind}", quoted(name))).collect();
    literal(&columns.join(", "))
}

/// Advice for an operator about a block whose columns differ from those of the table; empty if they
/// don't.
pub(super) fn advice(server: &ClickHouse, frozen: &Frozen) -> String {
    describe_table(server, &frozen.table).map(|now| advice_for(&frozen.columns, &now)).unwrap_or_default()
}

/// The names of the columns that the table still has with the same types.
pub(super) fn unchanged<'a>(columns: &'a [(String, String)], now: &[ColumnDescription]) -> Vec<&'a str> {
    let is_there = |(name, type_name): &&(String, String)| {
        now.iter().any(|column| column.name == *name && column.type_name == *type_name && is_insertable(column))
    };
    columns.iter().filter(is_there).map(|(name, _)| name.as_str()).collect()
}

pub(super) fn advice_for(columns: &[(String, String)], now: &[ColumnDescription]) -> String {
    let (mut gone, mut retyped) = (Vec::new(), Vec::new());
    for (name, type_name) in columns {
        match now.iter().find(|column| column.name == *name) {
            Some(column) if is_insertable(column) && column.type_name == *type_name => {}
            Some(column) if is_insertable(column) => {
                retyped.push(format!("`{name}` was {type_name} and is {}", column.type_name));
            }
            _ => gone.push(format!("`{name}`")),
        }
    }
    if gone.is_empty() && retyped.is_empty() {
        return String::new();
    }
    let (missing, gone) = if gone.is_empty() {
        (None, String::new())
    } else {
        let gone = gone.join(", ");
        (
            Some(format!("{gone} can't be inserted into any more")),
            format!(
                ", without the values of {gone}, which are dropped; if a column was renamed, rename it back until the \
                 block is inserted, and no value is dropped"
            ),
        )
    };
    let changes: Vec<String> = missing.into_iter().chain(retyped).collect();
    format!(
        ". The block was written for other columns: {}. It is inserted automatically when the table has \
         them again; `sluicegate spool requeue --convert` lets ClickHouse convert it to the present columns{gone}",
        changes.join("; ")
    )
}

pub(super) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(quoted).collect::<Vec<_>>().join(", ")
}

fn is_insertable(column: &ColumnDescription) -> bool {
    matches!(column.default_kind.as_str(), "" | "DEFAULT" | "EPHEMERAL")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_converted_is_cast_exactly_and_enums_by_their_names() {
        assert_eq!(converted("a", "Int64", "Int64", false), "`a`");
        assert_eq!(converted("a", "Int64", "Int8", false), "accurateCast(`a`, 'Int8') AS `a`");
        assert_eq!(
            converted("a", "Enum8('x' = 1)", "Nullable(Enum16('it\\'s' = 2))", false),
            "CAST(toString(`a`), 'Nullable(Enum16(\\'it\\\\\\'s\\' = 2))') AS `a`"
        );
        assert_eq!(converted("a", "Int64", "Int8", true), "accurateCast(`a`, 'Int8')");
        assert_eq!(converted("a", "Enum8('x' = 1)", "String", false), "accurateCast(`a`, 'String') AS `a`");
    }

    #[test]
    fn the_advice_says_what_changed_and_what_a_conversion_would_drop() {
        let frozen: Vec<(String, String)> = [("a", "Int64"), ("b", "String"), ("c", "String"), ("d", "Int8")]
            .map(|(name, type_name)| (name.to_owned(), type_name.to_owned()))
            .into();
        let column = |name: &str, type_name: &str, default_kind: &str| ColumnDescription {
            name: name.to_owned(),
            type_name: type_name.to_owned(),
            default_kind: default_kind.to_owned(),
            default_expression: String::new(),
        };
        let same: Vec<_> = frozen.iter().map(|(name, type_name)| column(name, type_name, "")).collect();
        assert_eq!(advice_for(&frozen, &same), "");
        let wider = [&same[..], &[column("e", "Int8", "")]].concat();
        assert_eq!(advice_for(&frozen, &wider), "");
        let now = [column("a", "Int32", ""), column("c", "String", "MATERIALIZED"), column("d", "Int8", "DEFAULT")];
        let advice = advice_for(&frozen, &now);
        assert!(advice.contains("`b`, `c` can't be inserted into any more; `a` was Int64 and is Int32"), "{advice}");
        assert!(advice.contains("--convert` lets") && advice.contains("without the values of `b`, `c`"), "{advice}");
        let advice = advice_for(&frozen, &[&same[1..], &[column("a", "Int32", "")]].concat());
        assert!(advice.contains("`a` was Int64") && !advice.contains("without"), "{advice}");
    }
}
