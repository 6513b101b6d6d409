//! The identity of an event: the hash of its value in one column (`--dedup-field`).
//!
//! The value is taken from the finished row. So the two paths of the encoder need no code for it, and
//! a value has one identity however the client spelled it. An event whose value is missing or equals
//! the column's default has no identity.

use crate::batch::identity::{self, Id};
use crate::rowbinary::{DataType, skip_value};
use crate::schema::Plan;

/// Computes the identities of the rows of one table.
#[derive(Debug)]
pub(super) struct Identifier {
    /// The name of the identifying column.
    name: String,
    /// The types of the columns up to and including the identifying column.
    types: Vec<DataType>,
    /// The value of an event without the field.
    default: Box<[u8]>,
}

impl Identifier {
    /// `None` when clients fill no column of this name.
    pub(super) fn new(plan: &Plan, name: &str) -> Option<Self> {
        let field = plan.fields().iter().find(|field| &*field.name == name)?;
        let until = plan.columns().iter().position(|column| column.name == name)?;
        let columns = plan.columns().get(..=until)?.iter();
        let types = columns.map(|column| DataType::parse(&column.type_name).ok());
        Some(Self { name: name.to_owned(), types: types.collect::<Option<_>>()?, default: field.cell.null.clone() })
    }

    /// The identity of the event in `row`; `None` when it has none, or `row` is empty.
    pub(super) fn id(&self, row: &[u8]) -> Option<Id> {
        let (last, before) = self.types.split_last()?;
        let from = before.iter().try_fold(row, |rest, described| skip_value(described, rest))?;
        let rest = skip_value(last, from)?;
        let cell = from.get(..from.len() - rest.len())?;
        (*cell != *self.default).then(|| identity::of_event(&self.name, cell))
    }
}
