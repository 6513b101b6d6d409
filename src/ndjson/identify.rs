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
    /// The columns up to and including the identifying column: whether a byte says that the column gets its
    /// default, and the type.
    columns: Vec<(bool, DataType)>,
    /// The type's default, or NULL.
    null: Box<[u8]>,
}

impl Identifier {
    /// `None` when clients fill no column of this name.
    pub(super) fn new(plan: &Plan, name: &str) -> Option<Self> {
        let field = plan.fields().iter().find(|field| &*field.name == name)?;
        let until = plan.columns().iter().position(|column| column.name == name)?;
        let columns = plan.columns().get(..=until)?.iter();
        let columns = columns.map(|column| Some((column.default.is_some(), DataType::parse(&column.type_name).ok()?)));
        Some(Self { name: name.to_owned(), columns: columns.collect::<Option<_>>()?, null: field.cell.null.clone() })
    }

    /// The identity of the event in `row`; `None` when it has none, or `row` is empty.
    pub(super) fn id(&self, row: &[u8]) -> Option<Id> {
        let ((has_default, last), before) = self.columns.split_last()?;
        let from = before.iter().try_fold(row, |rest, (has_default, data_type)| {
            skip_value(data_type, rest.get(usize::from(*has_default)..)?)
        })?;
        if *has_default && from.first() == Some(&1) {
            return None;
        }
        let from = from.get(usize::from(*has_default)..)?;
        let rest = skip_value(last, from)?;
        let cell = from.get(..from.len() - rest.len())?;
        (*cell != *self.null).then(|| identity::of_event(&self.name, cell))
    }
}
