//! The identity of an event: a hash of the cell of one of its columns (`--dedup-field`).
//!
//! The cell is found in the finished row, so that the two ways that make it need not know of this,
//! and the same value gives the same identity however a client wrote it. A missing or empty value
//! gives none.

use clickhouse_rowbinary::TypeDesc;

use crate::batch::identity::{self, Id};
use crate::rowbinary::skip_value;
use crate::schema::Plan;

/// Finds the identity in the rows of one table.
#[derive(Debug)]
pub(super) struct Identifier {
    name: String,
    /// Of the columns before the one that counts, and of that one.
    types: Vec<TypeDesc>,
    /// The cell of an event that lacks the field.
    default: Box<[u8]>,
}

impl Identifier {
    /// `None` where clients fill no such column.
    pub(super) fn new(plan: &Plan, name: &str) -> Option<Self> {
        let field = plan.fields().iter().find(|field| &*field.name == name)?;
        let until = plan.columns().iter().position(|column| column.name == name)?;
        let columns = plan.columns().get(..=until)?.iter();
        let types = columns.map(|column| clickhouse_rowbinary::parse_type_desc(&column.type_name).ok());
        Some(Self { name: name.to_owned(), types: types.collect::<Option<_>>()?, default: field.default.clone() })
    }

    /// The identity of the event of a row.
    pub(super) fn id(&self, row: &[u8]) -> Option<Id> {
        let (last, before) = self.types.split_last()?;
        let from = before.iter().try_fold(row, |rest, described| skip_value(described, rest))?;
        let behind = skip_value(last, from)?;
        let cell = from.get(..from.len() - behind.len())?;
        (*cell != *self.default).then(|| identity::of_event(&self.name, cell))
    }
}
