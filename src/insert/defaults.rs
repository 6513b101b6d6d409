//! The INSERT of rows with default expressions.
//!
//! Only ClickHouse can compute an expression. Its own format for that, `RowBinaryWithDefaults`, has no form
//! with names and types: after an `ALTER` the rows would be read as something else. So the rows are read by
//! `input()` with the types that they were written with, each column with a default behind a byte that says
//! whether it gets the default, and the INSERT selects one or the other:
//!
//! ```sql
//! INSERT INTO t (a, b)
//! WITH `sluicegate value 0` AS a, if(`sluicegate default 1`, CAST((a + 1), 'Int64'), `sluicegate value 1`) AS b
//! SELECT a, b FROM input('…') WHERE (SELECT throwIf(count() != 2, '…') FROM system.columns WHERE …) = 0
//! FORMAT RowBinary
//! ```
//!
//! The names of the columns are aliases, so that an expression finds the others by their names, as it does
//! in the table. ClickHouse takes the columns of the table for an INSERT before it looks at the rest of the
//! statement, so the comparison in `WHERE` sees those columns or newer ones: rows are never converted
//! silently.

use super::outcome::COLUMNS_CHANGED;
use super::statement::{list, structure};
use crate::clickhouse::frozen::Frozen;
use crate::clickhouse::name::{literal, quoted};

/// The text of the INSERT.
pub(super) fn insert(frozen: &Frozen) -> String {
    let columns = list(frozen.columns.iter().map(|(name, _)| name.as_str()));
    let (into, with, from) = (&frozen.table, with(frozen), structure(frozen));
    let compared = comparison(frozen);
    format!(
        "INSERT INTO {into} ({columns}) WITH {with} SELECT {columns} FROM input('{from}') WHERE {compared} FORMAT RowBinary"
    )
}

/// The expressions of a WITH clause that give the values of a row the names of their columns.
pub(super) fn with(frozen: &Frozen) -> String {
    let columns = frozen.columns.iter().enumerate().map(|(index, (name, type_name))| {
        let (value, flag) = frozen.names_in_rows(index);
        let (value, alias) = (quoted(&value), quoted(name));
        match frozen.default_of(name) {
            Some(default) => {
                let (expression, flag, type_name) = (&default.expression, quoted(&flag), literal(type_name));
                format!("if({flag}, CAST(({expression}), {type_name}), {value}) AS {alias}")
            }
            None => format!("{value} AS {alias}"),
        }
    });
    let computed = frozen.computed.iter().map(|(name, expression)| format!("({expression}) AS {}", quoted(name)));
    columns.chain(computed).collect::<Vec<_>>().join(", ")
}

/// The condition that always holds, and throws if the table has other columns.
fn comparison(frozen: &Frozen) -> String {
    let column = |(name, type_name): &(String, String)| format!("({}, {})", literal(name), literal(type_name));
    let columns: Vec<String> = frozen.columns.iter().map(column).collect();
    format!(
        "(SELECT throwIf(count() != {}, {}) FROM system.columns WHERE database = {} AND table = {} \
         AND (name, type) IN ({})) = 0",
        columns.len(),
        literal(COLUMNS_CHANGED),
        literal(&frozen.table.database),
        literal(&frozen.table.table),
        columns.join(", ")
    )
}
