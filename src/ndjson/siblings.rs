//! The arrays of one Nested column, `n.a` and `n.b`: a row has as many elements in each.
//!
//! ClickHouse refuses any other row in the INSERT, and goes by the names alone: Array columns whose names
//! begin with the same word and a point belong together, however they were made. Nothing of this is done
//! for a table without such columns. A column that gets its default is not compared: only ClickHouse
//! knows the value.

use std::sync::Arc;

use super::LineCode;
use super::general::Rejection;
use crate::rowbinary::{DataType, leb128, skip_value};
use crate::schema::Plan;

/// The groups of arrays in one table.
#[derive(Debug)]
pub(super) struct Siblings {
    /// The columns up to the last one that belongs to a group.
    columns: Vec<Column>,
    /// The elements of each array of a group in the row that is checked; of the first one of a group, those
    /// that the others are compared with.
    counts: Vec<Option<u64>>,
}

#[derive(Debug)]
struct Column {
    name: Arc<str>,
    data_type: DataType,
    /// True if a byte in front of the value says whether the column gets its default.
    has_flag: bool,
    /// The index of the first column of the group that it belongs to.
    group: Option<usize>,
}

/// The name that the parts of a Nested column share; of any other column, its own.
fn shared_name(name: &str) -> &str {
    match name.split_once('.') {
        Some((front, rest)) if !front.is_empty() && !rest.is_empty() => front,
        _ => name,
    }
}

impl Siblings {
    /// `None` if no two columns belong together.
    pub(super) fn new(plan: &Plan) -> Option<Self> {
        let mut columns = Vec::with_capacity(plan.columns().len());
        for column in plan.columns() {
            let data_type = DataType::parse(&column.type_name).ok()?;
            let is_stored = column.default.as_ref().is_none_or(|default| !default.ephemeral);
            let is_array = matches!(data_type, DataType::Array(_)) && is_stored;
            let index = columns.len();
            columns.push(Column {
                name: column.name.as_str().into(),
                data_type,
                has_flag: column.default.is_some(),
                group: is_array.then_some(index),
            });
        }
        let mut last = None;
        for index in 0..columns.len() {
            let (before, rest) = columns.split_at_mut(index);
            let Some(column) = rest.first_mut().filter(|column| column.group.is_some()) else { continue };
            let is_first =
                |other: &Column| other.group.is_some() && shared_name(&other.name) == shared_name(&column.name);
            if let Some(first) = before.iter().position(is_first) {
                column.group = Some(first);
                last = Some(index);
            }
        }
        columns.truncate(last? + 1);
        Some(Self { columns, counts: Vec::new() })
    }

    /// Checks a finished row.
    ///
    /// # Errors
    ///
    /// The first array that has another number of elements than the one that it belongs to.
    pub(super) fn check(&mut self, row: &[u8]) -> Result<(), Rejection> {
        let mut rest = row;
        let counts = &mut self.counts;
        counts.clear();
        for column in &self.columns {
            let (is_default, value) = match rest.split_first() {
                Some((flag, value)) if column.has_flag => (*flag == 1, value),
                _ => (false, rest),
            };
            let count = leb128(value).map(|(count, _)| count).filter(|_| column.group.is_some() && !is_default);
            counts.push(count);
            let group = column.group.unwrap_or(counts.len());
            match (counts.get(group).copied().flatten(), count) {
                (Some(first), Some(count)) if first != count => {
                    let other = self.columns.get(group).map_or("", |column| &*column.name);
                    return Err(reject(&column.name, count, other, first));
                }
                // The first of the group got its default: the next one is compared with.
                (None, Some(_)) => {
                    if let Some(place) = counts.get_mut(group) {
                        *place = count;
                    }
                }
                _ => {}
            }
            let Some(next) = skip_value(&column.data_type, value) else { return Ok(()) };
            rest = next;
        }
        Ok(())
    }
}

#[cold]
fn reject(name: &Arc<str>, count: u64, other: &str, first: u64) -> Rejection {
    let message =
        format!("`{name}` has {count} elements and `{other}` has {first}: the arrays of a Nested column have as many");
    Rejection { code: LineCode::TypeMismatch, column: Some(Arc::clone(name)), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_belong_together_by_the_word_in_front_of_the_point() {
        for (name, shared) in [("n.a", "n"), ("n.a.b", "n"), ("n", "n"), (".a", ".a"), ("a.", "a."), ("", "")] {
            assert_eq!(shared_name(name), shared);
        }
    }
}
